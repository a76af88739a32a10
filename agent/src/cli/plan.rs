//! `agentctl plan` and `agentctl diff`: what would change where, by the hosts' own plans. Nothing is touched.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use proto::agent::v1::planned_object::Effect;
use proto::agent::v1::{DocumentText, PlanRequest, PlanResponse, PlannedObject, SilentHost};
use serde_json::{Value, json};

use super::apply;
use super::documents::{FilesArg, Source, Stored};
use super::error::CliError;
use super::format::{self, Format};
use super::planfile::{Live, PlanFile, Planned};
use super::prune;
use super::session::Session;
use crate::document::{DEFAULT_TENANT, DesiredKey};

/// A host looks at everything that it has.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl plan -f infra/\n  agentctl plan -f infra/ --prune -o infra.plan\n  \
                        agentctl apply infra.plan\n\n\
                        Every host says what it would do: ~ changes (live, with a restart, by a rebuild), + creates, \
                        - deletes,\n! is refused, and why. A plan that is kept with -o is applied as it is, or not at \
                        all: when a document\nof it, or what a host has of it, has changed since, it is refused."
)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    files: FilesArg,
    /// Keep the plan in a file, for `agentctl apply FILE`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Plan the deletion of documents that the files hold no more, too: those of the files' kinds and tenants
    #[arg(long)]
    prune: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  agentctl diff\n  agentctl diff --host ovh\n\n\
                        It shows what hosts would change to make Incus agree with the documents as they are: drift \
                        made by hand that is not\nundone yet, and what is refused. Exit code 1: there is some.")]
pub(super) struct DiffArgs {
    /// Only this host [default: all]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

impl PlanArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let sources = self.files.load()?;
        let keys: Vec<DesiredKey> = sources
            .iter()
            .map(|source| source.document.desired_key())
            .collect();
        let (before, revision) = apply::read(&session.client, &keys).await?;
        let pruned = if self.prune {
            prune::pruned(session, &sources).await?
        } else {
            Vec::new()
        };
        let request = request(&sources, &before, &pruned);
        let planned = ask(session, request).await?;
        let mut lines = lines(&planned);
        lines.extend(nowhere(&sources, &before, &planned));
        show(session, &lines, &planned)?;
        if let Some(file) = &self.output {
            let documents = sources
                .iter()
                .zip(&before)
                .map(|(source, before)| Planned {
                    key: source.document.desired_key().key(),
                    text: Some(source.text.clone()),
                    revision: before.as_ref().map_or(0, |before| before.revision),
                })
                .chain(pruned.iter().map(|stored| Planned {
                    key: stored.key.key(),
                    text: None,
                    revision: stored.revision,
                }))
                .collect();
            let lines = lines.iter().map(Line::text).collect();
            let live = planned.objects.iter().map(Live::of).collect();
            PlanFile::new(revision, documents, live, lines).write(file)?;
        }
        silent(&planned.silent)
    }
}

impl DiffArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = PlanRequest {
            host: self.host.unwrap_or_default(),
            ..PlanRequest::default()
        };
        let planned = ask(session, request).await?;
        let lines = lines(&planned);
        if lines.is_empty() && session.format != Some(Format::Json) {
            format::write(b"no host differs from its documents\n")?;
        } else {
            show(session, &lines, &planned)?;
        }
        silent(&planned.silent)?;
        if lines.is_empty() {
            Ok(())
        } else {
            Err(CliError::already_said())
        }
    }
}

/// Only what is put anew: a text that stands there already changes nothing.
fn request(sources: &[Source], before: &[Option<Stored>], pruned: &[Stored]) -> PlanRequest {
    let changed = sources
        .iter()
        .zip(before)
        .filter(|(source, before)| before.as_ref().is_none_or(|before| before.text != source.text));
    PlanRequest {
        documents: changed
            .map(|(source, _)| DocumentText {
                key: source.document.desired_key().key(),
                text: source.text.clone().into(),
            })
            .collect(),
        deleted_keys: pruned.iter().map(|stored| stored.key.key()).collect(),
        host: String::new(),
    }
}

pub(super) async fn ask(session: &Session, request: PlanRequest) -> Result<PlanResponse, CliError> {
    session.client.patient(PATIENCE)?.plan(request).await
}

/// Hosts that were asked in vain make a plan incomplete.
fn silent(silent: &[SilentHost]) -> Result<(), CliError> {
    if silent.is_empty() {
        return Ok(());
    }
    let reasons: Vec<&str> = silent.iter().map(|silent| silent.reason.as_str()).collect();
    Err(CliError::failed(reasons.join("\nerror: ")).hint("what would change there is missing above"))
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    effect: Effect,
    kind: String,
    name: String,
    host: String,
    detail: String,
}

impl Line {
    fn sign(&self) -> char {
        match self.effect {
            Effect::Unspecified | Effect::Change => '~',
            Effect::Create => '+',
            Effect::Delete => '-',
            Effect::Refused => '!',
        }
    }

    fn text(&self) -> String {
        format!(
            "{} {:8} {:14}  {:10}  {}",
            self.sign(),
            self.kind,
            self.name,
            self.host,
            self.detail
        )
    }
}

fn lines(planned: &PlanResponse) -> Vec<Line> {
    let mut lines: Vec<Line> = planned.objects.iter().map(line).collect();
    lines.sort_by_key(|line| (line.kind.clone(), line.name.clone(), line.host.clone()));
    // What every host says of an instance that fits none is said once.
    lines.dedup();
    lines
}

fn line(object: &PlannedObject) -> Line {
    let cost = match object.cost.as_str() {
        "" => String::new(),
        cost => format!(" ({cost})"),
    };
    Line {
        effect: object.effect(),
        kind: object.kind.clone(),
        name: full_name(&object.tenant, &object.name),
        host: object.host.clone(),
        detail: format!("{}{cost}", object.details.join(", ")),
    }
}

/// As statuses name it: with its tenant, where that is not the default one.
fn full_name(tenant: &str, name: &str) -> String {
    if tenant.is_empty() || tenant == DEFAULT_TENANT {
        name.to_owned()
    } else {
        format!("{tenant}/{name}")
    }
}

/// Documents that change and name hosts which planned nothing at all, because there is none of that name.
fn nowhere(sources: &[Source], before: &[Option<Stored>], planned: &PlanResponse) -> Vec<Line> {
    let is_known = |host: &String| {
        planned.hosts.contains(host) || planned.silent.iter().any(|silent| silent.host == *host)
    };
    let mut lines = Vec::new();
    for (source, before) in sources.iter().zip(before) {
        let document = &source.document;
        if before.as_ref().is_some_and(|before| before.text == source.text) {
            continue;
        }
        let candidates = document.placement.iter().flat_map(|placement| &placement.hosts);
        let named = document.hosts.iter().chain(candidates);
        for host in named.filter(|host| !is_known(host)) {
            lines.push(Line {
                effect: Effect::Refused,
                kind: document.kind.singular().to_owned(),
                name: full_name(&document.tenant, &document.name),
                host: host.clone(),
                detail: "no host of that name with an Incus".to_owned(),
            });
        }
    }
    lines
}

fn show(session: &Session, lines: &[Line], planned: &PlanResponse) -> Result<(), CliError> {
    if session.format == Some(Format::Json) {
        return format::write_json(&as_json(lines, planned));
    }
    let mut text: String = lines.iter().map(|line| format!("{}\n", line.text())).collect();
    text.push_str(&summary(lines));
    format::write(text.as_bytes())
}

fn summary(lines: &[Line]) -> String {
    let count = |effect: Effect| lines.iter().filter(|line| line.effect == effect).count();
    if lines.is_empty() {
        return "nothing to change on any host\n".to_owned();
    }
    format!(
        "{} to change, {} to create, {} to delete, {} refused\n",
        count(Effect::Change),
        count(Effect::Create),
        count(Effect::Delete),
        count(Effect::Refused)
    )
}

fn as_json(lines: &[Line], planned: &PlanResponse) -> Value {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({"effect": line.effect.as_str_name().to_lowercase(), "kind": line.kind, "name": line.name,
                "host": line.host, "detail": line.detail})
        })
        .collect();
    let silent: Vec<Value> = planned
        .silent
        .iter()
        .map(|silent| json!({"host": silent.host, "reason": silent.reason}))
        .collect();
    json!({"objects": lines, "hosts": planned.hosts, "silent": silent})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_plan_is_shown() {
        let object = |effect: Effect, name: &str, host: &str, detail: &str, cost: &str| PlannedObject {
            host: host.into(),
            kind: "instance".into(),
            tenant: "default".into(),
            name: name.into(),
            effect: effect.into(),
            details: vec![detail.into()],
            cost: cost.into(),
            fingerprint: String::new(),
        };
        let planned = PlanResponse {
            objects: vec![
                object(
                    Effect::Change,
                    "web",
                    "ovh",
                    "config.limits.memory: 256MiB -> 512MiB",
                    "live",
                ),
                object(
                    Effect::Refused,
                    "db",
                    "ionos",
                    "spec.type changes: needs rebuild",
                    "",
                ),
                object(Effect::Create, "new", "ionos", "create, start", ""),
                object(Effect::Delete, "old", "ovh", "delete", ""),
            ],
            hosts: vec!["ovh".into(), "ionos".into()],
            silent: Vec::new(),
        };
        let lines = lines(&planned);
        let text: String = lines.iter().map(|line| format!("{}\n", line.text())).collect();
        expect![[r#"
            ! instance db              ionos       spec.type changes: needs rebuild
            + instance new             ionos       create, start
            - instance old             ovh         delete
            ~ instance web             ovh         config.limits.memory: 256MiB -> 512MiB (live)
            1 to change, 1 to create, 1 to delete, 1 refused
        "#]]
        .assert_eq(&(text + &summary(&lines)));
    }
}
