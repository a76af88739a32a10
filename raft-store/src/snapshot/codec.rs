//! The bytes of a snapshot file. All integers are little endian.
//!
//! ```text
//! header    magic "agentsnp" · format version u32 · length of meta u32 · meta · CRC-32C of all before u32
//! record    1u8 · CRC-32C of the rest of the record u32 · length of key u32 · length of value u32 · key · value
//! trailer   2u8 · number of records u64 · zeros up to a multiple of 512 · SHA-256 of all before (32 bytes)
//! ```
//! The padding and the hash are those of an etcd snapshot on its way to a client: what `etcdctl snapshot save` checks
//! (the size without the hash is a multiple of 512, and the hash fits) is true of this file as it is.
//!
//! A field's meaning never changes under the same format version.

use std::io::{self, Read, Write};

use bytes::Bytes;
use prost::Message;
use proto::replicated as wire;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::Record;
use crate::convert;
use crate::raft_types::SnapshotMeta;

const MAGIC: [u8; 8] = *b"agentsnp";
const FORMAT_VERSION: u32 = 1;
const RECORD: u8 = 1;
const TRAILER: u8 = 2;
const ALIGNMENT: u64 = 512;
const HASH_BYTES: usize = 32;

/// A membership of hundreds of members is far below this.
const MAX_META_BYTES: usize = 1 << 20;
/// Key and value together. Far above what a request may carry; it keeps a wrong length from taking all memory.
pub(super) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Why bytes are not a snapshot, or were not read at all.
#[derive(Debug, Error)]
pub(super) enum DecodeError {
    #[error("cannot read")]
    Io(#[source] io::Error),
    #[error("{what}, at byte {offset}")]
    Invalid { offset: u64, what: String },
}

/// A snapshot's position and membership, as stored.
#[derive(Clone, PartialEq, Message)]
struct Meta {
    #[prost(message, optional, tag = "1")]
    last_log_id: Option<wire::LogId>,
    #[prost(message, optional, tag = "2")]
    last_membership: Option<wire::StoredMembership>,
}

/// Writes a snapshot.
#[derive(Debug)]
pub(super) struct Encoder<W> {
    output: W,
    hash: Sha256,
    offset: u64,
    records: u64,
}

impl<W: Write> Encoder<W> {
    /// Writes the header.
    pub(super) fn new(output: W, meta: &SnapshotMeta) -> io::Result<Encoder<W>> {
        let meta = Meta {
            last_log_id: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
            last_membership: Some(convert::stored_membership_to_wire(&meta.last_membership)),
        }
        .encode_to_vec();
        let mut header = Vec::with_capacity(meta.len() + 20);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&length(meta.len(), MAX_META_BYTES)?);
        header.extend_from_slice(&meta);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let mut encoder = Encoder {
            output,
            hash: Sha256::new(),
            offset: 0,
            records: 0,
        };
        encoder.write(&header)?;
        Ok(encoder)
    }

    pub(super) fn append(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let max_value_bytes = MAX_RECORD_BYTES.saturating_sub(key.len());
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&length(key.len(), MAX_RECORD_BYTES)?);
        lengths[4..].copy_from_slice(&length(value.len(), max_value_bytes)?);
        self.write(&[RECORD])?;
        self.write(&record_crc(lengths, &[key, value]).to_le_bytes())?;
        self.write(&lengths)?;
        self.write(key)?;
        self.write(value)?;
        self.records += 1;
        Ok(())
    }

    /// Writes the trailer. The output is returned, not flushed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write(&[TRAILER])?;
        self.write(&self.records.to_le_bytes())?;
        let (padding, length) = padding_after(self.offset);
        self.write(padding.get(..length).unwrap_or(&padding))?;
        let hash = self.hash.finalize();
        self.output.write_all(&hash)?;
        Ok(self.output)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a snapshot, and checks all of it on the way: only after the `None` that follows the last record is it
/// known to be whole.
#[derive(Debug)]
pub(super) struct Decoder<R> {
    input: R,
    hash: Sha256,
    offset: u64,
    records: u64,
    meta: SnapshotMeta,
    /// The trailer has been read, or an error met.
    done: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads the header.
    pub(super) fn new(input: R) -> Result<Decoder<R>, DecodeError> {
        let meta = SnapshotMeta::default();
        let mut decoder = Decoder {
            input,
            hash: Sha256::new(),
            offset: 0,
            records: 0,
            meta,
            done: false,
        };
        decoder.meta = decoder.read_header()?;
        Ok(decoder)
    }

    pub(super) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The number of bytes read: the file's size, after the last record.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// `None` after the last record, once the trailer has been found right, and after an error.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, DecodeError> {
        if self.done {
            return Ok(None);
        }
        // Until there is something to go on with.
        self.done = true;
        let start = self.offset;
        match self.read_array::<1>()? {
            [RECORD] => {
                let record = self.read_record(start)?;
                self.records += 1;
                self.done = false;
                Ok(Some(record))
            }
            [TRAILER] => self.read_trailer(start).map(|()| None),
            [kind] => Err(invalid(
                start,
                format!("neither a record nor the trailer (kind {kind})"),
            )),
        }
    }

    fn read_header(&mut self) -> Result<SnapshotMeta, DecodeError> {
        let magic = self.read_array::<8>()?;
        if magic != MAGIC {
            return Err(invalid(0, "not a snapshot of this program"));
        }
        let version_bytes = self.read_array()?;
        let version = u32::from_le_bytes(version_bytes);
        if version != FORMAT_VERSION {
            let what =
                format!("format version {version} is not known, this program reads version {FORMAT_VERSION}");
            return Err(invalid(8, what));
        }
        let length_bytes = self.read_array()?;
        let start = self.offset;
        let encoded = self.read_vec(u32::from_le_bytes(length_bytes) as usize, MAX_META_BYTES)?;
        let mut crc = crc32c::crc32c(&magic);
        for part in [&version_bytes[..], &length_bytes, &encoded] {
            crc = crc32c::crc32c_append(crc, part);
        }
        if self.read_array()? != crc.to_le_bytes() {
            return Err(invalid(start, "the header's checksum does not match"));
        }
        let meta = Meta::decode(encoded.as_slice())
            .map_err(|error| invalid(start, format!("bad header: {error}")))?;
        let last_membership = convert::stored_membership_from_wire(meta.last_membership.unwrap_or_default())
            .map_err(|error| invalid(start, format!("bad header: {error}")))?;
        let last_log_id = meta.last_log_id.as_ref().map(convert::log_id_from_wire);
        Ok(SnapshotMeta {
            last_log_id,
            last_membership,
        })
    }

    fn read_record(&mut self, start: u64) -> Result<Record, DecodeError> {
        let crc = self.read_array()?;
        let lengths = self.read_array::<8>()?;
        let [k0, k1, k2, k3, v0, v1, v2, v3] = lengths;
        let key_bytes = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let mut key = Bytes::from(self.read_vec(key_bytes.saturating_add(value_bytes), MAX_RECORD_BYTES)?);
        if crc != record_crc(lengths, &[&key]).to_le_bytes() {
            return Err(invalid(start, "a record's checksum does not match"));
        }
        let value = key.split_off(key_bytes);
        Ok(Record { key, value })
    }

    fn read_trailer(&mut self, start: u64) -> Result<(), DecodeError> {
        let records = u64::from_le_bytes(self.read_array()?);
        if records != self.records {
            let what = format!("the trailer counts {records} records, there are {}", self.records);
            return Err(invalid(start, what));
        }
        let (mut padding, length) = padding_after(self.offset);
        self.read_exact(padding.get_mut(..length).unwrap_or_default())?;
        let expected = self.hash.clone().finalize();
        let hash_at = self.offset;
        if self.read_array::<HASH_BYTES>()? != *expected {
            return Err(invalid(hash_at, "the hash of the whole does not match"));
        }
        let mut more = [0];
        match self.input.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(invalid(self.offset, "more bytes than the snapshot has")),
            Err(error) => Err(DecodeError::Io(error)),
        }
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        let result = self.input.read_exact(bytes);
        match result {
            Ok(()) => self.count(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.cut_short()),
            Err(error) => return Err(DecodeError::Io(error)),
        }
        Ok(())
    }

    /// Takes no more memory than there are bytes to read, whatever `length` says.
    fn read_vec(&mut self, length: usize, max: usize) -> Result<Vec<u8>, DecodeError> {
        const FIRST_ALLOCATION_BYTES: usize = 64 << 10;
        if length > max {
            return Err(invalid(
                self.offset,
                format!("a length of {length} bytes, above the limit of {max}"),
            ));
        }
        let mut bytes = Vec::with_capacity(length.min(FIRST_ALLOCATION_BYTES));
        self.input
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(DecodeError::Io)?;
        if bytes.len() < length {
            return Err(self.cut_short());
        }
        self.count(&bytes);
        Ok(bytes)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
    }

    fn cut_short(&self) -> DecodeError {
        invalid(self.offset, "the file is cut short")
    }
}

fn invalid(offset: u64, what: impl Into<String>) -> DecodeError {
    DecodeError::Invalid {
        offset,
        what: what.into(),
    }
}

fn length(bytes: usize, max: usize) -> io::Result<[u8; 4]> {
    match u32::try_from(bytes) {
        Ok(length) if bytes <= max => Ok(length.to_le_bytes()),
        _ => {
            let what = format!("{bytes} bytes in one record, above the limit of {max}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

fn record_crc(lengths: [u8; 8], parts: &[&[u8]]) -> u32 {
    parts.iter().fold(crc32c::crc32c(&lengths), |crc, part| {
        crc32c::crc32c_append(crc, part)
    })
}

/// Zeros, and how many of them bring `offset` to the alignment.
fn padding_after(offset: u64) -> ([u8; ALIGNMENT as usize], usize) {
    let length = (ALIGNMENT - offset % ALIGNMENT) % ALIGNMENT;
    ([0; ALIGNMENT as usize], usize::try_from(length).unwrap_or(0))
}
