//! `--auto-compaction-mode` and `--auto-compaction-retention`, and durations as etcd's flags have them.

use std::time::Duration;

use clap::ValueEnum;

use crate::node::Retention;

/// What `--auto-compaction-retention` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AutoCompactionMode {
    Periodic,
    Revision,
}

/// `None`: off. A number without a unit is hours where time is counted.
pub(super) fn retention(mode: AutoCompactionMode, text: &str) -> Result<Option<Retention>, String> {
    match mode {
        AutoCompactionMode::Revision => match text.parse::<i64>() {
            Ok(0) => Ok(None),
            Ok(revisions) if revisions > 0 => Ok(Some(Retention::Revisions(revisions))),
            _ => Err(format!("{text:?} is not a number of revisions, like 10000")),
        },
        AutoCompactionMode::Periodic => {
            let period = match text.parse::<u32>() {
                Ok(hours) => Duration::from_secs(3600) * hours,
                Err(_) => duration(text)?,
            };
            Ok((!period.is_zero()).then_some(Retention::Period(period)))
        }
    }
}

/// `1h`, `10m`, `1m30s`, `1.5h`, `300ms`, `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration, like 1h, 10m or 90s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_ends = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(number_ends);
        let unit_ends = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_ends);
        let unit_seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit_seconds;
        rest = next;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_etcds() {
        let periodic = |text| retention(AutoCompactionMode::Periodic, text);
        let seconds = |seconds| Ok(Some(Retention::Period(Duration::from_secs(seconds))));
        assert_eq!(periodic("0"), Ok(None));
        assert_eq!(periodic("5"), seconds(5 * 3600));
        assert_eq!(periodic("1h"), seconds(3600));
        assert_eq!(periodic("1.5h"), seconds(5400));
        assert_eq!(periodic("1m30s"), seconds(90));
        let revisions = |text| retention(AutoCompactionMode::Revision, text);
        assert_eq!(revisions("1000"), Ok(Some(Retention::Revisions(1000))));
        assert_eq!(revisions("0"), Ok(None));
        for wrong in ["", "x", "-1", "1", "1w", "1.2.3h", "h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            revisions("1h"),
            Err("\"1h\" is not a number of revisions, like 10000".to_owned())
        );
    }
}
