//! What a member tells of the cluster to whoever asks at its peer URL, and asking the others.
//!
//! Owns the answers of [`Description`] and nothing that follows from them: who starts, joins, hands over or stops
//! for good because of one decides for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use proto::peer::description::State;
use proto::peer::{Description, KnownMember, forward_request, forward_response};

use super::{Node, NodeError};
use crate::peer::{self, Dialer, Whom};

impl Node {
    /// What this member knows: confirmed by the leader where that can be reached.
    pub(crate) async fn describe(&self) -> Description {
        let mut description = if self.is_member_of_something() {
            match tokio::time::timeout(self.inner.timeouts.election, self.leaders_description()).await {
                Ok(Some(confirmed)) => confirmed,
                Ok(None) | Err(_) => self.own_description(false),
            }
        } else {
            Description {
                state: State::Ready.into(),
                cluster_id: self.cluster_id(),
                ..Description::default()
            }
        };
        description.member_id = self.member_id();
        description.stopping = self.is_stopping();
        description
    }

    async fn leaders_description(&self) -> Option<Description> {
        let leader = self.view().leader;
        if leader == 0 {
            return None;
        }
        if leader == self.member_id() {
            return self.describe_here().await.ok();
        }
        let request = forward_request::Request::Describe(proto::replicated::Empty {});
        match self.forward(leader, request).await {
            Ok(forward_response::Response::Description(description)) => Some(description),
            _ => None,
        }
    }

    /// The leader's part.
    pub(super) async fn describe_here(&self) -> Result<Description, NodeError> {
        let index = self.read_round_here().await?;
        self.inner.store.wait_applied(index).await;
        Ok(self.own_description(true))
    }

    fn own_description(&self, confirmed: bool) -> Description {
        let replicated_to = self.replicated_to();
        let membership = self.inner.store.membership();
        let members = membership.membership().nodes().map(|(id, node)| {
            let published = self.inner.store.member_attributes(*id);
            KnownMember {
                id: *id,
                started: published.is_some() || replicated_to.contains_key(id),
                name: published.map_or_else(|| node.name.clone(), |published| published.name),
                peer_urls: node.peer_urls.clone(),
            }
        });
        Description {
            state: State::Formed.into(),
            cluster_id: self.cluster_id(),
            member_id: self.member_id(),
            confirmed,
            members: members.collect(),
            removed: self.inner.store.removed_members(),
            stopping: false,
        }
    }

    /// How far each member's log is known to be, itself included; empty unless this member leads.
    pub(super) fn replicated_to(&self) -> BTreeMap<u64, u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else {
            return BTreeMap::new();
        };
        let others = replication.iter().filter(|(id, _)| **id != self.member_id());
        others
            .filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index())))
            .chain([(self.member_id(), metrics.last_log_index.unwrap_or(0))])
            .collect()
    }

    /// Whether a membership was ever heard of here.
    pub(super) fn is_member_of_something(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().next().is_some()
    }

    /// The members that answer this one now, itself among them.
    pub(crate) async fn answering(&self, patience: Duration) -> BTreeSet<u64> {
        let others = self.ask_others(patience).await.into_iter();
        others.map(|(id, _)| id).chain([self.member_id()]).collect()
    }

    /// Asks each of the other members, at the first of its peer URLs, all at once.
    pub(super) async fn ask_others(&self, patience: Duration) -> Vec<(u64, Description)> {
        let metrics = self.inner.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        let others = membership
            .nodes()
            .filter(|(id, _)| **id != self.member_id())
            .filter_map(|(id, node)| Some((*id, node.peer_urls.first()?.clone())));
        let asking = others.map(|(id, url)| async move {
            let whom = Whom::Member(id, self.store().clone());
            let answer = ask(self.dialer(), &url, &whom, patience).await;
            let answer = answer
                .inspect_err(|reason| tracing::debug!(url, reason, "a member does not describe itself"));
            Some((id, answer.ok()?))
        });
        let answers = futures::future::join_all(asking).await;
        answers.into_iter().flatten().collect()
    }
}

/// Asks whoever listens at a peer URL.
///
/// # Errors
/// Why there is no answer, as text.
pub(super) async fn ask(
    dialer: &Dialer,
    url: &str,
    whom: &Whom,
    patience: Duration,
) -> Result<Description, String> {
    tokio::time::timeout(patience, peer::describe(dialer, url, whom, patience))
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
