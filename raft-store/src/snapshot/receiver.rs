//! A snapshot that arrives from another member.

use std::io::{self, Write};
use std::path::Path;

use super::SnapshotError;
use super::file::SnapshotFile;
use super::temp_file::TempFile;

/// A snapshot being received: chunks are written in order, then the whole is verified. Dropped before
/// [`SnapshotReceiver::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotReceiver {
    file: TempFile,
}

impl SnapshotReceiver {
    /// Starts a temporary file in `dir`, which exists.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn create(dir: &Path) -> Result<SnapshotReceiver, SnapshotError> {
        Ok(SnapshotReceiver {
            file: TempFile::create(dir)?,
        })
    }

    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file
            .write_all(chunk)
            .map_err(|error| SnapshotError::io(self.file.path(), "write it")(error).into())
    }

    /// Syncs and verifies. The result is temporary: the store keeps it when it installs it.
    ///
    /// # Errors
    /// When the disk fails, or the checksums do not match.
    pub fn finish(self) -> io::Result<SnapshotFile> {
        Ok(SnapshotFile::temporary(self.file.into_durable()?)?)
    }
}
