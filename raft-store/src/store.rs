//! The read side of the store.

use proto::etcdserverpb::{AlarmMember, RangeRequest};
use proto::mvccpb::KeyValue;
use thiserror::Error;

use crate::raft_types::{LogId, StoredMembership};
use crate::snapshot::{SnapshotFile, SnapshotReceiver};
use crate::watch::WatchHub;

/// A cloneable handle for reads at the applied state.
#[derive(Clone, Debug)]
pub struct Store;

/// The answer to a range. `revision` is the store's at the time of reading, not the one asked for.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    pub kvs: Vec<KeyValue>,
    pub more: bool,
    pub count: i64,
    pub revision: i64,
}

/// Why a read has no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    #[error("required revision has been compacted")]
    Compacted,
    #[error("required revision is a future revision")]
    FutureRevision,
    /// A storage failure: the member is about to stop.
    #[error("the store failed")]
    Failed,
}

/// A lease as apply knows it: deadlines are the leader's, not the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    pub id: i64,
    pub granted_ttl_seconds: i64,
    /// From the last checkpoint; equal to the granted TTL without one.
    pub remaining_ttl_seconds: i64,
}

/// What a member published of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAttributes {
    pub name: String,
    pub client_urls: Vec<String>,
}

/// The hash of all records up to a revision, as etcd's HashKV: equal on all members at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub hash_revision: i64,
    pub compact_revision: i64,
}

impl Store {
    /// The revision of the last write applied. 1 when fresh.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// The revision below which history is gone. 0: never compacted.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        todo!()
    }

    /// A range as etcd defines it: `revision`, `limit`, sort, the min/max filters, `keys_only`, `count_only`,
    /// `more` and `count`. The request's shape has been validated.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn range(&self, _request: &RangeRequest) -> Result<RangeResult, ReadError> {
        todo!()
    }

    /// The last applied log id.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        todo!()
    }

    /// Completes once `index` is applied.
    pub async fn wait_applied(&self, _index: u64) {
        todo!()
    }

    /// The applied membership.
    #[must_use]
    pub fn membership(&self) -> StoredMembership {
        todo!()
    }

    /// What a member published of itself, if it has.
    #[must_use]
    pub fn member_attributes(&self, _id: u64) -> Option<MemberAttributes> {
        todo!()
    }

    /// All leases, ascending by id.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseInfo> {
        todo!()
    }

    #[must_use]
    pub fn lease(&self, _id: i64) -> Option<LeaseInfo> {
        todo!()
    }

    /// The keys attached to a lease, sorted.
    #[must_use]
    pub fn lease_keys(&self, _id: i64) -> Vec<bytes::Bytes> {
        todo!()
    }

    /// Receives every change of the set of leases (grants, revokes) after it is applied: what the leader's
    /// deadline keeper follows. The value counts changes; read [`Store::leases`] on each.
    #[must_use]
    pub fn lease_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Alarms raised, ascending by member.
    #[must_use]
    pub fn alarms(&self) -> Vec<AlarmMember> {
        todo!()
    }

    /// # Errors
    /// As for [`Store::range`]. `revision` 0: the current one.
    pub fn hash_kv(&self, _revision: i64) -> Result<HashKv, ReadError> {
        todo!()
    }

    /// Bytes on disk, and bytes of live data.
    #[must_use]
    pub fn size_bytes(&self) -> (u64, u64) {
        todo!()
    }

    /// Subscribes to changes.
    #[must_use]
    pub fn watch_hub(&self) -> &WatchHub {
        todo!()
    }

    /// Where a snapshot sent by the leader is written while it arrives.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn receive_snapshot(&self) -> std::io::Result<SnapshotReceiver> {
        todo!()
    }

    /// Writes a consistent snapshot of the applied state beside the current one, for a client to save. The file
    /// is deleted when the handle is dropped.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn export_snapshot(&self) -> std::io::Result<SnapshotFile> {
        todo!()
    }
}
