//! A snapshot file that was verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SnapshotError;
use super::reader::SnapshotReader;
use super::temp_file::{self, TempPath};
use crate::raft_types::SnapshotMeta;

/// A complete, verified snapshot file, open for reading. openraft's `SnapshotData`.
///
/// Cheap to clone. One that was not kept (see [`SnapshotFile::keep`]) is deleted with its last clone.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    location: Location,
    size_bytes: u64,
    meta: SnapshotMeta,
}

#[derive(Debug)]
enum Location {
    Kept(PathBuf),
    Temporary(TempPath),
}

impl SnapshotFile {
    /// Opens and verifies a kept snapshot: every record and the hash of the whole.
    ///
    /// # Errors
    /// When the disk fails, or the file is not exactly what was written.
    pub(crate) fn open(path: &Path) -> Result<SnapshotFile, SnapshotError> {
        SnapshotFile::verified(Location::Kept(path.to_owned()))
    }

    pub(super) fn temporary(path: TempPath) -> Result<SnapshotFile, SnapshotError> {
        SnapshotFile::verified(Location::Temporary(path))
    }

    fn verified(location: Location) -> Result<SnapshotFile, SnapshotError> {
        let (meta, size_bytes) = SnapshotReader::open(location.path())?.verify()?;
        Ok(SnapshotFile {
            inner: Arc::new(Inner {
                location,
                size_bytes,
                meta,
            }),
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.location.path()
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.inner.size_bytes
    }

    /// The log position and membership that the records stand for.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.inner.meta
    }

    /// The records from the first on. Memory is bounded by the largest record.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn reader(&self) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(self.path())
    }

    /// Keeps the file under `path` (same file system), durably, replacing what was there. `self` and its clones
    /// stay valid, and are still deleted under their temporary name with the last of them.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn keep(&self, path: &Path) -> Result<SnapshotFile, SnapshotError> {
        temp_file::link(self.path(), path)?;
        let inner = Inner {
            location: Location::Kept(path.to_owned()),
            size_bytes: self.inner.size_bytes,
            meta: self.inner.meta.clone(),
        };
        Ok(SnapshotFile {
            inner: Arc::new(inner),
        })
    }
}

impl Location {
    fn path(&self) -> &Path {
        match self {
            Location::Kept(path) => path,
            Location::Temporary(path) => path.as_path(),
        }
    }
}
