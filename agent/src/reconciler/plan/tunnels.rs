//! Tunnels: what listens is made what documents say. Nothing is lost with one that closes, so that no quorum is asked.

use std::collections::BTreeMap;

use super::{ObjectPlan, Report, tenancy};
use crate::document::{DesiredKey, Document, Kind, Phase, TunnelSpec};
use crate::reconciler::desired::{Desired, Text, Wanted};
use crate::reconciler::plan::Context;
use crate::reconciler::step::{Step, TunnelStep};
use crate::tunnel::Open;

/// Plans every tunnel that a document names here, and every one that is open.
pub(super) fn plan(
    desired: &Desired,
    open: &BTreeMap<DesiredKey, Open>,
    context: Context<'_>,
) -> BTreeMap<DesiredKey, ObjectPlan> {
    let documents = desired.documents.keys().filter(|key| key.kind == Kind::Tunnel);
    let mut keys: Vec<&DesiredKey> = documents.chain(open.keys()).collect();
    keys.sort();
    keys.dedup();
    let planned = keys.into_iter().filter_map(|key| {
        let planned = match desired.documents.get(key) {
            Some(wanted) => of_document(desired, wanted, open.get(key), context)?,
            None => close(0),
        };
        Some((key.clone(), planned))
    });
    planned.collect()
}

fn of_document(
    desired: &Desired,
    wanted: &Wanted,
    open: Option<&Open>,
    context: Context<'_>,
) -> Option<ObjectPlan> {
    let revision = wanted.revision;
    if wanted.names_host(context.host) == Some(false) {
        return open.map(|_| close(revision));
    }
    match &wanted.text {
        Text::Good(document) => Some(agree(desired, document, revision, open, context)),
        Text::Invalid { error, last_good, .. } => {
            let kept = last_good.as_ref().map(|(kept, document)| {
                let plan = agree(desired, document, *kept, open, context);
                (plan.steps, format!(" (revision {kept} stays in force)"))
            });
            let (steps, kept) = kept.unwrap_or_default();
            let report = Report::new(Phase::Invalid, error.text() + &kept);
            Some(ObjectPlan {
                steps,
                report: report.at(Some(error.line).filter(|line| *line > 0)),
                ..ObjectPlan::nothing(revision, Phase::Invalid, "")
            })
        }
    }
}

fn agree(
    desired: &Desired,
    document: &Document,
    revision: i64,
    open: Option<&Open>,
    context: Context<'_>,
) -> ObjectPlan {
    if let Err(refused) = tenancy::check(desired, context.host, document) {
        let report = Report::new(Phase::Invalid, format!("{}: {}", refused.path, refused.message));
        return ObjectPlan {
            steps: open
                .map(|_| Step::Tunnel(TunnelStep::Close))
                .into_iter()
                .collect(),
            report: report.at(document.line_of(&refused.path)),
            ..ObjectPlan::nothing(revision, Phase::Invalid, "")
        };
    }
    let Some(spec) = TunnelSpec::of(document) else {
        return ObjectPlan::nothing(revision, Phase::Invalid, "spec: cannot be read by this agent");
    };
    match open {
        Some(open) if open.spec == spec => {
            let TunnelSpec { instance, port, .. } = &spec;
            let leads = format!("{} -> {instance}:{port}", open.address);
            ObjectPlan::nothing(revision, Phase::Ready, leads + &whereabouts(desired, &spec))
        }
        _ => ObjectPlan::steps(revision, vec![Step::Tunnel(TunnelStep::Listen(spec))]),
    }
}

fn close(revision: i64) -> ObjectPlan {
    ObjectPlan::steps(revision, vec![Step::Tunnel(TunnelStep::Close)])
}

/// What the documents know of the instance. It may be elsewhere by the time somebody connects, and is looked for then.
fn whereabouts(desired: &Desired, spec: &TunnelSpec) -> String {
    let in_force = desired
        .documents
        .get(&spec.instance_key())
        .map(|wanted| match &wanted.text {
            Text::Good(document) => Some(document),
            Text::Invalid { last_good, .. } => last_good.as_ref().map(|(_, document)| document),
        });
    match in_force {
        None => ", which has no document: it is looked for on all hosts".to_owned(),
        Some(Some(document)) if !document.running => ", which is stopped by its document".to_owned(),
        Some(document) => match document.and_then(|document| document.hosts.first()) {
            Some(host) => format!(" on {host}"),
            None => ", which is on no host yet".to_owned(),
        },
    }
}
