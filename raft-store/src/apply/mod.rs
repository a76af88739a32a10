//! Applying replicated requests: the one place where the store changes.
//!
//! Every member applies the same entries in the same order and must end with the same state: nothing here reads a
//! clock, a random number, the environment, or walks a hash map. A request is checked on the path it takes before it
//! writes anything, so a refusal leaves no trace; it is an answer, replicated like any other. A storage failure is
//! not an answer: it stops the member.
//!
//! Entries are applied in chunks. [`Applier::apply`] collects changes that only later entries see;
//! [`Applier::commit`] writes them in one batch with the applied id, then publishes them to readers.

mod admin;
mod auth;
mod growth;
mod join_token;
mod kv;
mod lease;
mod revocation;
mod txn;

use std::sync::Arc;

use openraft::EntryPayload;
use prost::Message;
use proto::etcdserverpb::{AlarmType, CompactionResponse};
use proto::replicated::{Empty, Refusal, Reply, Request, reply, request::Op};

pub use self::growth::growth_bytes;

use self::lease::LeaseWriter;
use crate::auth::Auth;
use crate::backend::{BackendError, Batch};
use crate::hash_check::HashPoint;
use crate::join_tokens::JoinTokens;
use crate::lease::LeaseEvent;
use crate::mvcc::{ReadFailure, Sweeper, Writer};
use crate::raft_types::{Command, Entry, LogId, StoredMembership};
use crate::revocations::Revocations;
use crate::schema;
use crate::state::{self, Alarms, Members, RaisedBy, Removed, State};
use crate::watch::Publisher;

/// Why a request was not applied.
#[derive(Debug)]
enum ApplyError {
    Refused(Refusal),
    Failed(BackendError),
}

impl ApplyError {
    /// A read that apply made has no answer.
    fn from_read(failure: ReadFailure, state: &State) -> ApplyError {
        match failure {
            ReadFailure::Compacted => ApplyError::Refused(Refusal::Compacted),
            ReadFailure::Future => ApplyError::Refused(Refusal::FutureRevision),
            gone @ ReadFailure::Gone(_) => ApplyError::Failed(state.backend.damaged(gone.to_string())),
            ReadFailure::Backend(error) => ApplyError::Failed(error),
        }
    }
}

/// What a chunk changed beside keys.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// Leases that came or went, in order.
    pub(crate) leases: Vec<LeaseEvent>,
    pub(crate) auth_changed: bool,
}

/// The writer of the state, with all that apply decides by.
pub(crate) struct Applier {
    state: Arc<State>,
    writer: Writer,
    batch: Batch,
    leases: LeaseWriter,
    alarms: Alarms,
    members: Members,
    auth: Arc<Auth>,
    removed: Removed,
    join_tokens: Arc<JoinTokens>,
    revocations: Arc<Revocations>,
    applied: Option<LogId>,
    membership: StoredMembership,
    hash_points: Vec<HashPoint>,
}

impl Applier {
    /// Goes on from what `state` has published.
    pub(crate) fn new(state: Arc<State>) -> Applier {
        let published = state.published.read().clone();
        Applier {
            writer: Writer::new(Arc::clone(&state)),
            state,
            batch: Batch::default(),
            leases: LeaseWriter::new(published.leases),
            alarms: published.alarms,
            members: published.members,
            auth: published.auth,
            removed: published.removed,
            join_tokens: published.join_tokens,
            revocations: published.revocations,
            applied: published.applied,
            membership: published.membership,
            hash_points: Vec::new(),
        }
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    pub(crate) fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// Begins a chunk.
    pub(crate) fn begin(&mut self, publisher: &Publisher) {
        self.writer.want_previous(publisher.wants_prev_kv());
    }

    /// Applies one entry. Readers see nothing of it before [`Applier::commit`].
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Reply, BackendError> {
        self.applied = Some(entry.log_id);
        let result = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.set_membership(StoredMembership::new(Some(entry.log_id), membership.clone()));
                None
            }
            EntryPayload::Normal(command) => Some(self.apply_command(command)?),
        };
        Ok(Reply {
            revision: self.writer.revision(),
            result,
        })
    }

    /// Writes the chunk, publishes it, and tells watchers.
    pub(crate) fn commit(&mut self, publisher: &Publisher) -> Result<Committed, BackendError> {
        if let Some(applied) = &self.applied {
            self.batch
                .put(schema::META_APPLIED, state::encode_applied(applied));
        }
        self.state.backend.write(std::mem::take(&mut self.batch))?;

        let lease_changes = self.leases.take_changes();
        let auth_changed;
        let compacted = {
            let mut published = self.state.published.write();
            let compacted = self.writer.compacted() > published.compacted;
            published.revision = self.writer.revision();
            published.compacted = self.writer.compacted();
            published.live_bytes = self.writer.live_bytes();
            published.applied = self.applied;
            if published.membership != self.membership {
                published.membership = self.membership.clone();
            }
            for change in &lease_changes {
                published.leases.change(change);
            }
            if published.alarms != self.alarms {
                published.alarms = self.alarms.clone();
            }
            if published.members != self.members {
                published.members = self.members.clone();
            }
            auth_changed = !Arc::ptr_eq(&published.auth, &self.auth);
            if auth_changed {
                published.auth = Arc::clone(&self.auth);
            }
            if published.removed != self.removed {
                published.removed = self.removed.clone();
            }
            if !Arc::ptr_eq(&published.join_tokens, &self.join_tokens) {
                published.join_tokens = Arc::clone(&self.join_tokens);
            }
            if !Arc::ptr_eq(&published.revocations, &self.revocations) {
                published.revocations = Arc::clone(&self.revocations);
            }
            compacted
        };
        for (revision, events) in self.writer.take_events() {
            publisher.publish(revision, events);
        }
        if compacted {
            Sweeper::start(&self.state);
        }
        Ok(Committed {
            leases: lease_changes.iter().filter_map(lease::event).collect(),
            auth_changed,
        })
    }

    /// Where the chunk asks for the store's hash. To be taken once it is committed.
    pub(crate) fn take_hash_points(&mut self) -> Vec<HashPoint> {
        std::mem::take(&mut self.hash_points)
    }

    fn apply_command(&mut self, command: &Command) -> Result<reply::Result, BackendError> {
        // An undecodable request comes from a newer member: every member of this version answers the same.
        let result = match Request::decode(command.0.clone()) {
            Ok(Request {
                user,
                auth_revision,
                op: Some(op),
            }) => match self.permits(&user, auth_revision, &op) {
                Ok(()) => self.apply_op(op, raised_by(&user, auth_revision)),
                Err(refusal) => Err(ApplyError::Refused(refusal)),
            },
            _ => Err(ApplyError::Refused(Refusal::UnknownRequest)),
        };
        match result {
            Ok(result) => Ok(result),
            Err(ApplyError::Refused(refusal)) => Ok(reply::Result::Refused(refusal.into())),
            Err(ApplyError::Failed(error)) => Err(error),
        }
    }

    /// Whether a request may be applied at all: who asks is checked at its own position in the log.
    fn permits(&self, user: &str, auth_revision: u64, op: &Op) -> Result<(), Refusal> {
        self.auth
            .authorise(user, auth_revision, op, self.leases.table())?;
        self.forbids(op).map_or(Ok(()), Err)
    }

    /// The one match on the replicated request. `asked_by`: who raises an alarm by it.
    fn apply_op(&mut self, op: Op, asked_by: RaisedBy) -> Result<reply::Result, ApplyError> {
        match op {
            Op::Put(request) => self.put(&request).map(reply::Result::Put),
            Op::DeleteRange(request) => self.delete_range(&request).map(reply::Result::DeleteRange),
            Op::Txn(request) => self.txn(&request).map(reply::Result::Txn),
            Op::Compact(request) => self
                .writer
                .compact(request.revision, &mut self.batch)
                .map(|()| reply::Result::Compact(CompactionResponse { header: None }))
                .map_err(|failure| ApplyError::from_read(failure, &self.state)),
            Op::LeaseGrant(request) => self.lease_grant(&request).map(reply::Result::LeaseGrant),
            Op::LeaseRevoke(request) => self.lease_revoke(&request).map(reply::Result::LeaseRevoke),
            Op::LeaseExpire(request) => self.lease_expire(&request).map(reply::Result::LeaseExpire),
            Op::LeaseCheckpoints(request) => {
                Ok(reply::Result::LeaseCheckpoints(self.lease_checkpoints(&request)))
            }
            Op::LeaseCheckpoint(request) => {
                Ok(reply::Result::LeaseCheckpoint(self.lease_checkpoint(&request)))
            }
            Op::Alarm(request) => Ok(reply::Result::Alarm(self.alarm(&request, asked_by))),
            Op::PublishMember(request) => Ok(reply::Result::PublishMember(self.publish_member(request))),
            Op::Auth(change) => self.change_auth(change).map(reply::Result::Auth),
            Op::HashCheck(Empty {}) => {
                self.hash_check();
                Ok(reply::Result::HashCheck(Empty {}))
            }
            Op::JoinToken(change) => self.change_join_token(change).map(reply::Result::JoinToken),
            Op::Revocation(change) => self.change_revocations(change).map(reply::Result::Revocation),
        }
    }

    /// Why an alarm forbids a request, whoever asks. Only what is replicated decides: a member's own quota and its own
    /// disk are its API's to look at.
    fn forbids(&self, op: &Op) -> Option<Refusal> {
        if self.alarms.is_empty() {
            return None;
        }
        let raised = |alarm: AlarmType| self.alarms.keys().any(|(_, raised)| *raised == i32::from(alarm));
        let changes_data = match op {
            Op::Put(_)
            | Op::DeleteRange(_)
            | Op::Compact(_)
            | Op::LeaseGrant(_)
            | Op::LeaseRevoke(_)
            | Op::LeaseExpire(_) => true,
            Op::Txn(request) => crate::txn::ranges_only(request).is_none(),
            _ => false,
        };
        if changes_data && raised(AlarmType::Corrupt) {
            return Some(Refusal::Corrupt);
        }
        (growth_bytes(op) > 0 && raised(AlarmType::Nospace)).then_some(Refusal::NoSpace)
    }
}

/// The members themselves name no user, and no revision that one was checked at.
fn raised_by(user: &str, auth_revision: u64) -> RaisedBy {
    if user.is_empty() && auth_revision == 0 {
        RaisedBy::Members
    } else {
        RaisedBy::Client
    }
}
