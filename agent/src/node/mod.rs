//! The member: proposes, reads at the leader's commit, follows the membership, keeps leases alive.
//!
//! [`Node`] is the handle that the API and the reconciler hold. [`bootstrap`] opens what is on disk and starts
//! Raft; the tasks it returns are spawned by the server. This module knows no gRPC status and no HTTP.

mod auto_compaction;
pub mod bootstrap;
mod corruption;
mod describe;
mod form;
mod forward;
pub mod identity;
mod join;
pub(crate) mod join_tokens;
mod leases;
mod member_rules;
mod member_task;
mod membership;
mod propose;
mod read_index;
mod removal;
mod space;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft_store::wal::Identity;
use raft_store::{StateMachine, Store, TypeConfig};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};

pub use auto_compaction::{AutoCompaction, Retention};
pub use bootstrap::{NodeOptions, NodeTasks, StartError};
pub use join::Candidate;
pub use join_tokens::{JoinRefusal, TokenError};
pub use membership::MemberError;
pub use propose::Author;
pub use space::SpaceTask;
pub use view::RaftView;

use crate::peer::Dialer;

/// openraft, as this project runs it.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Cloneable handle of the running member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    name: String,
    timeouts: Timeouts,
    raft: Raft,
    store: Store,
    view: watch::Receiver<RaftView>,
    forwarder: forward::Forwarder,
    dialer: Dialer,
    read_rounds: mpsc::Sender<read_index::Waiter>,
    leases: mpsc::Sender<leases::LeaseCommand>,
    member_changes: mpsc::Sender<member_task::MemberCommand>,
    stopping: AtomicBool,
    /// Bounds the proposals of this member's clients that are under way.
    in_flight: Semaphore,
    space: space::Space,
    /// What members found at hash checks, for the leader to compare.
    hashes: mpsc::Sender<proto::peer::StoreHash>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub election: Duration,
    /// From a client's request to its answer.
    pub request: Duration,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} {:x})", self.inner.name, self.inner.identity.member_id)
    }
}

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
    /// The quota is used up, or the disk nearly full: nothing was proposed.
    #[error("no space")]
    NoSpace,
    /// No such lease.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The member is stopping.
    #[error("stopped")]
    Stopped,
}

impl Node {
    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.inner.identity.member_id
    }

    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.inner.identity.cluster_id
    }

    /// This member's name, which is its host's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The local applied state.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What this member sees of the group; the receiver changes whenever that does.
    #[must_use]
    pub fn raft_view(&self) -> watch::Receiver<RaftView> {
        self.inner.view.clone()
    }

    /// How long elections and requests may take.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.inner.timeouts
    }

    /// From now on nobody should hand leadership to this member.
    pub fn announce_stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// How the other members are reached.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    pub(crate) fn knows_a_leader(&self) -> bool {
        self.view().leader != 0
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    fn view(&self) -> RaftView {
        *self.inner.view.borrow()
    }

    fn leads(&self) -> bool {
        self.view().leader == self.member_id()
    }

    /// Waits until what is known of the leader changes, or a moment: a leader that has lost its quorum's
    /// lease refuses proposals without any change of view.
    async fn wait_for_leader(&self, seen: RaftView) {
        const MOMENT: Duration = Duration::from_millis(20);
        let mut view = self.inner.view.clone();
        let changed = view.wait_for(|now| (now.leader, now.term) != (seen.leader, seen.term));
        // Both outcomes lead to the same: the caller looks again.
        let _ = tokio::time::timeout(MOMENT, changed).await;
    }
}
