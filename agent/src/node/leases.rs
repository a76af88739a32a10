//! Lease deadlines. Only the leader keeps them; the store knows ids, TTLs and keys, and no time.
//!
//! A new leader starts every lease at its full (or last checkpointed) TTL: a deadline is extended by a change of
//! leader, never shortened. Expiry proposes a revoke: a leader that no longer leads cannot have it committed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use proto::etcdserverpb::LeaseRevokeRequest;
use proto::peer::{forward_request, forward_response};
use proto::replicated::request::Op;
use raft_store::Store;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Node, NodeError, RaftView};

/// Questions to the keeper that may wait.
pub(super) const QUEUED: usize = 4096;

/// Revokes under way at once: expiry must not crowd out the clients' proposals.
const REVOKES_IN_FLIGHT: usize = 64;

/// New leases are noticed at most this late, which only lengthens their life.
const NOTICE_WITHIN: Duration = Duration::from_millis(100);

/// A question to the leader's keeper. No answer: this member does not lead.
#[derive(Debug)]
pub(super) enum LeaseCommand {
    /// Starts the TTL anew; answers it in seconds, 0 for no such lease.
    KeepAlive { id: i64, answer: oneshot::Sender<i64> },
    /// Answers the seconds that are left, -1 for no such lease.
    TimeToLive { id: i64, answer: oneshot::Sender<i64> },
}

impl Node {
    /// Renews a lease at the leader; its TTL in seconds, or 0 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_keep_alive(&self, id: i64) -> Result<i64, NodeError> {
        self.ask_leases(forward_request::Request::LeaseKeepAlive(id))
            .await
    }

    /// Seconds a lease has left, asked of the leader; -1 when there is no such lease.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn lease_time_to_live(&self, id: i64) -> Result<i64, NodeError> {
        self.ask_leases(forward_request::Request::LeaseTimeToLive(id))
            .await
    }

    async fn ask_leases(&self, request: forward_request::Request) -> Result<i64, NodeError> {
        let deadline = Instant::now() + self.inner.timeouts.request;
        let asking = async {
            loop {
                let view = self.view();
                let answer = if view.leader == self.member_id() {
                    Some(self.start_forwarded(request.clone()).await.await)
                } else if view.leader != 0 {
                    // Both questions may be asked twice: a lost answer is asked again.
                    self.forward(view.leader, request.clone()).await.ok()
                } else {
                    None
                };
                match answer {
                    Some(forward_response::Response::LeaseTtlSeconds(ttl)) => return ttl,
                    _ => self.wait_for_leader(view).await,
                }
            }
        };
        timeout_at(deadline, asking).await.map_err(|_| NodeError::Timeout)
    }

    /// The leader's part of a keep-alive: it makes sure that it leads first, so that a lease which another
    /// leader has revoked is never reported alive.
    pub(super) async fn lease_keep_alive_here(&self, id: i64) -> Result<i64, NodeError> {
        let index = self.read_round_here().await?;
        self.inner.store.wait_applied(index).await;
        self.ask_keeper(|answer| LeaseCommand::KeepAlive { id, answer })
            .await
    }

    pub(super) async fn lease_time_to_live_here(&self, id: i64) -> Result<i64, NodeError> {
        let index = self.read_round_here().await?;
        self.inner.store.wait_applied(index).await;
        self.ask_keeper(|answer| LeaseCommand::TimeToLive { id, answer })
            .await
    }

    async fn ask_keeper(
        &self,
        command: impl FnOnce(oneshot::Sender<i64>) -> LeaseCommand,
    ) -> Result<i64, NodeError> {
        let (answer, receiver) = oneshot::channel();
        self.inner
            .leases
            .send(command(answer))
            .await
            .map_err(|_| NodeError::Stopped)?;
        receiver.await.map_err(|_| NodeError::NotLeader)
    }

    /// A random positive lease id that is not taken.
    #[must_use]
    pub fn new_lease_id(&self) -> i64 {
        let mut random = rand::rng();
        loop {
            let id = random.random_range(1..=i64::MAX);
            if self.inner.store.lease(id).is_none() {
                return id;
            }
        }
    }

    /// The smallest TTL a lease may have: one and a half election timeouts, in whole seconds.
    #[must_use]
    pub fn min_lease_ttl_seconds(&self) -> i64 {
        let millis = self.inner.timeouts.election.as_millis() * 3 / 2;
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    ttl: Duration,
}

/// Every lease's deadline, while this member leads.
#[derive(Debug, Default)]
struct Deadlines {
    by_id: HashMap<i64, Deadline>,
    by_time: BTreeSet<(Instant, i64)>,
}

impl Deadlines {
    fn set(&mut self, id: i64, ttl: Duration, now: Instant) {
        self.remove(id);
        let at = now + ttl;
        self.by_id.insert(id, Deadline { at, ttl });
        self.by_time.insert((at, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(deadline) = self.by_id.remove(&id) {
            self.by_time.remove(&(deadline.at, id));
        }
    }

    /// Takes up what changed in the store: new leases start now, revoked ones go.
    fn follow(&mut self, store: &Store, now: Instant) {
        let leases = store.leases();
        let known: std::collections::HashSet<i64> = leases.iter().map(|lease| lease.id).collect();
        let gone: Vec<i64> = self
            .by_id
            .keys()
            .copied()
            .filter(|id| !known.contains(id))
            .collect();
        for id in gone {
            self.remove(id);
        }
        for lease in leases {
            if !self.by_id.contains_key(&lease.id) {
                self.set(lease.id, seconds(lease.remaining_ttl_seconds), now);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<i64> {
        let (at, id) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.remove(&(at, id));
        Some(id)
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

/// The keeper: answers while this member leads, and revokes what has run out.
#[derive(Debug)]
pub struct LeaseTask {
    node: Node,
    commands: mpsc::Receiver<LeaseCommand>,
    changes: watch::Receiver<u64>,
    view: watch::Receiver<RaftView>,
    /// The term in which this member leads, and the deadlines it keeps in it.
    leading: Option<(u64, Deadlines)>,
}

impl LeaseTask {
    pub(super) fn new(node: Node, commands: mpsc::Receiver<LeaseCommand>) -> Self {
        let changes = node.store().lease_changes();
        let view = node.raft_view();
        LeaseTask {
            node,
            commands,
            changes,
            view,
            leading: None,
        }
    }

    /// Runs until the node is gone.
    pub async fn run(mut self) {
        let mut revokes = FuturesUnordered::new();
        let mut look_again = Instant::now();
        loop {
            self.follow_leadership();
            let now = Instant::now();
            if let Some((_, deadlines)) = &mut self.leading {
                if now >= look_again && self.changes.has_changed().unwrap_or(false) {
                    self.changes.mark_unchanged();
                    deadlines.follow(self.node.store(), now);
                    look_again = now + NOTICE_WITHIN;
                }
                while revokes.len() < REVOKES_IN_FLIGHT {
                    let Some(id) = deadlines.pop_due(now) else { break };
                    revokes.push(revoke(self.node.clone(), id));
                }
            }
            let wake = self.wake_at(revokes.len(), look_again);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.answer(command),
                    None => return,
                },
                Some((id, revoked)) = revokes.next() => self.revoked(id, revoked),
                changed = self.view.changed() => if changed.is_err() { return },
                changed = self.changes.changed(), if self.leading.is_some() && Instant::now() >= look_again => {
                    if changed.is_err() { return }
                    self.changes.mark_changed();
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn follow_leadership(&mut self) {
        let view = *self.view.borrow_and_update();
        let leads = view.leader == self.node.member_id();
        match &self.leading {
            Some((term, _)) if leads && *term == view.term => {}
            _ if leads => {
                let mut deadlines = Deadlines::default();
                self.changes.mark_unchanged();
                deadlines.follow(self.node.store(), Instant::now());
                self.leading = Some((view.term, deadlines));
            }
            _ => self.leading = None,
        }
    }

    fn wake_at(&self, revoking: usize, look_again: Instant) -> Instant {
        const IDLE: Duration = Duration::from_secs(3600);
        let idle = Instant::now() + IDLE;
        let Some((_, deadlines)) = &self.leading else {
            return idle;
        };
        let due = deadlines
            .next()
            .filter(|_| revoking < REVOKES_IN_FLIGHT)
            .unwrap_or(idle);
        if self.changes.has_changed().unwrap_or(false) {
            due.min(look_again)
        } else {
            due
        }
    }

    fn answer(&mut self, command: LeaseCommand) {
        // Without leadership the sender is dropped, which tells the asker.
        let Some((_, deadlines)) = &mut self.leading else {
            return;
        };
        let now = Instant::now();
        let id = match &command {
            LeaseCommand::KeepAlive { id, .. } | LeaseCommand::TimeToLive { id, .. } => *id,
        };
        // The store is asked as well: a lease may be too new, or too recently revoked, to be followed already.
        let lease = self.node.store().lease(id);
        if let Some(lease) = &lease
            && !deadlines.by_id.contains_key(&id)
        {
            deadlines.set(id, seconds(lease.remaining_ttl_seconds), now);
        }
        let deadline = deadlines.by_id.get(&id).copied().filter(|_| lease.is_some());
        // The asker may have given up.
        match command {
            LeaseCommand::KeepAlive { answer, .. } => {
                // A lease whose time is up is being revoked: it is not alive any more.
                let Some(deadline) = deadline.filter(|deadline| deadline.at > now) else {
                    let _ = answer.send(0);
                    return;
                };
                let granted = lease.map_or(deadline.ttl, |lease| seconds(lease.granted_ttl_seconds));
                deadlines.set(id, granted, now);
                let _ = answer.send(i64::try_from(granted.as_secs()).unwrap_or(i64::MAX));
            }
            LeaseCommand::TimeToLive { answer, .. } => {
                let left = deadline.map_or(-1, |deadline| {
                    i64::try_from(deadline.at.saturating_duration_since(now).as_secs()).unwrap_or(i64::MAX)
                });
                let _ = answer.send(left);
            }
        }
    }

    fn revoked(&mut self, id: i64, revoked: bool) {
        let Some((_, deadlines)) = &mut self.leading else {
            return;
        };
        if revoked {
            deadlines.remove(id);
        } else if let Some(deadline) = deadlines.by_id.get(&id).copied() {
            // Still leading and not revoked: due again at once.
            deadlines.by_time.insert((deadline.at, id));
        }
    }
}

async fn revoke(node: Node, id: i64) -> (i64, bool) {
    let outcome = node.propose(Op::LeaseRevoke(LeaseRevokeRequest { id })).await;
    if let Err(error) = &outcome {
        tracing::warn!(lease = id, %error, "an expired lease is not revoked yet");
    }
    (id, outcome.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_is_due_first_and_a_renewal_moves_it() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        deadlines.set(1, Duration::from_secs(5), start);
        deadlines.set(2, Duration::from_secs(3), start);
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(3)));
        assert_eq!(deadlines.pop_due(start + Duration::from_secs(2)), None);

        deadlines.set(2, Duration::from_secs(3), start + Duration::from_secs(2));
        assert_eq!(deadlines.pop_due(start + Duration::from_secs(4)), None);
        assert_eq!(deadlines.pop_due(start + Duration::from_secs(5)), Some(1));
        assert_eq!(deadlines.pop_due(start + Duration::from_secs(5)), Some(2));
        assert_eq!(deadlines.pop_due(start + Duration::from_secs(9)), None);
    }
}
