//! `agentctl instance`: the instances of all hosts, whoever made them.
//!
//! Which host has an instance is found by the member that is asked. What a document decides is changed in the document,
//! so that the host does not undo it; everything else is done in Incus directly.

mod edit;
mod exec;
mod list;
mod moving;
mod power;
mod snapshot;
mod terminal;

use clap::{Args, Subcommand};
use proto::agent::v1::InstanceRef;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

pub(super) use edit::{with_host, written};

use super::documents::{self, Selection, Stored};
use super::error::CliError;
use super::session::Session;
use crate::document::{DEFAULT_TENANT, DesiredKey, Kind};

#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// The instances of all hosts, ours or not
    List(list::ListArgs),
    /// Start an instance
    Start(power::StartArgs),
    /// Stop an instance
    Stop(power::StopArgs),
    /// Stop an instance and start it again
    Restart(power::RestartArgs),
    /// Move an instance to another host, with its data
    Move(moving::MoveArgs),
    /// Keep an instance as it is now, to come back to
    Snapshot(snapshot::SnapshotArgs),
    /// The snapshots of an instance
    Snapshots(snapshot::SnapshotsArgs),
    /// Make an instance what it was at a snapshot
    Restore(snapshot::RestoreArgs),
    /// Run a command in an instance
    Exec(exec::ExecArgs),
    /// An instance's console
    Console(exec::ConsoleArgs),
}

impl InstanceCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Start(args) => args.run(session).await,
            Self::Stop(args) => args.run(session).await,
            Self::Restart(args) => args.run(session).await,
            Self::Move(args) => args.run(session).await,
            Self::Snapshot(args) => args.run(session).await,
            Self::Snapshots(args) => args.run(session).await,
            Self::Restore(args) => args.run(session).await,
            Self::Exec(args) => args.run(session).await,
            Self::Console(args) => args.run(session).await,
        }
    }
}

/// Which instance a command is about.
#[derive(Args, Clone, Debug)]
pub(super) struct Which {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    pub(super) name: String,
    /// Whose it is
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    pub(super) tenant: String,
    /// Where it is, if several hosts have one of that name
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

impl Which {
    pub(super) fn instance(&self) -> InstanceRef {
        InstanceRef {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            host: self.host.clone().unwrap_or_default(),
        }
    }

    /// An instance on whichever host has it.
    pub(super) fn new(name: &str, tenant: &str) -> Which {
        Which {
            name: name.to_owned(),
            tenant: tenant.to_owned(),
            host: None,
        }
    }

    fn key(&self) -> DesiredKey {
        DesiredKey {
            kind: Kind::Instance,
            tenant: self.tenant.clone(),
            name: self.name.clone(),
        }
    }

    /// Its document, where it has one, at the host that is meant.
    pub(super) async fn document(&self, session: &Session) -> Result<Option<Stored>, CliError> {
        let request = pb::RangeRequest {
            key: self.key().key().into(),
            ..Default::default()
        };
        let found = session.client.range(request).await?;
        let mut stored = [documents::stored(&found.kvs, &Selection::default()).pop()];
        documents::read_bindings(&session.client, &mut stored).await;
        let [stored] = stored;
        Ok(stored.filter(|stored| match (&self.host, &stored.document) {
            (Some(host), Some(document)) => document.names_host(host),
            _ => true,
        }))
    }
}

/// Puts another text in the place of one that was read; the revision that did it.
pub(super) async fn replace(session: &Session, before: &Stored, text: String) -> Result<i64, CliError> {
    let key = bytes::Bytes::from(before.key.key());
    let request = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(before.revision)),
            ..Default::default()
        }],
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key,
                value: text.into(),
                ..Default::default()
            })),
        }],
        failure: vec![],
    };
    let response = session.client.txn(request).await?;
    if response.succeeded {
        return Ok(response.header.map_or(0, |header| header.revision));
    }
    Err(CliError::failed(format!(
        "somebody else changed the document of {} meanwhile",
        before.key
    ))
    .hint("the document is as they left it; try again"))
}
