//! Proposals: to the local leader, or through the forwarding stream to the remote one.

use std::time::Duration;

use futures::future::BoxFuture;
use openraft::error::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use prost::Message;
use proto::peer::{self, forward_request, forward_response};
use proto::replicated::{Reply, Request, request::Op};
use raft_store::{Command, TypeConfig};
use tokio::time::{Instant, timeout_at};

use super::forward::ForwardError;
use super::{Node, NodeError, join_tokens};

/// One attempt to have a command applied.
pub(super) enum Attempt {
    Applied {
        reply: Box<Reply>,
        log_index: u64,
    },
    /// Surely not in any log: try again where the leader is now.
    NotProposed,
    /// In a log that may or may not win.
    OutcomeUnknown,
}

/// In whose name a request is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    user: String,
    auth_revision: u64,
}

impl Author {
    /// The cluster itself, which may do everything.
    pub const CLUSTER: Author = Author {
        user: String::new(),
        auth_revision: 0,
    };

    /// A client; without a name where auth is off. `auth_revision` is the one at which it was checked: apply checks
    /// again. A client is never taken for the cluster, which has no revision.
    #[must_use]
    pub fn client(user: String, auth_revision: u64) -> Author {
        Author {
            user,
            auth_revision: auth_revision.max(1),
        }
    }

    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    #[must_use]
    pub fn auth_revision(&self) -> u64 {
        self.auth_revision
    }
}

impl Node {
    /// Replicates one request of the cluster's own. As for [`Node::propose_as`].
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn propose(&self, op: Op) -> Result<Reply, NodeError> {
        self.propose_as(&Author::CLUSTER, op).await
    }

    /// Replicates one request, through the leader wherever it is, and returns what apply answered. A refusal by
    /// apply is an `Ok` whose result is `Refused`.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn propose_as(&self, author: &Author, op: Op) -> Result<Reply, NodeError> {
        let _place = self
            .inner
            .in_flight
            .try_acquire()
            .map_err(|_| NodeError::TooManyRequests)?;
        let request = Request {
            user: author.user.clone(),
            auth_revision: author.auth_revision,
            op: Some(op),
        };
        let command = Command(request.encode_to_vec().into());
        let deadline = Instant::now() + self.inner.timeouts.request;
        match timeout_at(deadline, self.propose_until_answered(command)).await {
            Ok(answer) => answer,
            Err(_) => Err(NodeError::Timeout),
        }
    }

    async fn propose_until_answered(&self, command: Command) -> Result<Reply, NodeError> {
        loop {
            let view = self.view();
            let attempt = if view.leader == self.member_id() {
                self.propose_here(command.clone()).await?.await
            } else if view.leader != 0 {
                self.propose_at(view.leader, command.clone()).await
            } else {
                Attempt::NotProposed
            };
            match attempt {
                Attempt::Applied { reply, .. } => return Ok(*reply),
                Attempt::OutcomeUnknown => return Err(NodeError::LeaderChanged),
                Attempt::NotProposed => self.wait_for_leader(view).await,
            }
        }
    }

    /// Hands the command to the local Raft; the future completes with the outcome.
    pub(super) async fn propose_here(
        &self,
        command: Command,
    ) -> Result<impl Future<Output = Attempt> + Send + use<>, NodeError> {
        let (responder, outcome) =
            ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
        self.inner
            .raft
            .client_write_ff(command, Some(responder))
            .await
            .map_err(|_| NodeError::Stopped)?;
        Ok(async move {
            match outcome.await {
                Ok(Ok(response)) => Attempt::Applied {
                    log_index: response.log_id.index(),
                    reply: Box::new(response.data),
                },
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Attempt::NotProposed,
                // Discarded entries may survive in another's log; a closed channel says that Raft stopped.
                Ok(Err(_)) | Err(_) => Attempt::OutcomeUnknown,
            }
        })
    }

    async fn propose_at(&self, leader: u64, command: Command) -> Attempt {
        self.attempt_at(leader, forward_request::Request::Propose(command.0))
            .await
    }

    /// Has the leader propose what a request says.
    pub(super) async fn attempt_at(&self, leader: u64, request: forward_request::Request) -> Attempt {
        match self.forward(leader, request).await {
            Ok(forward_response::Response::Applied(peer::Applied {
                reply: Some(reply),
                log_index,
            })) => {
                // Applied by the leader: whoever asked here reads and watches here.
                self.inner.store.wait_applied(log_index).await;
                Attempt::Applied {
                    reply: Box::new(reply),
                    log_index,
                }
            }
            Ok(forward_response::Response::NotLeader(_)) | Err(ForwardError::NotSent) => Attempt::NotProposed,
            Ok(_) | Err(ForwardError::Lost) => Attempt::OutcomeUnknown,
        }
    }

    /// Takes up a follower's request. A proposal has reached Raft when this returns, so that one follower's
    /// proposals keep their order; the future completes with the answer.
    pub(crate) async fn start_forwarded(
        &self,
        request: forward_request::Request,
    ) -> BoxFuture<'static, forward_response::Response> {
        let node = self.clone();
        match request {
            forward_request::Request::Propose(bytes) => self.propose_for_peer(Command(bytes)).await,
            forward_request::Request::JoinToken(bytes) => {
                match Request::decode(bytes).ok().and_then(join_tokens::stamped) {
                    Some(command) => self.propose_for_peer(command).await,
                    None => Box::pin(async move { node.not_leader() }),
                }
            }
            forward_request::Request::ReadIndex(_) => Box::pin(async move {
                match node.read_round_here().await {
                    Ok(index) => forward_response::Response::ReadIndex(index),
                    Err(_) => node.not_leader(),
                }
            }),
            forward_request::Request::StoreHash(hash) => Box::pin(async move {
                match node.note_hash(hash) {
                    Ok(()) => forward_response::Response::StoreHashNoted(proto::replicated::Empty {}),
                    Err(_) => node.not_leader(),
                }
            }),
            forward_request::Request::LeaseKeepAlive(id) => Box::pin(async move {
                match node.lease_keep_alive_here(id).await {
                    Ok(ttl) => forward_response::Response::LeaseTtlSeconds(ttl),
                    Err(_) => node.not_leader(),
                }
            }),
            forward_request::Request::MemberChange(change) => {
                Box::pin(async move { node.change_for_peer(change).await })
            }
            forward_request::Request::Describe(_) => Box::pin(async move {
                match node.describe_here().await {
                    Ok(description) => forward_response::Response::Description(description),
                    Err(_) => node.not_leader(),
                }
            }),
            forward_request::Request::LeaseTimeToLive(id) => Box::pin(async move {
                match node.lease_time_to_live_here(id).await {
                    Ok(ttl) => forward_response::Response::LeaseTtlSeconds(ttl),
                    Err(_) => node.not_leader(),
                }
            }),
        }
    }

    async fn propose_for_peer(&self, command: Command) -> BoxFuture<'static, forward_response::Response> {
        let node = self.clone();
        let Ok(outcome) = self.propose_here(command).await else {
            return Box::pin(async move { node.not_leader() });
        };
        Box::pin(async move {
            match outcome.await {
                Attempt::Applied { reply, log_index } => forward_response::Response::Applied(peer::Applied {
                    reply: Some(*reply),
                    log_index,
                }),
                Attempt::NotProposed => node.not_leader(),
                Attempt::OutcomeUnknown => {
                    forward_response::Response::OutcomeUnknown(proto::replicated::Empty {})
                }
            }
        })
    }

    /// Hands leadership to a voter, and waits until that one leads.
    ///
    /// # Errors
    /// [`NodeError::NotLeader`], [`NodeError::BadTransferee`], [`NodeError::Timeout`].
    pub async fn move_leader(&self, target: u64) -> Result<(), NodeError> {
        if !self.leads() {
            return Err(NodeError::NotLeader);
        }
        if !self.inner.raft.voter_ids().any(|id| id == target) {
            return Err(NodeError::BadTransferee);
        }
        if target == self.member_id() {
            return Ok(());
        }
        self.checkpoint_leases().await;
        self.inner
            .raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|_| NodeError::Stopped)?;
        let mut view = self.inner.view.clone();
        let moved = view.wait_for(|view| view.leader == target);
        match tokio::time::timeout(self.inner.timeouts.request, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NodeError::Stopped),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// Gives leadership, if this member has it, to the voter that is furthest along of those that go on running.
    /// Where there is none, nobody is waited for.
    pub async fn hand_over_leadership(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        if !self.leads() {
            return;
        }
        let successors = self.successors();
        let answers = self.ask_others(self.inner.timeouts.election / 2).await;
        let goes_on = |id: &u64| {
            answers
                .iter()
                .any(|(other, answer)| other == id && !answer.stopping)
        };
        let Some(target) = successors.into_iter().find(goes_on) else {
            return;
        };
        tracing::info!(successor = format!("{target:x}"), "handing leadership over");
        if tokio::time::timeout(PATIENCE, self.move_leader(target))
            .await
            .is_err()
        {
            tracing::warn!("no successor took over in time; the others will elect one");
        }
    }
}
