//! Who the members are, and changing that.
//!
//! A change may be asked of any member; the leader's [`MembershipTask`](super::member_task::MembershipTask) makes
//! it, one at a time.

use openraft::async_runtime::watch::WatchReceiver;
use proto::etcdserverpb::Member;
use proto::peer::{self, MemberChange, MemberRefusal, MembersChanged, forward_request, forward_response};
use raft_store::StoredMembership;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::forward::ForwardError;
use super::member_task::{ChangeError, MemberCommand};
use super::{Node, NodeError};

/// Why the membership was not changed, or is not known to be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemberError {
    /// Nothing was changed.
    #[error("{0:?}")]
    Refused(MemberRefusal),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// One attempt at a change.
enum Attempt {
    Done(MembersChanged),
    Refused(MemberRefusal),
    /// Nothing was changed: try again where the leader is now.
    NotLeader,
    /// It may still happen.
    Unknown,
}

impl Node {
    /// The members as etcd shows them, ascending by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let membership = self.known_membership();
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, node)| {
                let published = self.inner.store.member_attributes(*id);
                Member {
                    id: *id,
                    name: published
                        .as_ref()
                        .map_or_else(|| node.name.clone(), |member| member.name.clone()),
                    peer_ur_ls: node.peer_urls.clone(),
                    client_ur_ls: published
                        .map(|attributes| attributes.client_urls)
                        .unwrap_or_default(),
                    is_learner: !voters.contains(id) && !node.to_be_voter,
                }
            })
            .collect()
    }

    /// The applied membership; before any is applied, the one in the log.
    fn known_membership(&self) -> StoredMembership {
        let applied = self.inner.store.membership();
        if applied.membership().nodes().next().is_some() {
            return applied;
        }
        let metrics = self.inner.raft.server_metrics();
        let effective = metrics.borrow_watched().membership_config.clone();
        StoredMembership::clone(&effective)
    }

    /// The first URL at which peers reach a member.
    pub(super) fn peer_url(&self, id: u64) -> Option<String> {
        let metrics = self.inner.raft.server_metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership
            .get_node(&id)
            .and_then(|node| node.peer_urls.first().cloned())
    }

    /// The other voters, the one whose log is furthest along first; none unless this member leads.
    pub(super) fn successors(&self) -> Vec<u64> {
        let replicated_to = self.replicated_to();
        let mut voters: Vec<u64> = self.inner.raft.voter_ids().collect();
        voters.retain(|id| *id != self.member_id() && replicated_to.contains_key(id));
        voters.sort_by_key(|id| std::cmp::Reverse(replicated_to.get(id).copied()));
        voters
    }

    /// Changes the membership, through the leader wherever it is.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<MembersChanged, MemberError> {
        let deadline = Instant::now() + self.inner.timeouts.request;
        let answered = async {
            loop {
                let view = self.view();
                let attempt = if view.leader == self.member_id() {
                    self.change_here(change.clone()).await
                } else if view.leader != 0 {
                    self.change_at(view.leader, change.clone()).await
                } else {
                    Attempt::NotLeader
                };
                match attempt {
                    Attempt::Done(changed) => {
                        // Whoever asked here looks here; a member that is removed is not told of it.
                        if changed.members.iter().any(|member| member.id == self.member_id()) {
                            self.inner.store.wait_applied(changed.log_index).await;
                        }
                        return Ok(changed);
                    }
                    Attempt::Refused(refusal) => return Err(MemberError::Refused(refusal)),
                    Attempt::Unknown => return Err(NodeError::LeaderChanged.into()),
                    Attempt::NotLeader => self.wait_for_leader(view).await,
                }
            }
        };
        timeout_at(deadline, answered)
            .await
            .unwrap_or(Err(NodeError::Timeout.into()))
    }

    async fn change_here(&self, change: MemberChange) -> Attempt {
        let (answer, outcome) = oneshot::channel();
        let command = MemberCommand { change, answer };
        if self.inner.member_changes.send(command).await.is_err() {
            return Attempt::NotLeader;
        }
        match outcome.await {
            Ok(Ok(changed)) => Attempt::Done(changed),
            Ok(Err(ChangeError::Refused(refusal))) => Attempt::Refused(refusal),
            Ok(Err(ChangeError::NotLeader)) => Attempt::NotLeader,
            Ok(Err(ChangeError::Unknown)) | Err(_) => Attempt::Unknown,
        }
    }

    async fn change_at(&self, leader: u64, change: MemberChange) -> Attempt {
        let request = forward_request::Request::MemberChange(change);
        match self.forward(leader, request).await {
            Ok(forward_response::Response::MembersChanged(changed)) => Attempt::Done(changed),
            Ok(forward_response::Response::MemberRefused(refusal)) => {
                Attempt::Refused(MemberRefusal::try_from(refusal).unwrap_or_default())
            }
            Ok(forward_response::Response::NotLeader(_)) | Err(ForwardError::NotSent) => Attempt::NotLeader,
            Ok(_) | Err(ForwardError::Lost) => Attempt::Unknown,
        }
    }

    /// The leader's part of a change that another member was asked for.
    pub(super) async fn change_for_peer(&self, change: MemberChange) -> forward_response::Response {
        if !self.leads() {
            return self.not_leader();
        }
        match self.change_here(change).await {
            Attempt::Done(changed) => forward_response::Response::MembersChanged(changed),
            Attempt::Refused(refusal) => forward_response::Response::MemberRefused(refusal.into()),
            Attempt::NotLeader => self.not_leader(),
            Attempt::Unknown => forward_response::Response::OutcomeUnknown(proto::replicated::Empty {}),
        }
    }

    pub(super) fn not_leader(&self) -> forward_response::Response {
        forward_response::Response::NotLeader(peer::NotLeader {
            leader_id: self.view().leader,
        })
    }
}
