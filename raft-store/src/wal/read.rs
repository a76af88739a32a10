//! Reads entries that are no longer in memory.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::raft_types::Entry;
use crate::wal::index::{DiskRead, Place};
use crate::wal::record::{self, RECORD_HEADER_BYTES, Record, RecordHeader};

/// Neighbouring records are read together up to this many bytes.
const READ_BYTES: u64 = 1 << 20;

/// Reads the entries, in order. Blocks.
///
/// # Errors
/// When the disk fails, or a record is not what was written: what is damaged is never handed on.
pub(crate) fn read_entries(reads: &[DiskRead]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(reads.len());
    let mut buffer = Vec::new();
    let mut rest = reads;
    while let Some(first) = rest.first() {
        let neighbours = rest
            .iter()
            .take_while(|read| is_near(&first.place, &read.place))
            .count();
        let (run, later) = rest.split_at(neighbours.max(1));
        read_run(run, &mut buffer, &mut entries)?;
        rest = later;
    }
    Ok(entries)
}

fn is_near(first: &Place, other: &Place) -> bool {
    let end = other.offset + u64::from(other.length);
    Arc::ptr_eq(&first.segment, &other.segment)
        && other.offset >= first.offset
        && end - first.offset <= READ_BYTES
}

/// Reads records that lie close together in one segment with one system call.
fn read_run(run: &[DiskRead], buffer: &mut Vec<u8>, entries: &mut Vec<Entry>) -> io::Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let base = first.place.offset;
    let length = last.place.offset + u64::from(last.place.length) - base;
    buffer.clear();
    buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    first.place.segment.read_at(buffer, base)?;
    for read in run {
        let start = usize::try_from(read.place.offset - base).map_err(io::Error::other)?;
        let bytes = buffer
            .get(start..start + read.place.length as usize)
            .unwrap_or_default();
        entries.push(decode(read, bytes)?);
    }
    Ok(())
}

fn decode(read: &DiskRead, bytes: &[u8]) -> io::Result<Entry> {
    let header = bytes
        .first_chunk::<RECORD_HEADER_BYTES>()
        .map(RecordHeader::parse);
    let record = header
        .filter(|header| header.matches(read.place.segment.seed(), bytes))
        .and_then(|header| record::decode(&header, bytes).ok());
    match record {
        Some(Record::Entry(entry)) if entry.log_id == read.log_id => Ok(entry),
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "the log is corrupt: {} at offset {}: entry {} is not what was written there",
                read.place.segment.path().display(),
                read.place.offset,
                read.log_id
            ),
        )),
    }
}
