//! One watcher: receives what the hub put in its inbox, and reads from history what it did not.

use std::sync::Arc;

use super::hub::{Hub, Join};
use super::inbox::{Inbox, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Next};
use super::{HistoryError, HistoryQuery, WatchOutput};

/// One watcher's end. Dropping it cancels the watch.
#[derive(Debug)]
pub struct Watcher {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    created_revision: i64,
    /// The last read of history has been followed by a turn for other tasks.
    yielded: bool,
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, inbox: Arc<Inbox>, created_revision: i64) -> Watcher {
        Watcher {
            hub,
            inbox,
            created_revision,
            yielded: true,
        }
    }

    /// The next delivery; `None` only when the store has stopped, or after [`WatchOutput::Compacted`].
    ///
    /// Nothing is lost when the future is dropped before it completes.
    pub async fn recv(&mut self) -> Option<WatchOutput> {
        // What is taken from the inbox or read from history is returned before the next await: that is what
        // makes dropping the future safe.
        loop {
            match self.inbox.next() {
                Next::Batch(batch) => {
                    let revision = batch.last().map_or(0, |published| published.revision());
                    return Some(WatchOutput::Events {
                        revision,
                        events: self.inbox.open(batch),
                    });
                }
                Next::Wait => self.inbox.woken().await,
                Next::Over => return None,
                Next::CatchUp(from) => match self.hub.join(&self.inbox) {
                    Join::Synced => {}
                    Join::Closed => return self.end(None),
                    Join::ReadThrough(to) => {
                        self.yield_once().await;
                        match self.read_history(from, to) {
                            Read::Nothing => {}
                            Read::Delivery(output) => return Some(output),
                            Read::Over(output) => return self.end(output),
                        }
                    }
                },
            }
        }
    }

    /// `Some(revision)` when everything up to `revision` has been received through [`Watcher::recv`] (nothing
    /// queued, nothing to catch up): what a progress notification may say. `None` when not.
    #[must_use]
    pub fn progress(&self) -> Option<i64> {
        self.hub.received_through(&self.inbox)
    }

    /// The store's revision when the watcher was made: the header revision of the `created` answer.
    #[must_use]
    pub fn created_revision(&self) -> i64 {
        self.created_revision
    }

    /// Reads of history are synchronous and may take milliseconds: between two of them others have their turn.
    /// Remembered across calls, so that a future which is always dropped at its first wait gets on too.
    async fn yield_once(&mut self) {
        if !self.yielded {
            self.yielded = true;
            tokio::task::yield_now().await;
        }
    }

    fn read_history(&mut self, from: i64, to: i64) -> Read {
        let Some(history) = self.hub.history() else {
            return Read::Over(None);
        };
        if from < 0 {
            // Nothing was ever there.
            let compact_revision = history.compacted_revision();
            return Read::Over(Some(WatchOutput::Compacted { compact_revision }));
        }
        let (key, range_end) = self.inbox.keys().as_request();
        let query = HistoryQuery {
            key,
            range_end,
            from,
            to,
            max_events: MAX_BATCH_EVENTS,
            max_bytes: MAX_BATCH_BYTES,
            prev_kv: self.inbox.prev_kv(),
        };
        self.yielded = false;
        let answer = history.events(&query);
        // Records may have been removed while they were read.
        let compact_revision = history.compacted_revision();
        if from < compact_revision {
            return Read::Over(Some(WatchOutput::Compacted { compact_revision }));
        }
        match answer {
            Ok(piece) if piece.through >= from => {
                self.inbox.advance(piece.through + 1);
                let events = self.inbox.seen(piece.events.into_iter());
                if events.is_empty() {
                    return Read::Nothing;
                }
                // Not that of the last event: the revisions after it that held nothing for this watcher count too.
                let revision = piece.through;
                Read::Delivery(WatchOutput::Events { revision, events })
            }
            Ok(piece) => {
                tracing::error!(
                    from,
                    through = piece.through,
                    "history did not get on: a watcher ends"
                );
                Read::Over(None)
            }
            Err(HistoryError::Compacted { compact_revision }) => {
                Read::Over(Some(WatchOutput::Compacted { compact_revision }))
            }
            Err(HistoryError::Failed) => Read::Over(None),
        }
    }

    fn end(&self, last: Option<WatchOutput>) -> Option<WatchOutput> {
        self.inbox.end();
        last
    }
}

/// What a read of history came to.
enum Read {
    /// No events for this watcher in what was read.
    Nothing,
    Delivery(WatchOutput),
    /// The watcher ends, with this.
    Over(Option<WatchOutput>),
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.leave(&self.inbox);
    }
}
