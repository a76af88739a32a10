//! The plan: what is wanted, what is, and what was last applied, turned into steps. Pure: the same three always
//! give the same plan, and golden files hold it still.
//!
//! Every object of a plan carries a report: what the host says about the document while the steps are still to be
//! done, or because there are none. Objects that are nobody's concern (made by hand, and no document names them)
//! are not in the plan at all.

mod brake;
mod compare;
mod create;
mod keep;
pub(super) mod maintenance;
mod meaning;
mod records;
mod references;
mod remove;
mod renewal;
mod tenancy;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::backups;
use super::desired::Desired;
use super::observe::{Object, Observed, in_incus};
use super::ownership::{self, Owner};
use super::services::{self, Seen};
use super::step::{Step, in_words};
use crate::document::{BUILTIN, DEFAULT_TENANT, DesiredKey, Kind, Phase};
pub(crate) use renewal::Renewal;

/// What planning needs to know beside the two views.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) host: &'a str,
    /// Our cluster's id, as ownership keys carry it.
    pub(crate) cluster: &'a str,
    /// Whether the desired view was confirmed by a quorum: without that nothing is deleted.
    pub(crate) may_delete: bool,
    /// What is being worked on: Incus shows an object before it is finished.
    pub(crate) busy: &'a BTreeSet<DesiredKey>,
    /// The fenced instances that may run here now. `None`: plans for people, who are told what is to be, not when.
    pub(crate) held: Option<&'a BTreeSet<DesiredKey>>,
    /// The instances that a restart of the host has made due to be made anew, as they were born.
    pub(crate) due: &'a BTreeMap<DesiredKey, String>,
}

/// What is due where no restart of the host is to be thought of.
pub(crate) static NOTHING_DUE: BTreeMap<DesiredKey, String> = BTreeMap::new();

/// The steps for every object, in the order of kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) objects: BTreeMap<DesiredKey, ObjectPlan>,
    /// Something would be deleted if the view were confirmed: worth confirming it and planning again.
    pub(crate) wants_confirmation: bool,
    /// What becomes of each instance that is due.
    pub(crate) renewals: BTreeMap<DesiredKey, Renewal>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectPlan {
    /// The document's. 0: it is gone.
    pub(crate) revision: i64,
    /// What Incus calls the object that is there; empty, if none is.
    pub(crate) target: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) report: Report,
}

/// What to say about a document: a status without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) phase: Phase,
    pub(crate) message: String,
    pub(crate) line: Option<u64>,
}

/// Everything that the parts of planning look at.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    context: Context<'a>,
    /// The plans made so far: those of the kinds that this one depends on.
    planned: &'a BTreeMap<DesiredKey, ObjectPlan>,
}

/// Plans every object that a document names here, and every object of ours that none names any more.
pub(crate) fn plan(desired: &Desired, observed: &Observed, seen: &Seen, context: Context<'_>) -> Plan {
    let mut plan = Plan::default();
    // Kinds come in the order in which they depend on each other, documents and objects alike.
    let mut keys: Vec<&DesiredKey> = desired.documents.keys().chain(observed.objects.keys()).collect();
    keys.retain(|key| !services::is_ours(key.kind) && !matches!(key.kind, Kind::Backup | Kind::Tunnel));
    keys.sort();
    keys.dedup();
    for key in keys {
        let view = View {
            desired,
            observed,
            context,
            planned: &plan.objects,
        };
        let mut made = match (desired.documents.get(key), observed.objects.get(key)) {
            (Some(wanted), _) if in_incus(key.kind).is_none() => records::plan(view, key, wanted),
            (Some(wanted), object) => keep::plan(view, key, wanted, object),
            (None, Some(object)) => match view.owner(key, object) {
                Owner::Ours(claim) if !claim.is_of_another_host(context.host) => {
                    Some(remove::plan(view, key, object, &claim))
                }
                _ => None,
            },
            (None, None) => None,
        };
        if let Some(birth) = context.due.get(key) {
            let renewal = renewal::renew(view, key, birth, &mut made);
            plan.renewals.insert(key.clone(), renewal);
        }
        if let Some(mut made) = made {
            made.target = observed
                .objects
                .get(key)
                .map(|object| object.incus_name.clone())
                .unwrap_or_default();
            plan.objects.insert(key.clone(), made);
        }
    }
    for key in context.due.keys() {
        plan.renewals.entry(key.clone()).or_insert(Renewal::Done);
    }
    plan.wants_confirmation = plan
        .renewals
        .values()
        .any(|renewal| !context.may_delete && *renewal != Renewal::Done);
    let owned = observed
        .objects
        .iter()
        .filter(|(key, object)| {
            matches!(
                ownership::owner(&object.config, context.cluster, key),
                Owner::Ours(_)
            )
        })
        .count();
    plan.objects.extend(services::plan(desired, seen, context));
    plan.objects
        .extend(tunnels::plan(desired, &seen.tunnels, context));
    plan.objects
        .extend(backups::plan(desired, observed, seen, context));
    brake::apply(&mut plan, owned + services::owned(seen), context);
    plan
}

/// Plans what can be done while Incus does not answer.
pub(crate) fn plan_without_incus(desired: &Desired, seen: &Seen, context: Context<'_>) -> Plan {
    let mut plan = Plan {
        objects: services::plan(desired, seen, context),
        ..Plan::default()
    };
    plan.objects
        .extend(tunnels::plan(desired, &seen.tunnels, context));
    brake::apply(&mut plan, services::owned(seen), context);
    plan
}

impl View<'_> {
    fn owner(&self, key: &DesiredKey, object: &Object) -> Owner {
        ownership::owner(&object.config, self.context.cluster, key)
    }

    /// The project whose objects of a kind a tenant's instances use: its own, or the default one's where it has none.
    fn project_of<'b>(&self, kind: Kind, tenant: &'b str) -> &'b str {
        let feature = match kind {
            Kind::Profile => "features.profiles",
            Kind::Image => "features.images",
            Kind::Volume => "features.storage.volumes",
            _ => return tenant,
        };
        let Some(project) = self.observed.project(tenant) else {
            return tenant;
        };
        let own = project.config.get(feature);
        if tenant == DEFAULT_TENANT || own.is_some_and(|own| meaning::is_true(own)) {
            tenant
        } else {
            DEFAULT_TENANT
        }
    }
}

/// Incus makes these itself and never lets them go: they are taken over without asking, and released, not deleted.
fn is_builtin(key: &DesiredKey) -> bool {
    matches!(key.kind, Kind::Incus | Kind::Project | Kind::Profile) && key.name == BUILTIN
}

impl ObjectPlan {
    /// Nothing to do, and this to say.
    pub(crate) fn nothing(revision: i64, phase: Phase, message: impl Into<String>) -> ObjectPlan {
        ObjectPlan {
            revision,
            target: String::new(),
            steps: Vec::new(),
            report: Report::new(phase, message),
        }
    }

    /// These steps, and their words to say.
    pub(crate) fn steps(revision: i64, steps: Vec<Step>) -> ObjectPlan {
        ObjectPlan {
            revision,
            target: String::new(),
            report: Report::new(Phase::Progressing, in_words(&steps)),
            steps,
        }
    }

    pub(crate) fn deletes(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Delete { .. } => true,
            Step::Service(act) => act.action.deletes(),
            _ => false,
        })
    }
}

impl Report {
    pub(crate) fn new(phase: Phase, message: impl Into<String>) -> Report {
        Report {
            phase,
            message: message.into(),
            line: None,
        }
    }

    fn at(mut self, line: Option<u64>) -> Report {
        self.line = line;
        self
    }
}

impl fmt::Display for Plan {
    /// For golden files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, object) in &self.objects {
            let Report { phase, message, line } = &object.report;
            write!(f, "{key} @{}: {phase}", object.revision)?;
            if let Some(line) = line {
                write!(f, " (line {line})")?;
            }
            if !message.is_empty() {
                write!(f, ": {message}")?;
            }
            writeln!(f)?;
            for step in &object.steps {
                for line in step.to_string().lines() {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
