//! The applied state: one backend, the index over it, and what readers see of both.
//!
//! Apply is the only writer; it publishes a chunk of entries at once. Installing a snapshot makes a new `State` and
//! swaps it in: readers of the old one finish undisturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message;
use proto::replicated as wire;

use crate::auth::{self, Auth};
use crate::backend::{Backend, BackendError, Batch};
use crate::convert;
use crate::join_tokens::JoinTokens;
use crate::lease::Leases;
use crate::migrate::{self, MigrateError};
use crate::mvcc::{Index, Revision, Sweeper, Version, View, record};
use crate::raft_types::{LogId, SnapshotMeta, StoredMembership};
use crate::revocations::Revocations;
use crate::schema;
use crate::store::{LeaseInfo, MemberAttributes};

/// The revision of a store that nothing was ever written to.
pub(crate) const FIRST_REVISION: i64 = 1;

pub(crate) struct State {
    pub(crate) backend: Backend,
    pub(crate) index: Index,
    pub(crate) published: RwLock<Published>,
    pub(crate) sweeper: Sweeper,
}

/// What readers see. It changes as a whole, once for each applied chunk.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) revision: i64,
    /// 0: never compacted.
    pub(crate) compacted: i64,
    /// Bytes of the history that is not compacted, for the quota.
    pub(crate) live_bytes: u64,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) leases: Leases,
    pub(crate) alarms: Alarms,
    pub(crate) members: Members,
    pub(crate) auth: Arc<Auth>,
    pub(crate) removed: Removed,
    pub(crate) join_tokens: Arc<JoinTokens>,
    pub(crate) revocations: Arc<Revocations>,
}

/// Member and alarm, and who raised it.
pub(crate) type Alarms = BTreeMap<(u64, i32), RaisedBy>;
/// The ids of members that were removed, which never come back.
pub(crate) type Removed = BTreeSet<u64>;
/// What each member published of itself.
pub(crate) type Members = BTreeMap<u64, MemberAttributes>;

/// Who raised an alarm, and so who lifts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaisedBy {
    /// The members themselves, who lift it when its reason is gone.
    Members,
    /// A client, by hand: it stays until a client lifts it.
    Client,
}

impl RaisedBy {
    const CLIENT: &[u8] = b"c";

    pub(crate) fn encode(self) -> &'static [u8] {
        match self {
            RaisedBy::Members => b"",
            RaisedBy::Client => RaisedBy::CLIENT,
        }
    }

    fn decode(value: &[u8]) -> Option<RaisedBy> {
        match value {
            b"" => Some(RaisedBy::Members),
            RaisedBy::CLIENT => Some(RaisedBy::Client),
            _ => None,
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the index: it holds users' keys, and may hold millions.
        f.debug_struct("State")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Reads the backend back, or begins a fresh one.
    pub(crate) fn load(backend: Backend) -> Result<State, MigrateError> {
        migrate::migrate(&backend)?;
        let mut published = load_published(&backend)?;
        let index = Index::default();
        load_records(&backend, &index, &mut published)?;
        let freed = index.compact(published.compacted);
        published.live_bytes = published.live_bytes.saturating_sub(freed);
        tracing::info!(
            path = %backend.path().display(),
            revision = published.revision,
            keys = index.len(),
            applied = published.applied.map_or(0, |id| id.index()),
            "store read"
        );
        Ok(State {
            backend,
            index,
            published: RwLock::new(published),
            sweeper: Sweeper::default(),
        })
    }

    /// What a reader sees now.
    pub(crate) fn view(&self) -> View<'_> {
        let published = self.published.read();
        View {
            backend: &self.backend,
            index: &self.index,
            overlay: None,
            revision: published.revision,
            compacted: published.compacted,
        }
    }
}

impl Published {
    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }

    /// Everything but the records, as the backend holds it.
    pub(crate) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = vec![
            (
                schema::META_FORMAT.to_vec(),
                schema::FORMAT.to_be_bytes().to_vec(),
            ),
            (
                schema::META_REVISION.to_vec(),
                self.revision.to_be_bytes().to_vec(),
            ),
            (
                schema::META_COMPACTED.to_vec(),
                self.compacted.to_be_bytes().to_vec(),
            ),
            (
                schema::META_MEMBERSHIP.to_vec(),
                encode_membership(&self.membership),
            ),
        ];
        if let Some(applied) = &self.applied {
            entries.push((schema::META_APPLIED.to_vec(), encode_applied(applied)));
        }
        for lease in self.leases.all() {
            entries.push((schema::lease(lease.id), encode_lease(&lease)));
        }
        for (id, attributes) in &self.members {
            entries.push((schema::member(*id), encode_member(*id, attributes)));
        }
        for ((member_id, alarm), raised_by) in &self.alarms {
            entries.push((schema::alarm(*member_id, *alarm), raised_by.encode().to_vec()));
        }
        entries.extend(auth::entries(&self.auth));
        for member_id in &self.removed {
            entries.push((schema::removed(*member_id), Vec::new()));
        }
        entries.extend(self.join_tokens.entries());
        entries.extend(self.revocations.entries());
        entries
    }
}

pub(crate) fn encode_applied(applied: &LogId) -> Vec<u8> {
    convert::log_id_to_wire(applied).encode_to_vec()
}

pub(crate) fn encode_membership(membership: &StoredMembership) -> Vec<u8> {
    convert::stored_membership_to_wire(membership).encode_to_vec()
}

pub(crate) fn encode_member(id: u64, attributes: &MemberAttributes) -> Vec<u8> {
    let member = wire::PublishMember {
        id,
        name: attributes.name.clone(),
        client_urls: attributes.client_urls.clone(),
    };
    member.encode_to_vec()
}

pub(crate) fn encode_lease(lease: &LeaseInfo) -> Vec<u8> {
    [
        lease.granted_ttl_seconds.to_be_bytes(),
        lease.remaining_ttl_seconds.to_be_bytes(),
    ]
    .concat()
}

/// Writes a snapshot's or a fresh store's entries, a bounded batch at a time.
pub(crate) fn write_entries<E: From<BackendError>>(
    backend: &Backend,
    entries: impl Iterator<Item = Result<(impl AsRef<[u8]>, impl AsRef<[u8]>), E>>,
) -> Result<(), E> {
    const BATCH_BYTES: usize = 1 << 20;
    let mut batch = Batch::default();
    for entry in entries {
        let (key, value) = entry?;
        batch.put(key, value);
        if batch.size_bytes() >= BATCH_BYTES {
            backend.write(std::mem::take(&mut batch))?;
        }
    }
    Ok(backend.write(batch)?)
}

fn load_published(backend: &Backend) -> Result<Published, BackendError> {
    let unreadable = |what: &str| backend.damaged(format!("{what} is unreadable"));
    let number = |key: &[u8], what: &str| -> Result<Option<i64>, BackendError> {
        let Some(bytes) = backend.get(key)? else {
            return Ok(None);
        };
        Ok(Some(i64::from_be_bytes(
            bytes.as_ref().try_into().map_err(|_| unreadable(what))?,
        )))
    };
    let applied = match backend.get(schema::META_APPLIED)? {
        Some(bytes) => Some(wire::LogId::decode(bytes).map_err(|_| unreadable("the applied log id"))?),
        None => None,
    };
    let membership = match backend.get(schema::META_MEMBERSHIP)? {
        Some(bytes) => wire::StoredMembership::decode(bytes)
            .ok()
            .and_then(|stored| convert::stored_membership_from_wire(stored).ok())
            .ok_or_else(|| unreadable("the membership"))?,
        None => StoredMembership::default(),
    };
    Ok(Published {
        revision: number(schema::META_REVISION, "the revision")?.unwrap_or(FIRST_REVISION),
        compacted: number(schema::META_COMPACTED, "the compacted revision")?.unwrap_or(0),
        live_bytes: 0,
        applied: applied.as_ref().map(convert::log_id_from_wire),
        membership,
        leases: load_leases(backend)?,
        alarms: load_alarms(backend)?,
        members: load_members(backend)?,
        auth: Arc::new(auth::load(backend)?),
        removed: load_removed(backend)?,
        join_tokens: Arc::new(JoinTokens::load(backend)?),
        revocations: Arc::new(Revocations::load(backend)?),
    })
}

fn load_leases(backend: &Backend) -> Result<Leases, BackendError> {
    let mut leases = Leases::default();
    for entry in backend.scan(schema::leases()) {
        let (key, value) = entry?;
        let lease = decode_lease(&key, &value).ok_or_else(|| backend.damaged("a lease is unreadable"))?;
        leases.restore(&lease);
    }
    Ok(leases)
}

fn decode_lease(key: &[u8], value: &[u8]) -> Option<LeaseInfo> {
    let (granted, remaining) = value.split_first_chunk()?;
    Some(LeaseInfo {
        id: schema::parse_lease(key)?,
        granted_ttl_seconds: i64::from_be_bytes(*granted),
        remaining_ttl_seconds: i64::from_be_bytes(remaining.try_into().ok()?),
    })
}

fn load_alarms(backend: &Backend) -> Result<Alarms, BackendError> {
    let mut alarms = Alarms::new();
    for entry in backend.scan(schema::alarms()) {
        let (key, value) = entry?;
        let alarm = schema::parse_alarm(&key).zip(RaisedBy::decode(&value));
        let (alarm, raised_by) = alarm.ok_or_else(|| backend.damaged("an alarm is unreadable"))?;
        alarms.insert(alarm, raised_by);
    }
    Ok(alarms)
}

fn load_members(backend: &Backend) -> Result<Members, BackendError> {
    let mut members = Members::new();
    for entry in backend.scan(schema::members()) {
        let (_, value) = entry?;
        let member = wire::PublishMember::decode(value)
            .map_err(|_| backend.damaged("what a member published is unreadable"))?;
        let attributes = MemberAttributes {
            name: member.name,
            client_urls: member.client_urls,
        };
        members.insert(member.id, attributes);
    }
    Ok(members)
}

fn load_removed(backend: &Backend) -> Result<Removed, BackendError> {
    let mut removed = Removed::new();
    for entry in backend.scan(schema::all_removed()) {
        let (key, _) = entry?;
        removed.insert(
            schema::parse_removed(&key).ok_or_else(|| backend.damaged("a removed member is unreadable"))?,
        );
    }
    Ok(removed)
}

/// Rebuilds the index, the attachments and the quota's count, in the order in which apply made them.
fn load_records(backend: &Backend, index: &Index, published: &mut Published) -> Result<(), BackendError> {
    let mut last = Revision::default();
    for entry in record::scan(backend, 0, i64::MAX) {
        let (revision, record) = entry?;
        let kv = &record.kv;
        let bytes = record::quota_bytes(&kv.key, &kv.value);
        published.live_bytes += u64::from(bytes);
        let version = Version { revision, bytes };
        if record.tombstone {
            index.tombstone(&kv.key, version);
            published.leases.detach(&kv.key);
        } else {
            index.restore_put(&kv.key, version, kv.create_revision, kv.version);
            published.leases.attach(&kv.key, kv.lease);
        }
        last = revision;
    }
    if last.main > published.revision {
        return Err(backend.damaged(format!(
            "a record at revision {last}, but the store is at revision {}",
            published.revision
        )));
    }
    Ok(())
}
