//! Backups through any member: which hosts have them, and who makes, copies and restores them.

use proto::agent::v1::{
    BackUpRequest, BackUpResponse, Backup, FetchBackupRequest, InstanceRef, ListBackupsRequest,
    ListBackupsResponse, ListInstancesRequest, RestoreBackupRequest, RestoreBackupResponse,
};
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use raft_store::auth::Permissions;
use tonic::Status;

use super::Api;
use super::interceptor::Caller;
use super::status::ApiError;
use crate::document::Kind;
use crate::operator::{Failure, OperatorError, document_key};

impl Api {
    /// Those of things that the caller may READ.
    pub(super) async fn list_backups(
        &self,
        caller: &Caller,
        request: ListBackupsRequest,
    ) -> Result<ListBackupsResponse, Status> {
        let mut listed = self.backups(&request).await;
        let visible = parking_lot::Mutex::new(None);
        let look = |permissions: &Permissions| {
            let may_see = |backup: &&Backup| {
                document_key(&backup.kind, &backup.tenant, &backup.name)
                    .is_ok_and(|key| permissions.may_read(key.key().as_bytes(), b""))
            };
            *visible.lock() = Some(listed.backups.iter().filter(may_see).cloned().collect());
            true
        };
        self.authorised(caller, look, || async { Ok(()) }).await?;
        if let Some(visible) = visible.into_inner() {
            listed.backups = visible;
        }
        Ok(listed)
    }

    pub(super) async fn back_up(
        &self,
        caller: &Caller,
        request: BackUpRequest,
    ) -> Result<BackUpResponse, Status> {
        let host = self.host_for(caller, request.instance.as_ref()).await?;
        let to = request.to.clone();
        let Outcome::BackedUp(mut made) = self.hosts.perform(&host, Task::BackUp(request)).await? else {
            return Err(ApiError::UnexpectedReply.into());
        };
        for to in to.into_iter().filter(|to| *to != host) {
            let fetch = FetchBackupRequest {
                backup: made.backup.clone(),
                from: host.clone(),
            };
            self.hosts
                .perform(&to, Task::FetchBackup(fetch))
                .await
                .map_err(|error| {
                    OperatorError::new(
                        error.failure,
                        format!("made on {host}, but not copied to {to}: {}", error.message),
                    )
                })?;
            made.copied_to.push(to);
        }
        Ok(made)
    }

    pub(super) async fn restore_backup(
        &self,
        caller: &Caller,
        mut request: RestoreBackupRequest,
    ) -> Result<RestoreBackupResponse, Status> {
        if request.kind.is_empty() {
            request.kind = Kind::Instance.singular().to_owned();
        }
        let instance = request.instance.clone().unwrap_or_default();
        let desired = document_key(&request.kind, &instance.tenant, &instance.name)?;
        let key = desired.key();
        let allowed = |permissions: &Permissions| permissions.may_write(key.as_bytes(), b"");
        self.authorised(caller, allowed, || async { Ok(()) }).await?;
        let listed = self
            .backups(&ListBackupsRequest {
                tenant: instance.tenant.clone(),
                name: instance.name.clone(),
            })
            .await;
        let copies = copies(&listed, &request.kind, &instance, &request.id)?;
        let named = self.documents_host(&key)?;
        let host = match (instance.host.as_str(), &named, copies.first()) {
            ("", Some(named), _) => named.clone(),
            ("", None, Some(copy)) => copy.made_on.clone(),
            (host, ..) => host.to_owned(),
        };
        let is_instance = request.kind == Kind::Instance.singular();
        if let Some(named) = named.as_deref().filter(|named| is_instance && *named != host) {
            self.refuse_a_second(named, &instance).await?;
        }
        if !copies.iter().any(|copy| copy.host == host)
            && let Some(copy) = copies.first()
        {
            let fetch = FetchBackupRequest {
                backup: Some(copy.clone()),
                from: copy.host.clone(),
            };
            self.hosts.perform(&host, Task::FetchBackup(fetch)).await?;
        }
        request.id = copies.first().map(|copy| copy.id.clone()).unwrap_or_default();
        request.documented = if is_instance {
            named.as_ref() == Some(&host)
        } else {
            let is_documented = self.hosts.is_documented(&desired, &host);
            is_documented.map_err(ApiError::from)?
        };
        match self.hosts.perform(&host, Task::RestoreBackup(request)).await? {
            Outcome::BackupRestored(restored) => Ok(restored),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    /// An instance that is where its document says is not made a second time elsewhere. A host that does not answer is
    /// taken for lost: that is what backups are for.
    async fn refuse_a_second(&self, named: &str, instance: &InstanceRef) -> Result<(), OperatorError> {
        let list = ListInstancesRequest {
            tenant: instance.tenant.clone(),
            host: named.to_owned(),
        };
        let Ok(Outcome::Instances(listed)) = self.hosts.perform(named, Task::ListInstances(list)).await
        else {
            return Ok(());
        };
        let name = &instance.name;
        if !listed.instances.iter().any(|found| found.name == *name) {
            return Ok(());
        }
        let message = format!(
            "instance {name} is on {named}, as its document says, and there would be two of it: restore it there with \
             --replace, or delete it first"
        );
        Err(OperatorError::new(Failure::Refused, message))
    }

    async fn backups(&self, request: &ListBackupsRequest) -> ListBackupsResponse {
        let (answers, silent) = self.ask_all("", &Task::ListBackups(request.clone())).await;
        let backups = answers.into_iter().flat_map(|answer| match answer {
            Outcome::Backups(listed) => listed.backups,
            _ => Vec::new(),
        });
        let mut backups: Vec<Backup> = backups.collect();
        backups.sort_by(|one, other| {
            let place = |backup: &Backup| {
                (
                    backup.tenant.clone(),
                    backup.name.clone(),
                    backup.made.clone(),
                    backup.id.clone(),
                    backup.host.clone(),
                )
            };
            place(one).cmp(&place(other))
        });
        ListBackupsResponse { backups, silent }
    }
}

/// Where the backup is that is meant: the named one, or the newest of the instance or volume.
fn copies(
    listed: &ListBackupsResponse,
    kind: &str,
    instance: &InstanceRef,
    id: &str,
) -> Result<Vec<Backup>, OperatorError> {
    let of_it = || {
        listed.backups.iter().filter(|backup| {
            backup.tenant == instance.tenant && backup.name == instance.name && backup.kind == kind
        })
    };
    let newest = of_it()
        .max_by_key(|backup| (&backup.made, &backup.id))
        .map(|backup| backup.id.as_str());
    let id = if id.is_empty() {
        newest.unwrap_or_default()
    } else {
        id
    };
    let copies: Vec<Backup> = of_it().filter(|backup| backup.id == id).cloned().collect();
    if !copies.is_empty() {
        return Ok(copies);
    }
    let which = if id.is_empty() {
        String::new()
    } else {
        format!(" {id}")
    };
    let what = format!("a backup{which} of {kind} {}", instance.name);
    Err(OperatorError::on_no_host(&what, &listed.silent))
}
