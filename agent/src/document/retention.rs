//! Which of many stay: so many of the last, and the newest of each of so many hours, days, weeks, months and years.

use std::collections::BTreeSet;

use super::schedule::Stamp;

/// How many stay of each sort. One that any of them keeps stays; the newest always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub last: usize,
    pub hourly: usize,
    pub daily: usize,
    pub weekly: usize,
    pub monthly: usize,
    pub yearly: usize,
}

const HOUR_SECONDS: u64 = 3_600;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
/// The first of January 1970 was a Thursday, and weeks begin on Mondays.
const DAYS_BEFORE_THURSDAY: u64 = 3;

impl Keep {
    /// Those of `all` that stay.
    #[must_use]
    pub fn of(&self, all: &BTreeSet<Stamp>) -> BTreeSet<Stamp> {
        let last = all.iter().rev().take(self.last.max(1)).copied();
        let mut kept: BTreeSet<Stamp> = last.collect();
        let hour = |stamp: Stamp| (stamp.seconds() / HOUR_SECONDS).to_string();
        let day = |stamp: Stamp| (stamp.seconds() / DAY_SECONDS).to_string();
        let week = |stamp: Stamp| ((stamp.seconds() / DAY_SECONDS + DAYS_BEFORE_THURSDAY) / 7).to_string();
        let month = |stamp: Stamp| stamp.to_string().chars().take(6).collect();
        let year = |stamp: Stamp| stamp.to_string().chars().take(4).collect();
        kept.extend(newest_of_each(all, self.hourly, hour));
        kept.extend(newest_of_each(all, self.daily, day));
        kept.extend(newest_of_each(all, self.weekly, week));
        kept.extend(newest_of_each(all, self.monthly, month));
        kept.extend(newest_of_each(all, self.yearly, year));
        kept
    }
}

/// The newest of each of the last `count` spans that have any.
fn newest_of_each(all: &BTreeSet<Stamp>, count: usize, span: impl Fn(Stamp) -> String) -> Vec<Stamp> {
    let mut kept: Vec<Stamp> = Vec::new();
    for stamp in all.iter().rev().copied() {
        if kept.last().is_some_and(|last| span(*last) == span(stamp)) {
            continue;
        }
        if kept.len() == count {
            break;
        }
        kept.push(stamp);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(keep: Keep, all: &[&str], expected: &[&str]) {
        let all: BTreeSet<Stamp> = all.iter().map(|text| text.parse().unwrap()).collect();
        let kept: Vec<String> = keep.of(&all).iter().map(ToString::to_string).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_newest_of_each_span_stays() {
        let all = [
            "20251230T120000Z",
            "20261031T120000Z",
            "20261101T000000Z",
            "20261120T090000Z",
            "20261120T230000Z",
            "20261121T220000Z",
            "20261121T221500Z",
            "20261121T230000Z",
        ];
        let none = Keep::default();
        check(none, &all, &["20261121T230000Z"]);
        check(none, &[], &[]);
        check(
            Keep { last: 2, ..none },
            &all,
            &["20261121T221500Z", "20261121T230000Z"],
        );
        check(
            Keep { hourly: 3, ..none },
            &all,
            &["20261120T230000Z", "20261121T221500Z", "20261121T230000Z"],
        );
        check(
            Keep { daily: 2, ..none },
            &all,
            &["20261120T230000Z", "20261121T230000Z"],
        );
        check(
            Keep { monthly: 3, ..none },
            &all,
            &["20251230T120000Z", "20261031T120000Z", "20261121T230000Z"],
        );
        check(
            Keep { yearly: 2, ..none },
            &all,
            &["20251230T120000Z", "20261121T230000Z"],
        );
    }

    /// 22 November 2026 is a Sunday.
    #[test]
    fn weeks_begin_on_mondays() {
        let keep = Keep {
            weekly: 2,
            ..Keep::default()
        };
        let all = ["20261121T000000Z", "20261122T235959Z", "20261123T000000Z"];
        check(keep, &all, &["20261122T235959Z", "20261123T000000Z"]);
    }

    proptest! {
        /// Pruning twice prunes no more than once, and never the newest.
        #[test]
        fn what_stays_stays(seconds in proptest::collection::btree_set(0_u64..100_000_000, 1..60),
            (last, hourly, daily, weekly) in (0_usize..4, 0_usize..4, 0_usize..4, 0_usize..4)) {
            let time = |seconds: u64| Stamp::of(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
            let all: BTreeSet<Stamp> = seconds.into_iter().map(time).collect();
            let keep = Keep { last, hourly, daily, weekly, ..Keep::default() };
            let kept = keep.of(&all);
            prop_assert!(kept.is_subset(&all));
            prop_assert_eq!(kept.last(), all.last());
            prop_assert_eq!(keep.of(&kept), kept);
        }
    }
}
