//! Makes a custom volume out of a backup that is here, in the place of one that instances may have as a disk.
//!
//! As with an instance, it is made under a name of its own first. Then those who have the old one stop for the moment in which
//! the two change names, and go on with the new one. Incus lets the disks of instances follow a volume that is
//! renamed: they are put back to the name that they had.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::keeper::{KeepError, Keeper};
use super::restore::{Restore, Subject, beside};
use super::store::Backup;
use crate::document::{DesiredKey, Kind, Stamp};
use crate::incus::{self, IncusError, Live, StateAction, attached_volumes};

/// Somebody else may be at work on an instance.
const ATTEMPTS: usize = 10;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The volume that is meant.
#[derive(Clone, Copy, Debug)]
struct Volume<'a> {
    tenant: &'a str,
    pool: &'a str,
    name: &'a str,
}

impl Volume<'_> {
    /// As Incus is asked for it.
    fn path(self) -> String {
        self.called(self.name)
    }

    fn called(self, name: &str) -> String {
        format!("{}/{name}", self.pool)
    }

    fn is_disk_of(self, instance: &Value) -> bool {
        let of = |volume: &incus::AttachedVolume| volume.pool == self.pool && volume.volume == self.name;
        attached_volumes(instance).iter().any(of)
    }
}

/// An instance that has the volume as a disk.
#[derive(Debug)]
struct User {
    name: String,
    /// As it was before.
    devices: Value,
    ran: bool,
}

impl Keeper {
    pub(super) async fn restore_volume(
        self: &Arc<Keeper>,
        backup: &Backup,
        how: Restore,
        now: Stamp,
    ) -> Result<Option<String>, KeepError> {
        let volume = Volume {
            tenant: &backup.tenant,
            pool: &backup.pool,
            name: &backup.name,
        };
        let key = |kind: Kind, name: &str| DesiredKey {
            kind,
            tenant: volume.tenant.to_owned(),
            name: name.to_owned(),
        };
        let _attendance = self
            .attended()
            .attend(&key(Kind::Volume, volume.name), "restored")
            .await?;
        let is_there = self.volume(volume).await?.is_some();
        if is_there && !how.replace {
            return Err(KeepError::Refused(format!(
                "there is a volume {} on {} already: --replace puts the backup in its place, and keeps it under another \
                 name; instances that have it stop for that moment",
                volume.name,
                self.host()
            )));
        }
        let file = self.store().path(backup)?;
        let new = beside(volume.name, "restored", now);
        let incus = self.incus();
        let made = async {
            incus
                .import_volume(volume.tenant, volume.pool, &new, &file)
                .await?;
            let subject = Subject {
                kind: incus::Kind::Volume,
                tenant: volume.tenant,
                name: &volume.called(&new),
            };
            self.write_owner(subject, how.documented).await?;
            if !is_there {
                incus
                    .rename_volume(volume.tenant, volume.pool, &new, volume.name)
                    .await?;
                return Ok(None);
            }
            let mut attendances = Vec::new();
            for name in self.names_of_users(volume).await? {
                attendances.push(
                    self.attended()
                        .attend(&key(Kind::Instance, &name), "stopped for a restore")
                        .await?,
                );
            }
            self.exchange_volumes(volume, &new, now).await.map(Some)
        };
        let made: Result<Option<String>, KeepError> = made.await;
        if made.is_err() {
            let left = volume.called(&new);
            if let Err(error) = incus.delete(incus::Kind::Volume, volume.tenant, &left).await {
                tracing::debug!(%error, volume = left, "nothing of the restored volume is left, or it is yours to delete");
            }
        }
        made
    }

    async fn volume(&self, volume: Volume<'_>) -> Result<Option<Live>, IncusError> {
        self.incus()
            .get(incus::Kind::Volume, volume.tenant, &volume.path())
            .await
    }

    async fn names_of_users(&self, volume: Volume<'_>) -> Result<Vec<String>, KeepError> {
        let all = self.incus().list_all(incus::Kind::Instance).await?;
        let users = all
            .iter()
            .filter(|live| live.project() == volume.tenant && volume.is_disk_of(&live.object));
        Ok(users.map(|live| live.name().to_owned()).collect())
    }

    /// The new one gets the name; the name that the old one has now. Whatever happens, who ran before runs again.
    async fn exchange_volumes(&self, volume: Volume<'_>, new: &str, now: Stamp) -> Result<String, KeepError> {
        let (incus, tenant, pool) = (self.incus(), volume.tenant, volume.pool);
        let mut users = Vec::new();
        for name in self.names_of_users(volume).await? {
            let Some(live) = incus.get(incus::Kind::Instance, tenant, &name).await? else {
                continue;
            };
            let ran = live.status() != "Stopped";
            if ran {
                self.stop(tenant, &name, &live).await?;
            }
            users.push(User {
                name,
                devices: live.object.get("devices").cloned().unwrap_or_else(|| json!({})),
                ran,
            });
        }
        let aside = beside(volume.name, "replaced", now);
        let exchanged = async {
            incus.rename_volume(tenant, pool, volume.name, &aside).await?;
            let renamed = incus.rename_volume(tenant, pool, new, volume.name).await;
            if renamed.is_err() {
                incus.rename_volume(tenant, pool, &aside, volume.name).await?;
            }
            renamed
        };
        let exchanged = exchanged.await;
        let mut given_back = Ok(());
        for user in &users {
            // One that fails keeps none of the others from running.
            given_back = given_back.and(self.give_back(tenant, user).await);
        }
        exchanged?;
        given_back?;
        Ok(aside)
    }

    /// The instance has the devices that it had, and runs if it ran.
    async fn give_back(&self, tenant: &str, user: &User) -> Result<(), KeepError> {
        let incus = self.incus();
        for _ in 0..ATTEMPTS {
            let Some(live) = incus.get(incus::Kind::Instance, tenant, &user.name).await? else {
                return Ok(());
            };
            if live.object.get("devices") != Some(&user.devices) {
                let body = json!({"devices": user.devices});
                let patched = incus
                    .patch(incus::Kind::Instance, tenant, &user.name, &body, &live.etag)
                    .await;
                match patched {
                    Err(IncusError::PreconditionFailed) => continue,
                    done => done?,
                }
            }
            if !user.ran || live.status() != "Stopped" {
                return Ok(());
            }
            let started = incus
                .set_state(tenant, &user.name, StateAction::Start, false, 0)
                .await;
            match started {
                Ok(()) => return Ok(()),
                // Incus may be at work on it for a moment after its devices were written.
                Err(error) => tracing::debug!(%error, instance = user.name, "not started yet"),
            }
            sleep(TRY_AGAIN_AFTER).await;
        }
        Err(KeepError::Refused(format!(
            "the volume is restored, but instance {} could not be given back what it had: look at it in Incus",
            user.name
        )))
    }
}
