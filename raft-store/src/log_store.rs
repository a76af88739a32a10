//! openraft's view of the write-ahead log.

use thiserror::Error;

use crate::wal::{Identity, WalOptions};

/// The log, shared: clones read and write the same one.
#[derive(Clone, Debug)]
pub struct LogStore;

/// Why a log was not opened. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenLogError {}

impl LogStore {
    /// Opens or creates the log, and recovers it: what it reports afterwards is durable.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open(_options: WalOptions, _identity: Identity) -> Result<LogStore, OpenLogError> {
        todo!()
    }

    /// Bytes of the live segments, and of the entries after the last purge. For metrics.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
}
