//! Snapshots: a checksummed file of the whole applied state.
//!
//! It owns the file format and its durability: a snapshot is written or received under a temporary name, synced,
//! verified, and only then kept under its own. It does not know what the records mean: that is the store's.
//!
//! What it must not do: hand out a file that was not verified, hold more than one record in memory, or replace a
//! kept file by one that is not yet durable.

mod build;
mod codec;
mod file;
mod install;
mod reader;
mod receiver;
mod temp_file;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

pub use build::SnapshotBuilder;
pub(crate) use build::{Capture, Snapshot, Snapshots};
pub use file::SnapshotFile;
pub(crate) use install::{build_state, empty_state};
pub use receiver::SnapshotReceiver;
pub(crate) use temp_file::remove_leftovers;
pub(crate) use writer::SnapshotWriter;

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
    #[error("snapshot {}: {what}, at byte {offset}", path.display())]
    Invalid {
        path: PathBuf,
        offset: u64,
        what: String,
    },
}

impl SnapshotError {
    /// For `map_err`: names the file and what was tried.
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
        move |source| SnapshotError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    }
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

#[cfg(test)]
mod tests;
