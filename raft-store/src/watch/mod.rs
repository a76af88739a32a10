//! The watch hub: who watches which keys, and what each is still owed.
//!
//! It owns the registered watchers and their bounded buffers. It does not own history: a watcher that is behind
//! (because it asked for the past, or because it read slower than writes arrived) reads what it missed from
//! [`History`], in its own task, and then joins the others again.
//!
//! What it must not do: make the writer wait for a watcher, call [`History`] while it holds a lock (the store may
//! publish while it holds its own), split a revision, or keep more for a watcher than its buffer.

mod group;
mod hub;
mod inbox;
mod key_range;
mod range_tree;
mod watcher;

use bytes::Bytes;
use proto::mvccpb::Event;
use thiserror::Error;

pub use hub::WatchHub;
pub(crate) use hub::{Publisher, watch_hub};
pub use watcher::Watcher;

/// What a watcher asks for. The caller (one per client stream) chooses ids and multiplexes.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub key: Bytes,
    /// As in a range request.
    pub range_end: Bytes,
    /// 0: from the revision after the current one. Negative: compacted; but -1 is as 0 while nothing ever was.
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
        /// Everything up to this revision has been delivered: that of the last event, or a later one.
        revision: i64,
        events: Vec<Event>,
    },
    /// The start revision is below the compacted one (0: nothing was ever compacted): the watcher is over.
    Compacted { compact_revision: i64 },
}

/// The past, as the store keeps it. Called from watchers' tasks, never under a lock of the hub.
pub(crate) trait History: Send + Sync + 'static {
    /// The revision of the last write that readers can see. It may be ahead of what was published: a write is
    /// readable first, then published.
    fn current_revision(&self) -> i64;

    /// The revision below which history is gone; 0: never compacted. It must be raised before the first record
    /// is removed: the hub looks at it again after each read.
    fn compacted_revision(&self) -> i64;

    /// The events of `query.from..=query.to` on the queried keys, in the order of (revision, sub-revision), whole
    /// revisions only.
    ///
    /// Stops at the end of the first revision that reaches `max_events` or `max_bytes`, and may stop earlier (a
    /// scan that found little, but was long): the answer says how far it is complete, at least through `from`.
    /// Events at exactly the compacted revision, deletes too, are still there.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] when `from` is below the compacted revision.
    fn events(&self, query: &HistoryQuery<'_>) -> Result<HistoryEvents, HistoryError>;
}

/// Which events of the past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryQuery<'a> {
    pub(crate) key: &'a [u8],
    /// As in a range request.
    pub(crate) range_end: &'a [u8],
    /// The first revision.
    pub(crate) from: i64,
    /// The last revision; never above what has been published.
    pub(crate) to: i64,
    /// A soft limit: a revision is never split.
    pub(crate) max_events: usize,
    /// A soft limit on keys and values together.
    pub(crate) max_bytes: usize,
    /// Fill in `prev_kv` where the previous value has not been compacted.
    pub(crate) prev_kv: bool,
}

/// A piece of the past.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryEvents {
    pub(crate) events: Vec<Event>,
    /// Every queried event from `from` through this revision is in `events`.
    pub(crate) through: i64,
}

/// Why there is no piece of the past.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HistoryError {
    #[error("required revision has been compacted")]
    Compacted {
        /// What [`History::compacted_revision`] is now.
        compact_revision: i64,
    },
    /// A storage failure: the member is about to stop.
    #[error("the store failed")]
    Failed,
}

#[cfg(test)]
mod fake_store;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
