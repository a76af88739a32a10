//! Durations as people write and read them: `500ms`, `5s`, `1m30s` in; `2s`, `4m12s`, `3h`, `5d` out.

use std::time::Duration;

/// Reads `500ms`, `5s`, `1m30s`, `2h`, `1d`: numbers, each with its unit.
///
/// # Errors
/// A text for the command line, when there is no number, no unit, or too much of either.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write 500ms, 5s or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number
            .checked_mul(milliseconds)
            .map(Duration::from_millis)
            .ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = next;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

/// How long ago something was, in at most two units: `0s`, `42s`, `4m12s`, `3h7m`, `5d`.
pub(crate) fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(minutes, 'm', seconds % 60, 's'),
        3_600..86_400 => two(hours, 'h', minutes % 60, 'm'),
        _ => two(days, 'd', hours % 24, 'h'),
    }
}

fn two(large: u64, large_unit: char, small: u64, small_unit: char) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

/// A round-trip time: `0.4 ms`, `16 ms`, `1.2 s`.
pub(crate) fn round_trip(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1_000.0;
    if milliseconds < 9.95 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 1_000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1d"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "5",
            "s",
            "5 s",
            "5x",
            "-5s",
            "0s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_written() {
        let text = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 252, 3_600, 11_220, 86_400, 442_800].map(text),
            ["0s", "59s", "1m", "4m12s", "1h", "3h7m", "1d", "5d3h"]
        );
        let rtt = |micros| round_trip(Duration::from_micros(micros));
        assert_eq!(
            [412, 9_960, 16_200, 1_240_000].map(rtt),
            ["0.4 ms", "10 ms", "16 ms", "1.2 s"]
        );
    }
}
