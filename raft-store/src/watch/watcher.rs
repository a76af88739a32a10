//! One watcher: its buffer, and how it catches up.

use super::WatchOutput;

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
