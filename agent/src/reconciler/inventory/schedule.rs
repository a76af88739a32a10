//! When to look at what. Pure but for the instants that are handed in.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::incus::Collection;

/// Everything is looked at so often, whatever happens.
const FULL: Duration = Duration::from_secs(300);
/// Things that happen together are looked at together.
const COALESCE: Duration = Duration::from_millis(300);
/// Listing a host's instances asks each of them for its state: a busy host is not asked all the time.
const GAP: Duration = Duration::from_secs(2);
/// What follows an event without one of its own, as an address does by DHCP, is looked for after so long.
const SETTLE: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Schedule {
    dirty: BTreeSet<Collection>,
    /// Nothing is looked at before this.
    not_before: Instant,
    /// Collections to look at once more, and when.
    settling: BTreeSet<Collection>,
    settle_at: Instant,
    full_at: Instant,
    failures: u32,
}

impl Schedule {
    /// Everything is due.
    pub(super) fn new(now: Instant) -> Schedule {
        Schedule {
            dirty: Collection::ALL.into(),
            not_before: now,
            settling: BTreeSet::new(),
            settle_at: now,
            full_at: now + FULL,
            failures: 0,
        }
    }

    /// Incus said that these have changed.
    pub(super) fn changed(&mut self, mut collections: BTreeSet<Collection>, now: Instant) {
        if collections.is_empty() {
            return;
        }
        if collections.contains(&Collection::Projects) {
            // A project comes with a profile, and goes with what it had.
            collections.insert(Collection::Profiles);
        }
        if self.dirty.is_empty() {
            self.not_before = self.not_before.max(now + COALESCE);
        }
        self.dirty.extend(&collections);
        self.settling.extend(&collections);
        self.settle_at = now + SETTLE;
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Instant {
        let mut next = self.full_at;
        if !self.settling.is_empty() {
            next = next.min(self.settle_at);
        }
        if self.dirty.is_empty() {
            next.max(self.not_before)
        } else {
            self.not_before
        }
    }

    /// What to look at now.
    pub(super) fn take(&mut self, now: Instant) -> BTreeSet<Collection> {
        if now >= self.full_at {
            self.dirty.extend(Collection::ALL);
            self.full_at = now + FULL;
        }
        if now >= self.settle_at {
            self.dirty.append(&mut self.settling);
        }
        // Incus tells no events of warnings, and they cost nothing beside the rest.
        self.dirty.insert(Collection::Warnings);
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn done(&mut self, now: Instant) {
        self.failures = 0;
        self.not_before = now + GAP;
    }

    /// The look at these failed: they stay due.
    pub(super) fn failed(&mut self, collections: BTreeSet<Collection>, now: Instant) {
        self.dirty.extend(collections);
        self.not_before = now + (RETRY_FIRST * (1 << self.failures.min(10))).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(collections: &[Collection]) -> BTreeSet<Collection> {
        collections.iter().copied().collect()
    }

    /// Takes what is due at the time it is due.
    fn next(schedule: &mut Schedule, now: &mut Instant) -> (Duration, BTreeSet<Collection>) {
        let wait = schedule.next().saturating_duration_since(*now);
        *now += wait;
        (wait, schedule.take(*now))
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_looked_at_together_and_once_more_when_all_is_quiet() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        assert_eq!(
            next(&mut schedule, &mut now),
            (Duration::ZERO, Collection::ALL.into())
        );
        schedule.done(now);
        now += Duration::from_secs(60);
        schedule.changed(of(&[Collection::Instances]), now);
        schedule.changed(of(&[Collection::Projects]), now);
        let all = of(&[
            Collection::Instances,
            Collection::Projects,
            Collection::Profiles,
            Collection::Warnings,
        ]);
        assert_eq!(next(&mut schedule, &mut now), (COALESCE, all.clone()));
        schedule.done(now);
        assert_eq!(next(&mut schedule, &mut now), (SETTLE - COALESCE, all));
        schedule.done(now);
        let (wait, due) = next(&mut schedule, &mut now);
        assert!(wait > FULL / 2, "{wait:?}");
        assert_eq!(due, Collection::ALL.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_host_is_not_asked_all_the_time() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.take(now);
        schedule.done(now);
        for _ in 0..20 {
            schedule.changed(of(&[Collection::Instances]), now);
            let (wait, _) = next(&mut schedule, &mut now);
            assert_eq!(wait, GAP);
            schedule.done(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_stays_due_and_is_tried_ever_less_often() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                let (wait, due) = next(&mut schedule, &mut now);
                assert_eq!(due, Collection::ALL.into());
                schedule.failed(due, now);
                // Events meanwhile change nothing about that.
                schedule.changed(of(&[Collection::Images]), now);
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
