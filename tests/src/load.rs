//! Writers that go on through faults, and what they were promised.
//!
//! Every attempt writes a key of its own, once: an attempt without an answer may or may not have happened, and
//! an acknowledged one must be there, at the revision that was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::RangeResponse;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::wait;

/// An attempt is given up after this long, so that one lost request does not look like a long outage.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Between attempts at a member that refuses connections.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const VALUE_BYTES: usize = 256;

/// An attempt that was answered.
#[derive(Debug)]
pub struct Acknowledged {
    pub key: String,
    pub revision: i64,
    pub asked: Instant,
    pub answered: Instant,
}

/// Running writers.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<(Vec<Acknowledged>, Vec<String>)>>,
    prefix: String,
}

/// What the writers were told.
#[derive(Debug)]
pub struct History {
    /// In the order of their answers.
    pub acknowledged: Vec<Acknowledged>,
    /// Answers that were errors, as text.
    pub errors: Vec<String>,
    prefix: String,
}

impl Load {
    /// Starts writers that take the endpoints in turn, each from another one, and move on at every error.
    #[must_use]
    pub fn start(prefix: &str, endpoints: &[String], writers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..writers)
            .map(|writer| {
                let endpoints = endpoints.to_vec();
                let prefix = format!("{prefix}/{writer}");
                tokio::spawn(write(
                    prefix,
                    endpoints,
                    writer,
                    Arc::clone(&stop),
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        Load {
            stop,
            acknowledged,
            writers,
            prefix: format!("{prefix}/"),
        }
    }

    /// Waits for this many more acknowledged writes.
    pub async fn progress(&self, more: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + more;
        let what = format!("{more} more writes to be acknowledged");
        wait::until(&what, async || {
            (self.acknowledged.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await;
    }

    /// Stops the writers and collects what they were told.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History {
            acknowledged: Vec::new(),
            errors: Vec::new(),
            prefix: self.prefix,
        };
        for writer in self.writers {
            let (acknowledged, errors) = writer.await.expect("a writer");
            history.acknowledged.extend(acknowledged);
            history.errors.extend(errors);
        }
        history.acknowledged.sort_by_key(|write| write.answered);
        history
    }
}

impl History {
    /// The longest time without any acknowledged write.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let answers = self.acknowledged.iter().map(|write| write.answered);
        let next = answers.clone().skip(1);
        answers
            .zip(next)
            .map(|(before, after)| after - before)
            .max()
            .unwrap_or_default()
    }

    /// Every acknowledged write is there, as it was written, at the revision that was answered.
    ///
    /// # Panics
    /// When one is lost or changed.
    pub async fn check_readable(&self, client: &mut Client) {
        let range = client
            .get_prefix(&self.prefix, false)
            .await
            .expect("read everything back");
        self.check_in(&range);
    }

    /// As [`History::check_readable`], in an answer that the caller got.
    ///
    /// # Panics
    /// When one is lost or changed.
    pub fn check_in(&self, range: &RangeResponse) {
        let mut lost = Vec::new();
        for write in &self.acknowledged {
            let found = range
                .kvs
                .binary_search_by(|kv| kv.key.as_ref().cmp(write.key.as_bytes()));
            match found.ok().and_then(|at| range.kvs.get(at)) {
                Some(kv)
                    if kv.mod_revision == write.revision
                        && kv.create_revision == write.revision
                        && kv.version == 1
                        && kv.value == value_of(&write.key) => {}
                other => lost.push((write, other.cloned())),
            }
        }
        let first = lost.first();
        assert!(
            first.is_none(),
            "{} of {} acknowledged writes are lost or changed, the first: {first:?}",
            lost.len(),
            self.acknowledged.len()
        );
    }

    /// No two acknowledged writes share a revision, and a write that was answered before another was asked has
    /// the lower one.
    ///
    /// # Panics
    /// When they do not.
    pub fn check_order(&self) {
        let mut by_revision: Vec<&Acknowledged> = self.acknowledged.iter().collect();
        by_revision.sort_by_key(|write| write.revision);
        for pair in by_revision.windows(2) {
            assert!(
                pair[0].revision < pair[1].revision,
                "one revision, two writes: {pair:?}"
            );
        }
        let mut first_answered_above: Option<&Acknowledged> = None;
        for write in by_revision.into_iter().rev() {
            if let Some(above) = first_answered_above {
                assert!(
                    above.answered >= write.asked,
                    "{above:?} was done before {write:?} was asked"
                );
            }
            if first_answered_above.is_none_or(|above| write.answered < above.answered) {
                first_answered_above = Some(write);
            }
        }
    }
}

async fn write(
    prefix: String,
    endpoints: Vec<String>,
    first: usize,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> (Vec<Acknowledged>, Vec<String>) {
    let mut clients: Vec<Client> = endpoints.iter().map(|endpoint| Client::new(endpoint)).collect();
    let (mut acknowledged, mut errors) = (Vec::new(), Vec::new());
    let mut endpoint = first;
    for attempt in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{prefix}/{attempt:06}");
        let at = endpoint % clients.len();
        let asked = Instant::now();
        match clients[at]
            .put_within(&key, value_of(&key).as_bytes(), ATTEMPT_TIMEOUT)
            .await
        {
            Ok(revision) => {
                acknowledged.push(Acknowledged {
                    key,
                    revision,
                    asked,
                    answered: Instant::now(),
                });
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => {
                errors.push(format!("{:?}: {}", status.code(), status.message()));
                endpoint += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    (acknowledged, errors)
}

/// A value that tells its key, so that a value at the wrong key shows.
fn value_of(key: &str) -> String {
    format!("{key:.<VALUE_BYTES$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(writes: &[(i64, u64, u64)]) -> History {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let write = |&(revision, asked, answered): &(i64, u64, u64)| Acknowledged {
            key: format!("p/{revision}"),
            revision,
            asked: at(asked),
            answered: at(answered),
        };
        let acknowledged = writes.iter().map(write).collect();
        History {
            acknowledged,
            errors: Vec::new(),
            prefix: "p/".to_owned(),
        }
    }

    #[test]
    fn overlapping_writes_may_have_either_order() {
        history(&[(2, 0, 10), (4, 5, 20), (3, 6, 30)]).check_order();
    }

    #[test]
    #[should_panic(expected = "was done before")]
    fn a_later_write_with_a_lower_revision_is_found() {
        history(&[(3, 0, 10), (2, 11, 20)]).check_order();
    }

    #[test]
    #[should_panic(expected = "one revision, two writes")]
    fn a_revision_given_twice_is_found() {
        history(&[(2, 0, 10), (2, 0, 10)]).check_order();
    }

    #[test]
    #[should_panic(expected = "1 of 1 acknowledged writes are lost")]
    fn a_lost_write_is_found() {
        history(&[(2, 0, 10)]).check_in(&RangeResponse::default());
    }
}
