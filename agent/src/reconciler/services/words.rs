//! What a plan for a service or a file means to a person. Pure; the plan and what was seen are all that it looks at.

use proto::agent::v1::planned_object::Effect;

use super::act::{Action, FileWanted};
use super::plan::{Here, SeenOne, There};
use super::record::Record;
use crate::document::Phase;
use crate::reconciler::plan::ObjectPlan;
use crate::reconciler::step::Step;
use crate::service::{Activity, Found, digest};

/// The effect, each change, and what it costs; `None`: nothing.
pub(crate) fn meaning(planned: &ObjectPlan, seen: &SeenOne) -> Option<(Effect, Vec<String>, &'static str)> {
    let actions: Vec<&Action> = planned.steps.iter().filter_map(action).collect();
    let has = |wanted: fn(&Action) -> bool| actions.iter().any(|action| wanted(action));
    let message = planned.report.message.clone();
    if has(|action| matches!(action, Action::Forget)) {
        // A document may speak of another place now: it is made there next.
        let effect = if planned.revision == 0 {
            Effect::Delete
        } else {
            Effect::Change
        };
        return Some((effect, vec!["delete".to_owned()], ""));
    }
    if has(|action| matches!(action, Action::Release)) {
        let words = match seen.there {
            There::Gone(_) => "goes with its instance",
            There::Here(_) | There::Not(..) => "is nobody's any more, and stays",
        };
        return Some((Effect::Delete, vec![words.to_owned()], ""));
    }
    if actions.is_empty() {
        return without_steps(planned, seen);
    }
    if matches!(planned.report.phase, Phase::Invalid) {
        return Some((Effect::Refused, vec![message], ""));
    }
    let There::Here(here) = &seen.there else {
        return None;
    };
    let restarts = has(|action| matches!(action, Action::Restart { .. })) && runs(here);
    if seen.record.is_none() {
        let words = made(&actions, restarts);
        return (!words.is_empty()).then_some((Effect::Create, words, ""));
    }
    let mut details: Vec<String> = actions
        .iter()
        .flat_map(|action| change(action, here, restarts))
        .collect();
    if planned.report.phase == Phase::Failed {
        details.push(message);
    }
    let cost = if restarts { "restart" } else { "" };
    if restarts && details.is_empty() {
        return Some((Effect::Change, vec!["restart".to_owned()], ""));
    }
    (!details.is_empty()).then_some((Effect::Change, details, cost))
}

/// A digest of what stands there now. `None`: it cannot be looked at.
pub(crate) fn fingerprint(seen: &SeenOne) -> Option<String> {
    match &seen.there {
        There::Here(here) => Some(digest(format!("{:?}", here.files).as_bytes())),
        There::Not(..) | There::Gone(_) => None,
    }
}

fn action(step: &Step) -> Option<&Action> {
    match step {
        Step::Service(act) => Some(&act.action),
        _ => None,
    }
}

/// What is said where nothing can be done, or nothing is to be.
fn without_steps(planned: &ObjectPlan, seen: &SeenOne) -> Option<(Effect, Vec<String>, &'static str)> {
    let message = planned.report.message.clone();
    match (planned.report.phase, &seen.record) {
        (Phase::Failed | Phase::Invalid | Phase::Conflict | Phase::Unsupported, _) => {
            Some((Effect::Refused, vec![message], ""))
        }
        (Phase::Pending, None) => Some((Effect::Create, vec![format!("create; {message}")], "")),
        (Phase::Pending, Some(_)) if planned.revision == 0 => Some((Effect::Delete, vec![message], "")),
        // A machine that cannot be looked at now does not differ for that.
        (Phase::Pending, Some(Record { revision, .. })) if planned.revision > *revision => {
            Some((Effect::Change, vec![format!("change; {message}")], ""))
        }
        _ => None,
    }
}

/// Of a document that nothing was made for yet.
fn made(actions: &[&Action], restarts: bool) -> Vec<String> {
    let has = |wanted: fn(&Action) -> bool| actions.iter().any(|action| wanted(action));
    let mut words = Vec::new();
    if has(|action| {
        matches!(
            action,
            Action::Write(..)
                | Action::Restart {
                    definition: Some(_),
                    ..
                }
        )
    }) {
        words.push("create");
    } else if has(|action| matches!(action, Action::Enable { on: true, .. })) {
        words.push("enable");
    } else if has(|action| matches!(action, Action::Enable { on: false, .. })) {
        words.push("disable");
    }
    if has(|action| matches!(action, Action::Restart { .. })) {
        words.push(if restarts { "restart" } else { "start" });
    } else if has(|action| matches!(action, Action::Stop { .. })) {
        words.push("stop");
    }
    if words.is_empty() {
        return Vec::new();
    }
    vec![words.join(", ")]
}

/// One action on what is there, in words. A restart is said as what the change costs.
fn change(action: &Action, here: &Here, restarts: bool) -> Vec<String> {
    match action {
        Action::Write(file, _) => differences(file, here),
        Action::Remove { path, .. } => vec![format!("{path}: remove")],
        Action::Enable { on: true, .. } => vec!["enable".to_owned()],
        Action::Enable { on: false, .. } => vec!["disable".to_owned()],
        Action::Restart { .. } if !restarts => vec!["start".to_owned()],
        Action::Stop { .. } if runs(here) => vec!["stop".to_owned()],
        _ => Vec::new(),
    }
}

fn differences(file: &FileWanted, here: &Here) -> Vec<String> {
    let path = &file.path;
    let found = match here.files.get(path) {
        Some(Found::File(found)) => found,
        Some(Found::Nothing) | None => return vec![format!("{path}: is missing")],
        Some(Found::Folder | Found::Other) => return vec![format!("{path}: is no plain file")],
    };
    let mut differences = Vec::new();
    if found.digest != file.content.digest() {
        differences.push(format!("{path}: content differs"));
    }
    if found.mode != file.mode {
        differences.push(format!("{path}: mode {:04o} -> {:04o}", found.mode, file.mode));
    }
    if (found.uid, found.gid) != (file.uid, file.gid) {
        let FileWanted { uid, gid, .. } = file;
        differences.push(format!(
            "{path}: owner {}:{} -> {uid}:{gid}",
            found.uid, found.gid
        ));
    }
    differences
}

fn runs(here: &Here) -> bool {
    here.unit.as_ref().is_some_and(|unit| {
        matches!(
            unit.activity,
            Activity::Active | Activity::Starting | Activity::Restarting
        )
    })
}
