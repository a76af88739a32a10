//! A document that is in force here: its files written, its unit running.

use std::collections::{BTreeMap, BTreeSet};

use super::{Here, InForce, There, View, object_plan, progressing, remove};
use crate::document::{Managed, Phase, canonical_text};
use crate::reconciler::plan::{ObjectPlan, Report};
use crate::reconciler::services::act::{Action, Content, FileWanted, Place, Replaces};
use crate::reconciler::services::footprint::{Footprint, UnitWanted, place};
use crate::reconciler::services::os_services;
use crate::reconciler::services::record::{self, FoundUnit, Record, UnitRecord};
use crate::service::{Activity, Found, Loaded, Manager, Restart, UnitSeen};

pub(super) fn plan(view: View<'_>, in_force: InForce<'_>) -> ObjectPlan {
    let InForce { document, revision } = in_force;
    let here = match (&view.seen.there, &view.seen.record) {
        (There::Here(here), _) => here,
        (There::Not(phase, why), _) => return ObjectPlan::nothing(revision, *phase, why.clone()),
        (There::Gone(_), Some(record)) => return remove::plan(view, record, revision),
        (There::Gone(why), None) => return ObjectPlan::nothing(revision, Phase::Pending, why.clone()),
    };
    if let Some(record) = view
        .seen
        .record
        .as_ref()
        .filter(|record| record.place != place(document))
    {
        return remove::plan(view, record, revision);
    }
    let footprint = match Footprint::of(document, here.manager.as_ref(), view.context) {
        Ok(footprint) => footprint,
        Err(refusal) => return object_plan(revision, Vec::new(), refusal),
    };
    let unknown = footprint.files.iter().find_map(|file| match &file.content {
        Content::Unknown { name } => Some(format!("waits for secret {name}")),
        _ => None,
    });
    if let Some(why) = unknown {
        return ObjectPlan::nothing(revision, Phase::Pending, why);
    }
    let plan = Agreement {
        view,
        here,
        in_force,
        footprint: &footprint,
        keeps_contents: document.lifecycle.managed == Managed::Existence,
    };
    match plan.conflict() {
        Some(conflict) => object_plan(revision, Vec::new(), conflict),
        None => plan.made(),
    }
}

/// Of a document that changes faster than it is applied, as many contents are remembered.
const CONTENTS_MAX: usize = 8;

struct Agreement<'a> {
    view: View<'a>,
    here: &'a Here,
    in_force: InForce<'a>,
    footprint: &'a Footprint,
    /// What is there stays as it is.
    keeps_contents: bool,
}

/// What is to become of one file.
enum Fate {
    /// As it should be, and somebody else's.
    Theirs,
    /// As it should be, and ours.
    Ours,
    Write(Replaces),
    Conflict(String),
}

impl Agreement<'_> {
    /// The first thing in the way that is not ours.
    fn conflict(&self) -> Option<Report> {
        let document = self.in_force.document;
        for file in &self.footprint.files {
            if let Fate::Conflict(message) = self.fate(file) {
                return Some(Report {
                    phase: Phase::Conflict,
                    message,
                    line: document.line_of(&file.at),
                });
            }
        }
        let unit = self.footprint.unit.as_ref()?;
        let loaded = &self.here.unit.as_ref()?.loaded;
        match loaded {
            Loaded::Missing if !unit.is_made => {
                let message = os_services::missing(&document.name, self.view.context.host);
                Some(Report::new(Phase::Unsupported, message))
            }
            Loaded::From(path) | Loaded::Outdated(path)
                if unit.is_made && !path.is_empty() && unit.path.as_ref() != Some(path) =>
            {
                let message = format!(
                    "a unit {}.service is there already, from {path}; it is not touched",
                    unit.name
                );
                Some(Report {
                    phase: Phase::Conflict,
                    message,
                    line: document.line_of("name"),
                })
            }
            _ => None,
        }
    }

    fn fate(&self, file: &FileWanted) -> Fate {
        let path = &file.path;
        let holder = self.view.claimed.get(&(self.here.place.clone(), path.clone()));
        match holder {
            Some(other) if other != self.view.key => {
                return Fate::Conflict(format!("{path} is kept by {other} already"));
            }
            _ => {}
        }
        let is_ours = holder.is_some();
        match self.here.found(path) {
            Found::Nothing => Fate::Write(Replaces::Nothing),
            Found::Folder => Fate::Conflict(format!("{path} is a folder")),
            Found::Other if !is_ours => Fate::Conflict(format!(
                "{path} is there already, and no plain file; it is not touched"
            )),
            Found::Other => Fate::Write(Replaces::Ours),
            Found::File(found) => {
                let as_wanted = found.digest == file.content.digest()
                    && (found.mode, found.uid, found.gid) == (file.mode, file.uid, file.gid);
                let marked = file
                    .mark
                    .as_ref()
                    .is_some_and(|mark| found.head.lines().any(|line| line == mark));
                match (as_wanted, is_ours || marked) {
                    (true, true) => Fate::Ours,
                    (true, false) => Fate::Theirs,
                    (false, true) if self.keeps_contents => Fate::Ours,
                    (false, true) => Fate::Write(Replaces::Ours),
                    (false, false) => Fate::Conflict(format!(
                        "{path} is there already and is not ours; it is not touched"
                    )),
                }
            }
        }
    }

    fn made(&self) -> ObjectPlan {
        let revision = self.in_force.revision;
        let before = self.view.seen.record.as_ref();
        let stale = self.stale();
        let writes: Vec<_> = self
            .footprint
            .files
            .iter()
            .filter_map(|file| match self.fate(file) {
                Fate::Write(replaces) => Some((file, replaces)),
                _ => None,
            })
            .collect();
        let changes_content = !writes.is_empty() || !stale.is_empty();
        let folders: &[String] = if writes.is_empty() {
            &[]
        } else {
            &self.here.missing_folders
        };
        let unit = self.footprint.unit.as_ref().zip(self.here.unit.as_ref());
        let last = before.and_then(|record| record.started_with.as_deref());
        let is_new = changes_content || last != Some(self.footprint.digest().as_str());
        let mut running = unit
            .map(|(unit, seen)| self.run(unit, seen, is_new))
            .unwrap_or_default();
        let writes_unit = |path: &String| unit.is_some_and(|(unit, _)| unit.path.as_ref() == Some(path));
        let outdated = unit.is_some_and(|(_, seen)| matches!(seen.loaded, Loaded::Outdated(_)));

        let mut after = self.record(folders, BTreeMap::new());
        after.started_with = match unit {
            Some((_, seen)) if seen.activity == Activity::Stopping => last.map(str::to_owned),
            // What does not run was started with nothing.
            Some((unit, _)) if unit.enabled => Some(self.footprint.digest()),
            _ => None,
        };
        let mut actions = Vec::new();
        if changes_content || !running.is_empty() {
            let mut claim = self.record(
                folders,
                before.map(|record| record.files.clone()).unwrap_or_default(),
            );
            claim.started_with = last.map(str::to_owned);
            if before != Some(&claim) {
                actions.push(Action::Remember(Box::new(claim)));
            }
        }
        actions.extend(stale);
        actions.extend(
            folders
                .iter()
                .map(|path| Action::MakeFolder { path: path.clone() }),
        );
        actions.extend(
            writes
                .iter()
                .map(|(file, replaces)| Action::Write((*file).clone(), *replaces)),
        );
        if outdated || writes.iter().any(|(file, _)| writes_unit(&file.path)) {
            actions.push(Action::Reload);
        }
        actions.append(&mut running);
        if before != Some(&after) {
            actions.push(Action::Remember(Box::new(after)));
        }
        let settled = self.settled(unit);
        match settled.phase {
            _ if actions.is_empty() => object_plan(revision, Vec::new(), settled),
            // What is being started again has something to say meanwhile.
            Phase::Failed if !is_new => object_plan(revision, self.here.steps(actions), settled),
            _ => progressing(revision, self.here.steps(actions)),
        }
    }

    /// Files of before that the document does not name any more.
    fn stale(&self) -> Vec<Action> {
        let before = self.view.seen.record.iter().flat_map(|record| &record.files);
        before
            .filter(|(path, _)| !self.footprint.has(path))
            .map(|(path, digests)| Action::Remove {
                path: path.clone(),
                digests: digests.clone(),
            })
            .collect()
    }

    /// What the record says once everything is made. `before` adds contents that files may still have.
    fn record(&self, folders: &[String], before: BTreeMap<String, Vec<String>>) -> Record {
        let mut files = before;
        for file in &self.footprint.files {
            if matches!(self.fate(file), Fate::Theirs) {
                continue;
            }
            let digests = files.entry(file.path.clone()).or_default();
            let wanted = match self.here.found(&file.path) {
                Found::File(found) if self.keeps_contents => found.digest.clone(),
                _ => file.content.digest(),
            };
            digests.retain(|digest| *digest != wanted);
            digests.insert(0, wanted);
            digests.truncate(CONTENTS_MAX);
        }
        let old = self.view.seen.record.as_ref();
        let mut all_folders = old.map(|record| record.folders.clone()).unwrap_or_default();
        let known: BTreeSet<String> = all_folders.iter().cloned().collect();
        all_folders.extend(folders.iter().filter(|path| !known.contains(*path)).cloned());
        Record {
            v: record::FORMAT,
            revision: self.in_force.revision,
            document: canonical_text(self.in_force.document),
            place: self.here.place.clone(),
            files,
            folders: all_folders,
            unit: self.footprint.unit.as_ref().map(|unit| self.unit_record(unit)),
            started_with: None,
        }
    }

    fn unit_record(&self, unit: &UnitWanted) -> UnitRecord {
        let known = self
            .view
            .seen
            .record
            .as_ref()
            .and_then(|record| record.unit.as_ref());
        if let Some(known) = known.filter(|known| known.name == unit.name) {
            return known.clone();
        }
        let seen = self.here.unit.as_ref();
        UnitRecord {
            name: unit.name.clone(),
            found: (!unit.is_made).then(|| FoundUnit {
                enabled: seen.is_some_and(|seen| seen.enabled == Some(true)),
                active: seen.is_some_and(|seen| seen.activity == Activity::Active),
            }),
        }
    }

    /// What makes the unit run, or not run, as it should.
    fn run(&self, unit: &UnitWanted, seen: &UnitSeen, is_new: bool) -> Vec<Action> {
        let name = || unit.name.clone();
        let is_missing = seen.loaded == Loaded::Missing;
        let mut actions = Vec::new();
        let is_systemd = self.here.manager == Some(Manager::Systemd);
        let can_enable = seen.enabled.is_some() || (is_missing && is_systemd);
        if can_enable && seen.enabled.unwrap_or(false) != unit.enabled {
            actions.push(Action::Enable {
                name: name(),
                on: unit.enabled,
            });
        }
        let runs = matches!(
            seen.activity,
            Activity::Active | Activity::Starting | Activity::Restarting
        );
        if !unit.enabled {
            let stops = runs || (!is_missing && unit.definition.is_some());
            actions.extend(stops.then(|| Action::Stop { name: name() }));
            return actions;
        }
        // What was to run once has run, if it is still the same.
        let is_done = unit.restart == Restart::No && !runs && !is_new && seen.activity != Activity::Stopping;
        let begins = match seen.activity {
            Activity::Stopping => false,
            Activity::Active | Activity::Starting | Activity::Restarting => {
                is_new && !self.runs_from_before(unit)
            }
            Activity::Inactive if unit.restart == Restart::OnFailure && !is_new && !is_missing => false,
            Activity::Inactive | Activity::Failed => !is_done,
        };
        actions.extend(begins.then(|| Action::Restart {
            name: name(),
            definition: unit.definition.clone().map(Box::new),
        }));
        actions
    }

    /// A unit of the host's own that ran before we came is not started anew for our sake.
    fn runs_from_before(&self, unit: &UnitWanted) -> bool {
        !unit.is_made && self.view.seen.record.is_none() && self.footprint.files.is_empty()
    }

    /// What to say when there is nothing to do.
    fn settled(&self, unit: Option<(&UnitWanted, &UnitSeen)>) -> Report {
        let Some((unit, seen)) = unit else {
            return Report::new(Phase::Ready, self.theirs());
        };
        if let Loaded::Broken(why) = &seen.loaded {
            return Report::new(Phase::Failed, format!("{} cannot be used: {why}", unit.name));
        }
        match seen.activity {
            Activity::Active if unit.enabled => Report::new(Phase::Ready, self.theirs()),
            Activity::Active | Activity::Starting | Activity::Stopping => {
                Report::new(Phase::Progressing, seen.detail.clone())
            }
            Activity::Failed | Activity::Restarting => Report::new(Phase::Failed, seen.detail.clone()),
            Activity::Inactive if !unit.enabled => Report::new(Phase::Stopped, ""),
            Activity::Inactive if unit.restart == Restart::Always => {
                Report::new(Phase::Failed, format!("{} does not run", unit.name))
            }
            Activity::Inactive => Report::new(Phase::Stopped, seen.detail.clone()),
        }
    }

    /// A word about files that are as they should be, and somebody else's.
    fn theirs(&self) -> String {
        let paths: Vec<&str> = self
            .footprint
            .files
            .iter()
            .filter(|file| matches!(self.fate(file), Fate::Theirs))
            .map(|file| file.path.as_str())
            .collect();
        if paths.is_empty() {
            String::new()
        } else {
            format!(
                "{} was there already, as it should be; it stays when the document goes",
                paths.join(", ")
            )
        }
    }
}

/// The folders above a path, the outermost first.
pub(crate) fn folders_of(path: &str) -> Vec<String> {
    let slashes = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    slashes
        .filter_map(|at| path.get(..at))
        .map(str::to_owned)
        .collect()
}

/// The paths that the document of a footprint, and a record, speak of.
pub(crate) fn paths<'a>(
    footprint: Option<&'a Footprint>,
    record: Option<&'a Record>,
    at: &Place,
) -> BTreeSet<&'a str> {
    let wanted = footprint
        .iter()
        .flat_map(|footprint| &footprint.files)
        .map(|file| file.path.as_str());
    let ours = record.filter(|record| record.place == *at);
    wanted
        .chain(
            ours.iter()
                .flat_map(|record| record.files.keys())
                .map(String::as_str),
        )
        .collect()
}
