//! Our own service: what a person asks of the hosts' instances.
//!
//! A call on an instance needs WRITE on the key of its document, whether that document exists or not, so that a
//! tenant's role reaches its own instances and no others; a list shows what the caller may READ there. Then the host
//! is found, and [`crate::peer::Hosts`] takes the task there.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::agent::v1::hosts_server::Hosts;
use proto::agent::v1::{
    AttachRequest, BackUpRequest, BackUpResponse, ClaimRequest, ClaimResponse, CreateSnapshotRequest,
    CreateSnapshotResponse, Instance, InstanceRef, ListBackupsRequest, ListBackupsResponse,
    ListInstancesRequest, ListInstancesResponse, ListSnapshotsRequest, ListSnapshotsResponse, PlanRequest,
    PlanResponse, ReadLiveRequest, ReadLiveResponse, RestoreBackupRequest, RestoreBackupResponse,
    RestoreSnapshotRequest, RestoreSnapshotResponse, SwitchInstanceRequest, SwitchInstanceResponse,
};
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use raft_store::auth::Permissions;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::interceptor::{Caller, Needs};
use super::status::ApiError;
use crate::document::{Kind, parse_desired_key};
use crate::operator::{Failure, OperatorError, document_key};
use crate::peer::{AttachAnswers, attach_start, serve_session};

#[derive(Clone, Debug)]
pub(super) struct HostsService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Hosts for HostsService {
    type AttachStream = AttachAnswers;

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let request = request.into_inner();
        let mut listed = api.instances(&request).await;
        let visible = Mutex::new(None);
        let look = |permissions: &Permissions| {
            let may_see = |instance: &&Instance| {
                document_key(Kind::Instance.singular(), &instance.tenant, &instance.name)
                    .is_ok_and(|key| permissions.may_read(key.key().as_bytes(), b""))
            };
            *visible.lock() = Some(listed.instances.iter().filter(may_see).cloned().collect());
            true
        };
        api.authorised(&caller, look, || async { Ok(()) }).await?;
        if let Some(visible) = visible.into_inner() {
            listed.instances = visible;
        }
        Ok(Response::new(listed))
    }

    async fn switch_instance(
        &self,
        request: Request<SwitchInstanceRequest>,
    ) -> Result<Response<SwitchInstanceResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let request = request.into_inner();
        let host = api.host_for(&caller, request.instance.as_ref()).await?;
        match api.hosts.perform(&host, Task::SwitchInstance(request)).await? {
            Outcome::Switched(answer) => Ok(Response::new(answer)),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let request = request.into_inner();
        let host = api.host_for(&caller, request.instance.as_ref()).await?;
        match api.hosts.perform(&host, Task::CreateSnapshot(request)).await? {
            Outcome::SnapshotCreated(answer) => Ok(Response::new(answer)),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let request = request.into_inner();
        let host = api.host_for(&caller, request.instance.as_ref()).await?;
        match api.hosts.perform(&host, Task::ListSnapshots(request)).await? {
            Outcome::Snapshots(answer) => Ok(Response::new(answer)),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn restore_snapshot(
        &self,
        request: Request<RestoreSnapshotRequest>,
    ) -> Result<Response<RestoreSnapshotResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let request = request.into_inner();
        let host = api.host_for(&caller, request.instance.as_ref()).await?;
        match api.hosts.perform(&host, Task::RestoreSnapshot(request)).await? {
            Outcome::Restored(answer) => Ok(Response::new(answer)),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.plan(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn read_live(
        &self,
        request: Request<ReadLiveRequest>,
    ) -> Result<Response<ReadLiveResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.read_live(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.claim(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_backups(
        &self,
        request: Request<ListBackupsRequest>,
    ) -> Result<Response<ListBackupsResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.list_backups(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn back_up(&self, request: Request<BackUpRequest>) -> Result<Response<BackUpResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.back_up(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn restore_backup(
        &self,
        request: Request<RestoreBackupRequest>,
    ) -> Result<Response<RestoreBackupResponse>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        api.restore_backup(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let HostsService(api) = self;
        let caller = api.admit(&request, Needs::AnyMember).await?;
        let mut requests = request.into_inner();
        let start = attach_start(&mut requests).await?;
        let key = key_of(start.instance.as_ref())?;
        let host = api.host_for(&caller, start.instance.as_ref()).await?;
        let api = api.clone();
        let session = move |requests, answers| async move {
            tokio::select! {
                ended = api.hosts.attach(&host, start, requests, answers) => ended,
                reason = api.session_must_end(&caller, &key) => {
                    Err(OperatorError::new(Failure::Refused, reason.text()))
                }
            }
        };
        Ok(Response::new(serve_session(requests, session)))
    }
}

impl Api {
    /// Which host has the instance, if the caller may do things there.
    pub(super) async fn host_for(
        &self,
        caller: &Caller,
        instance: Option<&InstanceRef>,
    ) -> Result<String, Status> {
        let key = key_of(instance)?;
        let allowed = |permissions: &Permissions| permissions.may_write(key.as_bytes(), b"");
        self.authorised(caller, allowed, || async { Ok(()) }).await?;
        let instance = instance.cloned().unwrap_or_default();
        Ok(self.hosts.whereabouts(&instance).await?)
    }

    /// The host that a document names, or that its instance is bound to.
    pub(super) fn documents_host(&self, key: &str) -> Result<Option<String>, ApiError> {
        let Some(instance) = parse_desired_key(key) else {
            return Ok(None);
        };
        Ok(self.hosts.documents_host(&instance)?)
    }

    async fn instances(&self, request: &ListInstancesRequest) -> ListInstancesResponse {
        self.hosts.instances(request).await
    }

    /// Completes when a session must end although neither side wants it to, and says why.
    async fn session_must_end(&self, caller: &Caller, key: &str) -> ApiError {
        let mut changes = self.node.store().auth_changes();
        let may = |permissions: &Permissions| permissions.may_write(key.as_bytes(), b"");
        let forbidden = async {
            loop {
                if let Err(error) = self.still_may(caller, may) {
                    return error;
                }
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            error = forbidden => error,
            () = self.shutdown.cancelled() => ApiError::Stopped,
        }
    }
}

pub(super) fn key_of(instance: Option<&InstanceRef>) -> Result<String, OperatorError> {
    let instance = instance.cloned().unwrap_or_default();
    Ok(document_key(Kind::Instance.singular(), &instance.tenant, &instance.name)?.key())
}
