//! How long the disk takes, for whoever has a clock: this crate has none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Work of the disk that is worth a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWork {
    /// What was written to the log becomes durable.
    LogSync,
    /// A batch of applied entries is written to the store. Not synced: the log has it.
    StoreCommit,
}

/// A clock that only ever measures. It is asked before and after, and decides nothing.
pub trait Stopwatch: std::fmt::Debug + Send + Sync {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;

    /// Some work took this long.
    fn took(&self, work: DiskWork, time: Duration);
}

/// A place for a stopwatch, empty at first; all clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timed(Arc<OnceLock<Arc<dyn Stopwatch>>>);

impl Timed {
    /// The first stopwatch stays.
    pub(crate) fn with(&self, stopwatch: Arc<dyn Stopwatch>) {
        // A second one would measure the same.
        let _ = self.0.set(stopwatch);
    }

    pub(crate) fn run<T>(&self, work: DiskWork, run: impl FnOnce() -> T) -> T {
        let Some(stopwatch) = self.0.get() else {
            return run();
        };
        let began = stopwatch.now();
        let result = run();
        stopwatch.took(work, stopwatch.now().saturating_sub(began));
        result
    }
}
