//! Counts the leaders that this member has seen.

use tokio::sync::watch;

use crate::node::RaftView;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// A task: follows what the member sees of its group. Ends with the member.
#[derive(Debug)]
pub struct LeaderWatch {
    metrics: Metrics,
    view: watch::Receiver<RaftView>,
    shutdown: Shutdown,
}

impl LeaderWatch {
    #[must_use]
    pub fn new(metrics: Metrics, view: watch::Receiver<RaftView>, shutdown: Shutdown) -> LeaderWatch {
        LeaderWatch {
            metrics,
            view,
            shutdown,
        }
    }

    pub async fn run(mut self) {
        let mut last = 0;
        loop {
            let leader = self.view.borrow_and_update().leader;
            // As etcd counts: a leader that comes back is a change, its absence is none.
            if leader != 0 && leader != last {
                self.metrics.leader_changed();
            }
            last = leader;
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { return },
                () = self.shutdown.cancelled() => return,
            }
        }
    }
}
