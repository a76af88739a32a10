//! When an object may be worked on again.
//!
//! Every attempt counts, not only the failed: an instance that dies as soon as it is started, and a value that Incus
//! never shows as it was set, must not keep a host busy. What stays settled for a minute is forgiven.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The attempts on one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
    not_before: Option<Instant>,
    settled_since: Option<Instant>,
    /// The document's revision at the last attempt: a new one is tried at once.
    revision: i64,
}

impl Backoff {
    /// Whether an attempt for this revision may begin now.
    pub(crate) fn may_begin(&self, revision: i64, now: Instant) -> bool {
        revision != self.revision || self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// When it may begin, where it may not yet.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(crate) fn begin(&mut self, revision: i64, now: Instant) {
        let is_forgiven = self
            .settled_since
            .is_some_and(|since| now.duration_since(since) >= FORGIVEN_AFTER);
        if revision != self.revision || is_forgiven {
            self.attempts = 0;
        }
        self.revision = revision;
        self.settled_since = None;
    }

    /// An attempt is over. `jitter` (0 to 1) spreads what would otherwise be tried again all at once.
    pub(crate) fn end(&mut self, now: Instant, jitter: f64) {
        let doubled = FIRST_DELAY.saturating_mul(1 << self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = Some(
            now + doubled
                .min(LONGEST_DELAY)
                .mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)),
        );
    }

    /// The object needs nothing.
    pub(crate) fn settled(&mut self, now: Instant) {
        self.settled_since.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails until told otherwise; the seconds between the attempts.
    fn delays(backoff: &mut Backoff, now: &mut Instant, count: usize) -> Vec<f64> {
        (0..count)
            .map(|_| {
                backoff.begin(7, *now);
                backoff.end(*now, 0.5);
                let wait = backoff.not_before().unwrap().duration_since(*now);
                assert!(!backoff.may_begin(7, *now));
                *now += wait;
                assert!(backoff.may_begin(7, *now));
                wait.as_secs_f64()
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn delays_double_up_to_five_minutes() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert!(backoff.may_begin(7, now));
        assert_eq!(delays(&mut backoff, &mut now, 5), [0.5, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(delays(&mut backoff, &mut now, 40).last(), Some(&300.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_revision_is_tried_at_once_and_starts_anew() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        delays(&mut backoff, &mut now, 5);
        backoff.begin(7, now);
        backoff.end(now, 0.5);
        assert!(backoff.may_begin(8, now));
        backoff.begin(8, now);
        backoff.end(now, 0.5);
        assert_eq!(backoff.not_before().unwrap().duration_since(now), FIRST_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_stays_settled_is_forgiven() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        delays(&mut backoff, &mut now, 3);
        backoff.settled(now);
        now += Duration::from_secs(5);
        backoff.settled(now);
        assert_eq!(delays(&mut backoff, &mut now, 1), [4.0]);
        backoff.settled(now);
        now += FORGIVEN_AFTER;
        assert_eq!(delays(&mut backoff, &mut now, 1), [0.5]);
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_stays_within_a_fifth() {
        for (jitter, expected) in [(0.0, 0.4), (1.0, 0.6), (7.0, 0.6)] {
            let (mut backoff, now) = (Backoff::default(), Instant::now());
            backoff.begin(7, now);
            backoff.end(now, jitter);
            let wait = backoff.not_before().unwrap().duration_since(now).as_secs_f64();
            assert!((wait - expected).abs() < 1e-6, "{wait}");
        }
    }
}
