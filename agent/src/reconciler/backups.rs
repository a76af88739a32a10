//! What is said of documents of kind backup. Nothing is done here: [`crate::backup`] does it. Pure.

use std::collections::BTreeMap;

use super::desired::{Desired, Text};
use super::observe::Observed;
use super::plan::{Context, ObjectPlan, Report};
use super::services::Seen;
use crate::document::{BackupSpec, DesiredKey, Kind, Phase};

/// One report for each document that is this host's business; no steps.
pub(crate) fn plan(
    desired: &Desired,
    observed: &Observed,
    seen: &Seen,
    context: Context<'_>,
) -> BTreeMap<DesiredKey, ObjectPlan> {
    let documents = desired
        .documents
        .iter()
        .filter(|(key, _)| key.kind == Kind::Backup);
    let here = documents.filter(|(_, wanted)| wanted.names_host(context.host) != Some(false));
    let planned = here.filter_map(|(key, wanted)| {
        let report = match &wanted.text {
            Text::Invalid { error, .. } => Report {
                line: Some(error.line).filter(|line| *line > 0),
                ..Report::new(Phase::Invalid, error.text())
            },
            Text::Good(document) => {
                let spec = BackupSpec::of(document)?;
                report(&spec, seen.backups.get(key), (desired, observed), context)?
            }
        };
        let plan = ObjectPlan {
            report,
            ..ObjectPlan::nothing(wanted.revision, Phase::Ready, "")
        };
        Some((key.clone(), plan))
    });
    planned.collect()
}

/// `None`: it is another host's to say.
fn report(
    spec: &BackupSpec,
    said: Option<&(Phase, String)>,
    (desired, observed): (&Desired, &Observed),
    context: Context<'_>,
) -> Option<Report> {
    if let Some((phase, message)) = said {
        return Some(Report::new(*phase, message.clone()));
    }
    let subject = spec.subject.desired_key();
    if observed.objects.contains_key(&subject) {
        return Some(Report::new(Phase::Progressing, "nothing is backed up yet"));
    }
    match desired
        .documents
        .get(&subject)
        .map(|wanted| wanted.names_host(context.host))
    {
        Some(Some(false)) => None,
        Some(_) => Some(Report::new(Phase::Pending, format!("waits for {subject}"))),
        None => Some(Report::new(
            Phase::Pending,
            format!("no {subject} on {}", context.host),
        )),
    }
}
