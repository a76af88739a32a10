//! Makes and prunes, with the local Incus and the local folder.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::Board;
use super::store::{Backup, Store, StoreError};
use crate::attended::{AttendError, Attended};
use crate::document::{DesiredKey, Keep, Stamp, Subject, rfc3339_utc};
use crate::incus::{self, ExportOptions, Incus, IncusError};

/// By this a snapshot is known to be a schedule's: `agent-DOCUMENT-TIME`.
const PREFIX: &str = "agent-";
/// The host on whose word an object was made: of those that share an Incus, one backs it up.
pub(super) const MAKER: &str = "user.agent.host";
/// Incus forgets by then what an agent left that was killed over it.
const EXPORT_LIFE: Duration = Duration::from_secs(86_400);

/// Why something was not kept, or not made of what was.
#[derive(Debug, Error)]
pub enum KeepError {
    #[error(transparent)]
    Incus(#[from] IncusError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Attended(#[from] AttendError),
    #[error("{0}")]
    Refused(String),
}

/// Keeps what is on this host.
#[derive(Debug)]
pub struct Keeper {
    incus: Incus,
    host: String,
    store: Store,
    board: Board,
    attended: Attended,
    /// Exports cost the disk: one at a time.
    exporting: Semaphore,
}

impl Keeper {
    #[must_use]
    pub fn new(incus: Incus, host: &str, store: Store, board: Board, attended: Attended) -> Keeper {
        Keeper {
            incus,
            host: host.to_owned(),
            store,
            board,
            attended,
            exporting: Semaphore::new(1),
        }
    }

    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn incus(&self) -> &Incus {
        &self.incus
    }

    pub(super) const fn attended(&self) -> &Attended {
        &self.attended
    }

    pub(super) const fn board(&self) -> &Board {
        &self.board
    }

    /// Whether it is on this host, and this host's to keep.
    pub(super) async fn has(&self, subject: &Subject) -> Result<bool, KeepError> {
        let (kind, name) = in_incus(subject);
        let live = self.incus.get(kind, subject.tenant(), &name).await?;
        let is_ours = |maker: Option<&str>| maker.is_none_or(|maker| maker == self.host);
        Ok(live.is_some_and(|live| is_ours(live.config(MAKER))))
    }

    /// When a document's snapshots were made, as far as they are there. What has a time to come is nobody's.
    pub(super) async fn snapshots(
        &self,
        subject: &Subject,
        document: &str,
        now: Stamp,
    ) -> Result<BTreeSet<Stamp>, KeepError> {
        let (kind, name) = in_incus(subject);
        let names = self.incus.snapshot_names(kind, subject.tenant(), &name).await?;
        let stamps = names.iter().filter_map(|name| snapshot_time(name, document));
        Ok(stamps.filter(|stamp| *stamp <= now).collect())
    }

    pub(super) async fn take_snapshot(
        &self,
        subject: &Subject,
        document: &str,
        now: Stamp,
    ) -> Result<(), KeepError> {
        let (kind, name) = in_incus(subject);
        let snapshot = snapshot_name(document, now);
        Ok(self
            .incus
            .take_snapshot(kind, subject.tenant(), &name, &snapshot)
            .await?)
    }

    pub(super) async fn delete_snapshot(
        &self,
        subject: &Subject,
        document: &str,
        made: Stamp,
    ) -> Result<(), KeepError> {
        let (kind, name) = in_incus(subject);
        let snapshot = snapshot_name(document, made);
        Ok(self
            .incus
            .delete_snapshot(kind, subject.tenant(), &name, &snapshot)
            .await?)
    }

    /// When the exports were made that `host` made for a document, as far as they are complete here.
    pub(super) fn exports(&self, document: &DesiredKey, host: &str, now: Stamp) -> BTreeSet<Stamp> {
        let all = self.store.all().into_iter();
        let of_it = all.filter(|backup| is_of(backup, document) && backup.host == host);
        of_it
            .filter_map(|backup| backup.stamp())
            .filter(|stamp| *stamp <= now)
            .collect()
    }

    /// Makes an export. `document` is empty where a person asks for it.
    ///
    /// # Errors
    /// As [`KeepError`] says; then nothing of it counts.
    pub async fn export(&self, subject: &Subject, document: &str, now: Stamp) -> Result<Backup, KeepError> {
        let (kind, name) = in_incus(subject);
        let tenant = subject.tenant();
        let _permit = self
            .exporting
            .acquire()
            .await
            .map_err(|_| KeepError::Refused("no exports any more".to_owned()))?;
        // What an agent left that was killed over it.
        for left in self.incus.export_names(kind, tenant, &name).await? {
            if left
                .strip_prefix(PREFIX)
                .is_some_and(|time| time.parse::<Stamp>().is_ok())
            {
                self.incus.delete_export(kind, tenant, &name, &left).await?;
            }
        }
        let export = format!("{PREFIX}{now}");
        let options = ExportOptions {
            with_snapshots: false,
            compressed: true,
            expires_at: Some(rfc3339_utc(SystemTime::now() + EXPORT_LIFE)),
        };
        self.incus
            .create_export(kind, tenant, &name, &export, &options)
            .await?;
        let pool = match subject {
            Subject::Volume { pool, .. } => pool,
            Subject::Instance { .. } => "",
        };
        let backup = Backup::new(
            subject.kind(),
            (tenant, pool, subject.name()),
            now,
            &self.host,
            document,
        );
        let written = self.download((kind, tenant, &name, &export), backup).await;
        // Whether it came or not, Incus need not have it any longer.
        let removed = self.incus.delete_export(kind, tenant, &name, &export).await;
        let written = written?;
        removed?;
        Ok(written)
    }

    async fn download(
        &self,
        (kind, tenant, name, export): (incus::Kind, &str, &str, &str),
        backup: Backup,
    ) -> Result<Backup, KeepError> {
        let mut incoming = self.store.begin(backup).await?;
        let mut bytes = self.incus.download_export(kind, tenant, name, export).await?;
        while let Some(chunk) = bytes.chunk().await? {
            incoming.write(&chunk).await?;
        }
        Ok(incoming.finish().await?)
    }

    /// Removes the exports of a document that it keeps no longer, whichever host made them.
    pub(super) fn prune(&self, document: &DesiredKey, keep: Keep) -> Result<(), KeepError> {
        let all: Vec<Backup> = self
            .store
            .all()
            .into_iter()
            .filter(|backup| is_of(backup, document))
            .collect();
        let hosts: BTreeSet<&str> = all.iter().map(|backup| backup.host.as_str()).collect();
        for host in hosts {
            let of_host = || all.iter().filter(|backup| backup.host == host);
            let kept = keep.of(&of_host().filter_map(Backup::stamp).collect());
            for backup in
                of_host().filter(|backup| backup.stamp().is_some_and(|stamp| !kept.contains(&stamp)))
            {
                self.store.remove(backup)?;
            }
        }
        Ok(())
    }
}

fn is_of(backup: &Backup, document: &DesiredKey) -> bool {
    backup.tenant == document.tenant && backup.document == document.name
}

/// What Incus calls it.
fn in_incus(subject: &Subject) -> (incus::Kind, String) {
    match subject {
        Subject::Instance { name, .. } => (incus::Kind::Instance, name.clone()),
        Subject::Volume { pool, name, .. } => (incus::Kind::Volume, format!("{pool}/{name}")),
    }
}

fn snapshot_name(document: &str, made: Stamp) -> String {
    format!("{PREFIX}{document}-{made}")
}

/// When a snapshot was made, if a document's schedule made it.
fn snapshot_time(name: &str, document: &str) -> Option<Stamp> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix(document)?;
    rest.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_documents_own_snapshots_are_known() {
        let made: Stamp = "20261121T230000Z".parse().unwrap();
        let name = snapshot_name("nightly", made);
        assert_eq!(name, "agent-nightly-20261121T230000Z");
        assert_eq!(snapshot_time(&name, "nightly"), Some(made));
        for other in [
            "agent-nightly-db-20261121T230000Z",
            "agent-nightly-",
            "nightly-20261121T230000Z",
            "agent-nightly-20261121T230000Z-2",
            "snap0",
        ] {
            assert_eq!(snapshot_time(other, "nightly"), None, "{other}");
        }
    }
}
