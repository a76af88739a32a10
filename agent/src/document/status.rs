//! What a host says on a document.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The value at a status key, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    /// The revision at which the document this speaks of was put. 0: the document is gone.
    pub revision: i64,
    /// When the phase was entered: RFC 3339, UTC.
    pub since: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub host: String,
    /// The line of the document that the message is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// How far a host has come with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The object is as the document says.
    Ready,
    /// Waits for something that the message names.
    Pending,
    /// Being changed.
    Progressing,
    /// The document is wrong and changes nothing; the last good one stays in force.
    Invalid,
    /// An object of this name is there and is not ours; it is not touched.
    Conflict,
    /// Not done, for the reason in the message; tried again, unless a person must act.
    Failed,
    /// As the document says, which is: not running.
    Stopped,
    /// Not to be done on this host, for the reason in the message. Nothing is touched.
    Unsupported,
}

impl Status {
    /// How long the phase lasts at `now`; `None` when `since` is no time.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let since = parse_rfc3339_utc(&self.since)?;
        Some(now.duration_since(since).unwrap_or_default())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Ready => "Ready",
            Phase::Pending => "Pending",
            Phase::Progressing => "Progressing",
            Phase::Invalid => "Invalid",
            Phase::Conflict => "Conflict",
            Phase::Failed => "Failed",
            Phase::Stopped => "Stopped",
            Phase::Unsupported => "Unsupported",
        })
    }
}

const DAY_SECONDS: u64 = 86_400;
/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// A time as RFC 3339 in UTC, to the second. Times before 1970 become 1970.
#[must_use]
pub fn rfc3339_utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    // Years are counted from March, so that the leap day is the last of its year.
    let days = seconds / DAY_SECONDS + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = seconds % DAY_SECONDS;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

pub(crate) fn parse_rfc3339_utc(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if text.get(19..)? != "Z" || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + day_of_year;
    let days = (year / 400 * ERA_DAYS + day_of_era).checked_sub(EPOCH_DAYS)?;
    let seconds = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339_utc(time), text);
            assert_eq!(parse_rfc3339_utc(text), Some(time));
        }
        for text in [
            "",
            "2025-01-01",
            "2025-13-01T00:00:00Z",
            "2025-01-01T00:00:00+01:00",
            "1969-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339_utc(text), None, "{text}");
        }
    }
}
