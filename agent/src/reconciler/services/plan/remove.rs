//! What we made for a document that is gone, or speaks of another place now.
//!
//! The record says what is ours, and its document what is allowed. A file whose contents we never wrote is left where
//! it is: somebody made it his.

use super::{Here, There, View, progressing};
use crate::document::{Deletion, Phase};
use crate::reconciler::plan::ObjectPlan;
use crate::reconciler::services::act::{Act, Action};
use crate::reconciler::services::record::{Record, UnitRecord};
use crate::reconciler::step::Step;
use crate::service::{Activity, Found, Loaded, UnitSeen};

/// `revision`: the document's, where there is one still. 0: it is gone.
pub(super) fn plan(view: View<'_>, record: &Record, revision: i64) -> ObjectPlan {
    let failed = |message: &str| ObjectPlan::nothing(revision, Phase::Failed, message);
    let here = match &view.seen.there {
        There::Gone(_) => return release(record, revision),
        There::Not(_, why) => {
            return ObjectPlan::nothing(revision, Phase::Pending, format!("not removed yet: {why}"));
        }
        There::Here(here) => here,
    };
    let Some(document) = record.document() else {
        return failed("not removed: what is remembered of its document cannot be read");
    };
    if document.lifecycle.protect {
        return failed(
            "not removed: it is protected; put the document back, take lifecycle.protect off, then delete it",
        );
    }
    if document.lifecycle.deletion == Deletion::Retain {
        return release(record, revision);
    }
    if view.revision < record.revision {
        let message = format!(
            "not removed: it was made to agree with revision {}, and the store is at {}, so it may have forgotten",
            record.revision, view.revision
        );
        return failed(&message);
    }
    progressing(revision, here.steps(removal(here, record)))
}

fn release(record: &Record, revision: i64) -> ObjectPlan {
    let act = Act {
        place: record.place.clone(),
        manager: None,
        action: Action::Release,
    };
    progressing(revision, vec![Step::Service(act)])
}

fn removal(here: &Here, record: &Record) -> Vec<Action> {
    let mut actions = Vec::new();
    let unit = record.unit.as_ref().zip(here.unit.as_ref());
    actions.extend(unit.iter().flat_map(|(unit, seen)| quiet(unit, seen)));
    let present = record
        .files
        .iter()
        .filter(|(path, digests)| match here.found(path) {
            Found::File(found) => digests.contains(&found.digest),
            _ => false,
        });
    actions.extend(present.map(|(path, digests)| Action::Remove {
        path: path.clone(),
        digests: digests.clone(),
    }));
    if unit.is_some_and(|(unit, _)| unit.found.is_none()) {
        actions.push(Action::Reload);
    }
    let folders = record.folders.iter().rev();
    actions.extend(folders.map(|path| Action::RemoveFolder { path: path.clone() }));
    actions.push(Action::Forget);
    actions
}

/// Stops a unit of ours; leaves one of the host's own as it was found.
fn quiet(unit: &UnitRecord, seen: &UnitSeen) -> Vec<Action> {
    if seen.loaded == Loaded::Missing {
        return Vec::new();
    }
    let name = || unit.name.clone();
    let (keeps_enabled, keeps_active) = unit
        .found
        .map_or((false, false), |found| (found.enabled, found.active));
    let mut actions = Vec::new();
    // One that the agent runs itself is forgotten by stopping it, whether it runs or not.
    let is_known = seen.activity != Activity::Inactive || unit.found.is_none();
    if is_known && !keeps_active {
        actions.push(Action::Stop { name: name() });
    }
    if let Some(enabled) = seen.enabled.filter(|enabled| *enabled != keeps_enabled) {
        actions.push(Action::Enable {
            name: name(),
            on: !enabled,
        });
    }
    actions
}
