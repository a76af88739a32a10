//! Room for more data: the quota on live data, and the disk under the data directory.
//!
//! A member refuses at its own API what would go past its quota, or what would fill a disk that is nearly full; the
//! leader raises the replicated NOSPACE alarm, by which apply refuses on all members alike, and lifts it when there
//! is room again. What it must not do: refuse what frees space, or lift what somebody raised by hand.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmType};
use proto::replicated::request::Op;
use raft_store::{RaisedBy, growth_bytes};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Node, NodeError};
use crate::shutdown::Shutdown;

/// How often the live data is compared with the quota.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_secs(2);
/// A member that refused raises the alarm at most this often: another's larger quota may lift it again.
const RAISE_EVERY: Duration = Duration::from_secs(5);
/// The alarm is lifted below this part of the quota, so that it does not come and go with every put.
const LIFT_BELOW_PERCENT: u64 = 90;
/// From here on a disk is nearly full, unless it still has [`SPARE_BYTES`]: a large disk is not small at 90 %.
const DISK_FULL_PERCENT: u64 = 90;
/// Room for the log's segments, a snapshot and the store for as long as it takes to free some.
const SPARE_BYTES: u64 = 4 << 30;

/// What the API asks before it proposes.
#[derive(Debug)]
pub(super) struct Space {
    /// 0: none.
    quota_bytes: u64,
    disk_is_full: AtomicBool,
    /// Something was refused for the quota.
    refused: Notify,
}

impl Space {
    pub(super) fn new(quota_bytes: u64) -> Space {
        Space {
            quota_bytes,
            disk_is_full: AtomicBool::new(false),
            refused: Notify::new(),
        }
    }

    fn is_nearly_used_up(&self, live_bytes: u64) -> bool {
        self.quota_bytes > 0 && live_bytes >= self.quota_bytes / 100 * LIFT_BELOW_PERCENT
    }
}

impl Node {
    /// Whether there is room for what `op` may add. Always, for what adds nothing.
    ///
    /// # Errors
    /// [`NodeError::NoSpace`].
    pub fn check_room(&self, op: &Op) -> Result<(), NodeError> {
        let space = &self.inner.space;
        let growth = growth_bytes(op);
        if growth == 0 {
            return Ok(());
        }
        if space.disk_is_full.load(Ordering::Relaxed) {
            return Err(NodeError::NoSpace);
        }
        let live = self.inner.store.live_bytes();
        if space.quota_bytes > 0 && live.saturating_add(growth) >= space.quota_bytes {
            space.refused.notify_one();
            return Err(NodeError::NoSpace);
        }
        Ok(())
    }

    /// Whether the disk of this member's data directory is nearly full: it takes no puts from its clients then.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        self.inner.space.disk_is_full.load(Ordering::Relaxed)
    }
}

/// Watches live data and disk, and raises and lifts the alarm.
#[derive(Debug)]
pub struct SpaceTask {
    node: Node,
    data_dir: PathBuf,
    raised: Option<Instant>,
}

impl SpaceTask {
    #[must_use]
    pub fn new(node: Node, data_dir: PathBuf) -> SpaceTask {
        SpaceTask {
            node,
            data_dir,
            raised: None,
        }
    }

    pub async fn run(mut self, shutdown: Shutdown) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut disk = interval(DISK_EVERY);
        disk.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let inner = self.node.inner.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => self.look(false).await,
                () = inner.space.refused.notified() => self.look(true).await,
                _ = disk.tick() => self.look_at_disk().await,
            }
        }
    }

    /// `refused`: a request of this member's clients did not fit.
    async fn look(&mut self, refused: bool) {
        let space = &self.node.inner.space;
        let live = self.node.store().live_bytes();
        let leads = self.node.leads();
        let alarms = self.node.store().alarms_raised_by();
        let mut no_space = alarms
            .iter()
            .filter(|(alarm, _)| alarm.alarm() == AlarmType::Nospace);
        if !space.is_nearly_used_up(live) {
            if leads {
                let members: Vec<u64> = self.node.members().iter().map(|member| member.id).collect();
                let lifted = no_space.find(|(alarm, raised_by)| {
                    *raised_by == RaisedBy::Members && members.contains(&alarm.member_id)
                });
                if let Some((alarm, _)) = lifted {
                    let lifted = self.propose(AlarmAction::Deactivate, alarm.member_id).await;
                    if lifted {
                        tracing::info!(live_bytes = live, "there is room again: puts are taken");
                    }
                }
            }
            return;
        }
        let mine = self.node.member_id();
        let full = live >= space.quota_bytes;
        let lately = self.raised.is_some_and(|at| at.elapsed() < RAISE_EVERY);
        if (refused && !lately || leads && full) && !no_space.any(|(alarm, _)| alarm.member_id == mine) {
            self.raised = Some(Instant::now());
            if self.propose(AlarmAction::Activate, mine).await {
                tracing::warn!(
                    live_bytes = live,
                    quota_bytes = space.quota_bytes,
                    "the quota is used up: puts are refused until keys are deleted and compacted"
                );
            }
        }
    }

    async fn propose(&self, action: AlarmAction, member_id: u64) -> bool {
        let request = AlarmRequest {
            action: action.into(),
            member_id,
            alarm: AlarmType::Nospace.into(),
        };
        let outcome = self.node.propose(Op::Alarm(request)).await;
        if let Err(error) = &outcome {
            // It is looked at again in a moment.
            tracing::debug!(%error, "an alarm is not replicated yet");
        }
        outcome.is_ok()
    }

    async fn look_at_disk(&self) {
        let path = self.data_dir.clone();
        let Ok(Ok(disk)) = tokio::task::spawn_blocking(move || Disk::of(&path)).await else {
            return;
        };
        let space = &self.node.inner.space;
        let full = disk.is_nearly_full();
        if space.disk_is_full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        let data_dir = self.data_dir.display();
        if !full {
            tracing::info!(%data_dir, "the disk has room again: puts are taken");
            return;
        }
        tracing::warn!(
            %data_dir,
            used_percent = disk.used_percent(),
            free_bytes = disk.free_bytes,
            "the disk is nearly full: this member refuses puts until there is room"
        );
        // Before an append fails: whoever leads next has more room, or is told the same and leads on.
        self.node.hand_over_leadership().await;
    }
}

/// A disk, as its users see it.
#[derive(Clone, Copy, Debug)]
struct Disk {
    used_bytes: u64,
    free_bytes: u64,
}

impl Disk {
    fn of(path: &Path) -> nix::Result<Disk> {
        let stat = statvfs(path)?;
        let fragment = stat.fragment_size();
        Ok(Disk {
            used_bytes: stat
                .blocks()
                .saturating_sub(stat.blocks_free())
                .saturating_mul(fragment),
            free_bytes: stat.blocks_available().saturating_mul(fragment),
        })
    }

    fn used_percent(self) -> u64 {
        let total = self.used_bytes.saturating_add(self.free_bytes).max(1);
        u64::try_from(u128::from(self.used_bytes) * 100 / u128::from(total)).unwrap_or(100)
    }

    fn is_nearly_full(self) -> bool {
        self.used_percent() >= DISK_FULL_PERCENT && self.free_bytes < SPARE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_nearly_full_by_its_share_and_its_size() {
        let check = |used_gib: u64, free_gib: u64| {
            let disk = Disk {
                used_bytes: used_gib << 30,
                free_bytes: free_gib << 30,
            };
            disk.is_nearly_full()
        };
        assert!(check(9, 1));
        assert!(!check(8, 2), "80 %");
        assert!(!check(2_000, 100), "95 %, and room for a hundred logs");
        assert!(check(2_000, 3));
        assert!(
            !Disk {
                used_bytes: 0,
                free_bytes: 0
            }
            .is_nearly_full()
        );
        assert!(Disk::of(Path::new("/")).is_ok());
    }

    #[test]
    fn no_quota_is_never_used_up() {
        assert!(!Space::new(0).is_nearly_used_up(u64::MAX));
        assert!(!Space::new(1_000).is_nearly_used_up(899));
        assert!(Space::new(1_000).is_nearly_used_up(900));
    }
}
