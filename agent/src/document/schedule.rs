//! When something is done again and again: five fields of cron, in UTC, and the time that stands in a name.
//!
//! UTC, so that hosts in different zones do the same at the same time, and no hour comes twice or never.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::status::{parse_rfc3339_utc, rfc3339_utc};

/// A cron expression: minute, hour, day of the month, month, day of the week; or `@hourly`, `@daily`, ...
#[derive(Clone, Debug)]
pub struct Schedule(Cron);

impl Schedule {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(text).map_err(|error| error.to_string())?;
        let schedule = Schedule(cron);
        match schedule.after(Stamp::of(SystemTime::UNIX_EPOCH)) {
            Some(_) => Ok(schedule),
            None => Err("never comes".to_owned()),
        }
    }

    /// The first time after `last`. `None`: none is left that a clock can show.
    #[must_use]
    pub fn after(&self, last: Stamp) -> Option<Stamp> {
        let last: DateTime<Utc> = last.time().into();
        let next = self.0.find_next_occurrence(&last, false).ok()?;
        Some(Stamp(u64::try_from(next.timestamp()).ok()?))
    }
}

/// A moment, to the second. In a name it is `20261121T230000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    #[must_use]
    pub fn of(time: SystemTime) -> Stamp {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Stamp(since.unwrap_or_default().as_secs())
    }

    #[must_use]
    pub fn time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
    }

    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As RFC 3339 has it.
    #[must_use]
    pub fn rfc3339(self) -> String {
        rfc3339_utc(self.time())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.rfc3339().replace(['-', ':'], "");
        f.pad(&text)
    }
}

impl FromStr for Stamp {
    type Err = ();

    fn from_str(text: &str) -> Result<Stamp, ()> {
        let part = |from: usize, to: usize| text.get(from..to).ok_or(());
        let spread = format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(0, 4)?,
            part(4, 6)?,
            part(6, 8)?,
            part(9, 11)?,
            part(11, 13)?,
            part(13, 15)?
        );
        let stamp = parse_rfc3339_utc(&spread).map(Stamp::of).ok_or(())?;
        // No other text is the same moment.
        if stamp.to_string() == text {
            Ok(stamp)
        } else {
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_after_times() {
        let check = |schedule: &str, last: &str, next: &str| {
            let after = Schedule::parse(schedule).unwrap().after(last.parse().unwrap());
            assert_eq!(
                after.map(|next| next.to_string()).as_deref(),
                Some(next),
                "{schedule}"
            );
        };
        check("0 * * * *", "20261121T230000Z", "20261122T000000Z");
        check("30 3 * * *", "20261121T230001Z", "20261122T033000Z");
        check("*/15 * * * *", "20261121T225959Z", "20261121T230000Z");
        check("0 0 29 2 *", "20261121T230000Z", "20280229T000000Z");
        check("@daily", "20261231T120000Z", "20270101T000000Z");
    }

    #[test]
    fn what_is_no_schedule() {
        for wrong in ["", "hourly", "61 * * * *", "* * * *", "0 0 31 2 *", "0 * * * * *"] {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_in_a_name() {
        for text in ["19700101T000000Z", "20240228T235959Z", "20261121T230000Z"] {
            assert_eq!(text.parse::<Stamp>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "20261121",
            "20261321T230000Z",
            "20261121 230000Z",
            "20261121T230000Zx",
        ] {
            assert!(wrong.parse::<Stamp>().is_err(), "{wrong}");
        }
    }
}
