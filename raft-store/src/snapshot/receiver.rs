//! A snapshot that arrives from another member.

use std::path::Path;

use super::SnapshotError;
use super::file::SnapshotFile;

/// A snapshot being received: chunks are written in order, then the whole is verified.
#[derive(Debug)]
pub struct SnapshotReceiver;

impl SnapshotReceiver {
    /// Starts a temporary file in `dir`, which exists.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn create(_dir: &Path) -> Result<SnapshotReceiver, SnapshotError> {
        todo!()
    }

    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self, _chunk: &[u8]) -> std::io::Result<()> {
        todo!()
    }

    /// Syncs and verifies. The result is temporary: the store keeps it when it installs it.
    ///
    /// # Errors
    /// When the disk fails, or the checksums do not match.
    pub fn finish(self) -> std::io::Result<SnapshotFile> {
        todo!()
    }
}
