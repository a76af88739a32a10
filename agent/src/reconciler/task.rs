//! The loop: one pass at a time, started by a document, by Incus, by a backoff that ran out, or by the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use raft_store::ReadError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::ReconcilerOptions;
use super::desired::{Desired, Parser};
use super::engine::{Engine, Pass};
use super::execute::in_full;
use super::observe::{Observed, observe};
use super::placement::{Held, Move, Moves, moves_to};
use super::plan::{Context, NOTHING_DUE, Report, maintenance, plan, plan_without_incus};
use super::restart::Boot;
use super::services::{Hands, Seen, Services};
use super::status::{self, Said, Stored};
use super::stored::{self, WriteError};
use super::trigger::{
    follow_attended, follow_backups, follow_documents, follow_fence, follow_incus, follow_services,
};
use crate::document::{DesiredKey, Phase};
use crate::incus::IncusError;
use crate::node::Node;
use crate::shutdown::Shutdown;
use crate::telemetry::Passes;

/// Everything is looked at so often, whatever happens.
const RESCAN: Duration = Duration::from_secs(60);
/// Things that happen together are looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// To look at many objects is work for Incus, too: after a pass there is none for as long as it took, and at most for
/// this long; but for an edit.
const REST_LONGEST: Duration = Duration::from_secs(2);
/// How long to ask for a quorum before working from what is here.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(5);
/// Without a quorum, deletions are not thought of again for so long.
const CONFIRM_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Incus may restart without every document saying so.
const SAY_UNREACHABLE_AFTER: Duration = Duration::from_secs(10);
const INCUS_RETRY_FIRST: Duration = Duration::from_secs(1);
const INCUS_RETRY_LONGEST: Duration = Duration::from_secs(30);
const STATUS_RETRY: Duration = Duration::from_secs(3);
const WORKERS_STOP_LIMIT: Duration = Duration::from_secs(5);

/// Keeps this host's Incus as the documents say.
#[derive(Debug)]
pub struct Reconciler {
    node: Node,
    hands: Hands,
    host: String,
    cluster: String,
    parser: Parser,
    engine: Engine,
    services: Services,
    /// At most one batch of status on its way.
    status_writes: JoinSet<Result<(), WriteError>>,
    /// There was more to say while that batch was on its way.
    status_waits: bool,
    status_retry: Option<Instant>,
    unreachable: Option<Unreachable>,
    /// No quorum answered: not asked again before this.
    confirm_again: Option<Instant>,
    /// What moves to this host, for the task that fetches it.
    moves: watch::Sender<Vec<Move>>,
    passes: Passes,
    held: Held,
    boot: Boot,
}

/// What starts a pass.
#[derive(Debug, Default)]
struct Wakes {
    /// A document: a person waits for what comes of it.
    edited: Arc<Notify>,
    /// Anything else. After a change of ours there are some of these.
    happened: Arc<Notify>,
}

/// Incus has not answered since.
#[derive(Debug)]
struct Unreachable {
    since: Instant,
    wait: Duration,
    reason: String,
}

impl Reconciler {
    #[must_use]
    pub fn new(
        node: Node,
        hands: Hands,
        held: Held,
        boot: Boot,
        options: &ReconcilerOptions,
        passes: Passes,
    ) -> Reconciler {
        Reconciler {
            host: options.host.clone(),
            cluster: format!("{:x}", node.cluster_id()),
            parser: Parser::new(&options.host),
            engine: Engine::new(hands.clone()),
            services: Services::new(hands.clone()),
            status_writes: JoinSet::new(),
            status_waits: false,
            status_retry: None,
            unreachable: None,
            confirm_again: None,
            moves: watch::Sender::new(Vec::new()),
            passes,
            held,
            boot,
            node,
            hands,
        }
    }

    /// What every pass sees of the moves to this host.
    #[must_use]
    pub fn moves(&self) -> Moves {
        Moves(self.moves.subscribe())
    }

    /// Runs until shutdown. What is under way then is given a moment; every step may be repeated later.
    pub async fn run(mut self, shutdown: Shutdown) {
        let wakes = Wakes::default();
        let Wakes { edited, happened } = &wakes;
        let (node, hands, held) = (self.node.clone(), self.hands.clone(), self.held.clone());
        let followers = async {
            tokio::join!(
                follow_documents(&node, edited),
                follow_incus(&hands.incus, happened),
                follow_services(hands.manager.as_ref(), happened),
                follow_backups(&hands.board, happened),
                follow_attended(&hands.attended, happened),
                follow_fence(held, happened)
            );
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = followers => {}
            () = self.work(&wakes) => {}
        }
        self.engine.stop(WORKERS_STOP_LIMIT).await;
    }

    async fn work(&mut self, wakes: &Wakes) {
        self.catch_up().await;
        info!(host = self.host, "reconciling");
        loop {
            let started = Instant::now();
            let look_again = self.pass().await;
            let took = started.elapsed();
            self.passes.passed(took);
            let rested = Instant::now() + took.min(REST_LONGEST);
            let rescan = Instant::now() + RESCAN.mul_f64(0.9 + 0.2 * rand::random::<f64>());
            let next = look_again.map_or(rescan, |at| at.min(rescan));
            if !self.wait(wakes, next).await {
                tokio::select! {
                    () = sleep_until(rested) => {}
                    () = wakes.edited.notified() => {}
                }
            }
            sleep(COALESCE).await;
            self.engine.take_finished();
        }
    }

    /// Waits for a reason to look again; whether somebody waits for what comes of it. That status was written is none,
    /// unless there was more to say.
    async fn wait(&mut self, wakes: &Wakes, next: Instant) -> bool {
        loop {
            tokio::select! {
                () = wakes.edited.notified() => return true,
                () = wakes.happened.notified() => return false,
                () = self.engine.finished() => return false,
                () = sleep_until(next) => return false,
                Some(written) = self.status_writes.join_next() => {
                    let failed = self.status_failed(written);
                    if failed || std::mem::take(&mut self.status_waits) {
                        return false;
                    }
                }
            }
        }
    }

    /// Before the first pass, the store must hold what the cluster agreed on. Without a quorum a member that
    /// knows anything at all goes on with that; one that knows nothing waits.
    async fn catch_up(&self) {
        let mut said = false;
        loop {
            match timeout(READ_INDEX_LIMIT, self.node.read_index()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => debug!(error = %error, "not caught up yet"),
                Err(_) => debug!("not caught up yet: no answer"),
            }
            if self.node.store().revision() > 1 {
                warn!("no quorum: reconciling what this member knows, deleting nothing");
                return;
            }
            if !said {
                info!("no quorum and an empty store: waiting");
                said = true;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// One pass; when to look again at the latest.
    async fn pass(&mut self) -> Option<Instant> {
        let (desired, stored) = match self.read() {
            Ok(read) => read,
            Err(error) => {
                // A compaction in between is over at the next reading; a failed store stops the member.
                debug!(error = %error, "cannot read the documents");
                return Some(Instant::now() + Duration::from_secs(1));
            }
        };
        let moves = moves_to(&desired, &self.host);
        self.moves.send_if_modified(|before| {
            let is_new = *before != moves;
            *before = moves;
            is_new
        });
        let (pass, confirmed) = match self.plan_and_begin(&desired).await {
            Ok(done) => {
                if let Some(unreachable) = self.unreachable.take() {
                    info!(
                        seconds = unreachable.since.elapsed().as_secs(),
                        "incus answers again"
                    );
                }
                done
            }
            Err(error) => (self.without_incus(&error, &desired, &stored).await, None),
        };
        let status_retry = self.say(&confirmed.unwrap_or(stored), &pass.said);
        [pass.look_again, status_retry].into_iter().flatten().min()
    }

    /// Plans, and begins what may begin. Where something is to be deleted the documents are read again once a
    /// quorum has confirmed them, and the status that was read with them comes back.
    async fn plan_and_begin(&mut self, desired: &Desired) -> Result<(Pass, Option<Stored>), IncusError> {
        // What somebody was at work on before we looked may have been seen half done.
        let mut attended = self.hands.attended.by_people();
        let mut observed = observe(&self.hands.incus, desired, &self.host).await?;
        self.hands.secrets.hide(&mut observed, &[desired]);
        let busy: BTreeSet<DesiredKey> = self.engine.busy().union(&attended).cloned().collect();
        let seen = self.look(desired, Some(&observed), &busy).await;
        self.boot.look(&observed, &self.cluster, &self.host);
        let due = self.boot.due();
        // As late as can be: all of this may have taken long.
        let mut held = self.held.now();
        let mut planned = plan(desired, &observed, &seen, self.context(false, &busy, &held, &due));
        let mut confirmed = None;
        if planned.wants_confirmation
            && self.confirm().await
            && let Ok((desired, stored)) = self.read()
        {
            held = self.held.now();
            planned = plan(&desired, &observed, &seen, self.context(true, &busy, &held, &due));
            confirmed = Some(stored);
        }
        self.boot.planned(&planned.renewals, &busy);
        maintenance::pause(&mut planned, desired, &self.host);
        let ask_again = self.confirm_again.filter(|_| planned.wants_confirmation);
        let look_again = self.services.planned(&planned, Instant::now());
        attended.extend(self.hands.attended.by_people());
        planned.objects.retain(|key, _| !attended.contains(key));
        let mut pass = self.engine.pass(planned, Instant::now());
        pass.look_again = [pass.look_again, ask_again, look_again]
            .into_iter()
            .flatten()
            .min();
        pass.said
            .extend(attended.into_iter().map(|key| (key, Said::Unchanged)));
        Ok((pass, confirmed))
    }

    /// The documents, with stand-ins for the secrets that they refer to, and the status that was read with them.
    fn read(&mut self) -> Result<(Desired, Stored), ReadError> {
        let (mut desired, stored) = stored::read(self.node.store(), &mut self.parser, &self.host)?;
        self.hands.secrets.stand_in(&mut desired, &self.host);
        Ok((desired, stored))
    }

    fn context<'a>(
        &'a self,
        may_delete: bool,
        busy: &'a BTreeSet<DesiredKey>,
        held: &'a BTreeSet<DesiredKey>,
        due: &'a BTreeMap<DesiredKey, String>,
    ) -> Context<'a> {
        Context {
            host: &self.host,
            cluster: &self.cluster,
            may_delete,
            busy,
            held: Some(held),
            due,
        }
    }

    /// Whether the local state has, now, all that the cluster has agreed on.
    async fn confirm(&mut self) -> bool {
        if self.confirm_again.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let confirmed = matches!(
            timeout(READ_INDEX_LIMIT, self.node.read_index()).await,
            Ok(Ok(()))
        );
        self.confirm_again = (!confirmed).then(|| Instant::now() + CONFIRM_AGAIN_AFTER);
        confirmed
    }

    /// What can be said while Incus does not answer.
    async fn without_incus(&mut self, error: &IncusError, desired: &Desired, stored: &Stored) -> Pass {
        let now = Instant::now();
        let reason = in_full(error);
        let unreachable = self.unreachable.get_or_insert_with(|| {
            warn!(error = reason, "incus does not answer");
            Unreachable {
                since: now,
                wait: INCUS_RETRY_FIRST,
                reason: reason.clone(),
            }
        });
        unreachable.reason = reason;
        let look_again = now + unreachable.wait;
        unreachable.wait = (unreachable.wait * 2).min(INCUS_RETRY_LONGEST);
        let mut said: BTreeMap<DesiredKey, Said> =
            stored.keys().map(|key| (key.clone(), Said::Unchanged)).collect();
        if now.duration_since(unreachable.since) >= SAY_UNREACHABLE_AFTER {
            for (key, wanted) in &desired.documents {
                if wanted.names_host(&self.host) == Some(true) {
                    let message = format!("incus does not answer: {}", unreachable.reason);
                    let report = Report::new(Phase::Pending, message);
                    said.insert(
                        key.clone(),
                        Said::Report {
                            revision: wanted.revision,
                            report,
                        },
                    );
                }
            }
        }
        // What is on the host itself does not wait for Incus.
        let (busy, held) = (self.engine.busy(), self.held.now());
        let seen = self.look(desired, None, &busy).await;
        let mut planned = plan_without_incus(desired, &seen, self.context(false, &busy, &held, &NOTHING_DUE));
        maintenance::pause(&mut planned, desired, &self.host);
        let services = self.services.planned(&planned, now);
        let pass = self.engine.pass(planned, now);
        said.extend(pass.said);
        let look_again = [Some(look_again), services, pass.look_again]
            .into_iter()
            .flatten()
            .min();
        Pass { said, look_again }
    }

    /// What is there of services and files.
    async fn look(
        &mut self,
        desired: &Desired,
        incus: Option<&Observed>,
        busy: &BTreeSet<DesiredKey>,
    ) -> Seen {
        let context = Context {
            host: &self.host,
            cluster: &self.cluster,
            may_delete: false,
            busy,
            held: None,
            due: &NOTHING_DUE,
        };
        self.services.observe(desired, incus, context).await
    }

    /// Starts to write what changed, unless a write is still on its way. Returns when to look again because of a
    /// write that failed.
    fn say(&mut self, stored: &Stored, said: &BTreeMap<DesiredKey, Said>) -> Option<Instant> {
        let writes = status::writes(stored, said, &self.host, SystemTime::now());
        if writes.is_empty() {
            self.status_retry = None;
            return None;
        }
        if self.status_retry.is_some_and(|at| Instant::now() < at) {
            return self.status_retry;
        }
        if self.status_writes.is_empty() {
            self.status_writes.spawn(stored::write(self.node.clone(), writes));
        } else {
            self.status_waits = true;
        }
        None
    }

    fn status_failed(&mut self, written: Result<Result<(), WriteError>, tokio::task::JoinError>) -> bool {
        let error = match written {
            Ok(Ok(())) => {
                self.status_retry = None;
                return false;
            }
            Ok(Err(error)) => in_full(&error),
            Err(error) => error.to_string(),
        };
        // Without a quorum this is as it must be: the host works on, and says so later.
        debug!(error, "status not written");
        self.status_retry = Some(Instant::now() + STATUS_RETRY);
        true
    }
}
