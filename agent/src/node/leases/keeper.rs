//! The keeper: answers while this member leads, revokes what has run out, and writes down what is left of long leases.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::etcdserverpb::LeaseCheckpoint;
use proto::replicated::{LeaseCheckpoints, LeaseExpire, reply, request::Op};
use raft_store::{LeaseEvent, LeaseFeed, LeaseNews, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::LeaseCommand;
use super::deadlines::Deadlines;
use crate::node::{Node, RaftView};

/// Leases that one entry revokes, and keys on them: a client's put waits for one entry at most, not for all.
const EXPIRE_LEASES: usize = 512;
const EXPIRE_KEYS: usize = 1_024;
/// Entries that revoke, under way at once.
const EXPIRES_IN_FLIGHT: usize = 2;
/// Leases that one entry writes down.
const CHECKPOINT_LEASES: usize = 1_000;
/// Leases that are read from the store while the writer waits.
const PAGE_LEASES: usize = 1_000;
/// Commands answered between two looks at the clock.
const COMMANDS_AT_ONCE: usize = 256;
/// After a revoke that was refused or is not known to have happened.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The keeper's task.
#[derive(Debug)]
pub struct LeaseTask {
    node: Node,
    commands: mpsc::Receiver<LeaseCommand>,
    view: watch::Receiver<RaftView>,
    /// As [`Deadlines::new`] takes it.
    checkpoint_interval: Option<Duration>,
    leading: Option<Leading>,
}

impl LeaseTask {
    pub(in crate::node) fn new(
        node: Node,
        commands: mpsc::Receiver<LeaseCommand>,
        checkpoint_interval: Option<Duration>,
    ) -> Self {
        let view = node.raft_view();
        LeaseTask {
            node,
            commands,
            view,
            checkpoint_interval,
            leading: None,
        }
    }

    /// Runs until the node is gone.
    pub async fn run(mut self) {
        let mut commands = Vec::new();
        loop {
            self.follow_leadership().await;
            let wake = match &mut self.leading {
                Some(leading) => {
                    if leading.read_again {
                        leading.read_anew().await;
                    }
                    leading.propose_what_is_due();
                    leading.wake_at()
                }
                None => Instant::now() + IDLE,
            };
            tokio::select! {
                received = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE) => {
                    if received == 0 {
                        return;
                    }
                    for command in commands.drain(..) {
                        // Without leadership the sender is dropped, which tells the asker.
                        if let Some(leading) = &mut self.leading {
                            leading.answer(command);
                        }
                    }
                }
                changed = self.view.changed() => if changed.is_err() { return },
                () = step(self.leading.as_mut(), wake) => {}
            }
        }
    }

    /// Starts to keep deadlines in every term in which this member leads, and stops when it no longer does.
    async fn follow_leadership(&mut self) {
        let view = *self.view.borrow_and_update();
        let leads = view.leader == self.node.member_id();
        if self
            .leading
            .as_ref()
            .is_some_and(|leading| leads && leading.term == view.term)
        {
            return;
        }
        self.leading = None;
        if !leads {
            return;
        }
        // What former leaders wrote down must be applied first: read too early, a remaining TTL may be one that
        // was renewed since. Commands wait meanwhile.
        let feed = self.node.store().lease_feed();
        let confirmed = tokio::select! {
            index = self.node.read_round_here() => index,
            _ = self.view.changed() => {
                self.view.mark_changed();
                return;
            }
        };
        match confirmed {
            Ok(index) => self.node.store().wait_applied(index).await,
            Err(_) => {
                self.node.wait_for_leader(view).await;
                self.view.mark_changed();
                return;
            }
        }
        self.leading = Some(Leading {
            node: self.node.clone(),
            term: view.term,
            deadlines: Deadlines::new(self.checkpoint_interval),
            feed,
            read_again: true,
            proposals: FuturesUnordered::new(),
            expires: 0,
            expire_again: None,
            checkpointing: false,
            checkpoints: 0,
            written_down: HashMap::new(),
            to_reset: Vec::new(),
            resetting: false,
        });
    }
}

const IDLE: Duration = Duration::from_secs(3600);

/// Waits for what concerns the leader alone, and takes it in.
async fn step(leading: Option<&mut Leading>, wake: Instant) {
    let Some(leading) = leading else {
        return sleep_until(wake).await;
    };
    tokio::select! {
        Some(outcome) = leading.proposals.next() => leading.settle(outcome),
        news = leading.feed.next() => match news {
            Some(LeaseNews::Events(events)) => leading.follow(&events),
            // Not here: this may be given up at any time.
            Some(LeaseNews::ReadAnew) => leading.read_again = true,
            // The store is gone, and so is the node, soon.
            None => sleep_until(wake).await,
        },
        () = sleep_until(wake) => {}
    }
}

/// What this member keeps in one term in which it leads.
#[derive(Debug)]
struct Leading {
    node: Node,
    term: u64,
    deadlines: Deadlines,
    feed: LeaseFeed,
    /// The leases are to be read from the store: at first, and when the feed could not be followed.
    read_again: bool,
    proposals: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Entries that revoke, under way.
    expires: usize,
    /// Not before: the last revoke failed.
    expire_again: Option<Instant>,
    checkpointing: bool,
    /// How many times checkpoints were proposed.
    checkpoints: u64,
    /// The last checkpoint of each lease that may be in the log and is not known to be applied. Whoever is renewed
    /// meanwhile is written down again, behind it.
    written_down: HashMap<i64, u64>,
    /// Renewed leases of which less is written down than they have now, and who waits for the answer.
    to_reset: Vec<Renewal>,
    resetting: bool,
}

/// A keep-alive that is answered once the store no longer says less.
#[derive(Debug)]
struct Renewal {
    id: i64,
    granted_ttl_seconds: i64,
    answer: oneshot::Sender<i64>,
}

/// What became of a proposal.
enum Outcome {
    Expired {
        ids: Vec<i64>,
        done: bool,
    },
    Checkpointed {
        number: u64,
        ids: Vec<i64>,
        done: bool,
    },
    Reset {
        number: u64,
        renewals: Vec<Renewal>,
        done: bool,
    },
    HandedOver {
        number: u64,
        ids: Vec<i64>,
        answer: oneshot::Sender<()>,
        done: bool,
    },
}

impl Leading {
    /// Takes up all leases of the store. Those that are known keep at least what they have.
    async fn read_anew(&mut self) {
        self.read_again = false;
        let mut known = HashSet::new();
        let mut after = None;
        loop {
            let page = self.node.store().leases_after(after, PAGE_LEASES);
            let now = Instant::now();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for lease in &page {
                known.insert(lease.id);
                self.deadlines
                    .extend(lease.id, seconds(lease.remaining_ttl_seconds), now);
            }
            tokio::task::yield_now().await;
        }
        self.deadlines.retain(|id| known.contains(&id));
    }

    fn follow(&mut self, events: &[LeaseEvent]) {
        let now = Instant::now();
        for event in events {
            match *event {
                LeaseEvent::Granted { id, ttl_seconds } => {
                    // It may be known already: read from the store, or asked for before this was told.
                    if !self.deadlines.contains(id) {
                        self.deadlines.set(id, seconds(ttl_seconds), now);
                    }
                }
                LeaseEvent::Gone { id } => self.deadlines.remove(id),
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let mut wake = Instant::now() + IDLE;
        if self.expires < EXPIRES_IN_FLIGHT
            && let Some(due) = self.deadlines.next_due()
        {
            wake = wake.min(self.expire_again.map_or(due, |again| again.max(due)));
        }
        if !self.checkpointing
            && let Some(due) = self.deadlines.next_checkpoint_due()
        {
            wake = wake.min(due);
        }
        wake
    }

    fn propose_what_is_due(&mut self) {
        let now = Instant::now();
        if self.expire_again.is_none_or(|again| again <= now) {
            self.expire_again = None;
            while self.expires < EXPIRES_IN_FLIGHT {
                let ids = take_due(&mut self.deadlines, self.node.store(), now);
                if ids.is_empty() {
                    break;
                }
                self.expires += 1;
                self.expire(ids);
            }
        }
        if !self.checkpointing {
            let taken = self.deadlines.take_checkpoints(now, CHECKPOINT_LEASES);
            if !taken.is_empty() {
                self.checkpointing = true;
                self.write_down(&taken);
            }
        }
        if !self.resetting && !self.to_reset.is_empty() {
            self.resetting = true;
            self.reset();
        }
    }

    fn expire(&self, ids: Vec<i64>) {
        let node = self.node.clone();
        let op = Op::LeaseExpire(LeaseExpire {
            term: self.term,
            ids: ids.clone(),
        });
        self.proposals.push(Box::pin(async move {
            let reply = node.propose_as_leader(op).await;
            let done = matches!(
                reply.and_then(|reply| reply.result),
                Some(reply::Result::LeaseExpire(_))
            );
            Outcome::Expired { ids, done }
        }));
    }

    fn write_down(&mut self, left: &[(i64, Duration)]) {
        let (number, ids) = self.number(left);
        let proposal = propose_checkpoints(self.node.clone(), self.term, rounded_up(left));
        self.proposals.push(Box::pin(async move {
            let done = proposal.await;
            Outcome::Checkpointed { number, ids, done }
        }));
    }

    /// Gives checkpoints a number, under which they are in doubt.
    fn number(&mut self, left: &[(i64, Duration)]) -> (u64, Vec<i64>) {
        self.checkpoints += 1;
        let number = self.checkpoints;
        let ids: Vec<i64> = left.iter().map(|(id, _)| *id).collect();
        self.written_down.extend(ids.iter().map(|id| (*id, number)));
        (number, ids)
    }

    fn reset(&mut self) {
        self.checkpoints += 1;
        let number = self.checkpoints;
        let many = self.to_reset.len().min(CHECKPOINT_LEASES);
        let renewals: Vec<Renewal> = self.to_reset.drain(..many).collect();
        let full = renewals
            .iter()
            .map(|renewal| LeaseCheckpoint {
                id: renewal.id,
                remaining_ttl: renewal.granted_ttl_seconds,
            })
            .collect();
        let proposal = propose_checkpoints(self.node.clone(), self.term, full);
        self.proposals.push(Box::pin(async move {
            let done = proposal.await;
            Outcome::Reset {
                number,
                renewals,
                done,
            }
        }));
    }

    fn hand_over(&mut self, answer: oneshot::Sender<()>) {
        let left = self.deadlines.long_leases(Instant::now());
        let (number, ids) = self.number(&left);
        let (node, term) = (self.node.clone(), self.term);
        self.proposals.push(Box::pin(async move {
            let mut done = true;
            for some in left.chunks(CHECKPOINT_LEASES) {
                done = propose_checkpoints(node.clone(), term, rounded_up(some)).await;
                if !done {
                    break;
                }
            }
            Outcome::HandedOver {
                number,
                ids,
                answer,
                done,
            }
        }));
    }

    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Expired { ids, done } => {
                self.expires -= 1;
                // The feed tells which are gone. The others are due again, and nothing renews them meanwhile: the
                // entry may still be applied.
                if !done {
                    tracing::warn!(leases = ids.len(), "expired leases are not revoked yet");
                    self.expire_again = Some(Instant::now() + RETRY_AFTER);
                    for id in ids {
                        self.deadlines.give_back(id);
                    }
                }
            }
            Outcome::Checkpointed { number, ids, done } => {
                self.checkpointing = false;
                self.applied(number, &ids, done);
            }
            Outcome::Reset {
                number,
                renewals,
                done,
            } => {
                self.resetting = false;
                for renewal in renewals {
                    self.applied(number, &[renewal.id], done);
                    if done {
                        // The asker may have given up.
                        let _ = renewal.answer.send(renewal.granted_ttl_seconds);
                    }
                    // Otherwise the sender is dropped, and the asker asks again.
                }
            }
            Outcome::HandedOver {
                number,
                ids,
                answer,
                done,
            } => {
                self.applied(number, &ids, done);
                if done {
                    let _ = answer.send(());
                }
            }
        }
    }

    /// Once checkpoints are applied, the store itself says what is written down, of them and of those before; later
    /// ones, and those that may not be applied, stay in doubt.
    fn applied(&mut self, number: u64, ids: &[i64], done: bool) {
        if !done {
            return;
        }
        for id in ids {
            if self.written_down.get(id).is_some_and(|last| *last <= number) {
                self.written_down.remove(id);
            }
        }
    }

    fn answer(&mut self, command: LeaseCommand) {
        match command {
            LeaseCommand::KeepAlive { id, answer } => self.keep_alive(id, answer),
            LeaseCommand::TimeToLive { id, answer } => {
                let left = self.left(id).map_or(-1, |(left, _)| whole_seconds(left));
                // The asker may have given up.
                let _ = answer.send(left);
            }
            LeaseCommand::Checkpoint { answer } => self.hand_over(answer),
        }
    }

    fn keep_alive(&mut self, id: i64, answer: oneshot::Sender<i64>) {
        // A lease whose time is up is being revoked: it is not alive any more.
        let Some((_, lease)) = self.left(id).filter(|(left, _)| !left.is_zero()) else {
            let _ = answer.send(0);
            return;
        };
        let granted_ttl_seconds = lease.granted_ttl_seconds;
        self.deadlines
            .set(id, seconds(granted_ttl_seconds), Instant::now());
        if lease.remaining_ttl_seconds < granted_ttl_seconds || self.written_down.contains_key(&id) {
            // The next leader would start from less than is promised here.
            self.to_reset.push(Renewal {
                id,
                granted_ttl_seconds,
                answer,
            });
        } else {
            let _ = answer.send(granted_ttl_seconds);
        }
    }

    /// What a lease has left, and what the store says of it. The store is asked as well: a lease may be too new, or too
    /// recently revoked, to be followed already.
    fn left(&mut self, id: i64) -> Option<(Duration, raft_store::LeaseInfo)> {
        let lease = self.node.store().lease(id)?;
        let now = Instant::now();
        if !self.deadlines.contains(id) {
            self.deadlines.set(id, seconds(lease.remaining_ttl_seconds), now);
        }
        Some((self.deadlines.left(id, now)?, lease))
    }
}

/// The leases that one entry is to revoke.
fn take_due(deadlines: &mut Deadlines, store: &Store, now: Instant) -> Vec<i64> {
    let (mut ids, mut keys) = (Vec::new(), 0);
    while ids.len() < EXPIRE_LEASES && keys < EXPIRE_KEYS {
        let Some(id) = deadlines.take_due(now) else { break };
        keys += store.lease_key_count(id);
        ids.push(id);
    }
    // In the order of ids: leases that end together have one, whoever revokes them.
    ids.sort_unstable();
    ids
}

/// Whether it is applied.
async fn propose_checkpoints(node: Node, term: u64, checkpoints: Vec<LeaseCheckpoint>) -> bool {
    let op = Op::LeaseCheckpoints(LeaseCheckpoints { term, checkpoints });
    let reply = node.propose_as_leader(op).await;
    matches!(
        reply.and_then(|reply| reply.result),
        Some(reply::Result::LeaseCheckpoints(_))
    )
}

/// To whole seconds, up: a new leader may only lengthen what is left.
fn rounded_up(left: &[(i64, Duration)]) -> Vec<LeaseCheckpoint> {
    let whole = |left: Duration| whole_seconds(left + Duration::from_nanos(999_999_999));
    left.iter()
        .map(|(id, left)| LeaseCheckpoint {
            id: *id,
            remaining_ttl: whole(*left),
        })
        .collect()
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
