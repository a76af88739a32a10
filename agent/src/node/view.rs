//! What this member sees of the group, for everybody who must know.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Raft;

/// What this member sees of the Raft group now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    pub term: u64,
    /// 0: none known, or silent for longer than an election takes.
    pub leader: u64,
    /// Index of the last committed entry this member knows of.
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

/// Follows openraft's metrics, and the clock: openraft goes on naming a leader that has fallen silent until it
/// knows another, and with pre-vote and no quorum that is never.
#[derive(Debug)]
pub struct ViewTask {
    raft: Raft,
    view: watch::Sender<RaftView>,
    /// Silence for this long is the loss of the leader.
    patience: Duration,
}

impl ViewTask {
    pub(super) fn new(raft: Raft, patience: Duration) -> (ViewTask, watch::Receiver<RaftView>) {
        let view = watch::Sender::new(RaftView::default());
        let receiver = view.subscribe();
        (ViewTask { raft, view, patience }, receiver)
    }

    /// Runs until Raft stops; the reason, where it is a failure.
    pub async fn run(self) -> Option<String> {
        let mut metrics = self.raft.metrics();
        let mut look_at_clock = interval(self.patience / 10);
        look_at_clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = false;
        loop {
            let now = self.look(silent);
            self.view.send_if_modified(|view| {
                let changed = *view != now;
                *view = now;
                changed
            });
            let failure = match &metrics.borrow_watched().running_state {
                Ok(()) => None,
                Err(openraft::error::Fatal::Stopped) => return None,
                Err(fatal) => Some(fatal.to_string()),
            };
            if failure.is_some() {
                return failure;
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return None },
                _ = look_at_clock.tick() => silent = self.is_silent().await,
            }
        }
    }

    /// Whether no quorum has answered this leader, or no leader has spoken to this follower, for too long.
    async fn is_silent(&self) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.membership_config.voter_ids().count() == 1 {
            // Its own quorum: nobody else answers.
            return false;
        }
        let heard = if metrics.state == ServerState::Leader {
            metrics.last_quorum_acked.map(|at| *at)
        } else {
            self.raft
                .with_raft_state(openraft::RaftState::vote_last_modified)
                .await
                .ok()
                .flatten()
        };
        heard.is_some_and(|at| openraft::Instant::elapsed(&at) > self.patience)
    }

    fn look(&self, silent: bool) -> RaftView {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // Raft speaks of a leader, and of itself as a learner, also before it has heard of a membership, and when it
        // is in none any more.
        let is_member = metrics
            .membership_config
            .membership()
            .get_node(&metrics.id)
            .is_some();
        let leader = metrics.current_leader.filter(|_| is_member && !silent);
        RaftView {
            term: metrics.current_term,
            leader: leader.unwrap_or(0),
            committed_index: metrics.local_committed.map_or(0, |id| id.index()),
            applied_index: metrics.last_applied.map_or(0, |id| id.index()),
            is_learner: is_member && metrics.state == ServerState::Learner,
        }
    }
}
