//! The write-ahead log.

use std::path::PathBuf;

/// Whose log this is. Written into every segment; opening another's is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As in every etcd response header.
    pub cluster_id: u64,
    /// As in every etcd response header.
    pub member_id: u64,
}

/// How the log is laid out on disk and in memory.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The folder of the segments.
    pub dir: PathBuf,
    /// The size at which a segment is closed and the next one preallocated.
    pub segment_bytes: u64,
    /// The most that unpurged entries may take in memory; older ones are read from disk.
    pub cache_bytes: usize,
}
