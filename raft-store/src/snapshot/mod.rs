//! Snapshots: a checksummed file of the whole applied state.

use std::path::Path;

/// A complete, verified snapshot file, open for reading. openraft's `SnapshotData`.
#[derive(Clone, Debug)]
pub struct SnapshotFile;

impl SnapshotFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        todo!()
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
}

/// A snapshot being received: chunks are written in order, then the whole is verified.
#[derive(Debug)]
pub struct SnapshotReceiver;

impl SnapshotReceiver {
    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self, _chunk: &[u8]) -> std::io::Result<()> {
        todo!()
    }

    /// Syncs and verifies.
    ///
    /// # Errors
    /// When the disk fails, or the checksums do not match.
    pub fn finish(self) -> std::io::Result<SnapshotFile> {
        todo!()
    }
}
