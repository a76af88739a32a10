//! `agentctl backup`: exports of instances and volumes, on the hosts that have them.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use proto::agent::v1::{
    BackUpRequest, Backup, ClaimRequest, InstanceRef, ListBackupsRequest, RestoreBackupRequest,
    RestoreBackupResponse,
};
use serde_json::{Value, json};

use super::duration::ago;
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::instance::{Which, replace, with_host};
use super::session::Session;
use crate::document::{DEFAULT_TENANT, Kind, Stamp};

/// Disks are large, and providers far from each other.
const PATIENCE: Duration = Duration::from_secs(6 * 3_600);
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// The complete backups of all hosts
    List(ListArgs),
    /// Back up an instance now
    Now(NowArgs),
    /// Make an instance or a volume out of a backup
    Restore(RestoreArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl backup list\n  agentctl backup list db\n\n\
                        A backup counts when its file and its checksum are whole on the disk of the host that is \
                        shown.\nDocuments of kind backup say when backups are made and how many stay."
)]
pub(super) struct ListArgs {
    /// Only those of this instance or volume
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only this tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl backup now db\n  agentctl backup now db --to ionos\n\n\
                        The host that has the instance keeps the backup, and each of --to a copy. No schedule ever removes it: that is \
                        yours."
)]
pub(super) struct NowArgs {
    #[command(flatten)]
    which: Which,
    /// Hosts that get a copy
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    to: Vec<String>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl backup restore db\n  agentctl backup restore db --to ionos\n  \
                        agentctl backup restore db --backup 20261121T230000Z-ovh-nightly --replace\n  \
                        agentctl backup restore data --volume --to liquidweb --replace\n\n\
                        The newest backup that any host has is taken, and copied to where it is needed. Where a document keeps the \
                        instance,\nthe document says afterwards that it is on the host that it was restored to."
)]
pub(super) struct RestoreArgs {
    /// The instance, or with --volume the volume
    #[arg(value_name = "NAME")]
    name: String,
    /// It is a custom volume: instances that have it stop for the moment in which it is replaced
    #[arg(long)]
    volume: bool,
    /// Whose it is
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    tenant: String,
    /// The backup, as `backup list` names it [default: the newest]
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,
    /// The host that makes it [default: its document's, or the one that made the backup]
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// In the place of one that is there, which is kept under another name; an instance is stopped
    #[arg(long)]
    replace: bool,
}

impl BackupCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Now(args) => args.run(session).await,
            Self::Restore(args) => args.run(session).await,
        }
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = ListBackupsRequest {
            tenant: self.tenant.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
        };
        let listed = session
            .client
            .patient(Duration::from_secs(15))?
            .list_backups(request)
            .await?;
        match session.format {
            Some(Format::Json) => {
                let backups: Vec<Value> = listed.backups.iter().map(as_json).collect();
                format::write_json(&json!({"backups": backups}))?;
            }
            _ if listed.backups.is_empty() => eprintln!("no backups on any host that answers"),
            _ => format::write(table(&listed.backups, SystemTime::now()).as_bytes())?,
        }
        if listed.silent.is_empty() {
            return Ok(());
        }
        let reasons: Vec<&str> = listed
            .silent
            .iter()
            .map(|silent| silent.reason.as_str())
            .collect();
        Err(CliError::failed(reasons.join("\nerror: ")).hint("what is there is missing above"))
    }
}

impl NowArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = BackUpRequest {
            instance: Some(self.which.instance()),
            to: self.to,
        };
        let made = session.client.patient(PATIENCE)?.back_up(request).await?;
        let backup = made.backup.unwrap_or_default();
        if session.format == Some(Format::Json) {
            return format::write_json(&json!({"backup": as_json(&backup), "copied_to": made.copied_to}));
        }
        let mut text = format!(
            "backup {} of {} made on {}, {}\n",
            backup.id,
            backup.name,
            backup.host,
            size(backup.bytes)
        );
        for host in &made.copied_to {
            text.push_str(&format!("copied to {host}\n"));
        }
        format::write(text.as_bytes())
    }
}

impl RestoreArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = RestoreBackupRequest {
            instance: Some(InstanceRef {
                tenant: self.tenant.clone(),
                name: self.name.clone(),
                host: self.to.clone().unwrap_or_default(),
            }),
            id: self.backup.clone().unwrap_or_default(),
            replace: self.replace,
            documented: false,
            kind: self.kind().singular().to_owned(),
        };
        let restored = session.client.patient(PATIENCE)?.restore_backup(request).await?;
        let revision = self.bring_home(session, &restored).await.map_err(|error| {
            CliError::failed(format!(
                "restored on {}, but its document could not be changed: {error}",
                restored.host
            ))
            .hint("let the document name that host, and then: agentctl adopt instance NAME")
        })?;
        if session.format == Some(Format::Json) {
            return format::write_json(
                &json!({"kind": self.kind().singular(), "name": self.name, "tenant": self.tenant, "host": restored.host,
                "backup": restored.id, "made": restored.made, "replaced": restored.replaced, "document_revision": revision}),
            );
        }
        let mut text = format!(
            "{} on {} is as at {}: backup {}\n",
            self.name, restored.host, restored.made, restored.id
        );
        if !restored.replaced.is_empty() {
            let stopped = if self.volume { "" } else { ", stopped" };
            text.push_str(&format!("what was there is {} now{stopped}\n", restored.replaced));
        }
        if let Some(revision) = revision {
            text.push_str(&format!(
                "its document names {} now: revision {revision}\n",
                restored.host
            ));
        }
        format::write(text.as_bytes())
    }

    fn kind(&self) -> Kind {
        if self.volume { Kind::Volume } else { Kind::Instance }
    }

    /// Lets the document name the host that has the instance now, and the instance be the document's.
    async fn bring_home(
        &self,
        session: &Session,
        restored: &RestoreBackupResponse,
    ) -> Result<Option<i64>, CliError> {
        if self.volume {
            // One on another host is nobody's: data is not put to use by a command's side effect.
            return Ok(None);
        }
        let which = Which::new(&self.name, &self.tenant);
        let Some(stored) = which.document(session).await? else {
            return Ok(None);
        };
        let Some(document) = stored
            .document
            .as_ref()
            .filter(|document| document.placement.is_none() && document.hosts != [restored.host.clone()])
        else {
            return Ok(None);
        };
        let text = with_host(&stored.text, document, &restored.host);
        let revision = replace(session, &stored, text).await?;
        let claim = ClaimRequest {
            kind: stored.key.kind.singular().to_owned(),
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            host: restored.host.clone(),
        };
        session.client.claim(claim).await?;
        Ok(Some(revision))
    }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / MIB;
    format!("{mib:.1} MiB")
}

fn table(backups: &[Backup], now: SystemTime) -> String {
    let cells = |backup: &Backup| {
        let made: Option<Stamp> = backup.made.replace(['-', ':'], "").parse().ok();
        let age = made.map(|made| now.duration_since(made.time()).unwrap_or_default());
        [
            backup.name.clone(),
            backup.host.clone(),
            age.map_or_else(String::new, ago),
            size(backup.bytes),
            if backup.document.is_empty() {
                "-".to_owned()
            } else {
                backup.document.clone()
            },
            backup.id.clone(),
        ]
    };
    let rows: Vec<_> = backups.iter().map(cells).collect();
    columns(["NAME", "HOST", "AGE", "SIZE", "BY", "BACKUP"], &rows)
}

fn as_json(backup: &Backup) -> Value {
    json!({"id": backup.id, "kind": backup.kind, "tenant": backup.tenant, "name": backup.name, "host": backup.host,
        "made": backup.made, "made_on": backup.made_on, "document": backup.document, "bytes": backup.bytes,
        "sha256": backup.sha256})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn backups_are_listed_with_age_and_size() {
        let backup = |host: &str, document: &str| Backup {
            host: host.to_owned(),
            name: "db".to_owned(),
            id: "20261121T230000Z-ovh".to_owned(),
            made: "2026-11-21T23:00:00Z".to_owned(),
            document: document.to_owned(),
            bytes: 13_212_058,
            ..Backup::default()
        };
        let now = "20261122T010000Z".parse::<Stamp>().unwrap().time();
        expect![[r#"
            NAME  HOST   AGE  SIZE      BY       BACKUP
            db    ovh    2h   12.6 MiB  nightly  20261121T230000Z-ovh
            db    ionos  2h   12.6 MiB  -        20261121T230000Z-ovh
        "#]]
        .assert_eq(&table(&[backup("ovh", "nightly"), backup("ionos", "")], now));
    }
}
