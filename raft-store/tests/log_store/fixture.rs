//! A log in a directory of its own, and a look at its files.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::leader_id_adv::LeaderId;
use raft_store::wal::{Identity, WalOptions};
use raft_store::{Command, Entry, LogId, LogStore, OpenLogError, TypeConfig, Vote};
use tempfile::TempDir;

pub(crate) const IDENTITY: Identity = Identity {
    cluster_id: 0xc1,
    member_id: 0x3e,
};

pub(crate) const SEGMENT_HEADER_BYTES: usize = 40;

/// All that a log answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
}

/// A directory for logs.
pub(crate) struct Fixture {
    dir: TempDir,
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes: usize,
}

impl Fixture {
    pub(crate) fn new(segment_bytes: u64, cache_bytes: usize) -> Fixture {
        Fixture {
            dir: tempfile::tempdir().unwrap(),
            segment_bytes,
            cache_bytes,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("wal")
    }

    pub(crate) fn try_open(&self) -> Result<LogStore, OpenLogError> {
        self.try_open_as(IDENTITY)
    }

    pub(crate) fn try_open_as(&self, identity: Identity) -> Result<LogStore, OpenLogError> {
        let Fixture {
            segment_bytes,
            cache_bytes,
            ..
        } = *self;
        LogStore::open(
            WalOptions {
                dir: self.dir(),
                segment_bytes,
                cache_bytes,
            },
            identity,
        )
    }

    pub(crate) fn open(&self) -> LogStore {
        self.try_open().unwrap()
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut segments: Vec<PathBuf> = fs::read_dir(self.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
            .collect();
        segments.sort();
        segments
    }

    /// The only segment.
    pub(crate) fn segment(&self) -> PathBuf {
        let [segment] = <[PathBuf; 1]>::try_from(self.segments()).unwrap();
        segment
    }

    /// A second directory with the same files, as a restart after a kill would find them now.
    pub(crate) fn copy(&self) -> Fixture {
        let copy = Fixture::new(self.segment_bytes, self.cache_bytes);
        fs::create_dir(copy.dir()).unwrap();
        for segment in self.segments() {
            fs::copy(&segment, copy.dir().join(segment.file_name().unwrap())).unwrap();
        }
        copy
    }
}

/// Where the records of a segment are, padding not included.
pub(crate) fn records(segment: &Path) -> Vec<Range<usize>> {
    let bytes = fs::read(segment).unwrap();
    let mut records = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(length) = bytes.get(offset..offset + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        records.push(offset..offset + length);
        offset += length.next_multiple_of(4);
    }
    records
}

/// Changes a file in place.
pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 7 }, index)
}

pub(crate) fn entry(term: u64, index: u64, value: &[u8]) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Command(Bytes::copy_from_slice(value))),
    }
}

/// Appends, and waits until it is durable.
pub(crate) async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
    let entries: Vec<Entry> = entries.into_iter().collect();
    let (done, is_durable) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    is_durable.await.map_err(io::Error::other)?
}

/// Waits until everything before is durable.
pub(crate) async fn settle(log: &mut LogStore) {
    append(log, []).await.unwrap();
}

pub(crate) async fn contents(log: &mut LogStore) -> Contents {
    let state = log.get_log_state().await.unwrap();
    Contents {
        vote: log.read_vote().await.unwrap(),
        committed: log.read_committed().await.unwrap(),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: log.try_get_log_entries(..).await.unwrap(),
    }
}
