//! How one change is stored.
//!
//! The head, at `r|revision|sub`: a byte of flags; with [`CHUNKED`] the number of pieces (4, big-endian); then the
//! `KeyValue` as protobuf, its value left out where it is in pieces. A tombstone has its key only. A value of more
//! than [`CHUNK_BYTES`] is cut into pieces that sort right behind the head: the backend keeps large entries apart, in
//! files that it does not sync.

use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::mvccpb::KeyValue;

use super::Revision;
use crate::backend::{Backend, BackendError, Batch};
use crate::schema::{self, RecordKey};

const TOMBSTONE: u8 = 1;
const CHUNKED: u8 = 2;

/// The largest value, and piece of a value, that is stored in one entry.
const CHUNK_BYTES: usize = 4 << 10;

/// What a record costs beside its key and value, for the quota: about what index and backend take for it.
const OVERHEAD_BYTES: usize = 128;

/// One change read back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) kv: KeyValue,
    pub(crate) tombstone: bool,
}

struct Head {
    record: Record,
    chunks: u32,
}

/// What a record counts towards the quota: the same on every member, whatever its disk does.
pub(crate) fn quota_bytes(key: &[u8], value: &[u8]) -> u32 {
    u32::try_from(OVERHEAD_BYTES + key.len() + value.len()).unwrap_or(u32::MAX)
}

pub(crate) fn write_put(batch: &mut Batch, revision: Revision, kv: &KeyValue) {
    if kv.value.len() <= CHUNK_BYTES {
        write_head(batch, revision, 0, None, kv);
        return;
    }
    let mut chunks = 0;
    for piece in kv.value.chunks(CHUNK_BYTES) {
        batch.put(schema::chunk(revision, chunks), piece);
        chunks += 1;
    }
    let head = KeyValue {
        value: Bytes::new(),
        ..kv.clone()
    };
    write_head(batch, revision, CHUNKED, Some(chunks), &head);
}

pub(crate) fn write_tombstone(batch: &mut Batch, revision: Revision, key: &Bytes) {
    write_head(
        batch,
        revision,
        TOMBSTONE,
        None,
        &KeyValue {
            key: key.clone(),
            ..KeyValue::default()
        },
    );
}

fn write_head(batch: &mut Batch, revision: Revision, flags: u8, chunks: Option<u32>, kv: &KeyValue) {
    let mut head = Vec::with_capacity(5 + kv.encoded_len());
    head.push(flags);
    if let Some(chunks) = chunks {
        head.extend_from_slice(&chunks.to_be_bytes());
    }
    head.extend_from_slice(&kv.encode_to_vec());
    batch.put(schema::record(revision), head);
}

/// Deletes a record with its pieces.
pub(crate) fn delete(backend: &Backend, batch: &mut Batch, revision: Revision) -> Result<(), BackendError> {
    let key = schema::record(revision);
    if let Some(head) = backend.get(&key)? {
        for number in 0..decode_head(backend, revision, head)?.chunks {
            batch.delete(schema::chunk(revision, number));
        }
        batch.delete(key);
    }
    Ok(())
}

/// `None` where it is not there (any more).
pub(crate) fn read(backend: &Backend, revision: Revision) -> Result<Option<Record>, BackendError> {
    let Some(head) = backend.get(&schema::record(revision))? else {
        return Ok(None);
    };
    let Head { mut record, chunks } = decode_head(backend, revision, head)?;
    if chunks > 0 {
        let mut value = BytesMut::with_capacity(chunks as usize * CHUNK_BYTES);
        for number in 0..chunks {
            match backend.get(&schema::chunk(revision, number))? {
                Some(piece) => value.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
        record.kv.value = value.freeze();
    }
    Ok(Some(record))
}

/// As [`read`], leaving out a value that is in pieces.
pub(crate) fn read_head(backend: &Backend, revision: Revision) -> Result<Option<Record>, BackendError> {
    let Some(head) = backend.get(&schema::record(revision))? else {
        return Ok(None);
    };
    Ok(Some(decode_head(backend, revision, head)?.record))
}

/// The records of the main revisions `from..=to`, ascending.
pub(crate) fn scan(
    backend: &Backend,
    from: i64,
    to: i64,
) -> impl Iterator<Item = Result<(Revision, Record), BackendError>> {
    let mut entries = backend.scan(schema::records(from, to));
    std::iter::from_fn(move || next(backend, &mut entries).transpose())
}

type Entry = Result<(Bytes, Bytes), BackendError>;

fn next(
    backend: &Backend,
    entries: &mut impl Iterator<Item = Entry>,
) -> Result<Option<(Revision, Record)>, BackendError> {
    loop {
        let Some(entry) = entries.next() else {
            return Ok(None);
        };
        let (key, head) = entry?;
        let revision = match schema::parse_record(&key) {
            Some(RecordKey::Head(revision)) => revision,
            // The scan began before a record was deleted and reached its pieces afterwards.
            Some(RecordKey::Chunk(..)) => continue,
            None => return Err(backend.damaged(format!("an entry at key {key:02x?}"))),
        };
        let Head { mut record, chunks } = decode_head(backend, revision, head)?;
        let mut value = BytesMut::with_capacity(chunks as usize * CHUNK_BYTES);
        let mut missing = false;
        for number in 0..chunks {
            match backend.get(&schema::chunk(revision, number))? {
                Some(piece) => value.extend_from_slice(&piece),
                None => missing = true,
            }
        }
        if missing {
            // Deleted between the two reads: a batch takes a head and its pieces together.
            if backend.get(&key)?.is_none() {
                continue;
            }
            return Err(backend.damaged(format!("the value at revision {revision} lacks a piece")));
        }
        if chunks > 0 {
            record.kv.value = value.freeze();
        }
        return Ok(Some((revision, record)));
    }
}

fn decode_head(backend: &Backend, revision: Revision, mut head: Bytes) -> Result<Head, BackendError> {
    let damaged = || backend.damaged(format!("the record at revision {revision} is unreadable"));
    let flags = head.split_first().map(|(flags, _)| *flags).ok_or_else(damaged)?;
    if flags & !(TOMBSTONE | CHUNKED) != 0 {
        return Err(damaged());
    }
    let mut start = 1;
    let mut chunks = 0;
    if flags & CHUNKED != 0 {
        chunks = u32::from_be_bytes(
            *head
                .get(1..)
                .and_then(|rest| rest.first_chunk())
                .ok_or_else(damaged)?,
        );
        start = 5;
    }
    let kv = KeyValue::decode(head.split_off(start)).map_err(|_| damaged())?;
    Ok(Head {
        record: Record {
            kv,
            tombstone: flags & TOMBSTONE != 0,
        },
        chunks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a value of `len` bytes, reads it back in every way, deletes it.
    #[track_caller]
    fn check(len: usize) {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::open(dir.path(), 1 << 20).unwrap();
        let value: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let kv = KeyValue {
            key: "k".into(),
            value: value.into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        let at = |main| Revision { main, sub: 0 };

        let mut batch = Batch::default();
        write_put(&mut batch, at(7), &kv);
        write_tombstone(&mut batch, at(8), &kv.key);
        backend.write(batch).unwrap();

        let put = Record {
            kv: kv.clone(),
            tombstone: false,
        };
        assert_eq!(read(&backend, at(7)).unwrap(), Some(put.clone()));
        let scanned: Vec<_> = scan(&backend, 0, i64::MAX).collect::<Result<_, _>>().unwrap();
        assert_eq!(scanned.len(), 2);
        assert_eq!(scanned[0], (at(7), put));
        assert!(scanned[1].1.tombstone);
        assert_eq!(scan(&backend, 8, 8).count(), 1);

        let mut batch = Batch::default();
        delete(&backend, &mut batch, at(7)).unwrap();
        backend.write(batch).unwrap();
        assert_eq!(read(&backend, at(7)).unwrap(), None);
        assert_eq!(backend.scan(schema::records(7, 7)).count(), 0);
    }

    #[test]
    fn values_of_every_size_come_back() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 300_000] {
            check(len);
        }
    }

    #[test]
    fn bytes_that_make_no_sense_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::open(dir.path(), 1 << 20).unwrap();
        for bytes in [&b""[..], b"\xf0", b"\x02\0\0", b"\x00\xff\xff\xff"] {
            let mut batch = Batch::default();
            batch.put(schema::record(Revision { main: 2, sub: 0 }), bytes);
            backend.write(batch).unwrap();
            let error = read(&backend, Revision { main: 2, sub: 0 }).unwrap_err();
            assert!(
                matches!(error, BackendError::Damaged { .. }),
                "{bytes:?}: {error}"
            );
        }
    }
}
