//! The member: proposes, reads at the leader's commit, follows the membership.

use proto::etcdserverpb::Member;
use proto::replicated::{Reply, request::Op};
use raft_store::Store;
use thiserror::Error;
use tokio::sync::watch;

/// Cloneable handle of the running member.
#[derive(Clone, Debug)]
pub struct Node;

/// Why a request to the member has no answer. All are transient but [`NodeError::Stopped`]; none says that the
/// request had no effect, unless its text does.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NodeError {
    /// No answer within the request timeout; a write may still be applied later.
    #[error("request timed out")]
    Timeout,
    /// No leader is known now: nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way; a write may still be applied.
    #[error("leader changed")]
    LeaderChanged,
    /// Too much is in flight already: nothing was proposed.
    #[error("too many requests")]
    TooManyRequests,
    /// `move_leader` asked of a member that does not lead.
    #[error("not leader")]
    NotLeader,
    /// `move_leader` to a member that is no voter.
    #[error("bad leader transferee")]
    BadTransferee,
    /// No such lease.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The member is stopping.
    #[error("stopped")]
    Stopped,
}

/// What this member sees of the Raft group now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    pub term: u64,
    /// 0: none known.
    pub leader: u64,
    /// Index of the last committed entry this member knows of.
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

impl Node {
    #[must_use]
    pub fn member_id(&self) -> u64 {
        todo!()
    }

    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        todo!()
    }

    /// This member's name, which is its host's.
    #[must_use]
    pub fn name(&self) -> &str {
        todo!()
    }

    /// The local applied state.
    #[must_use]
    pub fn store(&self) -> &Store {
        todo!()
    }

    /// Replicates one request, through the leader wherever it is, and returns what apply answered. A refusal by
    /// apply is an `Ok` whose result is `Refused`.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn propose(&self, _op: Op) -> Result<Reply, NodeError> {
        todo!()
    }

    /// Completes once the local state has everything that was committed when this was called: what makes a read
    /// linearizable.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn read_index(&self) -> Result<(), NodeError> {
        todo!()
    }

    /// Renews a lease at the leader; its TTL in seconds, or 0 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_keep_alive(&self, _id: i64) -> Result<i64, NodeError> {
        todo!()
    }

    /// Seconds a lease has left, asked of the leader; -1 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_time_to_live(&self, _id: i64) -> Result<i64, NodeError> {
        todo!()
    }

    /// A random positive lease id that is not taken.
    #[must_use]
    pub fn new_lease_id(&self) -> i64 {
        todo!()
    }

    /// The smallest TTL a lease may have, in seconds.
    #[must_use]
    pub fn min_lease_ttl_seconds(&self) -> i64 {
        todo!()
    }

    /// Hands leadership to a voter.
    ///
    /// # Errors
    /// [`NodeError::NotLeader`], [`NodeError::BadTransferee`], [`NodeError::Timeout`].
    pub async fn move_leader(&self, _target: u64) -> Result<(), NodeError> {
        todo!()
    }

    /// What this member sees of the group; the receiver changes whenever that does.
    #[must_use]
    pub fn raft_view(&self) -> watch::Receiver<RaftView> {
        todo!()
    }

    /// The members as etcd shows them, ascending by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }
}
