//! Offline work on a saved snapshot: looking into it, and making a member of a new cluster from it.
//!
//! A restored member starts as if it had installed a snapshot whose membership is the new cluster's. All members
//! restore from the same file with the same options, so that they begin with the same state; what belonged to the
//! old cluster (membership, alarms, what members published, the log) is left behind. Never writes over anything:
//! the caller names a folder that does not exist yet.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use openraft::storage::RaftLogStorage;
use prost::Message;
use thiserror::Error;

use crate::convert;
use crate::log_store::LogStore;
use crate::raft_types::{LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::schema::{self, RecordKey};
use crate::snapshot::{Record, SnapshotFile, SnapshotWriter, Snapshots, build_state};
use crate::state;
use crate::state_dir::StateDir;
use crate::wal::{Identity, OpenLogError, WalOptions};

/// The log position that a restored store stands at: before everything that the new cluster will write.
const FIRST_TERM: u64 = 1;
const FIRST_INDEX: u64 = 1;
const CACHE_BYTES: u64 = 16 << 20;

/// bbolt's meta page: after a page header of 16 bytes.
const BBOLT_MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();
const BBOLT_MAGIC_AT: usize = 16;

/// What a saved snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// CRC-32C over everything it holds.
    pub hash: u32,
    /// The store's revision when it was saved.
    pub revision: i64,
    /// Changes kept, as etcd counts keys: each revision of a key is one.
    pub total_keys: u64,
    pub size_bytes: u64,
}

/// What a restored member shall be.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Of the new cluster.
    pub identity: Identity,
    /// Of the new cluster: its members are its voters.
    pub membership: Membership,
    /// Added to the store's revision, so that a client which saw the old cluster never meets a revision again.
    pub bump_revision: u64,
    /// Gives up the history before the new revision: watches from older ones are told so.
    pub mark_compacted: bool,
}

/// Why a snapshot was not read or restored. Nothing is left of an attempt.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("{path} is a snapshot of an etcd (bbolt): only a snapshot saved from an agent can be read here")]
    Etcd { path: String },
    #[error("{path} is damaged, or no snapshot: {reason}")]
    Damaged { path: String, reason: String },
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{0} exists: a restore never writes over anything")]
    Exists(String),
    #[error("the revision would not fit: {revision} + {bump}")]
    TooFar { revision: i64, bump: u64 },
    #[error("cannot restore to {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error(transparent)]
    Log(#[from] OpenLogError),
}

/// Verifies a saved snapshot and says what is in it. Reads all of it.
///
/// # Errors
/// See [`RestoreError`].
pub fn inspect(file: &Path) -> Result<SnapshotSummary, RestoreError> {
    let snapshot = open(file)?;
    let mut summary = SnapshotSummary {
        hash: 0,
        revision: state::FIRST_REVISION,
        total_keys: 0,
        size_bytes: snapshot.size_bytes(),
    };
    for record in read(file, &snapshot)? {
        let Record { key, value } = record?;
        for bytes in [&key, &value] {
            summary.hash = crc32c::crc32c_append(summary.hash, &(bytes.len() as u64).to_be_bytes());
            summary.hash = crc32c::crc32c_append(summary.hash, bytes);
        }
        if key == schema::META_REVISION {
            summary.revision = revision(file, &value)?;
        }
        if let Some(RecordKey::Head(_)) = schema::parse_record(&key) {
            summary.total_keys += 1;
        }
    }
    Ok(summary)
}

/// Makes the data directory `dir`, with its log in `wal` and its store in `store`, from a saved snapshot. It is
/// made beside and renamed: it is there whole, or not at all.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(file: &Path, dir: &Path, options: &RestoreOptions) -> Result<SnapshotSummary, RestoreError> {
    let exists = || RestoreError::Exists(dir.display().to_string());
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(_) => false,
    };
    if !is_empty {
        return Err(exists());
    }
    // Everything that may be wrong with the file is found before anything is made.
    let summary = inspect(file)?;
    let bumped = i64::try_from(options.bump_revision)
        .ok()
        .and_then(|bump| summary.revision.checked_add(bump))
        .filter(|revision| *revision < i64::MAX / 2)
        .ok_or(RestoreError::TooFar {
            revision: summary.revision,
            bump: options.bump_revision,
        })?;
    let failed = |source| RestoreError::Io {
        path: dir.display().to_string(),
        source,
    };
    let mut part = dir.as_os_str().to_owned();
    part.push(".restoring");
    let part = Path::new(&part);
    if part.exists() {
        return Err(RestoreError::Exists(part.display().to_string()));
    }
    fs::create_dir_all(part).map_err(failed)?;
    let made = make(file, part, options, bumped)
        .and_then(|()| {
            // An empty folder may be there: a rename takes its place.
            fs::rename(part, dir).map_err(failed)
        })
        .and_then(|()| {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))
                .and_then(|parent| parent.sync_all())
                .map_err(failed)
        });
    if made.is_err() {
        // What cannot be deleted says by its name what it is.
        let _ = fs::remove_dir_all(part);
    }
    made?;
    Ok(SnapshotSummary {
        revision: bumped,
        ..summary
    })
}

fn make(file: &Path, dir: &Path, options: &RestoreOptions, revision: i64) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Io {
        path: dir.display().to_string(),
        source,
    };
    let first_voter = options.membership.voter_ids().min().unwrap_or_default();
    let log_id = LogId::new(
        openraft::impls::leader_id_adv::LeaderId {
            term: FIRST_TERM,
            node_id: first_voter,
        },
        FIRST_INDEX,
    );
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: StoredMembership::new(Some(log_id), options.membership.clone()),
    };
    let store = dir.join("store");
    let state_dir = StateDir::open(&store).map_err(failed)?;
    let snapshots = Snapshots::open(store.join("snapshots")).map_err(failed)?;
    let written = rewrite(file, snapshots.dir(), &meta, options, revision)?;
    // Kept: if the store is ever damaged, it is rebuilt from this, as from any snapshot.
    let kept = snapshots.keep_built(&written).map_err(failed)?;
    drop(written);
    drop(build_state(&state_dir, &kept, CACHE_BYTES).map_err(failed)?);
    make_log(&dir.join("wal"), options.identity, log_id).map_err(|error| match error {
        LogFailure::Open(error) => RestoreError::Log(error),
        LogFailure::Write(source) => failed(source),
    })
}

/// The same records for another cluster.
fn rewrite(
    file: &Path,
    dir: &Path,
    meta: &SnapshotMeta,
    options: &RestoreOptions,
    revision: i64,
) -> Result<SnapshotFile, RestoreError> {
    let failed = |error: crate::snapshot::SnapshotError| RestoreError::Io {
        path: dir.display().to_string(),
        source: error.into(),
    };
    let snapshot = open(file)?;
    let mut writer = SnapshotWriter::create(dir, meta).map_err(failed)?;
    let number = revision.to_be_bytes();
    let membership = convert::stored_membership_to_wire(&meta.last_membership).encode_to_vec();
    let applied: Vec<u8> = meta
        .last_log_id
        .as_ref()
        .map(|id| convert::log_id_to_wire(id).encode_to_vec())
        .unwrap_or_default();
    // A store that was never written to has no revision of its own in its snapshot, and none to compact.
    for record in read(file, &snapshot)? {
        let Record { key, value } = record?;
        let value: &[u8] = match key.as_ref() {
            schema::META_REVISION => &number,
            schema::META_COMPACTED if options.mark_compacted => &number,
            schema::META_MEMBERSHIP => &membership,
            schema::META_APPLIED => &applied,
            key if schema::is_of_the_cluster(key) => continue,
            _ => &value,
        };
        writer.append(&key, value).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

enum LogFailure {
    Open(OpenLogError),
    Write(io::Error),
}

/// A log that is purged up to the snapshot, by a member that has voted for whoever wrote it: so that no term and
/// no entry of the new cluster is before it.
fn make_log(dir: &Path, identity: Identity, log_id: LogId) -> Result<(), LogFailure> {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let wal = WalOptions {
        dir: dir.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: 0,
    };
    let mut log = LogStore::open(wal, identity).map_err(LogFailure::Open)?;
    futures::executor::block_on(async {
        log.purge(log_id).await?;
        let leader = log_id.committed_leader_id();
        // Answered when it, and all before it, is durable.
        log.save_vote(&Vote::new(leader.term, leader.node_id)).await
    })
    .map_err(LogFailure::Write)
}

/// Opens and verifies, and tells damage from what was never ours.
fn open(file: &Path) -> Result<SnapshotFile, RestoreError> {
    let path = file.display().to_string();
    let mut head = [0; BBOLT_MAGIC_AT + BBOLT_MAGIC.len()];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    if read.is_ok() && head.get(BBOLT_MAGIC_AT..) == Some(BBOLT_MAGIC.as_slice()) {
        return Err(RestoreError::Etcd { path });
    }
    if let Err(source) = read
        && source.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(RestoreError::Unreadable { path, source });
    }
    SnapshotFile::open(file).map_err(|error| damaged(file, error))
}

fn read(
    file: &Path,
    snapshot: &SnapshotFile,
) -> Result<impl Iterator<Item = Result<Record, RestoreError>>, RestoreError> {
    let records = snapshot.reader().map_err(|error| damaged(file, error))?;
    let file = file.to_owned();
    Ok(records.map(move |record| record.map_err(|error| damaged(&file, error))))
}

fn damaged(file: &Path, error: crate::snapshot::SnapshotError) -> RestoreError {
    let reason = match error {
        crate::snapshot::SnapshotError::Io { source, .. } => source.to_string(),
        crate::snapshot::SnapshotError::Invalid { offset, what, .. } => format!("{what}, at byte {offset}"),
    };
    RestoreError::Damaged {
        path: file.display().to_string(),
        reason,
    }
}

fn revision(file: &Path, value: &[u8]) -> Result<i64, RestoreError> {
    let number = value.try_into().map(i64::from_be_bytes);
    number.map_err(|_| RestoreError::Damaged {
        path: file.display().to_string(),
        reason: "its revision is unreadable".to_owned(),
    })
}
