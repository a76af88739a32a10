//! openraft's own tests of a log and a state machine, on ours.

use std::path::Path;

use openraft::StorageError;
use openraft::storage::RaftStateMachine;
use openraft::testing::log::{StoreBuilder, Suite};
use raft_store::wal::{Identity, WalOptions};
use raft_store::{LogStore, StateMachine, StoreOptions, TypeConfig};
use tempfile::TempDir;

use crate::memory_machine::MemoryMachine;

struct Builder<SM> {
    segment_bytes: u64,
    cache_bytes: usize,
    machine: fn(&Path) -> SM,
}

impl<SM: RaftStateMachine<TypeConfig>> StoreBuilder<TypeConfig, LogStore, SM, TempDir> for Builder<SM> {
    async fn build(&self) -> Result<(TempDir, LogStore, SM), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = WalOptions {
            dir: dir.path().join("wal"),
            segment_bytes: self.segment_bytes,
            cache_bytes: self.cache_bytes,
        };
        let log = LogStore::open(
            options,
            Identity {
                cluster_id: 1,
                member_id: 0,
            },
        )
        .unwrap();
        let machine = (self.machine)(dir.path());
        Ok((dir, log, machine))
    }
}

async fn check<SM: RaftStateMachine<TypeConfig>>(builder: Builder<SM>) {
    if let Err(error) = Suite::test_all(builder).await {
        panic!("{error}");
    }
}

fn real_machine(dir: &Path) -> StateMachine {
    let options = StoreOptions {
        dir: dir.join("store"),
        cache_bytes: 1 << 20,
        watch_buffer_events: 16,
    };
    StateMachine::open(options).unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite() {
    check(Builder {
        segment_bytes: 1 << 20,
        cache_bytes: 1 << 20,
        machine: real_machine,
    })
    .await;
}

/// Every few records make a new segment, and every entry is read from disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_without_memory() {
    let machine = |_: &Path| MemoryMachine::default();
    check(Builder {
        segment_bytes: 200,
        cache_bytes: 0,
        machine,
    })
    .await;
}
