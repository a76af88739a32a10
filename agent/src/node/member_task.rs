//! The leader's hand on the membership: makes the changes that were asked for, one at a time, and those that
//! follow from them: a member that is to be a voter becomes one, and a change that a former leader left half done
//! is completed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use proto::peer::{MemberChange, MemberRefusal, MembersChanged, member_change};
use raft_store::{Node as RaftNode, TypeConfig};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Node;
use super::identity::added_member_id;
use super::member_rules::{Peer, Roll};
use crate::peer::client::PeerAddresses;

/// Changes that may wait for the one under way.
pub(super) const QUEUED: usize = 16;
/// Between two looks at who has caught up.
const TICK: Duration = Duration::from_millis(100);
/// Between two attempts while the change before is not yet committed.
const RETRY: Duration = Duration::from_millis(20);

type Change = ChangeMembers<u64, RaftNode>;

/// Asked of the leader's task.
#[derive(Debug)]
pub(super) struct MemberCommand {
    pub(super) change: MemberChange,
    pub(super) answer: oneshot::Sender<Result<MembersChanged, ChangeError>>,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeError {
    Refused(MemberRefusal),
    /// Nothing was changed: not by this member.
    NotLeader,
    /// It may still be made.
    Unknown,
}

impl From<MemberRefusal> for ChangeError {
    fn from(refusal: MemberRefusal) -> ChangeError {
        ChangeError::Refused(refusal)
    }
}

/// Runs on every member, and acts on the one that leads.
#[derive(Debug)]
pub struct MembershipTask {
    node: Node,
    commands: mpsc::Receiver<MemberCommand>,
    addresses: PeerAddresses,
    token: String,
    /// While this member leads: since when, and how long the log was at the tick before.
    leading: Option<Leading>,
}

#[derive(Clone, Copy, Debug)]
struct Leading {
    since: Instant,
    last_index: u64,
}

impl MembershipTask {
    pub(super) fn new(
        node: Node,
        commands: mpsc::Receiver<MemberCommand>,
        addresses: PeerAddresses,
        token: String,
    ) -> MembershipTask {
        MembershipTask {
            node,
            commands,
            addresses,
            token,
            leading: None,
        }
    }

    /// Runs until the node is gone.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(MemberCommand { change, answer }) = command else { return };
                    let outcome = self.change(change).await;
                    // The asker may have given up.
                    let _ = answer.send(outcome);
                }
                _ = tick.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let membership = self
            .node
            .raft()
            .metrics()
            .borrow_watched()
            .membership_config
            .clone();
        self.addresses.set(membership.nodes());
        if !self.node.leads() {
            self.leading = None;
            return;
        }
        let replicated_to = self.node.replicated_to();
        let last_index = replicated_to.get(&self.node.member_id()).copied().unwrap_or(0);
        let before = self.leading.replace(Leading {
            since: self.leading.map_or_else(Instant::now, |leading| leading.since),
            last_index,
        });
        let configs = membership.membership().get_joint_config();
        if let [_, last, ..] = configs.as_slice() {
            // Left half done by a former leader.
            self.follow_up(
                "completing a change of the membership",
                Change::ReplaceAllVoters(last.clone()),
            )
            .await;
            return;
        }
        let Some(before) = before else { return };
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let caught_up = membership.nodes().find(|(id, node)| {
            // All that there was a tick ago: what comes meanwhile, it can follow.
            let matched = replicated_to
                .get(id)
                .is_some_and(|matched| *matched >= before.last_index);
            node.to_be_voter && !voters.contains(id) && matched
        });
        if let Some((id, _)) = caught_up {
            self.follow_up(
                "a new member has caught up",
                Change::AddVoterIds(BTreeSet::from([*id])),
            )
            .await;
        }
    }

    async fn follow_up(&self, why: &str, change: Change) {
        match self.replicate(change).await {
            Ok(done) => tracing::info!(membership = %shown(&done), "{why}"),
            Err(error) => tracing::debug!(?error, "{why}: not yet"),
        }
    }

    /// One change, from its check to its answer.
    async fn change(&self, change: MemberChange) -> Result<MembersChanged, ChangeError> {
        let change = change.change.ok_or(MemberRefusal::Unspecified)?;
        let asked = Instant::now();
        // A leader that was deposed, or has not yet applied all, would judge by what is no longer so.
        let index = self
            .node
            .read_round_here()
            .await
            .map_err(|_| ChangeError::NotLeader)?;
        self.node.store().wait_applied(index).await;
        let roll = self.roll_call(asked).await;
        let mut added = 0;
        let raft_change = match change {
            member_change::Change::Add(add) => {
                roll.may_add(&add.peer_urls, add.learner)?;
                added = self.new_id(&add.peer_urls);
                let node = RaftNode {
                    name: String::new(),
                    peer_urls: add.peer_urls,
                    to_be_voter: !add.learner,
                };
                Change::AddNodes(BTreeMap::from([(added, node)]))
            }
            member_change::Change::Remove(id) => {
                roll.may_remove(id)?;
                if id == self.node.member_id() {
                    // The next leader removes this one.
                    self.node.hand_over_leadership().await;
                    return Err(ChangeError::NotLeader);
                }
                if self.node.raft().voter_ids().any(|voter| voter == id) {
                    Change::RemoveVoters(BTreeSet::from([id]))
                } else {
                    Change::RemoveNodes(BTreeSet::from([id]))
                }
            }
            member_change::Change::Update(update) => {
                roll.may_update(update.id, &update.peer_urls)?;
                let membership = self.node.store().membership();
                let known = membership.membership().get_node(&update.id);
                let mut node = known.cloned().ok_or(MemberRefusal::MemberNotFound)?;
                node.peer_urls = update.peer_urls;
                Change::SetNodes(BTreeMap::from([(update.id, node)]))
            }
            member_change::Change::Promote(id) => {
                roll.may_promote(id)?;
                Change::AddVoterIds(BTreeSet::from([id]))
            }
        };
        let done = self.replicate(raft_change).await?;
        let log_index = done.log_id.index();
        self.node.store().wait_applied(log_index).await;
        self.addresses.set(self.node.store().membership().nodes());
        tracing::info!(membership = %shown(&done), "the membership has changed");
        Ok(MembersChanged {
            added,
            members: self.node.members(),
            log_index,
        })
    }

    /// The members as the rules see them. Active is who has answered since the change was asked for: one that died a
    /// moment ago is no part of a new quorum, for without it the change could never be committed. Who was active lately
    /// is given the time to answer, and so is everybody by a leader that is new.
    async fn roll_call(&self, asked: Instant) -> Roll {
        const POLL: Duration = Duration::from_millis(10);
        let patience = self.node.timeouts().election;
        let settled = self.leading.map_or(asked, |leading| leading.since) + patience;
        // Sooner than by the clock; where it is refused, Raft has stopped.
        let _ = self.node.raft().trigger().heartbeat().await;
        loop {
            let answered = self.answered();
            let roll = self.roll(|id| answered.get(&id).is_some_and(|at| *at >= asked));
            let may_answer = |id: u64| {
                let last = answered.get(&id).map(|at| *at + patience);
                last.max(Some(settled)) > Some(Instant::now())
            };
            let mut silent = roll.peers.iter().filter(|peer| !peer.learner && !peer.active);
            if !silent.any(|peer| may_answer(peer.id)) {
                return roll;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// When the heartbeat was sent that each member answered last.
    fn answered(&self) -> BTreeMap<u64, Instant> {
        let metrics = self.node.raft().metrics();
        let metrics = metrics.borrow_watched();
        let answered = metrics.heartbeat.iter().flatten();
        let now = Instant::now();
        answered
            .filter_map(|(id, at)| Some((*id, now - openraft::Instant::elapsed(&**at.as_ref()?))))
            .collect()
    }

    fn roll(&self, answered: impl Fn(u64) -> bool) -> Roll {
        let own = self.node.member_id();
        let matched = self.node.replicated_to();
        let voters: BTreeSet<u64> = self.node.raft().voter_ids().collect();
        let peers = self.node.members().into_iter().map(|member| Peer {
            id: member.id,
            started: !member.name.is_empty(),
            learner: member.is_learner,
            votes: voters.contains(&member.id),
            active: member.id == own || answered(member.id),
            matched: matched.get(&member.id).copied().unwrap_or(0),
            peer_urls: member.peer_ur_ls,
        });
        Roll {
            peers: peers.collect(),
            last_index: matched.get(&own).copied().unwrap_or(0),
        }
    }

    /// An id that no member has or had.
    fn new_id(&self, peer_urls: &[String]) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let membership = self.node.store().membership();
        let taken = |id: u64| {
            id == 0 || membership.membership().get_node(&id).is_some() || self.node.store().is_removed(id)
        };
        (now.as_secs()..)
            .map(|seconds| added_member_id(peer_urls, &self.token, seconds))
            .find(|id| !taken(*id))
            .unwrap_or_default()
    }

    /// Has a change committed. It is given up after the request timeout, and may then still happen.
    async fn replicate(&self, change: Change) -> Result<ClientWriteResponse<TypeConfig>, ChangeError> {
        /// Who is no voter any more is no member any more.
        const RETAIN: bool = false;
        let attempts = async {
            loop {
                match self.node.raft().change_membership(change.clone(), RETAIN).await {
                    Ok(done) => return Ok(done),
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                        return Err(ChangeError::NotLeader);
                    }
                    // The change before, or the leader's first entry, is not committed yet.
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                    ))) => tokio::time::sleep(RETRY).await,
                    Err(error) => {
                        tracing::warn!(%error, "the membership was not changed");
                        return Err(ChangeError::Unknown);
                    }
                }
            }
        };
        timeout(self.node.timeouts().request, attempts)
            .await
            .unwrap_or(Err(ChangeError::Unknown))
    }
}

fn shown(done: &ClientWriteResponse<TypeConfig>) -> String {
    done.membership
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}
