//! openraft's own tests of a log, on ours.

mod log_memory_machine;

use log_memory_machine::MemoryMachine;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft_store::wal::{Identity, WalOptions};
use raft_store::{LogStore, TypeConfig};
use tempfile::TempDir;

struct Builder {
    segment_bytes: u64,
    cache_bytes: usize,
}

impl StoreBuilder<TypeConfig, LogStore, MemoryMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MemoryMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
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
        .expect("a fresh log");
        Ok((dir, log, MemoryMachine::default()))
    }
}

async fn check(builder: Builder) {
    if let Err(error) = Suite::test_all(builder).await {
        panic!("{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite() {
    check(Builder {
        segment_bytes: 1 << 20,
        cache_bytes: 1 << 20,
    })
    .await;
}

/// Every few records make a new segment, and every entry is read from disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite_without_memory() {
    check(Builder {
        segment_bytes: 200,
        cache_bytes: 0,
    })
    .await;
}
