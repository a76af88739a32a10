//! Walks the records of one segment, and judges what comes after the last good one.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::wal::format::{SEGMENT_HEADER_BYTES, Sequence};
use crate::wal::record::{MAX_RECORD_BYTES, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, padded};
use crate::wal::segment::Segment;

const CHUNK_BYTES: usize = 1 << 20;

/// What is at the scanner's position.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record whose checksum matches: its bytes are [`Scanner::record`].
    Record(RecordHeader),
    /// Length zero, or no room for another record.
    End,
    /// Bytes that are no record.
    Invalid(&'static str),
}

/// Reads one segment's records in order.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    segment: &'a Segment,
    reader: BufReader<&'a File>,
    offset: u64,
    record: Vec<u8>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(segment: &'a Segment) -> io::Result<Scanner<'a>> {
        let offset = SEGMENT_HEADER_BYTES as u64;
        let mut file = segment.file();
        file.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(CHUNK_BYTES, file);
        Ok(Scanner {
            segment,
            reader,
            offset,
            record: Vec::new(),
        })
    }

    /// The offset of the next step.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The last record, header included.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// Takes the next step. Nothing is to be asked for after an end or invalid bytes.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let remaining = self.segment.capacity().saturating_sub(self.offset);
        if remaining < RECORD_HEADER_BYTES as u64 {
            return Ok(Step::End);
        }
        let mut bytes = [0; RECORD_HEADER_BYTES];
        self.reader.read_exact(&mut bytes)?;
        let header = RecordHeader::parse(&bytes);
        if header.length == 0 {
            return Ok(Step::End);
        }
        if header.length < RECORD_HEADER_BYTES
            || header.length > MAX_RECORD_BYTES
            || header.length as u64 > remaining
        {
            return Ok(Step::Invalid("a record of impossible length"));
        }
        self.record.clear();
        self.record.extend_from_slice(&bytes);
        self.record.resize(header.length, 0);
        self.reader
            .read_exact(self.record.get_mut(RECORD_HEADER_BYTES..).unwrap_or_default())?;
        if !header.matches(self.segment.seed(), &self.record) {
            return Ok(Step::Invalid("a record whose checksum does not match"));
        }
        let taken = (padded(header.length) as u64).min(remaining);
        self.reader
            .seek_relative(i64::try_from(taken).unwrap_or(0) - header.length as i64)?;
        self.offset += taken;
        Ok(Step::Record(header))
    }
}

/// What follows the last good record of the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Zeroes to the end, as preallocated.
    Zeroes,
    /// Bytes up to `end` in which there is no valid record: a write that was interrupted.
    Torn { end: u64 },
    /// A valid record follows at `offset`: what is before it was once whole, so it is damaged.
    Damaged { offset: u64 },
}

/// Judges the bytes from `tail` on. `next` is the sequence the record at `tail` would have.
pub(crate) fn judge_rest(segment: &Segment, tail: u64, next: Sequence) -> io::Result<Rest> {
    let Some(end) = end_of_data(segment, tail)? else {
        return Ok(Rest::Zeroes);
    };
    let mut rest = vec![0; usize::try_from(segment.capacity() - tail).map_err(io::Error::other)?];
    segment.read_at(&mut rest, tail)?;
    Ok(match find_record(&rest, segment.seed(), next) {
        Some(at) => Rest::Damaged {
            offset: tail + at as u64,
        },
        None => Rest::Torn { end },
    })
}

/// Where the last byte that is not zero ends, at or after `from`.
fn end_of_data(segment: &Segment, from: u64) -> io::Result<Option<u64>> {
    let mut end = None;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = from;
    while offset < segment.capacity() {
        let length = usize::try_from(segment.capacity() - offset)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let bytes = chunk.get_mut(..length).unwrap_or_default();
        segment.read_at(bytes, offset)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = Some(offset + last as u64 + 1);
        }
        offset += length as u64;
    }
    Ok(end)
}

/// The offset of the first valid record in `bytes`, at any place where one may start.
fn find_record(bytes: &[u8], seed: u32, next: Sequence) -> Option<usize> {
    // A record here can be at most as many sequences ahead as records fit before it.
    let furthest = next.0.saturating_add((bytes.len() / RECORD_HEADER_BYTES) as u64);
    (0..bytes.len()).step_by(RECORD_ALIGNMENT).find(|at| {
        let Some(rest) = bytes.get(*at..) else {
            return false;
        };
        let Some(header) = rest.first_chunk::<RECORD_HEADER_BYTES>().map(RecordHeader::parse) else {
            return false;
        };
        let plausible = header.length >= RECORD_HEADER_BYTES
            && header.length <= rest.len()
            && (next.0..=furthest).contains(&header.sequence.0);
        plausible
            && rest
                .get(..header.length)
                .is_some_and(|record| header.matches(seed, record))
    })
}
