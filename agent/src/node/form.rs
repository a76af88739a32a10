//! Forming a new cluster: exactly one member proposes the first membership, so that exactly one campaigns.
//!
//! [`join`](super::join) has found that nothing exists yet, and Raft runs with an empty log. Once a quorum is
//! that far, the member with the lowest id begins. The others wait for it, each a moment longer than the one
//! before: should it be lost just now, the next begins instead.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::error::{InitializeError, RaftError};
use proto::peer::Description;
use proto::peer::description::State;
use raft_store::Node as RaftNode;
use tokio::time::Instant;

use super::Node;
use super::describe::ask;
use crate::peer::Whom;

const PAUSE: Duration = Duration::from_millis(10);

/// Runs until this member knows a membership.
#[derive(Debug)]
pub struct FormTask {
    node: Node,
    members: BTreeMap<u64, RaftNode>,
    /// How long one that should begin is waited for.
    patience: Duration,
}

impl FormTask {
    pub(super) fn new(node: Node, members: BTreeMap<u64, RaftNode>) -> FormTask {
        let patience = node.timeouts().election;
        FormTask {
            node,
            members,
            patience,
        }
    }

    /// Completes when there is a membership, whoever began.
    pub async fn run(self) {
        let mut quorum_since = None;
        while !self.node.is_member_of_something() {
            let answers = self.ask_others().await;
            let ready = answers
                .iter()
                .filter(|answer| {
                    answer.state() == State::Ready && answer.cluster_id == self.node.cluster_id()
                })
                .map(|answer| answer.member_id);
            let mut ready: Vec<u64> = ready.chain([self.node.member_id()]).collect();
            ready.sort_unstable();
            let formed = answers.iter().any(|answer| answer.state() == State::Formed);
            if formed || ready.len() <= self.members.len() / 2 {
                quorum_since = None;
            } else {
                let since = *quorum_since.get_or_insert_with(Instant::now);
                let wait = self.turn(&ready);
                if since.elapsed() >= wait {
                    self.begin().await;
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How long this member waits for those before it, and for those that are not ready.
    fn turn(&self, ready: &[u64]) -> Duration {
        let before = ready.iter().filter(|id| **id < self.node.member_id()).count();
        let missing = usize::from(ready.len() < self.members.len());
        let turns = u32::try_from(before + missing).unwrap_or(u32::MAX);
        self.patience.saturating_mul(turns)
    }

    async fn begin(&self) {
        match self.node.raft().initialize(self.members.clone()).await {
            // Raft campaigns at once.
            Ok(()) => tracing::info!(members = self.members.len(), "a new cluster is formed"),
            // Another member was faster and this one has its log already.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => tracing::error!(%error, "cannot form a cluster"),
        }
    }

    async fn ask_others(&self) -> Vec<Description> {
        let others = self
            .members
            .iter()
            .filter(|(id, _)| **id != self.node.member_id());
        let urls = others
            .filter_map(|(_, member)| Some((member.peer_urls.first()?, Whom::Named(member.name.clone()))));
        let asking = urls
            .map(|(url, whom)| async move { ask(self.node.dialer(), url, &whom, self.patience / 2).await });
        let answers = futures::future::join_all(asking).await;
        answers.into_iter().filter_map(Result::ok).collect()
    }
}
