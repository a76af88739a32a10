//! When each lease ends, and when its remaining TTL is worth writing down. Pure: the time is told.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// Every lease's deadline, while this member leads. Each change costs the logarithm of their number.
#[derive(Debug)]
pub(super) struct Deadlines {
    by_id: HashMap<i64, Deadline>,
    /// Those that are not being revoked.
    by_time: BTreeSet<(Instant, i64)>,
    /// Those that outlive the next checkpoint.
    checkpoints: BTreeSet<(Instant, i64)>,
    /// Between two checkpoints of a lease; leases that end sooner have none. `None`: no checkpoints.
    interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    checkpoint_at: Option<Instant>,
    expiring: bool,
}

impl Deadlines {
    pub(super) fn new(interval: Option<Duration>) -> Deadlines {
        Deadlines {
            by_id: HashMap::new(),
            by_time: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            interval,
        }
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Gives a lease, known or new, `left` from now on. One that is being revoked stays so.
    pub(super) fn set(&mut self, id: i64, left: Duration, now: Instant) {
        if self.by_id.get(&id).is_some_and(|deadline| deadline.expiring) {
            return;
        }
        self.remove(id);
        let deadline = Deadline {
            at: now + left,
            checkpoint_at: self.next_checkpoint(left, now),
            expiring: false,
        };
        self.by_id.insert(id, deadline);
        self.by_time.insert((deadline.at, id));
        if let Some(at) = deadline.checkpoint_at {
            self.checkpoints.insert((at, id));
        }
    }

    /// As [`Deadlines::set`], but never to less than it has.
    pub(super) fn extend(&mut self, id: i64, left: Duration, now: Instant) {
        if self.left(id, now).is_none_or(|has| has < left) {
            self.set(id, left, now);
        }
    }

    pub(super) fn remove(&mut self, id: i64) {
        if let Some(deadline) = self.by_id.remove(&id) {
            self.by_time.remove(&(deadline.at, id));
            if let Some(at) = deadline.checkpoint_at {
                self.checkpoints.remove(&(at, id));
            }
        }
    }

    /// Forgets the leases that `keep` does not name.
    pub(super) fn retain(&mut self, keep: impl Fn(i64) -> bool) {
        let gone: Vec<i64> = self.by_id.keys().copied().filter(|id| !keep(*id)).collect();
        for id in gone {
            self.remove(id);
        }
    }

    /// What a lease has left, nothing when it is over; `None` for one that is not known.
    pub(super) fn left(&self, id: i64, now: Instant) -> Option<Duration> {
        let deadline = self.by_id.get(&id)?;
        Some(if deadline.expiring {
            Duration::ZERO
        } else {
            deadline.at.saturating_duration_since(now)
        })
    }

    /// When there is something to revoke next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the lease that ended first, to be revoked: from now on nothing renews it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<i64> {
        let id = take_first(&mut self.by_time, now)?;
        if let Some(deadline) = self.by_id.get_mut(&id) {
            deadline.expiring = true;
            if let Some(at) = deadline.checkpoint_at.take() {
                self.checkpoints.remove(&(at, id));
            }
        }
        Some(id)
    }

    /// A lease that was taken may not be revoked yet: it is due again, and still not renewed.
    pub(super) fn give_back(&mut self, id: i64) {
        if let Some(deadline) = self.by_id.get(&id) {
            self.by_time.insert((deadline.at, id));
        }
    }

    /// When there is something to write down next.
    pub(super) fn next_checkpoint_due(&self) -> Option<Instant> {
        self.checkpoints.first().map(|(at, _)| *at)
    }

    /// Takes up to `max` leases whose remaining time is to be written down now, with what they have left.
    pub(super) fn take_checkpoints(&mut self, now: Instant, max: usize) -> Vec<(i64, Duration)> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(id) = take_first(&mut self.checkpoints, now) else {
                break;
            };
            let interval = self.interval;
            if let Some(deadline) = self.by_id.get_mut(&id) {
                let left = deadline.at.saturating_duration_since(now);
                deadline.checkpoint_at = next_checkpoint(interval, left, now);
                if let Some(at) = deadline.checkpoint_at {
                    self.checkpoints.insert((at, id));
                }
                taken.push((id, left));
            }
        }
        taken
    }

    /// Every lease that has checkpoints, with what it has left: what a successor should know.
    pub(super) fn long_leases(&self, now: Instant) -> Vec<(i64, Duration)> {
        self.checkpoints
            .iter()
            .filter_map(|(_, id)| Some((*id, self.left(*id, now)?)))
            .collect()
    }

    fn next_checkpoint(&self, left: Duration, now: Instant) -> Option<Instant> {
        next_checkpoint(self.interval, left, now)
    }
}

fn take_first(times: &mut BTreeSet<(Instant, i64)>, now: Instant) -> Option<i64> {
    let first = times.first().copied().filter(|(at, _)| *at <= now)?;
    times.remove(&first);
    Some(first.1)
}

fn next_checkpoint(interval: Option<Duration>, left: Duration, now: Instant) -> Option<Instant> {
    interval
        .filter(|interval| left > *interval)
        .map(|interval| now + interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_earliest_deadline_is_due_first_and_a_renewal_moves_it() {
        let mut deadlines = Deadlines::new(None);
        let start = Instant::now();
        deadlines.set(1, seconds(5), start);
        deadlines.set(2, seconds(3), start);
        assert_eq!(deadlines.next_due(), Some(start + seconds(3)));
        assert_eq!(deadlines.take_due(start + seconds(2)), None);

        deadlines.set(2, seconds(3), start + seconds(2));
        assert_eq!(deadlines.take_due(start + seconds(4)), None);
        assert_eq!(deadlines.take_due(start + seconds(5)), Some(1));
        assert_eq!(deadlines.take_due(start + seconds(5)), Some(2));
        assert_eq!(deadlines.take_due(start + seconds(9)), None);
    }

    #[test]
    fn what_is_being_revoked_is_not_renewed() {
        let mut deadlines = Deadlines::new(Some(seconds(2)));
        let start = Instant::now();
        deadlines.set(1, seconds(5), start);
        let end = start + seconds(5);
        assert_eq!(deadlines.take_due(end), Some(1));
        assert_eq!(deadlines.next_checkpoint_due(), None);
        deadlines.set(1, seconds(5), end);
        deadlines.extend(1, seconds(5), end);
        assert_eq!(deadlines.left(1, end), Some(Duration::ZERO));
        assert_eq!(deadlines.take_due(end), None, "it is taken");
        deadlines.give_back(1);
        assert_eq!(deadlines.take_due(end), Some(1));
        // Revoked, and granted again.
        deadlines.remove(1);
        deadlines.give_back(1);
        assert_eq!(deadlines.next_due(), None);
        deadlines.set(1, seconds(5), end);
        assert_eq!(deadlines.left(1, end), Some(seconds(5)));
    }

    #[test]
    fn a_deadline_is_extended_and_never_shortened() {
        let mut deadlines = Deadlines::new(None);
        let start = Instant::now();
        deadlines.set(1, seconds(5), start);
        deadlines.extend(1, seconds(3), start);
        deadlines.extend(2, seconds(3), start);
        assert_eq!(deadlines.left(1, start), Some(seconds(5)));
        deadlines.extend(1, seconds(3), start + seconds(4));
        assert_eq!(deadlines.left(1, start + seconds(4)), Some(seconds(3)));
        deadlines.retain(|id| id == 2);
        assert_eq!(deadlines.left(1, start), None);
        assert_eq!(deadlines.next_due(), Some(start + seconds(3)));
    }

    #[test]
    fn leases_longer_than_the_interval_are_written_down_until_they_are_short() {
        let mut deadlines = Deadlines::new(Some(seconds(10)));
        let start = Instant::now();
        deadlines.set(1, seconds(25), start);
        deadlines.set(2, seconds(10), start);
        deadlines.set(3, seconds(25), start);
        assert_eq!(deadlines.next_checkpoint_due(), Some(start + seconds(10)));
        let at = start + seconds(10);
        assert_eq!(deadlines.take_checkpoints(at, 1), [(1, seconds(15))]);
        // Renewed in time: the full TTL is what is written down already.
        deadlines.set(3, seconds(25), at);
        assert_eq!(deadlines.take_checkpoints(at, 9), []);
        assert_eq!(deadlines.long_leases(at), [(1, seconds(15)), (3, seconds(25))]);
        let at = start + seconds(20);
        assert_eq!(
            deadlines.take_checkpoints(at, 9),
            [(1, seconds(5)), (3, seconds(15))]
        );
        assert_eq!(deadlines.long_leases(at), [(3, seconds(15))]);
        deadlines.remove(3);
        assert_eq!(deadlines.next_checkpoint_due(), None);
    }
}
