//! Backups, as people ask for them.

use std::sync::Arc;
use std::time::SystemTime;

use proto::agent::v1::{
    BackUpRequest, BackUpResponse, Backup, ListBackupsRequest, ListBackupsResponse, RestoreBackupRequest,
    RestoreBackupResponse,
};

use super::Operator;
use super::error::{Failure, OperatorError};
use super::instances::named;
use crate::backup::{self, KeepError, Keeper, Restore, StoreError};
use crate::document::{Stamp, Subject};

impl Operator {
    pub(crate) fn keeper(&self) -> Result<&Arc<Keeper>, OperatorError> {
        self.incus()?;
        self.keeper.as_ref().ok_or_else(|| {
            OperatorError::new(
                Failure::Unsupported,
                format!("nothing is backed up on {}", self.host),
            )
        })
    }

    /// A store has no backups.
    pub(super) fn list_backups(&self, request: &ListBackupsRequest) -> ListBackupsResponse {
        let all = self.keeper.iter().flat_map(|keeper| keeper.store().all());
        let asked = all.filter(|backup| {
            (request.tenant.is_empty() || request.tenant == backup.tenant)
                && (request.name.is_empty() || request.name == backup.name)
        });
        ListBackupsResponse {
            backups: asked.map(|backup| self.shown(&backup)).collect(),
            silent: Vec::new(),
        }
    }

    pub(super) async fn back_up(&self, request: &BackUpRequest) -> Result<BackUpResponse, OperatorError> {
        let (tenant, name) = named(request.instance.as_ref())?;
        let subject = Subject::Instance {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
        };
        let live = self
            .incus()?
            .get(crate::incus::Kind::Instance, tenant, name)
            .await?;
        live.ok_or_else(|| OperatorError::no_instance(&self.host, tenant, name))?;
        let made = self.keeper()?.export(&subject, "", now()).await?;
        Ok(BackUpResponse {
            backup: Some(self.shown(&made)),
            copied_to: Vec::new(),
        })
    }

    pub(super) async fn restore_backup(
        &self,
        request: &RestoreBackupRequest,
    ) -> Result<RestoreBackupResponse, OperatorError> {
        let (tenant, name) = named(request.instance.as_ref())?;
        let kind = match request.kind.as_str() {
            "" => crate::document::Kind::Instance.singular(),
            kind => kind,
        };
        let backup = self.backup(tenant, kind, name, &request.id)?;
        let made = backup.made.clone();
        let how = Restore {
            replace: request.replace,
            documented: request.documented,
        };
        let aside = self.keeper()?.restore(backup, how, now()).await?;
        Ok(RestoreBackupResponse {
            host: self.host.clone(),
            id: request.id.clone(),
            made,
            replaced: aside.unwrap_or_default(),
        })
    }

    /// A backup that is complete here.
    pub(crate) fn backup(
        &self,
        tenant: &str,
        kind: &str,
        name: &str,
        id: &str,
    ) -> Result<backup::Backup, OperatorError> {
        let is_it = |backup: &backup::Backup| {
            backup.tenant == tenant
                && backup.kind.singular() == kind
                && backup.name == name
                && backup.id() == id
        };
        let missing = || {
            OperatorError::new(
                Failure::NotFound,
                format!("there is no backup {id} of {kind} {name} on {}", self.host),
            )
        };
        self.keeper()?
            .store()
            .all()
            .into_iter()
            .find(is_it)
            .ok_or_else(missing)
    }

    fn shown(&self, backup: &backup::Backup) -> Backup {
        Backup {
            host: self.host.clone(),
            tenant: backup.tenant.clone(),
            kind: backup.kind.singular().to_owned(),
            name: backup.name.clone(),
            id: backup.id(),
            made: backup.made.clone(),
            made_on: backup.host.clone(),
            document: backup.document.clone(),
            bytes: backup.bytes,
            sha256: backup.sha256.clone(),
        }
    }
}

fn now() -> Stamp {
    Stamp::of(SystemTime::now())
}

impl From<KeepError> for OperatorError {
    fn from(error: KeepError) -> OperatorError {
        match error {
            KeepError::Incus(error) => error.into(),
            KeepError::Store(error) => error.into(),
            KeepError::Attended(error) => error.into(),
            KeepError::Refused(message) => OperatorError::new(Failure::Refused, message),
        }
    }
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> OperatorError {
        let message = match &error {
            StoreError::Io { source, .. } => format!("{error}: {source}"),
            StoreError::Damaged { .. } | StoreError::BadName { .. } => error.to_string(),
        };
        OperatorError::new(Failure::Refused, message)
    }
}
