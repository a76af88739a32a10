//! `agentctl apply`: documents from files into the cluster, all or none.

use clap::Args;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use serde_json::json;

use super::Session;
use super::change::{self, Action, Change};
use super::client::Client;
use super::documents::{self, FilesArg, Selection, Source, Stored};
use super::error::CliError;
use super::format::{self, Format};
use super::tenancy;
use crate::document::DesiredKey;

/// Somebody else may change a document between our reading and our writing; twice in a row is a quarrel.
const ATTEMPTS: usize = 3;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl apply -f web.yaml\n  agentctl apply -f infra/ -f more.yaml\n  \
                        generate | agentctl apply -f -\n\n\
                        All documents are checked first and stored together: one mistake, and nothing changes.\n\
                        `agentctl status --wait` follows what becomes of them."
)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    files: FilesArg,
}

impl ApplyArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let sources = self.files.load()?;
        tenancy::check(&session.client, &sources).await?;
        let keys: Vec<DesiredKey> = sources
            .iter()
            .map(|source| source.document.desired_key())
            .collect();
        for _ in 0..ATTEMPTS {
            let (before, read_at) = read(&session.client, &keys).await?;
            let changes: Vec<Change> = sources
                .iter()
                .zip(&before)
                .map(|(source, before)| change::of(source, before.as_ref()))
                .collect();
            let request = transaction(&sources, &before, &changes);
            if request.success.is_empty() {
                return show(session, &changes, read_at);
            }
            let response = session.client.txn(request).await?;
            if response.succeeded {
                return show(
                    session,
                    &changes,
                    response.header.map_or(0, |header| header.revision),
                );
            }
        }
        Err(
            CliError::failed("somebody else keeps changing the same documents")
                .hint("nothing was changed; try again when they are done"),
        )
    }
}

/// The documents at the keys as they are now, all at one revision, which is returned too.
pub(super) async fn read(
    client: &Client,
    keys: &[DesiredKey],
) -> Result<(Vec<Option<Stored>>, i64), CliError> {
    let range = |key: &DesiredKey| pb::RequestOp {
        request: Some(Request::RequestRange(pb::RangeRequest {
            key: key.key().into(),
            ..Default::default()
        })),
    };
    let request = pb::TxnRequest {
        success: keys.iter().map(range).collect(),
        ..Default::default()
    };
    let response = client.txn(request).await?;
    let revision = response.header.map_or(0, |header| header.revision);
    let stored = response
        .responses
        .into_iter()
        .map(|answer| match answer.response {
            Some(Response::ResponseRange(range)) => {
                documents::stored(&range.kvs, &Selection::default()).pop()
            }
            _ => None,
        });
    let stored: Vec<_> = stored.collect();
    if stored.len() != keys.len() {
        return Err(CliError::failed(
            "the member answered with fewer documents than it was asked for",
        ));
    }
    Ok((stored, revision))
}

/// Puts what changes, if nothing of it has been touched since it was read.
pub(super) fn transaction(
    sources: &[Source],
    before: &[Option<Stored>],
    changes: &[Change],
) -> pb::TxnRequest {
    let mut request = pb::TxnRequest::default();
    for ((source, before), change) in sources.iter().zip(before).zip(changes) {
        if change.action == Action::Unchanged {
            continue;
        }
        let key = bytes::Bytes::from(source.document.desired_key().key());
        request.compare.push(pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(
                before.as_ref().map_or(0, |before| before.revision),
            )),
            ..Default::default()
        });
        let put = pb::PutRequest {
            key,
            value: source.text.clone().into(),
            ..Default::default()
        };
        request.success.push(pb::RequestOp {
            request: Some(Request::RequestPut(put)),
        });
    }
    request
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
