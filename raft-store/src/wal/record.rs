//! One record of the log, and its encoding.
//!
//! ```text
//! offset  bytes  field
//!      0      4  length of the record, this header included, padding not; 0: nothing more in this segment
//!      4      4  CRC-32C of the length, and of everything from offset 8 to the length, from the segment's seed
//!      8      8  sequence
//!     16      1  kind: 1 vote, 2 entry, 3 truncate, 4 purge, 5 committed
//!     17      1  flags: 1, every record before this one was durable when this one was written
//!     18      2  zero
//!     20         payload
//! ```
//! Zeroes then fill up to a multiple of four bytes. The payload of a vote and of an entry is that protobuf
//! message of `replicated.proto`; of the others, nothing for no log id, or a byte 1 and the `LogId` message.

use prost::{DecodeError, Message};
use proto::replicated as wire;
use thiserror::Error;

use crate::convert::{self, ConvertError};
use crate::raft_types::{Entry, LogId, Vote};
use crate::wal::format::{Sequence, u32_at, u64_at};

/// A record's header, and so the length of the shortest record.
pub(crate) const RECORD_HEADER_BYTES: usize = 20;

/// The longest record, padding included. An entry holds one request, which the API bounds far below this.
pub(crate) const MAX_RECORD_BYTES: usize = 256 << 20;

/// Records start at multiples of this.
pub(crate) const RECORD_ALIGNMENT: usize = 4;

const SYNCED_BEFORE: u8 = 1;

const KIND_VOTE: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_PURGE: u8 = 4;
const KIND_COMMITTED: u8 = 5;

/// A change of the log, as replayed.
#[derive(Debug)]
pub(crate) enum Record {
    /// This member's vote.
    Vote(Vote),
    /// Appended after the last one.
    Entry(Entry),
    /// Entries after this one are gone; `None`: all.
    Truncate(Option<LogId>),
    /// Entries up to this one are gone.
    Purge(LogId),
    /// The last known commit.
    Committed(Option<LogId>),
}

/// A record with a matching checksum that still makes no sense.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("unknown kind {0}")]
    Kind(u8),
    #[error("a payload that does not decode")]
    Payload(#[from] DecodeError),
    #[error(transparent)]
    Meaning(#[from] ConvertError),
    #[error("a log id that does not decode")]
    LogId,
}

/// A record about to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    kind: u8,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Vote(wire::Vote),
    Entry(wire::Entry),
    LogId(Option<wire::LogId>),
}

impl Outgoing {
    pub(crate) fn vote(vote: &Vote) -> Outgoing {
        Outgoing {
            kind: KIND_VOTE,
            payload: Payload::Vote(convert::vote_to_wire(vote)),
        }
    }

    pub(crate) fn entry(entry: &Entry) -> Outgoing {
        Outgoing {
            kind: KIND_ENTRY,
            payload: Payload::Entry(convert::entry_to_wire(entry)),
        }
    }

    pub(crate) fn truncate(after: Option<&LogId>) -> Outgoing {
        Outgoing {
            kind: KIND_TRUNCATE,
            payload: Payload::LogId(after.map(convert::log_id_to_wire)),
        }
    }

    pub(crate) fn purge(upto: &LogId) -> Outgoing {
        Outgoing {
            kind: KIND_PURGE,
            payload: Payload::LogId(Some(convert::log_id_to_wire(upto))),
        }
    }

    pub(crate) fn committed(committed: Option<&LogId>) -> Outgoing {
        Outgoing {
            kind: KIND_COMMITTED,
            payload: Payload::LogId(committed.map(convert::log_id_to_wire)),
        }
    }

    /// The record's length, padding not included.
    pub(crate) fn length(&self) -> usize {
        let payload = match &self.payload {
            Payload::Vote(vote) => vote.encoded_len(),
            Payload::Entry(entry) => entry.encoded_len(),
            Payload::LogId(None) => 0,
            Payload::LogId(Some(id)) => 1 + id.encoded_len(),
        };
        RECORD_HEADER_BYTES + payload
    }

    /// Appends the record to `buffer`, padding included. The caller has checked the length.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>, seed: u32, sequence: Sequence, synced_before: bool) {
        let length = self.length();
        debug_assert!(length <= MAX_RECORD_BYTES);
        let start = buffer.len();
        buffer.reserve(padded(length));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked against MAX_RECORD_BYTES by the caller"
        )]
        buffer.extend_from_slice(&(length as u32).to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&sequence.0.to_le_bytes());
        buffer.extend_from_slice(&[self.kind, if synced_before { SYNCED_BEFORE } else { 0 }, 0, 0]);
        match &self.payload {
            Payload::Vote(vote) => vote.encode_raw(buffer),
            Payload::Entry(entry) => entry.encode_raw(buffer),
            Payload::LogId(None) => {}
            Payload::LogId(Some(id)) => {
                buffer.push(1);
                id.encode_raw(buffer);
            }
        }
        debug_assert_eq!(buffer.len(), start + length);
        if let Some(record) = buffer.get_mut(start..) {
            let crc = checksum(seed, record);
            record[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        buffer.resize(start + padded(length), 0);
    }
}

/// A record's fixed part, as read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) length: usize,
    pub(crate) sequence: Sequence,
    pub(crate) synced_before: bool,
    crc: u32,
    kind: u8,
}

impl RecordHeader {
    pub(crate) fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> RecordHeader {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, kind, flags, _, _] = *bytes;
        RecordHeader {
            length: u32_at(bytes, 0) as usize,
            crc: u32_at(bytes, 4),
            sequence: Sequence(u64_at(bytes, 8)),
            kind,
            synced_before: flags & SYNCED_BEFORE != 0,
        }
    }

    /// Whether `record`, of this header and `length` bytes, is what was written.
    pub(crate) fn matches(&self, seed: u32, record: &[u8]) -> bool {
        record.len() == self.length && checksum(seed, record) == self.crc
    }
}

/// Decodes a record whose checksum has matched.
pub(crate) fn decode(header: &RecordHeader, record: &[u8]) -> Result<Record, RecordError> {
    let payload = record.get(RECORD_HEADER_BYTES..).unwrap_or_default();
    match header.kind {
        KIND_VOTE => Ok(Record::Vote(convert::vote_from_wire(&wire::Vote::decode(
            payload,
        )?))),
        KIND_ENTRY => Ok(Record::Entry(convert::entry_from_wire(wire::Entry::decode(
            payload,
        )?)?)),
        KIND_TRUNCATE => Ok(Record::Truncate(decode_log_id(payload)?)),
        KIND_PURGE => Ok(Record::Purge(decode_log_id(payload)?.ok_or(RecordError::LogId)?)),
        KIND_COMMITTED => Ok(Record::Committed(decode_log_id(payload)?)),
        kind => Err(RecordError::Kind(kind)),
    }
}

fn decode_log_id(payload: &[u8]) -> Result<Option<LogId>, RecordError> {
    match payload.split_first() {
        None => Ok(None),
        Some((1, id)) => Ok(Some(convert::checked_log_id_from_wire(&wire::LogId::decode(
            id,
        )?)?)),
        Some(_) => Err(RecordError::LogId),
    }
}

/// A length with its padding.
pub(crate) fn padded(length: usize) -> usize {
    length.next_multiple_of(RECORD_ALIGNMENT)
}

fn checksum(seed: u32, record: &[u8]) -> u32 {
    let length = record.get(..4).unwrap_or_default();
    let rest = record.get(8..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(seed, length), rest)
}
