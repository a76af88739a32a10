//! openraft's view of the store: applies committed entries, builds and installs snapshots.

use std::path::PathBuf;

use thiserror::Error;

use crate::store::Store;

/// Where the store lives and how much it may hold.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of sled's directories, the `CURRENT` pointer and the snapshots.
    pub dir: PathBuf,
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// Puts are refused while live data is above this many bytes. 0: no quota.
    pub quota_bytes: u64,
    /// Events kept for one watcher that reads slower than writes arrive; past that it catches up from history.
    pub watch_buffer_events: usize,
}

/// The one writer of a [`Store`].
#[derive(Debug)]
pub struct StateMachine;

/// Why a store was not opened.
#[derive(Debug, Error)]
pub enum OpenStoreError {}

impl StateMachine {
    /// Opens or creates the store. A sled directory that does not open or verify is discarded and rebuilt from
    /// the last snapshot (and then, by openraft, from the log).
    ///
    /// # Errors
    /// See [`OpenStoreError`].
    pub fn open(_options: StoreOptions) -> Result<(StateMachine, Store), OpenStoreError> {
        todo!()
    }
}
use crate::raft_types::*;
use crate::snapshot::SnapshotFile;
type Snap = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;
impl openraft::RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    async fn build_snapshot(&mut self) -> Result<Snap, std::io::Error> {
        todo!()
    }
}
impl openraft::storage::RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = StateMachine;
    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), std::io::Error> {
        todo!()
    }
    async fn apply<S>(&mut self, _e: S) -> Result<(), std::io::Error>
    where
        S: futures::Stream<Item = Result<openraft::storage::EntryResponder<TypeConfig>, std::io::Error>>
            + Unpin
            + openraft::OptionalSend,
    {
        todo!()
    }
    async fn get_snapshot_builder(&mut self) -> StateMachine {
        todo!()
    }
    async fn install_snapshot(&mut self, _m: &SnapshotMeta, _s: SnapshotFile) -> Result<(), std::io::Error> {
        todo!()
    }
    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, std::io::Error> {
        todo!()
    }
}
