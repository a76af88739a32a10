//! An object that a document names.

use super::compare::{Differences, compare};
use super::create::{create, image_alias};
use super::references::{self, BadReference};
use super::{ObjectPlan, Report, View, is_builtin, remove};
use crate::document::{Binding, Deletion, DesiredKey, Document, Failover, Kind, Managed, Phase, Update};
use crate::reconciler::desired::{Text, Wanted};
use crate::reconciler::observe::{Object, Power};
use crate::reconciler::ownership::{self, Applied, Claim, Owner};
use crate::reconciler::step::{Change, Step};

/// How long a guest may take to shut down when it is stopped or restarted.
const STOP_SECONDS: u32 = 30;

/// A document that is in force, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce<'a> {
    pub(super) document: &'a Document,
    pub(super) revision: i64,
    pub(super) created_revision: i64,
}

pub(super) fn plan(
    view: View<'_>,
    key: &DesiredKey,
    wanted: &Wanted,
    object: Option<&Object>,
) -> Option<ObjectPlan> {
    let claim = object.and_then(|object| match view.owner(key, object) {
        Owner::Ours(claim) => Some(claim),
        _ => None,
    });
    if wanted.names_host(view.context.host) == Some(false) {
        return elsewhere(view, key, wanted, object?, &claim?);
    }
    if let (Some(object), Some(_), Some(to)) = (object, &claim, moving_to(view, key)) {
        return Some(leaving(wanted, object, to));
    }
    if let Some(waits) = fenced_off(view, key, wanted, object) {
        return Some(waits);
    }
    if let Some(why) = view.desired.waiting.get(key) {
        return Some(ObjectPlan::nothing(wanted.revision, Phase::Pending, why.clone()));
    }
    let (revision, created_revision) = (wanted.revision, wanted.created_revision);
    let (fault, line, last_good) = match &wanted.text {
        Text::Good(document) => match references::check(view, document) {
            Ok(()) => {
                return Some(agree(
                    view,
                    key,
                    object,
                    InForce {
                        document,
                        revision,
                        created_revision,
                    },
                ));
            }
            Err(BadReference { path, message }) => {
                (format!("{path}: {message}"), document.line_of(&path), None)
            }
        },
        Text::Invalid { error, last_good, .. } => (
            error.text(),
            Some(error.line).filter(|line| *line > 0),
            last_good.as_ref(),
        ),
    };
    let kept = last_good
        .filter(|(_, document)| references::check(view, document).is_ok())
        .map(|(revision, document)| {
            agree(
                view,
                key,
                object,
                InForce {
                    document,
                    revision: *revision,
                    created_revision,
                },
            )
        })
        .or_else(|| agree_with_applied(view, key, object?, claim.as_ref()?));
    Some(invalid(revision, fault, line, kept))
}

/// The document is wrong and changes nothing; what was good before stays in force.
fn invalid(revision: i64, fault: String, line: Option<u64>, kept: Option<ObjectPlan>) -> ObjectPlan {
    let message = match &kept {
        Some(kept) => format!("{fault} (revision {} stays in force)", kept.revision),
        None => fault,
    };
    ObjectPlan {
        revision,
        target: String::new(),
        steps: kept.map(|kept| kept.steps).unwrap_or_default(),
        report: Report::new(Phase::Invalid, message).at(line),
    }
}

/// What the object itself remembers as good.
fn agree_with_applied(
    view: View<'_>,
    key: &DesiredKey,
    object: &Object,
    claim: &Claim,
) -> Option<ObjectPlan> {
    let Applied {
        spec,
        running,
        lifecycle,
        ..
    } = claim.applied.clone()?;
    let document = Document::restored(key.clone(), view.context.host, running, lifecycle, spec);
    let created_revision = claim.uid.rsplit_once('@')?.1.parse().ok()?;
    let in_force = InForce {
        document: &document,
        revision: claim.revision,
        created_revision,
    };
    Some(agree(view, key, Some(object), in_force))
}

/// The document names other hosts now, and an object of ours is here.
fn elsewhere(
    view: View<'_>,
    key: &DesiredKey,
    wanted: &Wanted,
    object: &Object,
    claim: &Claim,
) -> Option<ObjectPlan> {
    if claim.is_of_another_host(view.context.host) {
        return None;
    }
    if is_placed(view, key, wanted) {
        return Some(bound_elsewhere(view, key, wanted, object, claim));
    }
    let Text::Good(document) = &wanted.text else {
        return None;
    };
    if key.kind != Kind::Instance {
        return Some(ObjectPlan {
            revision: wanted.revision,
            ..remove::plan(view, key, object, claim)
        });
    }
    // Its data is here and nowhere else: an edit of one word does not delete it.
    let message = format!(
        "the document names {} now; the instance on {} is kept as it is, and yours to delete",
        document.hosts.join(", "),
        view.context.host
    );
    let line = document.line_of("host").or_else(|| document.line_of("hosts"));
    Some(ObjectPlan {
        revision: wanted.revision,
        target: String::new(),
        steps: Vec::new(),
        report: Report::new(Phase::Conflict, message).at(line),
    })
}

/// Whether the instance is where its binding says. A wrong document does not say that any more.
fn is_placed(view: View<'_>, key: &DesiredKey, wanted: &Wanted) -> bool {
    match &wanted.text {
        Text::Good(document) => document.placement.is_some(),
        Text::Invalid { .. } => view.desired.bindings.contains_key(key),
    }
}

/// The host that the instance moves to.
pub(super) fn moving_to<'a>(view: View<'a>, key: &DesiredKey) -> Option<&'a str> {
    let bound = view.desired.bindings.get(key)?;
    bound
        .binding
        .moving_to
        .as_deref()
        .filter(|to| *to != view.context.host)
}

/// A fenced instance is left alone while nothing makes sure that it ends here before another host has it.
fn fenced_off(
    view: View<'_>,
    key: &DesiredKey,
    wanted: &Wanted,
    object: Option<&Object>,
) -> Option<ObjectPlan> {
    let held = view.context.held?;
    let binding = view.desired.bindings.get(key).map(|bound| &bound.binding);
    let is_fenced = match &wanted.text {
        Text::Good(document) => document.failover() == Failover::Fenced,
        Text::Invalid { .. } => binding.is_some_and(|binding| binding.fence_seconds.is_some()),
    };
    let holds = binding.is_some_and(|binding| binding.fence_seconds.is_some()) && held.contains(key);
    if !is_fenced || holds {
        return None;
    }
    let message = match object.map(|object| &object.power) {
        Some(Power::Stopped) | None => "not started: no quorum has said just now that it is to run here",
        Some(_) => {
            "left as it is: no quorum has said just now that it is to run here, and its fence stops it soon"
        }
    };
    Some(ObjectPlan::nothing(wanted.revision, Phase::Pending, message))
}

/// It moves to another host, which copies it as soon as it is stopped.
fn leaving(wanted: &Wanted, object: &Object, to: &str) -> ObjectPlan {
    if let Some(volume) = object.volumes().first() {
        // Whoever hands it out refuses; until that is written down it goes on.
        let message = format!(
            "not stopped for its move to {to}: it has volume {} of pool {}, which does not move",
            volume.volume, volume.pool
        );
        return ObjectPlan::nothing(wanted.revision, Phase::Progressing, message);
    }
    if matches!(object.power, Power::Running | Power::Frozen) {
        let stop = Step::Stop {
            timeout_seconds: STOP_SECONDS,
        };
        return ObjectPlan::steps(wanted.revision, vec![stop]);
    }
    ObjectPlan::nothing(
        wanted.revision,
        Phase::Progressing,
        format!("stopped, and on its way to {to}"),
    )
}

/// What cannot be read may say so.
pub(super) fn is_protected(claim: &Claim) -> bool {
    claim
        .applied
        .as_ref()
        .is_none_or(|applied| applied.lifecycle.protect)
}

/// The instance was put on another host, and there is a copy here. It may hold what the other has not: it is stopped,
/// and kept.
fn bound_elsewhere(
    view: View<'_>,
    key: &DesiredKey,
    wanted: &Wanted,
    object: &Object,
    claim: &Claim,
) -> ObjectPlan {
    let here = view.context.host;
    let binding = view.desired.bindings.get(key).map(|bound| &bound.binding);
    let Some(host) = binding.and_then(Binding::bound_host) else {
        let message = format!("waits for a host to be chosen; the copy on {here} stays as it is");
        return ObjectPlan::nothing(wanted.revision, Phase::Pending, message);
    };
    if object.power == Power::Running {
        let stop = Step::Stop {
            timeout_seconds: STOP_SECONDS,
        };
        return ObjectPlan::steps(wanted.revision, vec![stop]);
    }
    let came_from_here = binding.filter(|binding| binding.moved_from.as_deref() == Some(here));
    match came_from_here {
        Some(binding) if !binding.arrived => {
            let message = format!("copied to {host}; deleted here once it is up there");
            return ObjectPlan::nothing(wanted.revision, Phase::Progressing, message);
        }
        Some(_) if !is_protected(claim) => {
            return ObjectPlan::steps(wanted.revision, remove::delete(object, claim));
        }
        _ => {}
    }
    if let Some(mark) = outlives_its_document(object, claim) {
        let changes = vec![mark];
        return ObjectPlan::steps(wanted.revision, vec![Step::Change { changes }]);
    }
    let message = format!(
        "it is on {host} now; this copy is stopped and kept, also when its document goes, and yours to delete"
    );
    ObjectPlan::nothing(wanted.revision, Phase::Stopped, message)
}

/// Whoever deletes the document means the instance that is in use, and may not know of this copy: from now on it says
/// itself that it stays.
fn outlives_its_document(object: &Object, claim: &Claim) -> Option<Change> {
    let mut applied = claim.applied.clone()?;
    if applied.lifecycle.deletion == Deletion::Retain {
        return None;
    }
    applied.lifecycle.deletion = Deletion::Retain;
    Some(Change::Config {
        key: ownership::APPLIED.to_owned(),
        before: object.config.get(ownership::APPLIED).cloned(),
        after: Some(applied.to_text()),
    })
}

/// Makes the object agree with its document.
fn agree(view: View<'_>, key: &DesiredKey, object: Option<&Object>, in_force: InForce<'_>) -> ObjectPlan {
    let InForce {
        document, revision, ..
    } = in_force;
    let Some(object) = object else {
        return match references::waits_for(view, document) {
            Some(wait) => ObjectPlan::nothing(revision, Phase::Pending, wait),
            None => ObjectPlan::steps(revision, create(view, in_force)),
        };
    };
    let conflict = |message: &str| ObjectPlan::nothing(revision, Phase::Conflict, message);
    match view.owner(key, object) {
        Owner::Ours(claim) => change(view, object, Some(&claim), in_force),
        Owner::Nobody if is_builtin(key) => change(view, object, None, in_force),
        Owner::Nobody => conflict("one of this name is here already and is not ours; it is not touched"),
        Owner::Another { cluster } => conflict(&format!(
            "one of this name is here already and is cluster {cluster}'s; it is not touched"
        )),
        Owner::CopyOf { uid } => conflict(&format!(
            "one of this name is here already, a copy of {uid}; it is not touched"
        )),
    }
}

fn change(view: View<'_>, object: &Object, claim: Option<&Claim>, in_force: InForce<'_>) -> ObjectPlan {
    let InForce {
        document, revision, ..
    } = in_force;
    let applied = claim
        .and_then(|claim| claim.applied.as_ref())
        .map(|applied| &applied.spec);
    let is_instance = document.kind == Kind::Instance;
    let kept_in_full = document.lifecycle.managed == Managed::Full;
    let mut differences = if kept_in_full {
        compare(document.kind, &document.spec, applied, object)
    } else {
        Differences::default()
    };
    if document.kind == Kind::Image && kept_in_full {
        differences.changes.extend(aliases(document, claim, object));
    }
    let power_wanted = is_instance && kept_in_full;
    // What a restart would make effective takes effect at the next start anyway, if it does not run on.
    let runs_on = object.power != Power::Stopped && document.running;
    let cost = differences
        .costs
        .iter()
        .filter(|(cost, _)| *cost == Update::Rebuild || runs_on)
        .max_by_key(|(cost, _)| *cost)
        .cloned();
    if let Some(refusal) = cost
        .as_ref()
        .and_then(|(cost, path)| refusal(document, *cost, path))
    {
        let steps = if power_wanted {
            power(object, document, Vec::new(), false)
        } else {
            Vec::new()
        };
        return ObjectPlan {
            revision,
            target: String::new(),
            steps,
            report: refusal,
        };
    }
    let cost = cost.map_or(Update::Live, |(cost, _)| cost);
    if cost == Update::Rebuild
        && let Some(claim) = claim
    {
        let steps = remove::delete(object, claim)
            .into_iter()
            .chain(create(view, in_force))
            .collect();
        return ObjectPlan::steps(revision, steps);
    }
    differences.changes.extend(marks(view, object, in_force));
    let changes = if differences.changes.is_empty() {
        Vec::new()
    } else {
        vec![Step::Change {
            changes: differences.changes,
        }]
    };
    let steps = if power_wanted {
        power(object, document, changes, cost == Update::Restart)
    } else {
        changes
    };
    if steps.is_empty() {
        settled(object, document, revision)
    } else {
        ObjectPlan::steps(revision, steps)
    }
}

/// An image has the name that its document gives it, and not the one that it gave before.
fn aliases(document: &Document, claim: Option<&Claim>, object: &Object) -> Vec<Change> {
    let wanted = image_alias(document);
    let has = |name: &str| object.aliases().any(|alias| alias == name);
    let applied = claim.and_then(|claim| claim.applied.as_ref());
    let before = applied
        .and_then(|applied| applied.spec.get("alias")?.as_str())
        .filter(|before| *before != wanted && has(before));
    let change = |name: &str, add| Change::Alias {
        name: name.to_owned(),
        add,
    };
    let add = (!has(wanted)).then(|| change(wanted, true));
    before
        .map(|before| change(before, false))
        .into_iter()
        .chain(add)
        .collect()
}

/// Why a change that costs this much is not made, if it is not.
fn refusal(document: &Document, cost: Update, path: &str) -> Option<Report> {
    let path = format!("spec.{path}");
    let why = if cost > document.lifecycle.update {
        format!(
            "needs {cost}, and lifecycle.update is {}",
            document.lifecycle.update
        )
    } else if cost == Update::Rebuild && document.lifecycle.protect {
        "needs rebuild, and it is protected".to_owned()
    } else {
        return None;
    };
    let message = format!("{path} changes: {why}: not applied");
    Some(Report::new(Phase::Failed, message).at(document.line_of(&path)))
}

/// Our keys, where they do not yet say what they should.
fn marks(view: View<'_>, object: &Object, in_force: InForce<'_>) -> Vec<Change> {
    let InForce {
        document,
        revision,
        created_revision,
    } = in_force;
    let here = view.context.host;
    let maker = object.config.get(ownership::HOST);
    // What moved here names the host that it came from.
    let is_new_here = maker.is_none_or(|maker| maker != here && document.placement.is_some());
    let maker = is_new_here.then(|| (ownership::HOST, here.to_owned()));
    ownership::keys(document, view.context.cluster, created_revision, revision)
        .into_iter()
        .chain(maker)
        .filter_map(|(key, after)| {
            let before = object.config.get(key).cloned();
            (before.as_ref() != Some(&after)).then(|| Change::Config {
                key: key.to_owned(),
                before,
                after: Some(after),
            })
        })
        .collect()
}

/// Puts the changes of an instance between the stops and starts that it needs.
fn power(object: &Object, document: &Document, changes: Vec<Step>, restart: bool) -> Vec<Step> {
    let stop = Step::Stop {
        timeout_seconds: STOP_SECONDS,
    };
    match (&object.power, document.running) {
        (Power::Running, true) if restart => std::iter::once(stop)
            .chain(changes)
            .chain([Step::Start])
            .collect(),
        (Power::Running, false) => std::iter::once(stop).chain(changes).collect(),
        (Power::Stopped, true) => changes.into_iter().chain([Step::Start]).collect(),
        _ => changes,
    }
}

/// What to say of an object that needs nothing.
fn settled(object: &Object, document: &Document, revision: i64) -> ObjectPlan {
    if document.kind != Kind::Instance || document.lifecycle.managed == Managed::Existence {
        return ObjectPlan::nothing(revision, Phase::Ready, "");
    }
    let name = &document.name;
    match (&object.power, document.running) {
        (Power::Running, _) => ObjectPlan::nothing(revision, Phase::Ready, ""),
        (Power::Stopped, _) => ObjectPlan::nothing(revision, Phase::Stopped, ""),
        (Power::Frozen, _) => ObjectPlan::nothing(
            revision,
            Phase::Failed,
            format!("paused by hand; incus resume {name} wakes it"),
        ),
        (Power::Other(status), _) if status == "Error" => ObjectPlan::nothing(
            revision,
            Phase::Failed,
            "Incus says Error; incus info --show-log says why",
        ),
        (Power::Other(status), _) => {
            ObjectPlan::nothing(revision, Phase::Progressing, format!("Incus says {status}"))
        }
    }
}
