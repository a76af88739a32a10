//! Linearizable reads: one confirmation of leadership serves every read that waits for it.

use openraft::ReadPolicy;
use proto::peer::{forward_request, forward_response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Node, NodeError};

/// Reads that may wait for the next round.
pub(super) const WAITING: usize = 16_384;

/// A read that waits for a round: told the log index that must be applied, or that the round failed.
pub(super) type Waiter = oneshot::Sender<Option<u64>>;

/// Runs the rounds one after the other: whoever asks during one is served by the next.
#[derive(Debug)]
pub struct ReadIndexTask {
    node: Node,
    waiters: mpsc::Receiver<Waiter>,
}

impl ReadIndexTask {
    pub(super) fn new(node: Node, waiters: mpsc::Receiver<Waiter>) -> Self {
        ReadIndexTask { node, waiters }
    }

    /// Runs until every handle of the node is gone.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.waiters.recv_many(&mut waiting, WAITING).await > 0 {
            let node = &self.node;
            let index = timeout(node.inner.timeouts.election, node.read_round())
                .await
                .unwrap_or_default();
            for waiter in waiting.drain(..) {
                // The reader may have given up.
                let _ = waiter.send(index);
            }
        }
    }
}

impl Node {
    /// Completes once the local state has everything that was committed when this was called: what makes a read
    /// linearizable.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn read_index(&self) -> Result<(), NodeError> {
        let deadline = Instant::now() + self.inner.timeouts.request;
        let fresh = async {
            let index = self.confirmed_index().await?;
            self.inner.store.wait_applied(index).await;
            Ok(())
        };
        timeout_at(deadline, fresh)
            .await
            .unwrap_or(Err(NodeError::Timeout))
    }

    async fn confirmed_index(&self) -> Result<u64, NodeError> {
        loop {
            let view = self.view();
            let (waiter, round) = oneshot::channel();
            self.inner
                .read_rounds
                .try_send(waiter)
                .map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => NodeError::TooManyRequests,
                    mpsc::error::TrySendError::Closed(_) => NodeError::Stopped,
                })?;
            match round.await {
                Ok(Some(index)) => return Ok(index),
                Ok(None) => self.wait_for_leader(view).await,
                Err(_) => return Err(NodeError::Stopped),
            }
        }
    }

    /// One confirmation, wherever the leader is; `None` when there is none to confirm.
    async fn read_round(&self) -> Option<u64> {
        let leader = self.view().leader;
        if leader == self.member_id() {
            return self.confirm_leadership().await.ok();
        }
        if leader == 0 {
            return None;
        }
        let request = forward_request::Request::ReadIndex(proto::replicated::Empty {});
        match self.forward(leader, request).await {
            Ok(forward_response::Response::ReadIndex(index)) => Some(index),
            _ => None,
        }
    }

    /// A round for a follower: never passed on, so that two members that each take the other for the leader
    /// cannot send a read in circles.
    pub(super) async fn read_round_here(&self) -> Result<u64, NodeError> {
        if !self.leads() {
            return Err(NodeError::NotLeader);
        }
        let (waiter, round) = oneshot::channel();
        self.inner
            .read_rounds
            .try_send(waiter)
            .map_err(|_| NodeError::TooManyRequests)?;
        round.await.ok().flatten().ok_or(NodeError::NotLeader)
    }

    /// Asks a quorum whether this member still leads; the index that was committed when it was asked.
    async fn confirm_leadership(&self) -> Result<u64, NodeError> {
        let linearizer = self
            .inner
            .raft
            .get_read_linearizer(ReadPolicy::ReadIndex)
            .await
            .map_err(|_| NodeError::NotLeader)?;
        Ok(linearizer.read_log_id().index())
    }
}
