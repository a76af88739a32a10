//! Documents that are no object of Incus themselves: a template, which is right or wrong and nothing else, a tenant,
//! which is as far as its project is, and a host, of which [`super::maintenance`] may have more to say.

use super::{ObjectPlan, Report, View};
use crate::document::{DesiredKey, Kind, Phase};
use crate::reconciler::desired::{Text, Wanted};

pub(super) fn plan(view: View<'_>, key: &DesiredKey, wanted: &Wanted) -> Option<ObjectPlan> {
    if wanted.names_host(view.context.host) == Some(false) {
        return None;
    }
    let mut plan = ObjectPlan::nothing(wanted.revision, Phase::Ready, "");
    match &wanted.text {
        Text::Invalid { error, last_good, .. } => {
            let line = Some(error.line).filter(|line| *line > 0);
            let kept = match last_good {
                // Of a template nothing is in force: it is used as it stands.
                Some((revision, _)) if key.kind != Kind::Template => {
                    format!(" (revision {revision} stays in force)")
                }
                _ => String::new(),
            };
            plan.report = Report::new(Phase::Invalid, format!("{}{kept}", error.text())).at(line);
        }
        Text::Good(_) if key.kind == Kind::Tenant => plan.report = project(view, key, wanted),
        Text::Good(_) => {}
    }
    Some(plan)
}

/// A tenant is ready when its project is.
fn project(view: View<'_>, key: &DesiredKey, wanted: &Wanted) -> Report {
    let key = DesiredKey {
        kind: Kind::Project,
        ..key.clone()
    };
    let is_ours = |made: &Wanted| made.revision == wanted.revision;
    if !view.desired.documents.get(&key).is_some_and(is_ours) {
        let message = format!("{key} has a document of its own, which is in force: delete that one");
        return Report::new(Phase::Conflict, message);
    }
    match view.planned.get(&key) {
        Some(plan) if plan.report.phase == Phase::Ready => Report::new(Phase::Ready, ""),
        Some(plan) => Report::new(plan.report.phase, format!("{key}: {}", plan.report.message)),
        None => Report::new(Phase::Pending, format!("waits for {key}")),
    }
}
