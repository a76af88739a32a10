//! Snapshots: a checksummed file of the whole applied state.
//!
//! It owns the file format and its durability: a snapshot is written or received under a temporary name, synced,
//! verified, and only then kept under its own. It does not know what the records mean: that is the store's.

mod build;
mod codec;
mod file;
mod install;
mod receiver;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use thiserror::Error;

pub use build::SnapshotBuilder;
pub(crate) use build::{Capture, Snapshot, Snapshots};
pub use file::SnapshotFile;
pub(crate) use file::{SnapshotWriter, remove_leftovers};
pub(crate) use install::{build_state, empty_state};
pub use receiver::SnapshotReceiver;

/// One record of a snapshot, as the store wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// What is wrong with a snapshot, and with which.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The disk, or the operating system, said no.
    #[error("snapshot {}: cannot {action}", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    /// The file is not what was written, or not by us.
    #[error("snapshot {}: {what} at byte {offset}", path.display())]
    Invalid {
        path: PathBuf,
        offset: u64,
        what: String,
    },
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> io::Error {
        let kind = match &error {
            SnapshotError::Io { source, .. } => source.kind(),
            SnapshotError::Invalid { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
