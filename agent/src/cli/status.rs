//! `agentctl status`: what the hosts say of the documents. The rows are computed purely.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use clap::Args;
use futures::StreamExt;
use futures::stream;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Session;
use super::cluster;
use super::documents::{self, Selection, Stored};
use super::duration::{self, ago};
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::get::{WhichArgs, not_there, tenant_cell};
use super::range::KeyRange;
use crate::document::{self, DesiredKey, Phase, Status};

/// Documents and their status live under as many prefixes at most.
const PREFIXES_MAX: usize = 2;
/// Stands for the host of what is on none.
const NO_HOST: &str = "-";
/// A watch that is lost is opened again after this, while there is time.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl status\n  agentctl status instance web\n  agentctl status --wait=2m\n\n\
                        Ready: as the document says. Pending: not done yet, or waiting for what MESSAGE names.\n\
                        Invalid: the document is wrong; the last good one stays in force. Conflict: something of\n\
                        that name is there that is not ours; it is not touched."
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Wait until every host has done its part, at most so long [default: 60s]
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration::parse,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s"
    )]
    wait: Option<Duration>,
}

/// One host's word on one document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    key: DesiredKey,
    host: String,
    phase: Phase,
    since: Option<Duration>,
    revision: i64,
    message: String,
}

/// What the rows mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Underway,
    /// Waiting does not help: a person must act.
    Stuck,
}

impl StatusArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let selection = self.which.selection();
        let deadline = self.wait.map(|time| Instant::now() + time);
        loop {
            let (rows, revision) = read(session, &selection).await?;
            if rows.is_empty() && selection.name.is_some() {
                return Err(not_there(&selection));
            }
            let outcome = outcome(&rows);
            match deadline {
                None => return show(session, &selection, &rows),
                Some(_) if outcome == Outcome::Done => return show(session, &selection, &rows),
                Some(deadline) if outcome == Outcome::Underway && Instant::now() < deadline => {
                    progress(&rows);
                    changed(session, &selection, revision, deadline).await;
                }
                Some(_) => {
                    show(session, &selection, &rows)?;
                    return Err(not_done(&rows, outcome));
                }
            }
        }
    }
}

async fn read(session: &Session, selection: &Selection) -> Result<(Vec<Row>, i64), CliError> {
    let prefixes = selection.prefixes();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let listing = documents::look(&session.client, &prefixes).await?;
    let hosts = cluster::hosts_alive(session).await;
    Ok((
        rows(&listing.kvs, selection, &hosts, SystemTime::now()),
        listing.revision,
    ))
}

/// Every document on every host it names, and what is still said of documents that are gone.
fn rows(kvs: &[KeyValue], selection: &Selection, hosts: &[String], now: SystemTime) -> Vec<Row> {
    let mut said: BTreeMap<(DesiredKey, String), Option<Status>> = BTreeMap::new();
    for kv in kvs {
        let key = std::str::from_utf8(&kv.key)
            .ok()
            .and_then(document::parse_status_key);
        if let Some((key, host)) = key.filter(|(key, _)| selection.matches(key)) {
            said.insert((key, host), serde_json::from_slice(&kv.value).ok());
        }
    }
    let mut rows = Vec::new();
    for stored in documents::stored(kvs, selection) {
        for host in hosts_of(&stored, hosts, &said) {
            let status = said.remove(&(stored.key.clone(), host.clone())).flatten();
            let mut row = row(stored.key.clone(), host, status, stored.revision, now);
            if row.host == NO_HOST
                && let Some(why) = waits_for_a_host(&stored)
            {
                row.message = why;
            }
            rows.push(row);
        }
    }
    rows.extend(
        said.into_iter()
            .map(|((key, host), status)| row(key, host, status, 0, now)),
    );
    rows.sort_by_cached_key(|row| (row.key.kind.singular(), row.key.clone(), row.host.clone()));
    rows
}

/// Where a word on the document is expected. One that names no host is for every host there is.
fn hosts_of(
    stored: &Stored,
    alive: &[String],
    said: &BTreeMap<(DesiredKey, String), Option<Status>>,
) -> Vec<String> {
    let named = match &stored.document {
        Some(document) => document.hosts.clone(),
        None => document::hosts_named(&stored.text).unwrap_or_default(),
    };
    if !named.is_empty() {
        return named;
    }
    if waits_for_a_host(stored).is_some() {
        return vec![NO_HOST.to_owned()];
    }
    // What is inside of an instance is for that one's host to speak of.
    let inside = stored
        .document
        .as_ref()
        .is_some_and(|document| document.instance.is_some());
    let mut hosts: Vec<String> = if inside { Vec::new() } else { alive.to_vec() };
    for (_, host) in said.keys().filter(|(key, _)| *key == stored.key) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    if hosts.is_empty() {
        hosts.push(NO_HOST.to_owned());
    }
    hosts
}

/// Why an instance that may be on several hosts is on none.
fn waits_for_a_host(stored: &Stored) -> Option<String> {
    let document = stored.document.as_ref()?;
    let is_nowhere = document.placement.is_some() && document.hosts.is_empty();
    let reason = stored.binding.as_ref().map(|binding| binding.reason.clone());
    is_nowhere.then(|| reason.unwrap_or_else(|| "waits for a host to be chosen".to_owned()))
}

/// A word on an older text of the document is no word on this one.
fn row(key: DesiredKey, host: String, status: Option<Status>, revision: i64, now: SystemTime) -> Row {
    match status {
        None => Row {
            key,
            host,
            phase: Phase::Pending,
            since: None,
            revision,
            message: String::new(),
        },
        Some(status) if status.revision < revision => {
            let message = format!("{} at revision {}", status.phase, status.revision);
            Row {
                key,
                host,
                phase: Phase::Pending,
                since: status.age(now),
                revision,
                message,
            }
        }
        Some(status) => {
            let since = status.age(now);
            let message = match status.line {
                Some(line) => format!("line {line}: {}", status.message),
                None => status.message,
            };
            Row {
                key,
                host,
                phase: status.phase,
                since,
                revision: status.revision,
                message,
            }
        }
    }
}

fn outcome(rows: &[Row]) -> Outcome {
    let of = |row: &Row| match row.phase {
        Phase::Ready | Phase::Stopped => Outcome::Done,
        Phase::Pending | Phase::Progressing | Phase::Failed => Outcome::Underway,
        Phase::Invalid | Phase::Conflict | Phase::Unsupported => Outcome::Stuck,
    };
    let outcomes: Vec<Outcome> = rows.iter().map(of).collect();
    // All that can be done is waited for, so that the answer is about everything.
    if outcomes.contains(&Outcome::Underway) {
        Outcome::Underway
    } else if outcomes.contains(&Outcome::Stuck) {
        Outcome::Stuck
    } else {
        Outcome::Done
    }
}

fn not_done(rows: &[Row], outcome: Outcome) -> CliError {
    let open = rows
        .iter()
        .filter(|row| !matches!(row.phase, Phase::Ready | Phase::Stopped))
        .count();
    let text = format!("{open} of {} not done", rows.len());
    match outcome {
        Outcome::Stuck => CliError::failed(text).hint("waiting longer does not help: MESSAGE says what does"),
        Outcome::Done | Outcome::Underway => {
            CliError::failed(format!("{text} in time")).hint("wait longer with --wait=5m, or see MESSAGE")
        }
    }
}

/// For a person who waits.
fn progress(rows: &[Row]) {
    if io::stderr().is_terminal() {
        let open = rows
            .iter()
            .find(|row| matches!(row.phase, Phase::Pending | Phase::Progressing | Phase::Failed));
        if let Some(row) = open {
            eprintln!(
                "waiting for {} {} on {}: {}",
                row.key.kind, row.key.name, row.host, row.phase
            );
        }
    }
}

/// Returns when something changed after `revision`, or the time is up, or nobody can tell.
async fn changed(session: &Session, selection: &Selection, revision: i64, deadline: Instant) {
    let prefixes = selection.prefixes();
    let watch = async |prefix: String| {
        let range = KeyRange::prefix(prefix.as_bytes());
        let request = pb::WatchCreateRequest {
            key: range.key,
            range_end: range.range_end,
            start_revision: revision + 1,
            ..Default::default()
        };
        let Ok((_, mut stream)) = session.client.watch(request).await else {
            return false;
        };
        while let Ok(Some(response)) = stream.message().await {
            if !response.events.is_empty() {
                return true;
            }
        }
        false
    };
    let mut watches = stream::iter(prefixes).map(watch).buffer_unordered(PREFIXES_MAX);
    let seen = timeout_at(deadline, watches.next()).await;
    if !matches!(seen, Ok(Some(true))) {
        session.client.prefer_next();
        let _ = timeout_at(deadline, tokio::time::sleep(PAUSE)).await;
    }
}

fn show(session: &Session, selection: &Selection, rows: &[Row]) -> Result<(), CliError> {
    match session.format {
        Some(Format::Json) => format::write_json(&rows.iter().map(as_json).collect::<Vec<_>>().into()),
        _ if rows.is_empty() => {
            eprintln!("no {}", selection.words());
            Ok(())
        }
        Some(Format::Simple) => {
            let line = |row: &Row| format!("{} {} {} {}\n", row.key.kind, row.key.name, row.host, row.phase);
            format::write(rows.iter().map(line).collect::<String>().as_bytes())
        }
        _ => format::write(table(rows).as_bytes()),
    }
}

fn as_json(row: &Row) -> Value {
    json!({
        "kind": row.key.kind.singular(),
        "name": row.key.name,
        "tenant": row.key.tenant,
        "host": row.host,
        "phase": row.phase.to_string(),
        "since_seconds": row.since.map(|since| since.as_secs()),
        "revision": row.revision,
        "message": row.message,
    })
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let since = row.since.map_or_else(|| "-".to_owned(), ago);
        [
            row.key.kind.to_string(),
            row.key.name.clone(),
            tenant_cell(&row.key.tenant),
            row.host.clone(),
            row.phase.to_string(),
            since,
            row.revision.to_string(),
            row.message.clone(),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    columns(
        [
            "KIND", "NAME", "TENANT", "HOST", "PHASE", "SINCE", "REVISION", "MESSAGE",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const WEB: &str = "kind: instance\nname: web\nhost: ovh\nspec:\n  type: container\n  source: {type: image, alias: busybox}\n";
    const PROFILE: &str = "kind: profile\nname: web\nspec: {}\n";

    fn kv(key: &str, value: &str, mod_revision: i64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            mod_revision,
            ..Default::default()
        }
    }

    fn status(phase: Phase, revision: i64, message: &str, line: Option<u64>) -> String {
        let since = "2026-01-01T00:00:00Z".to_owned();
        let host = "ovh".to_owned();
        serde_json::to_string(&Status {
            phase,
            revision,
            since,
            message: message.into(),
            host,
            line,
        })
        .unwrap()
    }

    fn all(kvs: &[KeyValue]) -> Vec<Row> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_602);
        rows(kvs, &Selection::default(), &["ionos".into(), "ovh".into()], now)
    }

    fn check(kvs: &[KeyValue], expected: &Expect) {
        let rows = all(kvs);
        expected.assert_eq(&format!("{}{:?}\n", table(&rows), outcome(&rows)));
    }

    const WEB_KEY: &str = "/tenants/default/desired/instances/web";
    const WEB_STATUS: &str = "/tenants/default/status/instances/web/ovh";

    #[test]
    fn ready_on_every_host() {
        check(
            &[
                kv(WEB_KEY, WEB, 14),
                kv("/tenants/default/desired/profiles/web", PROFILE, 14),
                kv(WEB_STATUS, &status(Phase::Ready, 14, "", None), 15),
                kv(
                    "/tenants/default/status/profiles/web/ionos",
                    &status(Phase::Ready, 14, "", None),
                    16,
                ),
                kv(
                    "/tenants/default/status/profiles/web/ovh",
                    &status(Phase::Ready, 14, "", None),
                    17,
                ),
            ],
            &expect![[r#"
                KIND      NAME  HOST   PHASE  SINCE  REVISION
                instance  web   ovh    Ready  2s     14
                profile   web   ionos  Ready  2s     14
                profile   web   ovh    Ready  2s     14
                Done
            "#]],
        );
    }

    #[test]
    fn what_is_inside_an_instance_is_one_hosts_to_speak_of() {
        let service = "kind: service\nname: site\ninstance: web\nspec: {exec: /bin/site}\n";
        let key = "/tenants/default/desired/services/site";
        check(
            &[kv(key, service, 14)],
            &expect![[r#"
                KIND     NAME  HOST  PHASE    SINCE  REVISION
                service  site  -     Pending  -      14
                Underway
            "#]],
        );
        let said = kv(
            "/tenants/default/status/services/site/ovh",
            &status(Phase::Ready, 14, "", None),
            15,
        );
        check(
            &[kv(key, service, 14), said],
            &expect![[r#"
                KIND     NAME  HOST  PHASE  SINCE  REVISION
                service  site  ovh   Ready  2s     14
                Done
            "#]],
        );
    }

    #[test]
    fn what_nobody_spoke_of_yet_is_pending() {
        check(
            &[
                kv(WEB_KEY, WEB, 14),
                kv("/tenants/default/desired/profiles/web", PROFILE, 14),
            ],
            &expect![[r#"
                KIND      NAME  HOST   PHASE    SINCE  REVISION
                instance  web   ovh    Pending  -      14
                profile   web   ionos  Pending  -      14
                profile   web   ovh    Pending  -      14
                Underway
            "#]],
        );
    }

    #[test]
    fn a_word_on_an_older_text_is_not_ready() {
        check(
            &[
                kv(WEB_KEY, WEB, 20),
                kv(WEB_STATUS, &status(Phase::Ready, 14, "", None), 15),
            ],
            &expect![[r#"
                KIND      NAME  HOST  PHASE    SINCE  REVISION  MESSAGE
                instance  web   ovh   Pending  2s     20        Ready at revision 14
                Underway
            "#]],
        );
    }

    #[test]
    fn a_wrong_document_says_which_line() {
        check(
            &[
                kv(
                    WEB_KEY,
                    "kind: instance\nname: web\nhost: ovh\nspec: {typo: 1}\n",
                    20,
                ),
                kv(
                    WEB_STATUS,
                    &status(Phase::Invalid, 20, "spec.typo: no such field", Some(4)),
                    21,
                ),
            ],
            &expect![[r#"
                KIND      NAME  HOST  PHASE    SINCE  REVISION  MESSAGE
                instance  web   ovh   Invalid  2s     20        line 4: spec.typo: no such field
                Stuck
            "#]],
        );
    }

    #[test]
    fn a_document_that_is_gone_is_followed_to_its_end() {
        check(
            &[kv(
                WEB_STATUS,
                &status(Phase::Progressing, 0, "deleting", None),
                21,
            )],
            &expect![[r#"
                KIND      NAME  HOST  PHASE        SINCE  REVISION  MESSAGE
                instance  web   ovh   Progressing  2s     0         deleting
                Underway
            "#]],
        );
    }
}
