//! `instance snapshot|snapshots|restore`.

use std::time::Duration;

use clap::Args;
use proto::agent::v1::{
    CreateSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse, RestoreSnapshotRequest, Snapshot,
};
use serde_json::{Value, json};

use super::{Which, edit, replace};
use crate::cli::error::CliError;
use crate::cli::format::columns::columns;
use crate::cli::format::{self, Format};
use crate::cli::session::Session;

/// A storage that copies takes as long as the instance is large.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl instance snapshot db before-upgrade\n\n\
                        It lies with the instance, on the same disk: it is no backup, and goes with the instance.")]
pub(in crate::cli) struct SnapshotArgs {
    #[command(flatten)]
    which: Which,
    /// What to call it
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl instance snapshots db")]
pub(in crate::cli) struct SnapshotsArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl instance restore db before-upgrade\n\n\
                        What was written to its disks since is lost. Its config and devices come back as well: where a \
                        document keeps the instance, the document is changed to say so.")]
pub(in crate::cli) struct RestoreArgs {
    #[command(flatten)]
    which: Which,
    /// The snapshot
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
}

impl SnapshotArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = CreateSnapshotRequest {
            instance: Some(self.which.instance()),
            snapshot: self.snapshot.clone(),
        };
        let made = session.client.patient(PATIENCE)?.create_snapshot(request).await?;
        if session.format == Some(Format::Json) {
            return format::write_json(&json!({"instance": self.which.name, "tenant": self.which.tenant,
                "host": made.host, "snapshot": self.snapshot}));
        }
        let name = &self.which.name;
        let text = format!("snapshot {} of {name} made on {}\n", self.snapshot, made.host);
        format::write(text.as_bytes())
    }
}

impl SnapshotsArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = ListSnapshotsRequest {
            instance: Some(self.which.instance()),
        };
        let listed = session.client.list_snapshots(request).await?;
        match session.format {
            Some(Format::Json) => format::write_json(&as_json(&listed)),
            Some(Format::Simple) => {
                let line = |snapshot: &Snapshot| format!("{}\n", snapshot.name);
                format::write(listed.snapshots.iter().map(line).collect::<String>().as_bytes())
            }
            _ if listed.snapshots.is_empty() => {
                eprintln!("no snapshots of {} on {}", self.which.name, listed.host);
                Ok(())
            }
            _ => format::write(table(&listed.snapshots).as_bytes()),
        }
    }
}

fn table(snapshots: &[Snapshot]) -> String {
    let cells = |snapshot: &Snapshot| {
        // To the second, as everywhere else.
        let made = snapshot.created_at.split('.').next().unwrap_or_default();
        let made = made.trim_end_matches('Z');
        [snapshot.name.clone(), format!("{made}Z")]
    };
    let rows: Vec<_> = snapshots.iter().map(cells).collect();
    columns(["SNAPSHOT", "MADE"], &rows)
}

fn as_json(listed: &ListSnapshotsResponse) -> Value {
    let snapshots: Vec<Value> = listed
        .snapshots
        .iter()
        .map(|snapshot| json!({"name": snapshot.name, "created_at": snapshot.created_at}))
        .collect();
    json!({"host": listed.host, "snapshots": snapshots})
}

impl RestoreArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = RestoreSnapshotRequest {
            instance: Some(self.which.instance()),
            snapshot: self.snapshot.clone(),
        };
        let restored = session
            .client
            .patient(PATIENCE)?
            .restore_snapshot(request)
            .await?;
        let snapshot: Value = serde_json::from_slice(&restored.snapshot)
            .map_err(|_| CliError::failed("restored, but the host's answer cannot be read"))?;
        let revision = self.take_along(session, &snapshot).await.map_err(|error| {
            CliError::failed(format!(
                "restored, but its document could not be changed: {error}"
            ))
            .hint("the host undoes the restored config: change the document, or restore again")
        })?;
        if session.format == Some(Format::Json) {
            return format::write_json(&json!({"instance": self.which.name, "tenant": self.which.tenant,
                "host": restored.host, "snapshot": self.snapshot, "document_revision": revision}));
        }
        let name = &self.which.name;
        let mut text = format!("{name} on {} is as at {}\n", restored.host, self.snapshot);
        if let Some(revision) = revision {
            text.push_str(&format!("its document, too: revision {revision}\n"));
        }
        format::write(text.as_bytes())
    }

    /// Changes the document, where there is one that says otherwise. The revision that did it.
    async fn take_along(&self, session: &Session, snapshot: &Value) -> Result<Option<i64>, CliError> {
        let Some(stored) = self.which.document(session).await? else {
            return Ok(None);
        };
        let Some(document) = stored
            .document
            .as_ref()
            .and_then(|document| edit::with_restored(document, snapshot))
        else {
            return Ok(None);
        };
        let text = edit::written(&document);
        replace(session, &stored, text).await.map(Some)
    }
}
