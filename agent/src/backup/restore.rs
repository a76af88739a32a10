//! Makes an instance out of a backup that is here; of a volume see [`super::restore_volume`].
//!
//! It is made under a name of its own first, which may take long and may fail; what stands in its place goes on until
//! then. Only then that is stopped and renamed, and the new one gets its name.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::keeper::{KeepError, Keeper, MAKER};
use super::store::Backup;
use crate::document::{DesiredKey, Kind, OWNERSHIP_PREFIX, Stamp};
use crate::incus::{self, IncusError, Live, StateAction};

const STOP_SECONDS: u32 = 60;
/// Somebody else may change the instance between our reading and our writing.
const ATTEMPTS: usize = 5;
/// What Incus takes for the name of an instance.
const NAME_MAX: usize = 63;

/// What a person asks for.
#[derive(Clone, Copy, Debug)]
pub struct Restore {
    /// In the place of an instance that is there, which is stopped and kept under another name.
    pub replace: bool,
    /// A document keeps the instance on this host, so it stays ours; otherwise it is nobody's.
    pub documented: bool,
}

impl Keeper {
    /// Makes the instance of a backup that is here; the name under which what stood in its place is kept. It is done to
    /// its end once it has begun, whether or not somebody still waits for it.
    ///
    /// # Errors
    /// As [`KeepError`] says; what was there is there again.
    pub async fn restore(
        self: &Arc<Keeper>,
        backup: Backup,
        how: Restore,
        now: Stamp,
    ) -> Result<Option<String>, KeepError> {
        let keeper = self.clone();
        let work = tokio::spawn(async move { keeper.restore_to_the_end(&backup, how, now).await });
        let broken = |error| KeepError::Refused(format!("the restore broke off: {error}"));
        work.await.map_err(broken)?
    }

    async fn restore_to_the_end(
        self: &Arc<Keeper>,
        backup: &Backup,
        how: Restore,
        now: Stamp,
    ) -> Result<Option<String>, KeepError> {
        if backup.kind == Kind::Volume {
            return self.restore_volume(backup, how, now).await;
        }
        let (tenant, name) = (backup.tenant.as_str(), backup.name.as_str());
        let key = DesiredKey {
            kind: Kind::Instance,
            tenant: tenant.to_owned(),
            name: name.to_owned(),
        };
        let _attendance = self.attended().attend(&key, "restored").await?;
        self.may_stand(tenant, name, how).await?;
        let file = self.store().path(backup)?;
        let new = beside(name, "restored", now);
        let made = async {
            self.incus().import_instance(tenant, &new, &file).await?;
            let subject = Subject {
                kind: incus::Kind::Instance,
                tenant,
                name: &new,
            };
            self.write_owner(subject, how.documented).await?;
            self.exchange(tenant, name, &new, how, now).await
        };
        let made = made.await;
        if made.is_err()
            && let Err(error) = self.forget(tenant, &new).await
        {
            tracing::warn!(%error, instance = new, "half a restored instance is left, and yours to delete");
        }
        made
    }

    /// What is there, if it may be replaced.
    async fn may_stand(&self, tenant: &str, name: &str, how: Restore) -> Result<Option<Live>, KeepError> {
        let live = self.incus().get(incus::Kind::Instance, tenant, name).await?;
        if live.is_some() && !how.replace {
            return Err(KeepError::Refused(format!(
                "there is an instance {name} on {} already: --replace puts the backup in its place, and keeps it under another name",
                self.host()
            )));
        }
        Ok(live)
    }

    /// Gives the new one its name; what had it before is put aside.
    async fn exchange(
        &self,
        tenant: &str,
        name: &str,
        new: &str,
        how: Restore,
        now: Stamp,
    ) -> Result<Option<String>, KeepError> {
        let incus = self.incus();
        let aside = match self.may_stand(tenant, name, how).await? {
            Some(live) => {
                let aside = beside(name, "replaced", now);
                self.stop(tenant, name, &live).await?;
                incus.rename_instance(tenant, name, &aside).await?;
                Some(aside)
            }
            None => None,
        };
        let renamed = incus.rename_instance(tenant, new, name).await;
        if let (Err(_), Some(aside)) = (&renamed, &aside) {
            incus.rename_instance(tenant, aside, name).await?;
        }
        renamed?;
        Ok(aside)
    }

    pub(super) async fn stop(&self, tenant: &str, name: &str, live: &Live) -> Result<(), KeepError> {
        if live.status() == "Stopped" {
            return Ok(());
        }
        let stop = |force| {
            self.incus()
                .set_state(tenant, name, StateAction::Stop, force, STOP_SECONDS)
        };
        if stop(false).await.is_err() {
            stop(true).await?;
        }
        Ok(())
    }

    async fn forget(&self, tenant: &str, name: &str) -> Result<(), KeepError> {
        if self
            .incus()
            .get(incus::Kind::Instance, tenant, name)
            .await?
            .is_some()
        {
            self.incus().delete(incus::Kind::Instance, tenant, name).await?;
        }
        Ok(())
    }

    /// A backup says whose it was, and on which host.
    pub(super) async fn write_owner(&self, subject: Subject<'_>, documented: bool) -> Result<(), KeepError> {
        let Subject { kind, tenant, name } = subject;
        for _ in 0..ATTEMPTS {
            let gone = || KeepError::Refused(format!("{} {name} is gone again", kind.singular()));
            let live = self.incus().get(kind, tenant, name).await?;
            let live = live.ok_or_else(gone)?;
            let config = live.object.get("config").and_then(Value::as_object);
            let ours = config.into_iter().flatten().map(|(key, _)| key);
            let ours = ours.filter(|key| key.starts_with(OWNERSHIP_PREFIX));
            let changes: Map<String, Value> = if documented {
                ours.filter(|key| *key == MAKER)
                    .map(|key| (key.clone(), self.host().into()))
                    .collect()
            } else {
                ours.map(|key| (key.clone(), "".into())).collect()
            };
            if changes.is_empty() {
                return Ok(());
            }
            let body = json!({"config": changes});
            let patched = self.incus().patch(kind, tenant, name, &body, &live.etag).await;
            match patched {
                Err(IncusError::PreconditionFailed) => {}
                done => return Ok(done?),
            }
        }
        Err(KeepError::Refused(format!(
            "somebody keeps changing {} {name}",
            kind.singular()
        )))
    }
}

/// What was made of a backup, as Incus is asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) kind: incus::Kind,
    pub(super) tenant: &'a str,
    pub(super) name: &'a str,
}

/// The name of what stands beside the one that is meant: `db-restored-20261122t030000z`.
pub(super) fn beside(name: &str, why: &str, now: Stamp) -> String {
    let rest = format!("-{why}-{}", now.to_string().to_lowercase());
    let room = NAME_MAX.saturating_sub(rest.len());
    let name: String = name.chars().take(room).collect();
    name + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_another_is_one_that_incus_takes() {
        let now: Stamp = "20261122T030000Z".parse().unwrap();
        assert_eq!(beside("db", "replaced", now), "db-replaced-20261122t030000z");
        let long = beside(&"d".repeat(63), "restored", now);
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("d-restored-20261122t030000z"), "{long}");
    }
}
