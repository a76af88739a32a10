//! From plans to workers: one worker per object, so many at once, each object at its own pace.
//!
//! The engine knows nothing of the store: the task hands it a plan and takes what is to be said about it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::execute::execute;
use super::plan::{ObjectPlan, Plan, Report};
use super::services::Hands;
use super::status::Said;
use super::step::{Step, in_words};
use crate::attended::Attendance;
use crate::document::{DesiredKey, Phase};

/// Objects worked on at the same time.
const WORKERS_MAX: usize = 8;

/// Work that takes longer than this is worth a status of its own.
const SAY_PROGRESSING_AFTER: Duration = Duration::from_secs(1);

/// Works on the objects of one Incus, and on what is on its host.
#[derive(Debug)]
pub(crate) struct Engine {
    hands: Hands,
    objects: HashMap<DesiredKey, Object>,
    workers: JoinSet<Result<(), String>>,
    worker_of: HashMap<Id, DesiredKey>,
}

/// What the engine remembers of an object between passes.
#[derive(Debug, Default)]
struct Object {
    backoff: Backoff,
    work: Option<Work>,
    last: Option<Attempt>,
}

/// Under way.
#[derive(Debug)]
struct Work {
    since: Instant,
    steps: Vec<Step>,
}

/// Done with, one way or the other.
#[derive(Debug)]
struct Attempt {
    steps: Vec<Step>,
    error: Option<String>,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) said: BTreeMap<DesiredKey, Said>,
    /// When there is a reason to look again, though nothing happens before.
    pub(crate) look_again: Option<Instant>,
}

impl Engine {
    pub(crate) fn new(hands: Hands) -> Engine {
        Engine {
            hands,
            objects: HashMap::new(),
            workers: JoinSet::new(),
            worker_of: HashMap::new(),
        }
    }

    /// What a worker is at, or a person's command.
    pub(crate) fn busy(&self) -> BTreeSet<DesiredKey> {
        let busy = self.objects.iter().filter(|(_, object)| object.work.is_some());
        let mut busy: BTreeSet<DesiredKey> = busy.map(|(key, _)| key.clone()).collect();
        busy.extend(self.hands.attended.by_people());
        busy
    }

    /// Begins what the plan asks for and may begin now, and says where every object stands.
    ///
    /// The plan must have been made from what was observed after the last call of [`Engine::finished`] or
    /// [`Engine::take_finished`]: objects under work are left to their worker.
    pub(crate) fn pass(&mut self, plan: Plan, now: Instant) -> Pass {
        self.objects
            .retain(|key, object| object.work.is_some() || plan.objects.contains_key(key));
        let mut pass = Pass::default();
        for (key, planned) in plan.objects {
            let said = self.one(&key, planned, now, &mut pass.look_again);
            pass.said.insert(key, said);
        }
        for (key, object) in &self.objects {
            if object.work.is_some() {
                pass.said.entry(key.clone()).or_insert(Said::Unchanged);
            }
        }
        pass
    }

    fn one(
        &mut self,
        key: &DesiredKey,
        planned: ObjectPlan,
        now: Instant,
        look_again: &mut Option<Instant>,
    ) -> Said {
        let object = self.objects.entry(key.clone()).or_default();
        let ObjectPlan {
            revision,
            target,
            steps,
            report,
        } = planned;
        if let Some(work) = &object.work {
            let say_from = work.since + SAY_PROGRESSING_AFTER;
            if now < say_from {
                sooner(look_again, say_from);
                return Said::Unchanged;
            }
            return Said::Report {
                revision,
                report: progressing(&work.steps, report),
            };
        }
        if steps.is_empty() {
            object.backoff.settled(now);
            object.last = None;
            return Said::Report { revision, report };
        }
        if object.backoff.may_begin(revision, now) {
            if self.workers.len() < WORKERS_MAX {
                // Who attends to it wakes us when that is over.
                let Some(attendance) = self.hands.attended.work_on(key) else {
                    return Said::Unchanged;
                };
                self.begin(key, target, (revision, steps), attendance, now);
                sooner(look_again, now + SAY_PROGRESSING_AFTER);
            }
            // With all workers busy, the first that finishes starts a pass.
            return if report.phase == Phase::Progressing {
                Said::Unchanged
            } else {
                Said::Report { revision, report }
            };
        }
        if let Some(not_before) = object.backoff.not_before() {
            sooner(look_again, not_before);
        }
        let report = match &object.last {
            Some(last) if report.phase == Phase::Progressing => last.report(&steps, report),
            _ => report,
        };
        Said::Report { revision, report }
    }

    fn begin(
        &mut self,
        key: &DesiredKey,
        target: String,
        (revision, steps): (i64, Vec<Step>),
        attendance: Attendance,
        now: Instant,
    ) {
        info!(object = %key, revision, steps = %in_words(&steps), "working");
        let (hands, worker_key, mut worker_steps) = (self.hands.clone(), key.clone(), steps.clone());
        let worker = self.workers.spawn(async move {
            let _attendance = attendance;
            let revealed = hands.secrets.reveal(&worker_key, &mut worker_steps)?;
            execute(&hands, &worker_key, &target, &worker_steps)
                .await
                .map_err(|error| revealed.scrubbed(error.in_full()))
        });
        self.worker_of.insert(worker.id(), key.clone());
        let object = self.objects.entry(key.clone()).or_default();
        object.backoff.begin(revision, now);
        object.work = Some(Work { since: now, steps });
    }

    /// Waits for a worker to finish; forever, if there is none. Nothing is lost when the future is dropped.
    pub(crate) async fn finished(&mut self) {
        let Some(joined) = self.workers.join_next_with_id().await else {
            return std::future::pending().await;
        };
        self.end(joined);
    }

    /// Takes note of all others that have finished, too: with one for each pass, a pass over many objects would be all
    /// that many workers have to share.
    pub(crate) fn take_finished(&mut self) {
        while let Some(joined) = self.workers.try_join_next_with_id() {
            self.end(joined);
        }
    }

    fn end(&mut self, joined: Result<(Id, Result<(), String>), JoinError>) {
        let (id, result) = match joined {
            Ok(done) => done,
            Err(error) => (error.id(), Err(format!("the worker failed: {error}"))),
        };
        let Some(key) = self.worker_of.remove(&id) else {
            return;
        };
        let Some(object) = self.objects.get_mut(&key) else {
            return;
        };
        let steps = object.work.take().map(|work| work.steps).unwrap_or_default();
        let error = result.err();
        match &error {
            Some(error) => warn!(object = %key, error, "not done, will be tried again"),
            None => info!(object = %key, steps = %in_words(&steps), "done"),
        }
        object.backoff.end(Instant::now(), rand::random());
        object.last = Some(Attempt { steps, error });
    }

    /// Gives the workers this long to finish, and then drops what they are waiting for: every step may be repeated.
    pub(crate) async fn stop(mut self, limit: Duration) {
        let drained = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, drained).await.is_err() {
            self.workers.abort_all();
        }
    }
}

impl Attempt {
    /// What to say while the next attempt waits.
    fn report(&self, steps: &[Step], planned: Report) -> Report {
        match &self.error {
            Some(error) => Report {
                phase: Phase::Failed,
                message: error.clone(),
                ..planned
            },
            None if self.steps == steps => Report {
                phase: Phase::Failed,
                message: format!("did not last: {}; tried again", in_words(steps)),
                ..planned
            },
            None => planned,
        }
    }
}

/// What is being done, unless the document has something worse to say.
fn progressing(steps: &[Step], planned: Report) -> Report {
    match planned.phase {
        Phase::Invalid | Phase::Conflict | Phase::Failed => planned,
        _ => Report {
            phase: Phase::Progressing,
            message: in_words(steps),
            ..planned
        },
    }
}

fn sooner(look_again: &mut Option<Instant>, at: Instant) {
    *look_again = Some(look_again.map_or(at, |other| other.min(at)));
}
