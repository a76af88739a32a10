//! Snapshot files: written once, verified before use, read as a stream of records.

use std::path::Path;

use super::{Record, SnapshotError};
use crate::raft_types::SnapshotMeta;

/// A complete, verified snapshot file, open for reading. openraft's `SnapshotData`.
///
/// Cheap to clone. One that was not kept (see [`SnapshotFile::keep`]) is deleted with its last clone.
#[derive(Clone, Debug)]
pub struct SnapshotFile;

impl SnapshotFile {
    /// Opens and verifies a kept snapshot: every record and the hash of the whole.
    ///
    /// # Errors
    /// When the disk fails, or the file is not exactly what was written.
    pub(crate) fn open(_path: &Path) -> Result<SnapshotFile, SnapshotError> {
        todo!()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        todo!()
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// The log position and membership that the records stand for.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        todo!()
    }

    /// The records from the first on. Memory is bounded by the largest record.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn reader(&self) -> Result<SnapshotReader, SnapshotError> {
        todo!()
    }

    /// Keeps the file under `path` (same file system), durably, replacing what was there. `self` and its clones
    /// stay valid, and are still deleted under their temporary name with the last of them.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn keep(&self, _path: &Path) -> Result<SnapshotFile, SnapshotError> {
        todo!()
    }
}

/// Yields the records of one snapshot, in the order written; checks each again. Ends after an error.
#[derive(Debug)]
pub(crate) struct SnapshotReader;

impl Iterator for SnapshotReader {
    type Item = Result<Record, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct SnapshotWriter;

impl SnapshotWriter {
    /// Starts a temporary file in `dir`, which exists.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn create(_dir: &Path, _meta: &SnapshotMeta) -> Result<SnapshotWriter, SnapshotError> {
        todo!()
    }

    /// # Errors
    /// When the disk fails, or the record is larger than the format allows.
    pub(crate) fn append(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), SnapshotError> {
        todo!()
    }

    /// Writes the trailer and syncs. The result is temporary until [`SnapshotFile::keep`].
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        todo!()
    }
}

/// Deletes the temporary files that a killed process left in `dir`. Call it at start, before any is made.
///
/// # Errors
/// When the disk fails.
pub(crate) fn remove_leftovers(_dir: &Path) -> Result<(), SnapshotError> {
    todo!()
}
