//! Compaction by itself, as etcd's `--auto-compaction-mode` and `--auto-compaction-retention` say.
//!
//! Every member samples, so that a new leader knows the past; only the leader proposes. The sweep that follows is the
//! store's, in bounded steps.

use std::collections::VecDeque;
use std::time::Duration;

use proto::etcdserverpb::CompactionRequest;
use proto::replicated::request::Op;
use proto::replicated::{Refusal, reply};
use tokio::time::{Instant, sleep};

use super::Node;
use crate::shutdown::Shutdown;

/// How often the revision is compared, where a number of revisions is kept.
const REVISION_EVERY: Duration = Duration::from_secs(5 * 60);
/// A longer retention is still compacted once in this time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// What is kept of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What was current within this time.
    Period(Duration),
    /// This many revisions.
    Revisions(i64),
}

/// When to compact at which revision, by etcd's rules: a sample every tenth of the interval; the first compaction
/// when a whole retention has passed, then one in every interval, each at the oldest sample kept.
#[derive(Debug)]
struct Periodic {
    retention: Duration,
    samples: VecDeque<i64>,
    last: Instant,
    wait: Duration,
    compacted: i64,
}

impl Periodic {
    fn new(retention: Duration, now: Instant) -> Periodic {
        Periodic {
            retention,
            samples: VecDeque::new(),
            last: now,
            wait: retention,
            compacted: 0,
        }
    }

    fn interval(&self) -> Duration {
        self.retention.min(LONGEST_INTERVAL)
    }

    fn sample_every(&self) -> Duration {
        (self.interval() / 10).max(Duration::from_millis(1))
    }

    fn sample(&mut self, revision: i64) {
        let kept = self.retention.as_nanos() / self.sample_every().as_nanos() + 1;
        self.samples.push_back(revision);
        if self.samples.len() as u128 > kept {
            self.samples.pop_front();
        }
    }

    fn due(&mut self, now: Instant) -> Option<i64> {
        let oldest = *self.samples.front()?;
        if now.duration_since(self.last) < self.wait || oldest == self.compacted {
            return None;
        }
        self.wait = self.interval();
        Some(oldest)
    }

    fn done(&mut self, revision: i64, now: Instant) {
        self.compacted = revision;
        self.last = now;
    }
}

/// The task of every member.
#[derive(Debug)]
pub struct AutoCompaction {
    node: Node,
    retention: Retention,
}

impl AutoCompaction {
    #[must_use]
    pub fn new(node: Node, retention: Retention) -> AutoCompaction {
        AutoCompaction { node, retention }
    }

    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async {
                match self.retention {
                    Retention::Period(retention) => self.keep_period(retention).await,
                    Retention::Revisions(revisions) => self.keep_revisions(revisions).await,
                }
            } => {}
        }
    }

    async fn keep_period(&self, retention: Duration) {
        let mut periodic = Periodic::new(retention, Instant::now());
        loop {
            periodic.sample(self.node.store().revision());
            sleep(periodic.sample_every()).await;
            if !self.node.leads() {
                continue;
            }
            if let Some(revision) = periodic.due(Instant::now())
                && self.compact(revision).await
            {
                periodic.done(revision, Instant::now());
            }
        }
    }

    async fn keep_revisions(&self, revisions: i64) {
        let mut compacted = 0;
        loop {
            sleep(REVISION_EVERY).await;
            let revision = self.node.store().revision() - revisions;
            if self.node.leads() && revision > 0 && revision != compacted && self.compact(revision).await {
                compacted = revision;
            }
        }
    }

    /// True when history up to there is gone, whoever compacted it.
    async fn compact(&self, revision: i64) -> bool {
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        let outcome = self
            .node
            .propose(Op::Compact(request))
            .await
            .map(|reply| reply.result);
        match outcome {
            Ok(Some(reply::Result::Refused(refusal))) => {
                if refusal != i32::from(Refusal::Compacted) {
                    tracing::warn!(revision, refusal, "history is not compacted");
                }
                refusal == i32::from(Refusal::Compacted)
            }
            Ok(_) => {
                tracing::info!(revision, "history compacted");
                true
            }
            Err(error) => {
                tracing::warn!(revision, %error, "history is not compacted yet");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes one revision a minute; the minutes and revisions of the compactions.
    fn compactions(retention: Duration, minutes: i64) -> Vec<(i64, i64)> {
        let start = Instant::now();
        let mut periodic = Periodic::new(retention, start);
        let every = i64::try_from(periodic.sample_every().as_secs() / 60).unwrap();
        let mut done = Vec::new();
        let mut minute = 0;
        while minute < minutes {
            periodic.sample(minute + 1);
            minute += every;
            let now = start + Duration::from_secs(60) * u32::try_from(minute).unwrap();
            if let Some(revision) = periodic.due(now) {
                periodic.done(revision, now);
                done.push((minute, revision));
            }
        }
        done
    }

    #[test]
    fn an_hour_is_kept_and_compacted_every_hour() {
        let hour = Duration::from_secs(3600);
        assert_eq!(compactions(hour, 200), [(60, 1), (120, 55), (180, 115)]);
    }

    #[test]
    fn two_hours_are_kept_and_compacted_every_hour() {
        let two = Duration::from_secs(7200);
        assert_eq!(compactions(two, 250), [(120, 1), (180, 55), (240, 115)]);
    }

    #[test]
    fn nothing_new_is_nothing_to_compact() {
        let start = Instant::now();
        let mut periodic = Periodic::new(Duration::from_secs(10), start);
        periodic.sample(5);
        let later = start + Duration::from_secs(10);
        assert_eq!(periodic.due(later), Some(5));
        periodic.done(5, later);
        for _ in 0..20 {
            periodic.sample(5);
        }
        assert_eq!(periodic.due(later + Duration::from_secs(60)), None);
    }
}
