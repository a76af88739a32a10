//! What this member sees of the group, for everybody who must know.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use raft_store::TypeConfig;
use tokio::sync::watch;

use super::Raft;

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

/// Follows openraft's metrics.
#[derive(Debug)]
pub struct ViewTask {
    raft: Raft,
    view: watch::Sender<RaftView>,
}

impl ViewTask {
    pub(super) fn new(raft: Raft) -> (ViewTask, watch::Receiver<RaftView>) {
        let view = watch::Sender::new(look(&raft));
        let receiver = view.subscribe();
        (ViewTask { raft, view }, receiver)
    }

    /// Runs until Raft stops; the reason, where it is a failure.
    pub async fn run(self) -> Option<String> {
        let mut metrics = self.raft.metrics();
        loop {
            let now = look(&self.raft);
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
            if metrics.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn look(raft: &Raft) -> RaftView {
    let metrics = raft.metrics();
    let metrics: &openraft::RaftMetrics<TypeConfig> = &metrics.borrow_watched();
    RaftView {
        term: metrics.current_term,
        leader: metrics.current_leader.unwrap_or(0),
        committed_index: metrics.local_committed.map_or(0, |id| id.index()),
        applied_index: metrics.last_applied.map_or(0, |id| id.index()),
        is_learner: metrics.state == ServerState::Learner,
    }
}
