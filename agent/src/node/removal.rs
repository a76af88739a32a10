//! Learning that this member was removed: it must stop, and may not have been told.
//!
//! The leader stops sending to a member as soon as it is removed, so the removal itself often never arrives. A
//! member that hears of no leader asks the others; one that was down meanwhile does so when it is back.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{Node, RaftView};

/// Completes when this member was removed.
#[derive(Debug)]
pub struct RemovalTask {
    node: Node,
    view: watch::Receiver<RaftView>,
    /// Between two questions, and for the answers to one.
    patience: Duration,
}

impl RemovalTask {
    pub(super) fn new(node: Node) -> RemovalTask {
        let view = node.raft_view();
        let patience = node.timeouts().election;
        RemovalTask { node, view, patience }
    }

    /// Runs until the member is removed; `false` when it stops for another reason.
    pub async fn run(mut self) -> bool {
        loop {
            if self.was_removed().await {
                return true;
            }
            // While there is a leader nobody needs to be asked; what was applied here is looked at now and then.
            match timeout(self.patience, self.view.changed()).await {
                Ok(Ok(())) => tokio::time::sleep(self.patience / 2).await,
                Ok(Err(_)) => return false,
                Err(_) => {}
            }
        }
    }

    async fn was_removed(&self) -> bool {
        let own = self.node.member_id();
        if self.node.store().is_removed(own) {
            return true;
        }
        if self.view.borrow().leader != 0 {
            return false;
        }
        let answers = self.node.ask_others(self.patience).await;
        answers
            .iter()
            .any(|(_, answer)| answer.cluster_id == self.node.cluster_id() && answer.removed.contains(&own))
    }
}
