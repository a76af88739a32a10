//! The watch hub: who watches which keys, and what each is still owed.

use bytes::Bytes;
use proto::mvccpb::Event;

/// Cloneable handle of the hub.
#[derive(Clone, Debug)]
pub struct WatchHub;

/// What a watcher asks for. The caller (one per client stream) chooses ids and multiplexes.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub key: Bytes,
    /// As in a range request.
    pub range_end: Bytes,
    /// 0: from the revision after the current one.
    pub start_revision: i64,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
}

/// One delivery to a watcher. All events of one revision are in one batch.
#[derive(Clone, Debug)]
pub enum WatchOutput {
    /// In revision order; several revisions may share a batch. Never empty.
    Events {
        /// The revision of the last event.
        revision: i64,
        events: Vec<Event>,
    },
    /// The start revision is below the compacted one: the watcher is over.
    Compacted { compact_revision: i64 },
}

/// One watcher's end. Dropping it cancels the watch.
#[derive(Debug)]
pub struct Watcher;

impl Watcher {
    /// The next delivery; `None` only when the store has stopped.
    pub async fn recv(&mut self) -> Option<WatchOutput> {
        todo!()
    }

    /// `Some(revision)` when everything up to `revision` has been received through [`Watcher::recv`] (nothing
    /// queued, nothing to catch up): what a progress notification may say. `None` when not.
    #[must_use]
    pub fn progress(&self) -> Option<i64> {
        todo!()
    }

    /// The store's revision when the watcher was made: the header revision of the `created` answer.
    #[must_use]
    pub fn created_revision(&self) -> i64 {
        todo!()
    }
}

impl WatchHub {
    /// Registers a watcher. Events arrive in order, each once, from its start revision on.
    #[must_use]
    pub fn watch(&self, _options: WatchOptions) -> Watcher {
        todo!()
    }
}
