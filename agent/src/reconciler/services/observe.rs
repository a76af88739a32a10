//! What is there of services and files: on the host, and inside of the instances that documents name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::act::Place;
use super::footprint::{self, Footprint};
use super::plan::{Here, Seen, SeenOne, There, folders_of, paths};
use super::record::Record;
use super::{Hands, is_ours};
use crate::document::{DesiredKey, Document, Kind, Phase};
use crate::reconciler::desired::{Desired, Wanted};
use crate::reconciler::execute::in_full;
use crate::reconciler::observe::{Observed, Power};
use crate::reconciler::ownership::{self, Owner};
use crate::reconciler::plan::Context;
use crate::service::{Found, Machine, Manager, ServiceError};

/// Machines looked into at the same time.
const LOOKS_MAX: usize = 8;
/// A guest that takes longer holds up everybody.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// A guest that was as it should be is not looked into again for so long: each look is several requests to Incus.
const GLANCE_AGE: Duration = Duration::from_secs(15);

/// What a guest looked like.
#[derive(Clone, Debug)]
pub(super) struct Glance {
    at: Instant,
    /// What it was seen for: another document, record or run of the instance is seen anew.
    stamp: String,
    there: There,
}

pub(super) type Glances = BTreeMap<DesiredKey, Glance>;

/// Where to look for one document.
struct Look<'a> {
    key: &'a DesiredKey,
    record: Option<Record>,
    document: Option<Document>,
    place: Place,
    stamp: String,
}

/// Looks at everything that a document for this host, or a record, speaks of. `incus`: `None` while it does not answer.
pub(super) async fn observe(
    hands: &Hands,
    glances: &mut Glances,
    desired: &Desired,
    incus: Option<&Observed>,
    context: Context<'_>,
) -> Seen {
    let mut records = hands.ledger.all();
    let mut seen = Seen {
        backups: hands.board.all(),
        ..Seen::default()
    };
    let mut looks = Vec::new();
    let keys: BTreeSet<DesiredKey> = desired
        .documents
        .keys()
        .filter(|key| is_ours(key.kind))
        .chain(records.keys())
        .cloned()
        .collect();
    for key in &keys {
        let record = records.remove(key);
        let wanted = desired.documents.get(key);
        let is_here = wanted.is_some_and(|wanted| wanted.names_host(context.host) != Some(false));
        if !is_here && record.is_none() {
            continue;
        }
        let document = wanted
            .and_then(in_force)
            .or_else(|| record.as_ref().and_then(Record::document));
        let place = match (&record, &document) {
            (Some(record), _) => record.place.clone(),
            (None, Some(document)) => footprint::place(document),
            // Nothing is known of it but that it is wrong.
            (None, None) => {
                let there = There::Gone(String::new());
                seen.of.insert(key.clone(), SeenOne { record, there });
                continue;
            }
        };
        match reach(hands, &place, desired, incus, context) {
            Reach::There(run) => {
                let revision = wanted.map_or(0, |wanted| wanted.revision);
                let stamp = format!("{revision} {run} {record:?}");
                let kept = glances.get(key).filter(|glance| {
                    place != Place::Host && glance.stamp == stamp && glance.at.elapsed() < GLANCE_AGE
                });
                match kept {
                    Some(glance) => {
                        let there = glance.there.clone();
                        seen.of.insert(key.clone(), SeenOne { record, there });
                    }
                    None => looks.push(Look {
                        key,
                        record,
                        document,
                        place,
                        stamp,
                    }),
                }
            }
            Reach::Elsewhere if record.is_none() => {}
            Reach::Elsewhere => {
                let there = There::Gone(String::new());
                seen.of.insert(key.clone(), SeenOne { record, there });
            }
            Reach::Not(there) => {
                seen.of.insert(key.clone(), SeenOne { record, there });
            }
        }
    }
    while !looks.is_empty() {
        let some = looks.split_off(looks.len().saturating_sub(LOOKS_MAX));
        let looked = join_all(some.into_iter().map(|look| look.look(hands, context))).await;
        for (look, there) in looked {
            let glance = Glance {
                at: Instant::now(),
                stamp: look.stamp,
                there: there.clone(),
            };
            glances.insert(look.key.clone(), glance);
            let record = look.record;
            seen.of.insert(look.key.clone(), SeenOne { record, there });
        }
    }
    glances.retain(|key, _| seen.of.contains_key(key));
    seen
}

/// The text that is in force, good or not.
fn in_force(wanted: &Wanted) -> Option<Document> {
    wanted.text.in_force().map(|document| document.as_ref().clone())
}

/// Whether a place can be looked at.
enum Reach {
    /// With a word that is another one after every start of the machine.
    There(String),
    /// It is another host's.
    Elsewhere,
    Not(There),
}

fn reach(
    hands: &Hands,
    place: &Place,
    desired: &Desired,
    incus: Option<&Observed>,
    context: Context<'_>,
) -> Reach {
    let not = |phase: Phase, why: String| Reach::Not(There::Not(phase, why));
    let host = context.host;
    let (project, name) = match place {
        Place::Host if hands.manager.is_some() => return Reach::There(String::new()),
        Place::Host => {
            let why = format!("services and files of {host} itself are off (--service-manager none)");
            return not(Phase::Unsupported, why);
        }
        Place::Instance { project, name } => (project, name),
    };
    let Some(incus) = incus else {
        return not(Phase::Pending, "incus does not answer".to_owned());
    };
    let key = DesiredKey {
        kind: Kind::Instance,
        tenant: project.clone(),
        name: name.clone(),
    };
    let Some(object) = incus.objects.get(&key) else {
        return match desired.documents.get(&key).map(|wanted| wanted.names_host(host)) {
            Some(Some(false)) => Reach::Elsewhere,
            Some(_) => not(Phase::Pending, format!("waits for {key}")),
            None => Reach::Not(There::Gone(format!(
                "no {key} on {host}; put a document of kind instance"
            ))),
        };
    };
    if !matches!(
        ownership::owner(&object.config, context.cluster, &key),
        Owner::Ours(_)
    ) {
        return not(
            Phase::Conflict,
            format!("{key} is not ours; nothing is put into it"),
        );
    }
    if object.power != Power::Running {
        return not(Phase::Pending, format!("waits for {key} to run"));
    }
    Reach::There(object.text("last_used_at").to_owned())
}

impl<'a> Look<'a> {
    async fn look(self, hands: &Hands, context: Context<'_>) -> (Look<'a>, There) {
        let looked = match &self.place {
            Place::Host => timeout(LOOK_LIMIT, self.on(&hands.host, hands.manager.clone(), context)).await,
            Place::Instance { project, name } => {
                let guest = hands.incus.guest(project, name);
                timeout(LOOK_LIMIT, async {
                    let manager = match self.needs_manager() {
                        true => Manager::of_guest(&guest).await?,
                        false => None,
                    };
                    self.on(&guest, manager, context).await
                })
                .await
            }
        };
        let there = match looked {
            Ok(Ok(here)) => There::Here(here),
            Ok(Err(error)) => There::Not(Phase::Failed, in_full(&error)),
            Err(_) => {
                let why = format!(
                    "{} cannot be looked at within {} s",
                    self.place,
                    LOOK_LIMIT.as_secs()
                );
                There::Not(Phase::Failed, why)
            }
        };
        (self, there)
    }

    fn needs_manager(&self) -> bool {
        self.key.kind != Kind::File
    }

    async fn on<M: Machine>(
        &self,
        machine: &M,
        manager: Option<Manager>,
        context: Context<'_>,
    ) -> Result<Here, ServiceError> {
        let document = self
            .document
            .as_ref()
            .filter(|document| footprint::place(document) == self.place);
        let footprint = document.and_then(|document| Footprint::of(document, manager.as_ref(), context).ok());
        let record = self.record.as_ref();
        let mut files = BTreeMap::new();
        for path in paths(footprint.as_ref(), record, &self.place) {
            files.insert(path.to_owned(), machine.look(path).await?);
        }
        let mut folders = BTreeSet::new();
        for file in footprint.iter().flat_map(|footprint| &footprint.files) {
            // Where the file is, its folders are.
            if files.get(&file.path) == Some(&Found::Nothing) {
                folders.extend(folders_of(&file.path));
            }
        }
        let mut missing_folders: Vec<String> = Vec::new();
        for folder in folders {
            if machine.look(&folder).await? == Found::Nothing {
                missing_folders.push(folder);
            }
        }
        let name = footprint
            .as_ref()
            .and_then(|footprint| footprint.unit.as_ref().map(|unit| unit.name.as_str()))
            .or_else(|| record.and_then(|record| record.unit.as_ref().map(|unit| unit.name.as_str())));
        let unit = match (name, &manager) {
            (Some(name), Some(manager)) => Some(manager.look(machine, name).await?),
            _ => None,
        };
        Ok(Here {
            place: self.place.clone(),
            manager,
            files,
            missing_folders,
            unit,
        })
    }
}
