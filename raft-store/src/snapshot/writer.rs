//! Writing a snapshot file.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::SnapshotError;
use super::codec::Encoder;
use super::file::SnapshotFile;
use super::temp_file::TempFile;
use crate::raft_types::SnapshotMeta;

const BUFFER_BYTES: usize = 256 << 10;

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct SnapshotWriter {
    path: PathBuf,
    encoder: Encoder<BufWriter<TempFile>>,
}

impl SnapshotWriter {
    /// Starts a temporary file in `dir`, which exists.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn create(dir: &Path, meta: &SnapshotMeta) -> Result<SnapshotWriter, SnapshotError> {
        let file = TempFile::create(dir)?;
        let path = file.path().to_owned();
        let encoder = Encoder::new(BufWriter::with_capacity(BUFFER_BYTES, file), meta)
            .map_err(SnapshotError::io(&path, "write it"))?;
        Ok(SnapshotWriter { path, encoder })
    }

    /// # Errors
    /// When the disk fails, or the record is larger than the format allows. The writer is of no use afterwards.
    pub(crate) fn append(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        self.encoder
            .append(key, value)
            .map_err(SnapshotError::io(&self.path, "write it"))
    }

    /// Writes the trailer, syncs, and reads the file once to verify it. The result is temporary until
    /// [`SnapshotFile::keep`].
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        let action = "write it";
        let output = self
            .encoder
            .finish()
            .map_err(SnapshotError::io(&self.path, action))?;
        let file = output
            .into_inner()
            .map_err(|error| SnapshotError::io(&self.path, action)(error.into_error()))?;
        SnapshotFile::temporary(file.into_durable()?)
    }
}
