//! Finding a member whose store differs from the others'.
//!
//! A hash check is a log entry: every member hashes its store as it is at that entry, beside apply, and tells the
//! leader. The leader compares, and raises the replicated CORRUPT alarm for whoever is in the minority. What it must
//! not do: compare hashes of different entries, or let a hash decide anything but through that alarm.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmType};
use proto::peer::{StoreHash, forward_request, forward_response};
use proto::replicated::Empty;
use proto::replicated::request::Op;
use raft_store::HashPoint;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Node, NodeError};
use crate::shutdown::Shutdown;

/// Hashes that wait to be compared.
pub(super) const QUEUED: usize = 64;
/// Checks of which not all members have told yet.
const ROUNDS: usize = 8;
/// A member that has not told by then is down, or too slow to be waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Above this, a start does not ask for a check: the next regular one has to do.
const CHEAP_BYTES: u64 = 256 << 20;
/// Between attempts to tell the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 20;

impl Node {
    /// The leader's part: notes what a member found.
    pub(super) fn note_hash(&self, hash: StoreHash) -> Result<(), NodeError> {
        if !self.leads() {
            return Err(NodeError::NotLeader);
        }
        self.inner
            .hashes
            .try_send(hash)
            .map_err(|_| NodeError::TooManyRequests)
    }
}

/// Hashes this member's store wherever the log asks for it.
#[derive(Debug)]
pub struct HashTask {
    node: Node,
    points: mpsc::Receiver<HashPoint>,
}

impl HashTask {
    pub(super) fn new(node: Node) -> HashTask {
        let points = node.store().hash_points();
        HashTask { node, points }
    }

    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async {
                while let Some(point) = self.points.recv().await {
                    self.hash(point).await;
                }
            } => {}
        }
    }

    async fn hash(&self, point: HashPoint) {
        let log_index = point.log_index();
        let hashed = tokio::task::spawn_blocking(move || point.hash()).await;
        let hash = match hashed {
            Ok(Ok(hash)) => hash,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be hashed");
                return;
            }
            Err(_) => return,
        };
        let report = StoreHash {
            member_id: self.node.member_id(),
            log_index,
            hash,
        };
        for _ in 0..ATTEMPTS {
            if self.tell(report).await {
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
        // The next check tells.
        tracing::debug!(log_index, "no leader took this member's hash");
    }

    async fn tell(&self, report: StoreHash) -> bool {
        let leader = self.node.view().leader;
        if leader == self.node.member_id() {
            return self.node.note_hash(report).is_ok();
        }
        let request = forward_request::Request::StoreHash(report);
        leader != 0
            && matches!(
                self.node.forward(leader, request).await,
                Ok(forward_response::Response::StoreHashNoted(_))
            )
    }
}

/// What members told of one check.
#[derive(Debug)]
struct Round {
    since: Instant,
    hashes: BTreeMap<u64, u32>,
}

/// What follows from the hashes of one check.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agree,
    /// Most members have another hash.
    Minority(Vec<u64>),
    /// They differ, and no hash has a majority.
    Unclear,
}

fn judge(hashes: &BTreeMap<u64, u32>, members: usize) -> Verdict {
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for hash in hashes.values() {
        *votes.entry(*hash).or_default() += 1;
    }
    if votes.len() <= 1 {
        return Verdict::Agree;
    }
    match votes.iter().find(|(_, count)| **count > members / 2) {
        Some((right, _)) => Verdict::Minority(
            hashes
                .iter()
                .filter(|(_, hash)| *hash != right)
                .map(|(id, _)| *id)
                .collect(),
        ),
        None => Verdict::Unclear,
    }
}

/// Asks for checks, and compares what members tell, while this member leads.
#[derive(Debug)]
pub struct CorruptionTask {
    node: Node,
    hashes: mpsc::Receiver<StoreHash>,
    rounds: BTreeMap<u64, Round>,
}

impl CorruptionTask {
    pub(super) fn new(node: Node, hashes: mpsc::Receiver<StoreHash>) -> CorruptionTask {
        CorruptionTask {
            node,
            hashes,
            rounds: BTreeMap::new(),
        }
    }

    /// `every`: between two checks; `None`: no checks but those that others ask for.
    pub async fn run(mut self, every: Option<Duration>, shutdown: Shutdown) {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = interval(every.unwrap_or(PATIENCE));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Its first tick comes at once.
        check.tick().await;
        if every.is_some() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.check_once_caught_up() => {}
            }
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                hash = self.hashes.recv() => match hash {
                    Some(hash) => self.note(hash),
                    None => return,
                },
                _ = look.tick() => {}
                _ = check.tick(), if every.is_some() => if self.node.leads() {
                    self.ask().await;
                },
            }
            self.compare().await;
        }
    }

    /// At the start, where it is cheap: what is wrong with this member's disk is found before long.
    async fn check_once_caught_up(&self) {
        const ATTEMPTS_TO_CATCH_UP: usize = 10;
        for _ in 0..ATTEMPTS_TO_CATCH_UP {
            if self.node.read_index().await.is_ok() {
                if self.node.store().live_bytes() <= CHEAP_BYTES {
                    self.ask().await;
                }
                return;
            }
        }
    }

    async fn ask(&self) {
        if let Err(error) = self.node.propose(Op::HashCheck(Empty {})).await {
            tracing::debug!(%error, "no hash check this time");
        }
    }

    fn note(&mut self, hash: StoreHash) {
        let round = self.rounds.entry(hash.log_index).or_insert_with(|| Round {
            since: Instant::now(),
            hashes: BTreeMap::new(),
        });
        round.hashes.insert(hash.member_id, hash.hash);
        while self.rounds.len() > ROUNDS {
            self.rounds.pop_first();
        }
    }

    /// Judges the checks that all members have told of, or that have been waited for.
    async fn compare(&mut self) {
        if !self.node.leads() {
            self.rounds.clear();
            return;
        }
        let members: Vec<u64> = self.node.members().iter().map(|member| member.id).collect();
        let ended: Vec<u64> = self
            .rounds
            .iter()
            .filter(|(_, round)| {
                members.iter().all(|id| round.hashes.contains_key(id)) || round.since.elapsed() > PATIENCE
            })
            .map(|(index, _)| *index)
            .collect();
        for index in ended {
            let Some(Round { mut hashes, .. }) = self.rounds.remove(&index) else {
                continue;
            };
            hashes.retain(|id, _| members.contains(id));
            match judge(&hashes, members.len()) {
                Verdict::Agree => tracing::debug!(index, members = hashes.len(), "all stores are equal"),
                Verdict::Minority(ids) => {
                    for id in ids {
                        self.raise(id, index, &hashes).await;
                    }
                }
                // As etcd names a member of which it only knows that it is one of them.
                Verdict::Unclear => self.raise(0, index, &hashes).await,
            }
        }
    }

    async fn raise(&self, id: u64, index: u64, hashes: &BTreeMap<u64, u32>) {
        let raised = self.node.store().alarms();
        if raised
            .iter()
            .any(|alarm| alarm.member_id == id && alarm.alarm() == AlarmType::Corrupt)
        {
            return;
        }
        tracing::error!(
            member = format!("{id:x}"),
            index,
            hashes = ?hashes,
            "a member's store differs from the others': remove that member and let it join again with an empty data directory"
        );
        let request = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: id,
            alarm: AlarmType::Corrupt.into(),
        };
        if let Err(error) = self.node.propose(Op::Alarm(request)).await {
            tracing::warn!(%error, "the CORRUPT alarm is not raised yet: the next check tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minority_is_named() {
        let check = |hashes: &[(u64, u32)], members| judge(&hashes.iter().copied().collect(), members);
        assert_eq!(check(&[(1, 7), (2, 7), (3, 7)], 3), Verdict::Agree);
        assert_eq!(check(&[(1, 7), (2, 8), (3, 7)], 3), Verdict::Minority(vec![2]));
        assert_eq!(
            check(&[(1, 7), (2, 8), (3, 7), (4, 7), (5, 9)], 5),
            Verdict::Minority(vec![2, 5])
        );
        assert_eq!(
            check(&[(1, 7), (2, 8)], 3),
            Verdict::Unclear,
            "one of three is silent"
        );
        assert_eq!(check(&[(1, 7), (2, 8)], 2), Verdict::Unclear);
        assert_eq!(check(&[(1, 7)], 3), Verdict::Agree);
    }
}
