//! The hub itself, and the writer's end of it.

use std::sync::Weak;

use proto::mvccpb::Event;

use super::watcher::Watcher;
use super::{History, WatchOptions};

/// Cloneable handle of the hub.
#[derive(Clone, Debug)]
pub struct WatchHub;

/// The writer's end. There is one, and apply owns it; when it is dropped, every watcher ends.
#[derive(Debug)]
pub(crate) struct Publisher;

/// Makes a hub that has published everything up to `revision`, the store's current one. `buffer_events` is what a
/// watcher may have queued before it has to catch up from history.
///
/// The store owns the hub, and the hub must not own the store: hence the [`Weak`] (see `Arc::new_cyclic`).
pub(crate) fn watch_hub(
    _history: Weak<dyn History>,
    _revision: i64,
    _buffer_events: usize,
) -> (WatchHub, Publisher) {
    todo!()
}

impl WatchHub {
    /// Registers a watcher. Events arrive in order, each once, from its start revision on.
    #[must_use]
    pub fn watch(&self, _options: WatchOptions) -> Watcher {
        todo!()
    }
}

impl Publisher {
    /// Hands out the events of one revision, in sub-revision order. Call it for every revision, ascending, once
    /// [`History`] can answer for it and before the write is acknowledged.
    pub(crate) fn publish(&self, _revision: i64, _events: Vec<Event>) {
        todo!()
    }

    /// Whether events should carry `prev_kv`. Asking early is safe: a watcher that arrives after the answer and
    /// misses a `prev_kv` in an event reads that revision from history instead.
    pub(crate) fn wants_prev_kv(&self) -> bool {
        todo!()
    }

    /// The store was replaced by a snapshot that ends at `revision`: watchers read what they missed from the
    /// new history. Call it once [`History`] answers from the new store.
    pub(crate) fn reset(&self, _revision: i64) {
        todo!()
    }
}
