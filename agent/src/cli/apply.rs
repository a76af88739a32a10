//! `agentctl apply`: documents from files into the cluster, all or none.

use std::path::PathBuf;

use clap::Args;
use proto::agent::v1::{DocumentText, PlanRequest};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use serde_json::json;

use super::Session;
use super::atomic::{self, Step, Write};
use super::change::{self, Action, Change};
use super::client::Client;
use super::delete;
use super::documents::{self, FilesArg, Selection, Source, Stored};
use super::error::CliError;
use super::format::{self, Format};
use super::plan;
use super::planfile::{self, Live, PlanFile, Planned};
use super::prune;
use super::tenancy;
use crate::document::{self, DesiredKey};

/// Somebody else may change a document between our reading and our writing; twice in a row is a quarrel.
const ATTEMPTS: usize = 3;
/// A transaction holds 128 operations.
const READ_AT_ONCE: usize = 100;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl apply -f web.yaml\n  agentctl apply -f infra/ -f more.yaml --prune\n  \
                        generate | agentctl apply -f -\n  agentctl plan -f infra/ -o infra.plan && agentctl apply infra.plan\n\n\
                        All documents are checked first and stored together: one mistake, and nothing changes.\n\
                        `agentctl status --wait` follows what becomes of them."
)]
pub(super) struct ApplyArgs {
    /// A plan that `agentctl plan -o` kept: it is applied as it is, or not at all
    #[arg(value_name = "PLAN", conflicts_with_all = ["files", "prune"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    files: FilesArg,
    /// Delete the documents that the files hold no more, too: those of the files' kinds and tenants
    #[arg(long)]
    prune: bool,
    /// Do not ask before documents are deleted
    #[arg(long, requires = "prune")]
    yes: bool,
}

impl ApplyArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        if let Some(file) = &self.plan {
            return apply_plan(session, &PlanFile::read(file)?).await;
        }
        let sources = self.files.load()?;
        tenancy::check(&session.client, &sources).await?;
        let keys: Vec<DesiredKey> = sources
            .iter()
            .map(|source| source.document.desired_key())
            .collect();
        let pruned = if self.prune {
            let pruned = prune::pruned(session, &sources).await?;
            delete::refuse_protected(&pruned.iter().cloned().map(Some).collect::<Vec<_>>())?;
            prune::confirm(&pruned, self.yes)?;
            pruned
        } else {
            Vec::new()
        };
        for _ in 0..ATTEMPTS {
            let (before, read_at) = read(&session.client, &keys).await?;
            let mut changes: Vec<Change> = sources
                .iter()
                .zip(&before)
                .map(|(source, before)| change::of(source, before.as_ref()))
                .collect();
            let mut steps = steps(&sources, &before, &changes);
            for stored in &pruned {
                changes.push(change::of_deletion(
                    stored.key.kind,
                    &stored.key.name,
                    Some(stored),
                ));
                steps.push(Step {
                    key: stored.key.key(),
                    expected: Some(stored.revision),
                    write: Write::Delete,
                });
            }
            if steps.is_empty() {
                return show(session, &changes, read_at);
            }
            if let Some(revision) = atomic::commit(&session.client, &steps, read_at).await? {
                return show(session, &changes, revision);
            }
        }
        Err(contended())
    }
}

/// Stores documents as they are, all or none. What is as it should be stays.
pub(super) async fn store(client: &Client, sources: &[Source]) -> Result<(Vec<Change>, i64), CliError> {
    let keys: Vec<DesiredKey> = sources
        .iter()
        .map(|source| source.document.desired_key())
        .collect();
    for _ in 0..ATTEMPTS {
        let (before, read_at) = read(client, &keys).await?;
        let changes: Vec<Change> = sources
            .iter()
            .zip(&before)
            .map(|(source, before)| change::of(source, before.as_ref()))
            .collect();
        let steps = steps(sources, &before, &changes);
        if steps.is_empty() {
            return Ok((changes, read_at));
        }
        if let Some(revision) = atomic::commit(client, &steps, read_at).await? {
            return Ok((changes, revision));
        }
    }
    Err(contended())
}

fn contended() -> CliError {
    CliError::failed("somebody else keeps changing the same documents")
        .hint("nothing was changed; try again when they are done")
}

/// A plan is applied only while each of its documents is what it was then.
async fn apply_plan(session: &Session, plan: &PlanFile) -> Result<(), CliError> {
    let mut keys = Vec::new();
    let mut changes = Vec::new();
    let parsed = |planned: &Planned| document::parse_desired_key(&planned.key);
    for planned in &plan.documents {
        let key = parsed(planned)
            .ok_or_else(|| CliError::failed(format!("{} in the plan is no document's key", planned.key)))?;
        keys.push(key);
    }
    let (before, read_at) = read(&session.client, &keys).await?;
    let mut steps = Vec::new();
    for ((planned, key), before) in plan.documents.iter().zip(&keys).zip(&before) {
        let revision = before.as_ref().map_or(0, |before| before.revision);
        if revision != planned.revision {
            let was = match planned.revision {
                0 => "was not there".to_owned(),
                revision => format!("was at revision {revision}"),
            };
            let is = match revision {
                0 => "is not there".to_owned(),
                revision => format!("is at revision {revision}"),
            };
            return Err(
                CliError::failed(format!("{key} {was} when the plan was made, and {is} now"))
                    .hint("nothing was changed; plan again"),
            );
        }
        let write = match &planned.text {
            Some(text) if before.as_ref().is_some_and(|before| before.text == *text) => Write::Nothing,
            Some(text) => Write::Put(text.clone()),
            None => Write::Delete,
        };
        changes.push(match &planned.text {
            Some(text) => {
                let document = document::parse_at(&planned.key, text)
                    .map_err(|error| CliError::failed(format!("{key} in the plan: {error}")))?;
                let source = Source {
                    place: String::new(),
                    text: text.clone(),
                    document,
                };
                change::of(&source, before.as_ref())
            }
            None => change::of_deletion(key.kind, &key.name, before.as_ref()),
        });
        steps.push(Step {
            key: planned.key.clone(),
            expected: Some(planned.revision),
            write,
        });
    }
    if steps.iter().all(|step| step.write == Write::Nothing) {
        return show(session, &changes, read_at);
    }
    if let Some(moved) = moved(session, plan, &steps).await? {
        return Err(CliError::failed(moved).hint("nothing was changed; plan again"));
    }
    match atomic::commit(&session.client, &steps, read_at).await? {
        Some(revision) => show(session, &changes, revision),
        None => Err(
            CliError::failed("somebody else changed a document of the plan just now")
                .hint("nothing was changed; plan again"),
        ),
    }
}

/// What hosts have otherwise than when the plan was made, in words.
async fn moved(session: &Session, kept: &PlanFile, steps: &[Step]) -> Result<Option<String>, CliError> {
    let mut request = PlanRequest::default();
    for step in steps {
        match &step.write {
            Write::Put(text) => request.documents.push(DocumentText {
                key: step.key.clone(),
                text: text.clone().into(),
            }),
            Write::Delete => request.deleted_keys.push(step.key.clone()),
            Write::Nothing => {}
        }
    }
    let now = plan::ask(session, request).await?;
    let now: Vec<Live> = now.objects.iter().map(Live::of).collect();
    Ok(planfile::moved(&kept.live, &now))
}

/// The documents at the keys as they are now, all at one revision, which is returned too.
pub(super) async fn read(
    client: &Client,
    keys: &[DesiredKey],
) -> Result<(Vec<Option<Stored>>, i64), CliError> {
    let mut revision = 0;
    let mut all = Vec::with_capacity(keys.len());
    for some in keys.chunks(READ_AT_ONCE) {
        let range = |key: &DesiredKey| pb::RequestOp {
            request: Some(Request::RequestRange(pb::RangeRequest {
                key: key.key().into(),
                revision,
                ..Default::default()
            })),
        };
        let request = pb::TxnRequest {
            success: some.iter().map(range).collect(),
            ..Default::default()
        };
        let response = client.txn(request).await?;
        if revision == 0 {
            revision = response.header.map_or(0, |header| header.revision);
        }
        let stored = response
            .responses
            .into_iter()
            .map(|answer| match answer.response {
                Some(Response::ResponseRange(range)) => {
                    documents::stored(&range.kvs, &Selection::default()).pop()
                }
                _ => None,
            });
        all.extend(stored);
    }
    if all.len() != keys.len() {
        return Err(CliError::failed(
            "the member answered with fewer documents than it was asked for",
        ));
    }
    documents::read_bindings(client, &mut all).await;
    Ok((all, revision))
}

/// Puts what changes, if nothing of it has been touched since it was read.
pub(super) fn steps(sources: &[Source], before: &[Option<Stored>], changes: &[Change]) -> Vec<Step> {
    let changed = sources.iter().zip(before).zip(changes);
    changed
        .filter(|(_, change)| change.action != Action::Unchanged)
        .map(|((source, before), _)| Step {
            key: source.document.desired_key().key(),
            expected: Some(before.as_ref().map_or(0, |before| before.revision)),
            write: Write::Put(source.text.clone()),
        })
        .collect()
}

/// The lines, and the revision at which the cluster holds it all.
pub(super) fn show(session: &Session, changes: &[Change], revision: i64) -> Result<(), CliError> {
    if session.format == Some(Format::Json) {
        let documents: Vec<_> = changes
            .iter()
            .map(|change| {
                json!({"kind": change.kind.singular(), "name": change.name, "action": change.action.word()})
            })
            .collect();
        return format::write_json(&json!({"revision": revision, "documents": documents}));
    }
    let plural = if changes.len() == 1 { "" } else { "s" };
    let text = format!(
        "{}{} document{plural} at revision {revision}\n",
        change::text(changes),
        changes.len()
    );
    format::write(text.as_bytes())
}
