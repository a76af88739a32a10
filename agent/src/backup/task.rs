//! Does what documents of kind backup ask for, when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::agent::v1::{FetchBackupRequest, ListBackupsRequest};
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::keeper::Keeper;
use crate::document::{
    BackupSpec, DesiredKey, Keep, Kind, Rule, Schedule, Stamp, parse_at, parse_desired_key,
};
use crate::node::Node;
use crate::peer::Hosts;
use crate::reconciler::read_prefix;
use crate::shutdown::Shutdown;

/// Schedules are to the minute.
const TICK: Duration = Duration::from_secs(5);
/// What is not on this host is not asked for again before.
const ABSENT: Duration = Duration::from_secs(30);
/// How often other hosts are asked for what is to be copied.
const COPY_EVERY: Duration = Duration::from_secs(15);
const LIST_LIMIT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LONGEST: Duration = Duration::from_secs(600);

/// Works for one host.
#[derive(Debug)]
pub struct BackupTask {
    node: Node,
    keeper: Arc<Keeper>,
    hosts: Hosts,
}

/// What is remembered of one document between looks.
#[derive(Debug, Default)]
struct Memory {
    /// When it was done last, as far as that was looked up.
    last: Option<Stamp>,
    not_before: Option<Instant>,
    failures: u32,
}

type Memories = BTreeMap<DesiredKey, Memory>;
/// Copies that did not come, by the host that they were to come from.
type Failing = BTreeMap<(DesiredKey, String), Memory>;

/// Whether it is time: never done, or a time of the schedule has come since. However many have, it is done once.
fn is_due(schedule: &Schedule, last: Option<Stamp>, now: Stamp) -> bool {
    last.is_none_or(|last| schedule.after(last).is_some_and(|next| next <= now))
}

fn now() -> Stamp {
    Stamp::of(SystemTime::now())
}

impl BackupTask {
    #[must_use]
    pub fn new(node: Node, keeper: Arc<Keeper>, hosts: Hosts) -> BackupTask {
        BackupTask { node, keeper, hosts }
    }

    /// Runs until shutdown. What is half done then counts for nothing, and is begun again.
    pub async fn run(self, shutdown: Shutdown) {
        let work = async {
            // A long export holds up no snapshot.
            tokio::join!(self.snapshots(), self.exports(), self.copies());
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// The documents in force, by this member's own state.
    fn documents(&self) -> Option<BTreeMap<DesiredKey, BackupSpec>> {
        let store = self.node.store();
        // A compaction in between is over at the next reading.
        let pairs = read_prefix(store, "/tenants/", store.revision()).ok()?;
        let read = pairs.iter().filter_map(|pair| {
            let path = std::str::from_utf8(&pair.key).ok()?;
            let key = parse_desired_key(path).filter(|key| key.kind == Kind::Backup)?;
            let document = parse_at(path, std::str::from_utf8(&pair.value).ok()?).ok()?;
            let is_here = document.names_host(self.keeper.host());
            let spec = BackupSpec::of(&document).filter(|_| is_here)?;
            Some((key, spec))
        });
        Some(read.collect())
    }

    async fn snapshots(&self) {
        let mut memories = Memories::new();
        loop {
            for (key, spec) in self.known(&mut memories) {
                let Some(rule) = &spec.snapshots else {
                    self.keeper.board().say(&key, "snapshots", None);
                    continue;
                };
                let memory = memories.entry(key.clone()).or_default();
                if memory.is_to_wait(&rule.schedule) {
                    continue;
                }
                let done = self.snapshot(&key, &spec, rule).await;
                self.take_note(&key, "snapshots", memory, done);
            }
            sleep(TICK).await;
        }
    }

    async fn exports(&self) {
        let mut memories = Memories::new();
        loop {
            for (key, spec) in self.known(&mut memories) {
                let Some(exports) = &spec.exports else {
                    self.keeper.board().say(&key, "exports", None);
                    continue;
                };
                let memory = memories.entry(key.clone()).or_default();
                if memory.is_to_wait(&exports.rule.schedule) {
                    continue;
                }
                let done = self.export(&key, &spec, &exports.rule).await;
                self.take_note(&key, "exports", memory, done);
            }
            sleep(TICK).await;
        }
    }

    /// The documents as they are now. What is remembered of others, or of what they were before, is forgotten.
    fn known(&self, memories: &mut Memories) -> BTreeMap<DesiredKey, BackupSpec> {
        let Some(documents) = self.documents() else {
            return BTreeMap::new();
        };
        let keys: BTreeSet<DesiredKey> = documents.keys().cloned().collect();
        memories.retain(|key, _| keys.contains(key));
        self.keeper.board().retain(&keys);
        documents
    }

    /// When a snapshot was taken last, and in words; `None`: what it is of is not on this host.
    async fn snapshot(
        &self,
        key: &DesiredKey,
        spec: &BackupSpec,
        rule: &Rule,
    ) -> Result<Option<(Stamp, String)>, String> {
        let (keeper, subject, now) = (&self.keeper, &spec.subject, now());
        let work = async {
            if !keeper.has(subject).await? {
                return Ok(None);
            }
            let mut made = keeper.snapshots(subject, &key.name, now).await?;
            if is_due(&rule.schedule, made.last().copied(), now) {
                keeper.take_snapshot(subject, &key.name, now).await?;
                info!(document = %key, of = %subject.desired_key(), "snapshot taken");
                made.insert(now);
            }
            let kept = rule.keep.of(&made);
            for stamp in made.difference(&kept) {
                keeper.delete_snapshot(subject, &key.name, *stamp).await?;
            }
            let last = made.last().copied().unwrap_or(now);
            Ok(Some((
                last,
                format!("snapshot {}, {} in all", last.rfc3339(), kept.len()),
            )))
        };
        let done: Result<_, super::KeepError> = work.await;
        done.map_err(|error| format!("snapshot: {}", in_full(&error)))
    }

    /// As [`BackupTask::snapshot`], of an export.
    async fn export(
        &self,
        key: &DesiredKey,
        spec: &BackupSpec,
        rule: &Rule,
    ) -> Result<Option<(Stamp, String)>, String> {
        let (keeper, subject, now) = (&self.keeper, &spec.subject, now());
        let work = async {
            if !keeper.has(subject).await? {
                return Ok(None);
            }
            let last = keeper.exports(key, keeper.host(), now).last().copied();
            let last = match last.filter(|_| !is_due(&rule.schedule, last, now)) {
                Some(last) => last,
                None => {
                    let made = keeper.export(subject, &key.name, now).await?;
                    info!(document = %key, backup = made.id(), bytes = made.bytes, "exported");
                    now
                }
            };
            keeper.prune(key, rule.keep)?;
            let count = keeper.exports(key, keeper.host(), now).len();
            Ok(Some((last, format!("export {}, {count} in all", last.rfc3339()))))
        };
        let done: Result<_, super::KeepError> = work.await;
        done.map_err(|error| format!("export: {}", in_full(&error)))
    }

    fn take_note(
        &self,
        key: &DesiredKey,
        part: &'static str,
        memory: &mut Memory,
        done: Result<Option<(Stamp, String)>, String>,
    ) {
        let board = self.keeper.board();
        match done {
            Ok(Some((last, words))) => {
                *memory = Memory {
                    last: Some(last),
                    ..Memory::default()
                };
                board.say(key, part, Some(Ok(words)));
            }
            Ok(None) => {
                *memory = Memory {
                    not_before: Some(Instant::now() + ABSENT),
                    ..Memory::default()
                };
                board.say(key, part, None);
            }
            Err(error) => {
                warn!(document = %key, error, "not backed up, will be tried again");
                memory.fail();
                board.say(key, part, Some(Err(error)));
            }
        }
    }

    /// Fetches what documents want to have here of the other hosts' exports.
    async fn copies(&self) {
        let mut failing = Failing::new();
        loop {
            let host = self.keeper.host();
            let documents = self.documents().unwrap_or_default();
            failing.retain(|(key, _), _| documents.contains_key(key));
            let mut wanted = BTreeMap::new();
            for (key, spec) in documents {
                match &spec.exports {
                    Some(exports) if exports.to.iter().any(|to| to == host) => {
                        wanted.insert(key, exports.rule.keep);
                    }
                    _ => self.keeper.board().say(&key, "copies", None),
                }
            }
            if !wanted.is_empty() {
                for source in self.hosts.names().into_iter().filter(|name| name != host) {
                    self.copy_from(&source, &wanted, &mut failing).await;
                }
            }
            sleep(COPY_EVERY).await;
        }
    }

    async fn copy_from(&self, source: &str, wanted: &BTreeMap<DesiredKey, Keep>, failing: &mut Failing) {
        let list = Task::ListBackups(ListBackupsRequest::default());
        // One that does not answer is asked again; what is here of it stays.
        let Ok(Ok(Outcome::Backups(listed))) = timeout(LIST_LIMIT, self.hosts.perform(source, list)).await
        else {
            debug!(source, "no list of backups");
            return;
        };
        for (key, keep) in wanted {
            let id = (key.clone(), source.to_owned());
            if failing.get(&id).is_some_and(Memory::waits) {
                continue;
            }
            let made_there = listed.backups.iter().filter(|backup| {
                backup.made_on == source && backup.tenant == key.tenant && backup.document == key.name
            });
            let made_there: BTreeMap<Stamp, _> = made_there
                .filter_map(|backup| Some((backup.id.get(..16)?.parse::<Stamp>().ok()?, backup)))
                .collect();
            let here = self.keeper.exports(key, source, now());
            let all = here.iter().chain(made_there.keys()).copied().collect();
            let kept = keep.of(&all);
            let mut said = Ok(String::new());
            for (stamp, backup) in &made_there {
                if here.contains(stamp) || !kept.contains(stamp) {
                    continue;
                }
                let fetch = FetchBackupRequest {
                    backup: Some((*backup).clone()),
                    from: source.to_owned(),
                };
                match self
                    .hosts
                    .perform(self.keeper.host(), Task::FetchBackup(fetch))
                    .await
                {
                    Ok(_) => info!(document = %key, backup = backup.id, source, "copied"),
                    Err(error) => said = Err(format!("copy from {source}: {}", error.message)),
                }
            }
            if let Err(error) = self.keeper.prune(key, *keep) {
                said = Err(in_full(&error));
            }
            let have = self.keeper.exports(key, source, now());
            match (said, have.last()) {
                (Err(error), _) => {
                    warn!(document = %key, error, "not copied, will be tried again");
                    failing.entry(id).or_default().fail();
                    self.keeper.board().say(key, "copies", Some(Err(error)));
                }
                (Ok(_), Some(last)) => {
                    let words = format!("copy of {} from {source}, {} in all", last.rfc3339(), have.len());
                    self.keeper.board().say(key, "copies", Some(Ok(words)));
                    failing.remove(&id);
                }
                (Ok(_), None) => {}
            }
        }
    }
}

impl Memory {
    fn waits(&self) -> bool {
        self.not_before.is_some_and(|at| Instant::now() < at)
    }

    fn is_to_wait(&self, schedule: &Schedule) -> bool {
        self.waits() || (self.last.is_some() && !is_due(schedule, self.last, now()))
    }

    fn fail(&mut self) {
        let wait = RETRY_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + wait);
    }
}

/// An error with all its causes, in one line.
fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_while_down_is_done_once() {
        let hourly = Schedule::parse("0 * * * *").unwrap();
        let at = |text: &str| text.parse::<Stamp>().unwrap();
        let last = Some(at("20261121T200000Z"));
        assert!(
            is_due(&hourly, None, at("20261121T203000Z")),
            "the first is made at once"
        );
        assert!(!is_due(&hourly, last, at("20261121T205959Z")));
        assert!(is_due(&hourly, last, at("20261121T210000Z")));
        // Down for three of them: one is made, and that was it.
        let up_again = at("20261121T231500Z");
        assert!(is_due(&hourly, last, up_again));
        assert!(!is_due(&hourly, Some(up_again), up_again));
        assert!(!is_due(&hourly, Some(up_again), at("20261121T235959Z")));
    }
}
