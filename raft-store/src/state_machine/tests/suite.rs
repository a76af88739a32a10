//! openraft's own tests of a log and a state machine together, on the real log.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::fixture::options;
use crate::raft_types::TypeConfig;
use crate::state_machine::StateMachine;
use crate::wal::{Identity, WalOptions};
use crate::{LogStore, Store};

struct Builder;

/// Dropped last: the folder of both, and a reader that keeps the store as a server would.
type Guard = (Store, TempDir);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = WalOptions {
            dir: dir.path().join("log"),
            segment_bytes: 1 << 20,
            cache_bytes: 1 << 20,
        };
        let log = LogStore::open(
            log,
            Identity {
                cluster_id: 1,
                member_id: 1,
            },
        )
        .unwrap();
        let (machine, store) = StateMachine::open(options(&dir.path().join("store"))).unwrap();
        Ok(((store, dir), log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_accepts_log_and_state_machine() {
    Suite::test_all(Builder).await.unwrap();
}
