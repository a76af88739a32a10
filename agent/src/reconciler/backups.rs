//! What is said of documents of kind backup. Nothing is done here: [`crate::backup`] does it. Pure.

use std::collections::BTreeMap;

use super::desired::{Desired, Text};
use super::observe::Observed;
use super::ownership;
use super::plan::{Context, ObjectPlan, Report};
use super::services::Seen;
use crate::backup::Said;
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
    said: Option<&Said>,
    (desired, observed): (&Desired, &Observed),
    context: Context<'_>,
) -> Option<Report> {
    let subject = spec.subject.desired_key();
    let object = observed.objects.get(&subject);
    // Of hosts that share an Incus, the one that made it backs it up.
    let is_ours = object.is_some_and(|object| {
        let maker = object.config.get(ownership::HOST);
        maker.is_none_or(|maker| maker == context.host)
    });
    match (said, object) {
        (Some(said), _) => return Some(so_far(spec, said, is_ours)),
        (None, Some(_)) if is_ours => {
            return Some(Report::new(Phase::Progressing, "nothing is backed up yet"));
        }
        (None, Some(_)) => return None,
        (None, None) => {}
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

/// Of what is this host's to back up, everything that was asked for must have been done once.
fn so_far(spec: &BackupSpec, said: &Said, is_ours: bool) -> Report {
    let words = |which: fn(&Result<String, String>) -> Option<&String>| {
        let words: Vec<&str> = said.values().filter_map(which).map(String::as_str).collect();
        words.join("; ")
    };
    let failed = words(|what| what.as_ref().err());
    if !failed.is_empty() {
        return Report::new(Phase::Failed, failed);
    }
    let asked = [
        ("snapshots", spec.snapshots.is_some()),
        ("exports", spec.exports.is_some()),
    ];
    let is_missing = |(part, is_asked): &(&str, bool)| is_ours && *is_asked && !said.contains_key(part);
    let done = words(|what| what.as_ref().ok());
    match asked.iter().find(|part| is_missing(part)) {
        Some((part, _)) => Report::new(Phase::Progressing, format!("{done}; no {part} yet")),
        None => Report::new(Phase::Ready, done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;

    #[test]
    fn a_backup_is_ready_once_all_that_was_asked_for_was_done() {
        let text = "kind: backup\nname: nightly\nspec:\n  instance: db\n  \
                    snapshots: {schedule: '0 * * * *', keep: {last: 1}}\n  \
                    exports: {schedule: '0 3 * * *', keep: {last: 1}, to: [ionos]}\n";
        let spec = BackupSpec::of(&parse(text).unwrap()).unwrap();
        let check = |said: &[(&'static str, Result<&str, &str>)], is_ours, phase, message: &str| {
            let owned = |what: &Result<&str, &str>| what.map(str::to_owned).map_err(str::to_owned);
            let said = said.iter().map(|(part, what)| (*part, owned(what))).collect();
            let report = so_far(&spec, &said, is_ours);
            assert_eq!((report.phase, report.message.as_str()), (phase, message));
        };
        let export = ("exports", Ok("export 3:00"));
        let snapshot = ("snapshots", Ok("snapshot 4:00"));
        check(
            &[export],
            true,
            Phase::Progressing,
            "export 3:00; no snapshots yet",
        );
        check(
            &[export, snapshot],
            true,
            Phase::Ready,
            "export 3:00; snapshot 4:00",
        );
        check(&[export, ("snapshots", Err("full"))], true, Phase::Failed, "full");
        // A host that has copies only.
        check(&[("copies", Ok("copy"))], false, Phase::Ready, "copy");
    }
}
