//! What is to be done for services and files: desired, seen and remembered, turned into acts. Pure.

mod agree;
mod remove;

use std::collections::BTreeMap;

pub(super) use agree::{folders_of, paths};

use super::act::{Act, Action, Place};
use super::record::Record;
use crate::backup::Said;
use crate::document::{DesiredKey, Document, Phase};
use crate::reconciler::desired::{Desired, Text, Wanted};
use crate::reconciler::plan::{Context, ObjectPlan, Report};
use crate::reconciler::step::Step;
use crate::service::{Found, Manager, UnitSeen};
use crate::tunnel::Open;

/// What is on the machines of this host that documents, and records of ours, speak of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) of: BTreeMap<DesiredKey, SeenOne>,
    /// The tunnels that are open.
    pub(crate) tunnels: BTreeMap<DesiredKey, Open>,
    /// What is to be said of backups that this host sees to.
    pub(crate) backups: BTreeMap<DesiredKey, Said>,
}

/// What is there of one document.
#[derive(Clone, Debug)]
pub(crate) struct SeenOne {
    pub(crate) record: Option<Record>,
    pub(crate) there: There,
}

/// How the machine is: the record's, or the document's where there is no record.
#[derive(Clone, Debug)]
pub(crate) enum There {
    Here(Here),
    /// Not to be looked at or touched now, and why.
    Not(Phase, String),
    /// There is no such machine, and none is to come.
    Gone(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) place: Place,
    /// What keeps its services; `None`: nothing can.
    pub(crate) manager: Option<Manager>,
    /// What stands at every path that the document wants or the record has.
    pub(crate) files: BTreeMap<String, Found>,
    /// The folders that these need and that are not there, the outermost first.
    pub(crate) missing_folders: Vec<String>,
    pub(crate) unit: Option<UnitSeen>,
}

/// Everything that planning one document looks at.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    context: Context<'a>,
    /// The store's revision.
    revision: i64,
    key: &'a DesiredKey,
    seen: &'a SeenOne,
    /// Whose every path is, by the ledger.
    claimed: &'a BTreeMap<(Place, String), DesiredKey>,
}

/// A document that is in force.
#[derive(Clone, Copy, Debug)]
struct InForce<'a> {
    document: &'a Document,
    revision: i64,
}

/// Plans every service and file that a document or a record speaks of here.
pub(crate) fn plan(desired: &Desired, seen: &Seen, context: Context<'_>) -> BTreeMap<DesiredKey, ObjectPlan> {
    let mut claimed = claimed(seen);
    let mut plans = BTreeMap::new();
    for (key, one) in &seen.of {
        let view = View {
            context,
            revision: desired.revision,
            key,
            seen: one,
            claimed: &claimed,
        };
        let planned = match (desired.documents.get(key), &one.record) {
            (Some(wanted), _) => match desired.waiting.get(key) {
                Some(why) if wanted.names_host(context.host) == Some(true) => {
                    Some(ObjectPlan::nothing(wanted.revision, Phase::Pending, why.clone()))
                }
                _ => of_document(view, wanted),
            },
            (None, Some(record)) => Some(remove::plan(view, record, 0)),
            (None, None) => None,
        };
        if let Some(planned) = planned {
            // Of two documents that want one path, the first has it.
            for (place, path) in planned.steps.iter().filter_map(written) {
                claimed.entry((place, path)).or_insert_with(|| key.clone());
            }
            plans.insert(key.clone(), planned);
        }
    }
    plans
}

/// How many documents have something of ours here: what a deletion is weighed against.
pub(crate) fn owned(seen: &Seen) -> usize {
    seen.of.values().filter(|one| one.record.is_some()).count()
}

fn claimed(seen: &Seen) -> BTreeMap<(Place, String), DesiredKey> {
    let mut claimed = BTreeMap::new();
    for (key, one) in &seen.of {
        let Some(record) = &one.record else { continue };
        for path in record.files.keys() {
            let path = (record.place.clone(), path.clone());
            claimed.entry(path).or_insert_with(|| key.clone());
        }
    }
    claimed
}

fn written(step: &Step) -> Option<(Place, String)> {
    match step {
        Step::Service(Act {
            place,
            action: Action::Write(file, _),
            ..
        }) => Some((place.clone(), file.path.clone())),
        _ => None,
    }
}

fn of_document(view: View<'_>, wanted: &Wanted) -> Option<ObjectPlan> {
    let revision = wanted.revision;
    if wanted.names_host(view.context.host) == Some(false) {
        let record = view.seen.record.as_ref()?;
        return Some(remove::plan(view, record, revision));
    }
    match &wanted.text {
        Text::Good(document) => Some(agree::plan(view, InForce { document, revision })),
        Text::Invalid { error, last_good, .. } => {
            let line = Some(error.line).filter(|line| *line > 0);
            let remembered = view.seen.record.as_ref().and_then(Record::document);
            let kept = match (last_good, &remembered, &view.seen.record) {
                (Some((revision, document)), _, _) => {
                    let revision = *revision;
                    Some(agree::plan(view, InForce { document, revision }))
                }
                (None, Some(document), Some(Record { revision, .. })) => {
                    let revision = *revision;
                    Some(agree::plan(view, InForce { document, revision }))
                }
                _ => None,
            };
            let message = match &kept {
                Some(kept) => format!("{} (revision {} stays in force)", error.text(), kept.revision),
                None => error.text(),
            };
            let steps = kept.map(|kept| kept.steps).unwrap_or_default();
            Some(object_plan(
                revision,
                steps,
                Report {
                    phase: Phase::Invalid,
                    message,
                    line,
                },
            ))
        }
    }
}

impl Record {
    /// The document as it was applied; `None` where it cannot be read: written by a newer agent.
    pub(super) fn document(&self) -> Option<Document> {
        crate::document::parse(&self.document).ok()
    }
}

impl Here {
    fn steps(&self, actions: Vec<Action>) -> Vec<Step> {
        actions
            .into_iter()
            .map(|action| {
                Step::Service(Act {
                    place: self.place.clone(),
                    manager: self.manager.clone(),
                    action,
                })
            })
            .collect()
    }

    fn found(&self, path: &str) -> &Found {
        self.files.get(path).unwrap_or(&Found::Nothing)
    }
}

fn object_plan(revision: i64, steps: Vec<Step>, report: Report) -> ObjectPlan {
    ObjectPlan {
        steps,
        report,
        ..ObjectPlan::nothing(revision, Phase::Ready, "")
    }
}

/// Steps, and what they are called.
fn progressing(revision: i64, steps: Vec<Step>) -> ObjectPlan {
    ObjectPlan::steps(revision, steps)
}

#[cfg(test)]
mod tests;
