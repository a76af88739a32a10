//! Our own service: what a person asks of the hosts' instances.
//!
//! A call on an instance needs WRITE on the key of its document, whether that document exists or not, so that a
//! tenant's role reaches its own instances and no others; a list shows what the caller may READ there. Then the host
//! is found, and [`crate::peer::Hosts`] takes the task there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::agent::v1::hosts_server::Hosts;
use proto::agent::v1::{
    AttachRequest, BackUpRequest, BackUpResponse, ClaimRequest, ClaimResponse, CreateSnapshotRequest,
    CreateSnapshotResponse, Instance, InstanceRef, ListBackupsRequest, ListBackupsResponse,
    ListInstancesRequest, ListInstancesResponse, ListSnapshotsRequest, ListSnapshotsResponse, PlanRequest,
    PlanResponse, ReadLiveRequest, ReadLiveResponse, RestoreBackupRequest, RestoreBackupResponse,
    RestoreSnapshotRequest, RestoreSnapshotResponse, SwitchInstanceRequest, SwitchInstanceResponse,
};
use proto::etcdserverpb::RangeRequest;
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use raft_store::auth::Permissions;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::interceptor::{Caller, Needs};
use super::status::ApiError;
use crate::document::{Binding, Kind, binding_key, hosts_named, parse_desired_key};
use crate::operator::{Failure, OperatorError, document_key};
use crate::peer::{AttachAnswers, attach_start, serve_session};

/// How long one host may keep the others' answers waiting.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(5);

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
        if !instance.host.is_empty() {
            return Ok(instance.host);
        }
        if let Some(host) = self.documents_host(&key)? {
            return Ok(host);
        }
        let request = ListInstancesRequest {
            tenant: instance.tenant.clone(),
            host: String::new(),
        };
        let listed = self.instances(&request).await;
        Ok(the_one_host(&listed, &instance)?)
    }

    /// The host that a document names, or that its instance is bound to, by this member's own state: a session is
    /// opened without a quorum, too.
    pub(super) fn documents_host(&self, key: &str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.value(key)? else {
            return Ok(None);
        };
        let hosts = hosts_named(&String::from_utf8_lossy(&text)).unwrap_or_default();
        if let Some(host) = hosts.into_iter().next() {
            return Ok(Some(host));
        }
        let Some(instance) = parse_desired_key(key) else {
            return Ok(None);
        };
        let binding = self.value(&binding_key(&instance))?;
        let binding = binding.and_then(|value| serde_json::from_slice::<Binding>(&value).ok());
        Ok(binding.and_then(|binding| binding.bound_host().map(str::to_owned)))
    }

    fn value(&self, key: &str) -> Result<Option<Bytes>, ApiError> {
        let request = RangeRequest {
            key: key.to_owned().into(),
            serializable: true,
            ..RangeRequest::default()
        };
        let found = self.node.store().range(&request)?;
        Ok(found.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// What the hosts have, asked side by side.
    async fn instances(&self, request: &ListInstancesRequest) -> ListInstancesResponse {
        let task = Task::ListInstances(request.clone());
        let (answers, silent) = self.ask_all(&request.host, &task).await;
        let instances = answers.into_iter().flat_map(|answer| match answer {
            Outcome::Instances(listed) => listed.instances,
            _ => Vec::new(),
        });
        ListInstancesResponse {
            instances: once_each(instances.collect()),
            silent,
        }
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

/// Hosts that share one Incus show the same instances: each is listed once, at the host that made it or, made by
/// hand, at the first.
fn once_each(instances: Vec<Instance>) -> Vec<Instance> {
    let mut kept: BTreeMap<(String, String, String), Instance> = BTreeMap::new();
    for instance in instances {
        let daemon = if instance.daemon.is_empty() {
            format!("host {}", instance.host)
        } else {
            instance.daemon.clone()
        };
        let id = (instance.tenant.clone(), instance.name.clone(), daemon);
        let is_better = |other: &Instance| {
            let rank = |instance: &Instance| (instance.maker != instance.host, instance.host.clone());
            rank(&instance) < rank(other)
        };
        if kept.get(&id).is_none_or(is_better) {
            kept.insert(id, instance);
        }
    }
    let mut kept: Vec<Instance> = kept.into_values().collect();
    kept.sort_by_cached_key(|instance| {
        (
            instance.tenant.clone(),
            instance.name.clone(),
            instance.host.clone(),
        )
    });
    kept
}

/// The host of an instance that no document speaks of.
fn the_one_host(listed: &ListInstancesResponse, wanted: &InstanceRef) -> Result<String, OperatorError> {
    let mut hosts = listed
        .instances
        .iter()
        .filter(|found| found.tenant == wanted.tenant && found.name == wanted.name)
        .map(|found| found.host.clone())
        .collect::<Vec<_>>()
        .into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host),
        (Some(one), Some(other)) => Err(OperatorError::new(
            Failure::Invalid,
            format!(
                "{one} and {other} have an instance {}: say which with --host",
                wanted.name
            ),
        )),
        (None, _) => {
            let reasons: Vec<&str> = listed
                .silent
                .iter()
                .map(|silent| silent.reason.as_str())
                .collect();
            let unless = if reasons.is_empty() {
                String::new()
            } else {
                format!(" ({})", reasons.join("; "))
            };
            Err(OperatorError::new(
                Failure::NotFound,
                format!("no host has an instance {}{unless}", wanted.name),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::agent::v1::SilentHost;

    use super::*;

    fn instance(host: &str, name: &str, maker: &str, daemon: &str) -> Instance {
        Instance {
            host: host.to_owned(),
            tenant: "default".to_owned(),
            name: name.to_owned(),
            maker: maker.to_owned(),
            daemon: daemon.to_owned(),
            ..Instance::default()
        }
    }

    #[test]
    fn an_incus_that_hosts_share_is_listed_once() {
        let shared = vec![
            instance("ovh", "byhand", "", "d"),
            instance("ionos", "byhand", "", "d"),
            instance("ionos", "web", "ovh", "d"),
            instance("ovh", "web", "ovh", "d"),
        ];
        let hosts: Vec<String> = once_each(shared)
            .into_iter()
            .map(|found| format!("{} {}", found.name, found.host))
            .collect();
        assert_eq!(hosts, ["byhand ionos", "web ovh"]);
        let apart = vec![
            instance("ovh", "byhand", "", "d"),
            instance("ionos", "byhand", "", "e"),
        ];
        assert_eq!(once_each(apart).len(), 2);
        let unknown = vec![
            instance("ovh", "byhand", "", ""),
            instance("ionos", "byhand", "", ""),
        ];
        assert_eq!(once_each(unknown).len(), 2);
    }

    #[test]
    fn an_instance_without_document_must_be_on_one_host() {
        let wanted = InstanceRef {
            tenant: "default".to_owned(),
            name: "web".to_owned(),
            host: String::new(),
        };
        let check = |instances: Vec<Instance>, expected: Result<&str, &str>| {
            let listed = ListInstancesResponse {
                instances,
                silent: vec![SilentHost {
                    host: "liquidweb".to_owned(),
                    reason: "host liquidweb does not answer".to_owned(),
                }],
            };
            let found = the_one_host(&listed, &wanted).map_err(|error| error.message);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(vec![instance("ovh", "web", "", "")], Ok("ovh"));
        check(
            vec![instance("ovh", "web", "", ""), instance("ionos", "web", "", "")],
            Err("ovh and ionos have an instance web: say which with --host"),
        );
        check(
            vec![instance("ovh", "api", "", "")],
            Err("no host has an instance web (host liquidweb does not answer)"),
        );
    }
}
