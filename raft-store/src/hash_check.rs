//! A position in the log at which every member hashes its store, to be compared.

use std::io;
use std::sync::Arc;

use crate::mvcc::{self, Pin};
use crate::state::State;

/// The store as it was at one log entry: history is pinned until this is dropped.
#[derive(Debug)]
pub struct HashPoint {
    log_index: u64,
    compacted: i64,
    revision: i64,
    pin: Pin,
}

impl HashPoint {
    /// `compacted` and `revision` are those at the entry, which is being applied: what is published now is not
    /// past it, so the pin holds all that is needed.
    pub(crate) fn new(state: Arc<State>, log_index: u64, compacted: i64, revision: i64) -> HashPoint {
        HashPoint {
            log_index,
            compacted,
            revision,
            pin: Pin::new(state),
        }
    }

    #[must_use]
    pub fn log_index(&self) -> u64 {
        self.log_index
    }

    /// The hash of everything readable at the entry: equal on all members. Reads the whole history: call it where
    /// blocking is fine.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn hash(&self) -> io::Result<u32> {
        let state = self.pin.state();
        Ok(mvcc::hash(
            &state.backend,
            &state.index,
            self.compacted,
            self.revision,
        )?)
    }
}
