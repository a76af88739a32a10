//! Lease deadlines. Only the leader keeps them; the store knows ids, TTLs and keys, and no time.
//!
//! A new leader starts every lease at its TTL, or at what the last checkpoint left of it: a deadline is extended by a
//! change of leader, never shortened. What runs out is revoked by proposals that count in the leader's own term only:
//! a leader that no longer leads cannot revoke what another has renewed. [`keeper`] is the task, [`deadlines`] what
//! it knows.

mod deadlines;
mod keeper;

use std::time::Duration;

use proto::peer::{forward_request, forward_response};
use proto::replicated::{Reply, Request, request::Op};
use rand::Rng;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::propose::Attempt;
use super::{Node, NodeError};
pub(super) use keeper::LeaseTask;

/// Questions to the keeper that may wait.
pub(super) const QUEUED: usize = 4096;

/// How long a clean handover may wait for what is left of the leases to be written down.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(1);

/// A question to the leader's keeper. No answer: this member does not lead.
#[derive(Debug)]
pub(super) enum LeaseCommand {
    /// Starts the TTL anew; answers it in seconds, 0 for no such lease.
    KeepAlive { id: i64, answer: oneshot::Sender<i64> },
    /// Answers the seconds that are left, -1 for no such lease.
    TimeToLive { id: i64, answer: oneshot::Sender<i64> },
    /// Writes down what every long lease has left; answers when that is applied.
    Checkpoint { answer: oneshot::Sender<()> },
}

impl Node {
    /// Renews a lease at the leader; its TTL in seconds, or 0 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_keep_alive(&self, id: i64) -> Result<i64, NodeError> {
        self.ask_leases(forward_request::Request::LeaseKeepAlive(id))
            .await
    }

    /// Seconds a lease has left, asked of the leader; -1 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_time_to_live(&self, id: i64) -> Result<i64, NodeError> {
        self.ask_leases(forward_request::Request::LeaseTimeToLive(id))
            .await
    }

    async fn ask_leases(&self, request: forward_request::Request) -> Result<i64, NodeError> {
        let deadline = Instant::now() + self.inner.timeouts.request;
        let asking = async {
            loop {
                let view = self.view();
                let answer = if view.leader == self.member_id() {
                    Some(self.start_forwarded(request.clone()).await.await)
                } else if view.leader != 0 {
                    // Both questions may be asked twice: a lost answer is asked again.
                    self.forward(view.leader, request.clone()).await.ok()
                } else {
                    None
                };
                match answer {
                    Some(forward_response::Response::LeaseTtlSeconds(ttl)) => return ttl,
                    _ => self.wait_for_leader(view).await,
                }
            }
        };
        timeout_at(deadline, asking).await.map_err(|_| NodeError::Timeout)
    }

    /// The leader's part of a keep-alive: it makes sure that it leads first, so that a lease which another
    /// leader has revoked is never reported alive.
    pub(super) async fn lease_keep_alive_here(&self, id: i64) -> Result<i64, NodeError> {
        let index = self.read_round_here().await?;
        self.inner.store.wait_applied(index).await;
        self.ask_keeper(|answer| LeaseCommand::KeepAlive { id, answer })
            .await
    }

    pub(super) async fn lease_time_to_live_here(&self, id: i64) -> Result<i64, NodeError> {
        let index = self.read_round_here().await?;
        self.inner.store.wait_applied(index).await;
        self.ask_keeper(|answer| LeaseCommand::TimeToLive { id, answer })
            .await
    }

    async fn ask_keeper<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> LeaseCommand,
    ) -> Result<T, NodeError> {
        let (answer, receiver) = oneshot::channel();
        self.inner
            .leases
            .send(command(answer))
            .await
            .map_err(|_| NodeError::Stopped)?;
        receiver.await.map_err(|_| NodeError::NotLeader)
    }

    /// Before leadership is given away: the successor starts from what is left of the leases.
    pub(super) async fn checkpoint_leases(&self) {
        let checkpointed = self.ask_keeper(|answer| LeaseCommand::Checkpoint { answer });
        if !matches!(timeout(HANDOVER_PATIENCE, checkpointed).await, Ok(Ok(()))) {
            tracing::warn!("what is left of the leases is not written down in time; their TTLs start anew");
        }
    }

    /// Proposes what only this member, as the leader that it is now, may decide: it is never forwarded. `None`: not
    /// proposed, or the outcome is not known in time.
    async fn propose_as_leader(&self, op: Op) -> Option<Reply> {
        let request = Request {
            op: Some(op),
            ..Request::default()
        };
        let command = raft_store::Command(prost::Message::encode_to_vec(&request).into());
        let outcome = self.propose_here(command).await.ok()?;
        match timeout(self.inner.timeouts.request, outcome).await {
            Ok(Attempt::Applied { reply, .. }) => Some(*reply),
            Ok(Attempt::NotProposed | Attempt::OutcomeUnknown) | Err(_) => None,
        }
    }

    /// A random positive lease id that is not taken.
    #[must_use]
    pub fn new_lease_id(&self) -> i64 {
        let mut random = rand::rng();
        loop {
            let id = random.random_range(1..=i64::MAX);
            if self.inner.store.lease(id).is_none() {
                return id;
            }
        }
    }

    /// The smallest TTL a lease may have: one and a half election timeouts, in whole seconds.
    #[must_use]
    pub fn min_lease_ttl_seconds(&self) -> i64 {
        let millis = self.inner.timeouts.election.as_millis() * 3 / 2;
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}
