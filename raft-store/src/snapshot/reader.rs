//! Reading a snapshot file, record by record.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::codec::{DecodeError, Decoder};
use super::{Record, SnapshotError};
use crate::raft_types::SnapshotMeta;

const BUFFER_BYTES: usize = 256 << 10;

/// Yields the records of one snapshot, in the order written. Everything is checked again on the way, the hash of
/// the whole at the end. Ends after an error.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    path: PathBuf,
    decoder: Decoder<BufReader<File>>,
}

impl SnapshotReader {
    pub(super) fn open(path: &Path) -> Result<SnapshotReader, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io(path, "open it"))?;
        let decoder = Decoder::new(BufReader::with_capacity(BUFFER_BYTES, file))
            .map_err(|error| with_path(path, error))?;
        Ok(SnapshotReader {
            path: path.to_owned(),
            decoder,
        })
    }

    /// Reads to the end; returns what the header says, and the size in bytes.
    pub(super) fn verify(mut self) -> Result<(SnapshotMeta, u64), SnapshotError> {
        for record in self.by_ref() {
            record?;
        }
        Ok((self.decoder.meta().clone(), self.decoder.offset()))
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Record, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.decoder
            .next_record()
            .map_err(|error| with_path(&self.path, error))
            .transpose()
    }
}

fn with_path(path: &Path, error: DecodeError) -> SnapshotError {
    match error {
        DecodeError::Io(source) => SnapshotError::io(path, "read it")(source),
        DecodeError::Invalid { offset, what } => SnapshotError::Invalid {
            path: path.to_owned(),
            offset,
            what,
        },
    }
}
