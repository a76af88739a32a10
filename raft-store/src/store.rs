//! The read side of the store.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use proto::etcdserverpb::{AlarmMember, RangeRequest, TxnRequest, TxnResponse};
use proto::mvccpb::KeyValue;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::apply::Committed;
use crate::auth::Auth;
use crate::hash_check::HashPoint;
use crate::join_tokens::JoinTokens;
use crate::lease::{LeaseFeed, LeaseFeedSender};
use crate::mvcc::{self, Pin, ReadFailure, Sweeper, View};
use crate::raft_types::{LogId, StoredMembership};
use crate::revocations::Revocations;
use crate::snapshot::{Capture, SnapshotFile, SnapshotReceiver, Snapshots};
use crate::state::{RaisedBy, State};
use crate::txn;
use crate::watch::{self as hub, History, HistoryError, HistoryEvents, HistoryQuery, Publisher, WatchHub};

/// How often a read of the current revision starts again because compaction overtook it.
const OVERTAKEN_LIMIT: usize = 16;

/// Hash points that wait to be hashed: each holds back the removal of compacted history.
const HASH_POINTS: usize = 2;

/// A cloneable handle for reads at the applied state.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// What the state machine and its readers share.
pub(crate) struct Shared {
    /// Replaced when a snapshot is installed.
    state: RwLock<Arc<State>>,
    pub(crate) snapshots: Arc<Snapshots>,
    hub: WatchHub,
    /// The index of the last applied entry, `None` before the first.
    applied: watch::Sender<Option<u64>>,
    lease_feed: LeaseFeedSender,
    auth_changes: watch::Sender<u64>,
    hash_points: Mutex<Option<mpsc::Sender<HashPoint>>>,
}

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

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>) -> Store {
        Store { shared }
    }

    /// The revision of the last write applied. 1 when fresh.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.shared.state().published.read().revision
    }

    /// The revision below which history is gone. 0: never compacted.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.shared.state().published.read().compacted
    }

    /// A range as etcd defines it: `revision`, `limit`, sort, the min/max filters, `keys_only`, `count_only`,
    /// `more` and `count`. The request's shape has been validated.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, ReadError> {
        self.read(|view| view.range(request))
    }

    /// Evaluates a Txn that only reads ([`Store::ranges_only`]) at one revision, which is answered with it. Headers are
    /// left out. The request's shape has been validated.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_txn(&self, request: &TxnRequest) -> Result<(TxnResponse, i64), ReadError> {
        self.read(|view| Ok((txn::read(view, request)?, view.revision)))
    }

    /// Every range of a Txn on any path; `None` for a Txn that may do more than read, whose place is in the log.
    #[must_use]
    pub fn ranges_only(request: &TxnRequest) -> Option<Vec<&RangeRequest>> {
        txn::ranges_only(request)
    }

    /// The bytes that a range reads; `None` where it takes so long that it should be read where blocking is fine.
    #[must_use]
    pub fn quick_bytes(&self, request: &RangeRequest) -> Option<u64> {
        self.shared.state().view().quick_bytes(request)
    }

    /// The bytes of a range's answer, about. It looks at every key.
    #[must_use]
    pub fn answer_bytes(&self, request: &RangeRequest) -> u64 {
        self.shared.state().view().answer_bytes(request)
    }

    fn read<T>(&self, read: impl Fn(View<'_>) -> Result<T, ReadFailure>) -> Result<T, ReadError> {
        let mut overtaken = 0;
        loop {
            let state = self.shared.state();
            let view = state.view();
            match read(view) {
                Ok(result) => return Ok(result),
                Err(ReadFailure::Compacted) => return Err(ReadError::Compacted),
                Err(ReadFailure::Future) => return Err(ReadError::FutureRevision),
                // The record was there when the view was taken: a compaction came in between.
                Err(ReadFailure::Gone(_))
                    if overtaken < OVERTAKEN_LIMIT && state.view().compacted > view.compacted =>
                {
                    overtaken += 1;
                }
                Err(failure) => {
                    tracing::error!(error = %failure, "a read failed");
                    return Err(ReadError::Failed);
                }
            }
        }
    }

    /// The last applied log id.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.shared.state().published.read().applied
    }

    /// Completes once `index` is applied.
    pub async fn wait_applied(&self, index: u64) {
        let mut applied = self.shared.applied.subscribe();
        // It fails only when the sender is gone, which we hold.
        let _ = applied
            .wait_for(|applied| applied.is_some_and(|applied| applied >= index))
            .await;
    }

    /// The applied membership.
    #[must_use]
    pub fn membership(&self) -> StoredMembership {
        self.shared.state().published.read().membership.clone()
    }

    /// What a member published of itself, if it has.
    #[must_use]
    pub fn member_attributes(&self, id: u64) -> Option<MemberAttributes> {
        self.shared.state().published.read().members.get(&id).cloned()
    }

    /// The ids of all members that were ever removed, ascending.
    #[must_use]
    pub fn removed_members(&self) -> Vec<u64> {
        let state = self.shared.state();
        let published = state.published.read();
        published.removed.iter().copied().collect()
    }

    /// Whether a member was removed, for good.
    #[must_use]
    pub fn is_removed(&self, member_id: u64) -> bool {
        let state = self.shared.state();
        state.published.read().removed.contains(&member_id)
    }

    /// All leases, ascending by id.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.shared.state().published.read().leases.all()
    }

    /// Up to `max` leases with ids above `after`, ascending: all of them page by page, so that whoever reads a
    /// hundred thousand never holds the writer up.
    #[must_use]
    pub fn leases_after(&self, after: Option<i64>, max: usize) -> Vec<LeaseInfo> {
        self.shared.state().published.read().leases.after(after, max)
    }

    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.shared.state().published.read().leases.len()
    }

    #[must_use]
    pub fn lease(&self, id: i64) -> Option<LeaseInfo> {
        self.shared.state().published.read().leases.get(id)
    }

    /// The keys attached to a lease, sorted.
    #[must_use]
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.shared.state().published.read().leases.keys(id)
    }

    /// How many keys are attached to a lease.
    #[must_use]
    pub fn lease_key_count(&self, id: i64) -> usize {
        self.shared.state().published.read().leases.key_count(id)
    }

    /// Tells every grant and revoke from now on, after it is applied: what the leader's deadlines follow.
    #[must_use]
    pub fn lease_feed(&self) -> LeaseFeed {
        self.shared.lease_feed.subscribe()
    }

    /// Users and roles as they are now.
    #[must_use]
    pub fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.shared.state().published.read().auth)
    }

    /// The join tokens that were made, and what became of them. No key of a client ever reaches them.
    #[must_use]
    pub fn join_tokens(&self) -> Arc<JoinTokens> {
        Arc::clone(&self.shared.state().published.read().join_tokens)
    }

    /// Certificates that are accepted no more. No key of a client ever reaches them.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.shared.state().published.read().revocations)
    }

    /// Receives every change of users, roles or of auth itself, after it is applied. The value counts changes; read
    /// [`Store::auth`] on each.
    #[must_use]
    pub fn auth_changes(&self) -> watch::Receiver<u64> {
        self.shared.auth_changes.subscribe()
    }

    /// Alarms raised, ascending by member.
    #[must_use]
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms_raised_by()
            .into_iter()
            .map(|(alarm, _)| alarm)
            .collect()
    }

    /// Alarms raised, ascending by member, with who raised each.
    #[must_use]
    pub fn alarms_raised_by(&self) -> Vec<(AlarmMember, RaisedBy)> {
        let state = self.shared.state();
        let published = state.published.read();
        published
            .alarms
            .iter()
            .map(|((member_id, alarm), raised_by)| {
                let alarm = AlarmMember {
                    member_id: *member_id,
                    alarm: *alarm,
                };
                (alarm, *raised_by)
            })
            .collect()
    }

    /// Reads the whole history: call it where blocking is fine.
    ///
    /// # Errors
    /// As for [`Store::range`]. `revision` 0: the current one.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let pin = Pin::new(self.shared.state());
        let state = pin.state();
        let current = state.published.read().revision;
        let hash_revision = match revision {
            ..=0 => current,
            _ if revision > current => return Err(ReadError::FutureRevision),
            _ if revision < pin.revision() => return Err(ReadError::Compacted),
            _ => revision,
        };
        let hash =
            mvcc::hash(&state.backend, &state.index, pin.revision(), hash_revision).map_err(|error| {
                tracing::error!(error = %io::Error::from(error), "a read failed");
                ReadError::Failed
            })?;
        Ok(HashKv {
            hash,
            hash_revision,
            compact_revision: pin.revision(),
        })
    }

    /// Bytes of everything that is not compacted: the same on all members, and what a quota is about.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.shared.state().published.read().live_bytes
    }

    /// Completes once all that is compacted is also removed from the store.
    pub async fn wait_swept(&self) {
        let state = self.shared.state();
        let mut ended = state.sweeper.ended();
        while !state.sweeper.is_done(&state.index) {
            // It fails only when the sender is gone, which the state holds.
            let _ = ended.changed().await;
        }
    }

    /// Receives the positions at which the log asks for the store's hash. The last caller gets them; one that is
    /// slow misses some.
    #[must_use]
    pub fn hash_points(&self) -> mpsc::Receiver<HashPoint> {
        let (sender, receiver) = mpsc::channel(HASH_POINTS);
        *self.shared.hash_points.lock() = Some(sender);
        receiver
    }

    /// Bytes on disk, and bytes of live data.
    #[must_use]
    pub fn size_bytes(&self) -> (u64, u64) {
        let state = self.shared.state();
        let live = state.published.read().live_bytes;
        (state.backend.size_on_disk().unwrap_or_default(), live)
    }

    /// Subscribes to changes.
    #[must_use]
    pub fn watch_hub(&self) -> &WatchHub {
        &self.shared.hub
    }

    /// Where a snapshot sent by the leader is written while it arrives.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn receive_snapshot(&self) -> io::Result<SnapshotReceiver> {
        Ok(SnapshotReceiver::create(self.shared.snapshots.dir())?)
    }

    /// Writes a consistent snapshot of the applied state beside the current one, for a client to save. The file
    /// is deleted when the handle is dropped.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn export_snapshot(&self) -> io::Result<SnapshotFile> {
        let shared = Arc::clone(&self.shared);
        let write = move || Capture::take(shared.state()).write(shared.snapshots.dir());
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)?
    }
}

impl Shared {
    /// With the writer's end of its watch hub.
    pub(crate) fn new(
        state: Arc<State>,
        snapshots: Snapshots,
        watch_buffer_events: usize,
    ) -> (Arc<Shared>, Publisher) {
        let (revision, applied) = {
            let published = state.published.read();
            (published.revision, published.applied.map(|id| id.index()))
        };
        let mut writer = None;
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| {
            let (hub, publisher) = hub::watch_hub(shared.clone(), revision, watch_buffer_events);
            writer = Some(publisher);
            Shared {
                state: RwLock::new(state),
                snapshots: Arc::new(snapshots),
                hub,
                applied: watch::Sender::new(applied),
                lease_feed: LeaseFeedSender::new(),
                auth_changes: watch::Sender::new(0),
                hash_points: Mutex::new(None),
            }
        });
        (shared, writer.expect("set by the closure, which has run"))
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Goes on with what a former process left to sweep.
    pub(crate) fn resume(&self) {
        Sweeper::start(&self.state());
    }

    /// A chunk was published: wakes who waits for it.
    pub(crate) fn applied(&self, committed: Committed) {
        self.tell_applied();
        self.lease_feed.tell(committed.leases);
        if committed.auth_changed {
            self.tell_auth_changed();
        }
    }

    /// Hands a hash point to whoever hashes; dropped where nobody does, or is too slow.
    pub(crate) fn offer_hash_point(&self, point: HashPoint) {
        if let Some(sender) = &*self.hash_points.lock() {
            let _ = sender.try_send(point);
        }
    }

    fn tell_auth_changed(&self) {
        self.auth_changes.send_modify(|changes| *changes += 1);
    }

    /// Puts another state in service. Returns the former one.
    pub(crate) fn replace(&self, state: Arc<State>) -> Arc<State> {
        let former = std::mem::replace(&mut *self.state.write(), state);
        self.tell_applied();
        self.lease_feed.tell_replaced();
        self.tell_auth_changed();
        former
    }

    fn tell_applied(&self) {
        let applied = self.state.read().published.read().applied.map(|id| id.index());
        self.applied.send_replace(applied);
    }
}

impl History for Shared {
    fn current_revision(&self) -> i64 {
        self.state().published.read().revision
    }

    fn compacted_revision(&self) -> i64 {
        self.state().published.read().compacted
    }

    fn events(&self, query: &HistoryQuery<'_>) -> Result<HistoryEvents, HistoryError> {
        let state = self.state();
        let compacted = state.published.read().compacted;
        let events = mvcc::events(&state.backend, &state.index, compacted, query);
        // Looked at last: what is above it now was not swept while we read.
        let compact_revision = state.published.read().compacted;
        if query.from < compact_revision {
            return Err(HistoryError::Compacted { compact_revision });
        }
        events.map_err(|error| {
            tracing::error!(error = %io::Error::from(error), "a watcher's read failed");
            HistoryError::Failed
        })
    }
}
