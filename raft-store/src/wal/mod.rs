//! The write-ahead log: votes and entries, durable before they are acknowledged.
//!
//! It owns the files of one directory: segments of records (`format`, `record`, `segment`), the thread that
//! writes them (`writer`), what is done at a start (`recovery`, `scan`), and where every unpurged entry is
//! (`index`, `read`). [`crate::LogStore`] is what openraft sees of it.
//!
//! What it must not do: decide what is appended, truncated or purged; retry a write or a sync that failed;
//! cut anything that may have been acknowledged; hold a lock while it touches a file.

mod error;
mod format;
mod index;
mod read;
mod record;
mod recovery;
mod scan;
mod segment;
mod writer;

use std::path::PathBuf;

pub use error::OpenLogError;
pub(crate) use index::{Found, entry_bytes};
pub(crate) use read::read_entries;
pub(crate) use recovery::{identity, recover};
pub(crate) use segment::sync_dir;
pub(crate) use writer::{Request, Shared, Writer};

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
