//! How long the disk takes, under etcd's names and in etcd's buckets.

use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use raft_store::{DiskWork, Stopwatch};

/// The store's stopwatch. Observing takes a short lock of its own.
#[derive(Debug)]
pub(super) struct DiskTimes {
    started: Instant,
    log_syncs: Histogram,
    store_commits: Histogram,
}

impl DiskTimes {
    pub(super) fn new() -> DiskTimes {
        // From one millisecond to eight seconds.
        let buckets = || exponential_buckets(0.001, 2.0, 14);
        DiskTimes {
            started: Instant::now(),
            log_syncs: Histogram::new(buckets()),
            store_commits: Histogram::new(buckets()),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "How long it took to make what was written to the log durable",
            self.log_syncs.clone(),
        );
        registry.register(
            "etcd_disk_backend_commit_duration_seconds",
            "How long it took to write a batch of applied entries to the store",
            self.store_commits.clone(),
        );
    }
}

impl Stopwatch for DiskTimes {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn took(&self, work: DiskWork, time: Duration) {
        let histogram = match work {
            DiskWork::LogSync => &self.log_syncs,
            DiskWork::StoreCommit => &self.store_commits,
        };
        histogram.observe(time.as_secs_f64());
    }
}
