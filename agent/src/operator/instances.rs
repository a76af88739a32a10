//! Instances as they are, switched and restored.

use std::time::Duration;

use bytes::Bytes;
use proto::agent::v1::instance::Managed;
use proto::agent::v1::switch_instance_request::Action;
use proto::agent::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, Instance, InstanceRef, ListInstancesRequest,
    ListInstancesResponse, ListSnapshotsRequest, ListSnapshotsResponse, RestoreSnapshotRequest,
    RestoreSnapshotResponse, Snapshot, SwitchInstanceRequest, SwitchInstanceResponse,
};
use serde_json::{Map, Value, json};

use super::Operator;
use super::address::addresses;
use super::error::{Failure, OperatorError};
use crate::document::{OWNERSHIP_PREFIX, hide_secrets};
use crate::incus::{Collection, Incus, IncusError, Kind, Live, StateAction};

/// A guest that is given longer than this to shut down keeps the caller waiting for nothing.
const STOP_LIMIT_SECONDS: u32 = 600;
/// Disks are large, and providers far from each other.
const BACKUP_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Somebody else may change the instance between our reading and our writing.
const ATTEMPTS: usize = 5;

impl Operator {
    pub(super) async fn list(
        &self,
        request: &ListInstancesRequest,
    ) -> Result<ListInstancesResponse, OperatorError> {
        if self.incus.is_none() && request.host.is_empty() {
            // A store has no instances; only who asks for this very one is told why.
            return Ok(ListInstancesResponse::default());
        }
        let incus = self.incus()?;
        let daemon = incus.server().await?.fingerprint;
        // With their state and their snapshots, which a list to plan by does without.
        let instances = incus.list_collection(Collection::Instances).await?.into_iter();
        let instances = instances
            .map(|object| Live {
                object,
                etag: String::new(),
            })
            .filter(|live| request.tenant.is_empty() || live.project() == request.tenant)
            .map(|live| self.summary(&live, &daemon));
        Ok(ListInstancesResponse {
            instances: instances.collect(),
            silent: Vec::new(),
        })
    }

    fn summary(&self, live: &Live, daemon: &str) -> Instance {
        let state = live.object.get("state").unwrap_or(&Value::Null);
        let (ipv4, ipv6): (Vec<_>, Vec<_>) =
            addresses(state).into_iter().partition(std::net::IpAddr::is_ipv4);
        let snapshots = live.object.get("snapshots").and_then(Value::as_array);
        let text = |field: &str| live.object.get(field).and_then(Value::as_str).unwrap_or_default();
        Instance {
            host: self.host.clone(),
            tenant: live.project().to_owned(),
            name: live.name().to_owned(),
            r#type: text("type").to_owned(),
            state: live.status().to_owned(),
            ipv4: ipv4.iter().map(ToString::to_string).collect(),
            ipv6: ipv6.iter().map(ToString::to_string).collect(),
            managed: managed(live, &self.cluster).into(),
            snapshots: snapshots.map_or(0, |list| u32::try_from(list.len()).unwrap_or(u32::MAX)),
            maker: live.config("user.agent.host").unwrap_or_default().to_owned(),
            daemon: daemon.to_owned(),
        }
    }

    /// Switching what is so already does nothing, and says so.
    pub(super) async fn switch(
        &self,
        request: &SwitchInstanceRequest,
    ) -> Result<SwitchInstanceResponse, OperatorError> {
        let incus = self.incus()?;
        let (tenant, name) = named(request.instance.as_ref())?;
        let what = match request.action() {
            Action::Start => "started",
            Action::Stop => "stopped",
            _ => "restarted",
        };
        let _attendance = self.attend((tenant, name), what).await?;
        let live = self.live(incus, tenant, name).await?;
        let is_running = live.status() != "Stopped";
        let action = match request.action() {
            Action::Start if is_running => None,
            Action::Stop if !is_running => None,
            Action::Start => Some(StateAction::Start),
            Action::Stop => Some(StateAction::Stop),
            Action::Restart if is_running => Some(StateAction::Restart),
            Action::Restart => {
                return Err(OperatorError::new(
                    Failure::Refused,
                    format!("instance {name} does not run: start it instead"),
                ));
            }
            Action::Unspecified => {
                return Err(OperatorError::new(Failure::Invalid, "no action is given"));
            }
        };
        if let Some(action) = action {
            let seconds = request.timeout_seconds.min(STOP_LIMIT_SECONDS);
            incus
                .set_state(tenant, name, action, request.force, seconds)
                .await?;
        }
        Ok(SwitchInstanceResponse {
            host: self.host.clone(),
            unchanged: action.is_none(),
        })
    }

    pub(super) async fn create_snapshot(
        &self,
        request: &CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, OperatorError> {
        let incus = self.incus()?;
        let (tenant, name) = named(request.instance.as_ref())?;
        self.live(incus, tenant, name).await?;
        if incus.snapshot(tenant, name, &request.snapshot).await?.is_some() {
            return Err(OperatorError::new(
                Failure::Refused,
                format!("instance {name} has a snapshot {} already", request.snapshot),
            ));
        }
        incus.create_snapshot(tenant, name, &request.snapshot).await?;
        Ok(CreateSnapshotResponse {
            host: self.host.clone(),
        })
    }

    pub(super) async fn snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, OperatorError> {
        let incus = self.incus()?;
        let (tenant, name) = named(request.instance.as_ref())?;
        self.live(incus, tenant, name).await?;
        let snapshots = incus.snapshots(tenant, name).await?;
        Ok(ListSnapshotsResponse {
            host: self.host.clone(),
            snapshots: snapshots.iter().map(snapshot).collect(),
        })
    }

    /// Whose an instance is, is no part of its past: our keys stay what they are now.
    pub(super) async fn restore(
        &self,
        request: &RestoreSnapshotRequest,
    ) -> Result<RestoreSnapshotResponse, OperatorError> {
        let incus = self.incus()?;
        let (tenant, name) = named(request.instance.as_ref())?;
        // Incus stops one that runs for this, and starts it again.
        let _attendance = self.attend((tenant, name), "restored").await?;
        let before = self.live(incus, tenant, name).await?;
        let Some(snapshot) = incus.snapshot(tenant, name, &request.snapshot).await? else {
            return Err(OperatorError::new(
                Failure::NotFound,
                format!("instance {name} has no snapshot {}", request.snapshot),
            ));
        };
        incus.restore_snapshot(tenant, name, &request.snapshot).await?;
        self.keep_ownership(incus, tenant, name, &before).await?;
        let mut snapshot = snapshot;
        hide_secrets(&mut snapshot);
        Ok(RestoreSnapshotResponse {
            host: self.host.clone(),
            snapshot: Bytes::from(snapshot.to_string()),
        })
    }

    async fn keep_ownership(
        &self,
        incus: &Incus,
        tenant: &str,
        name: &str,
        before: &Live,
    ) -> Result<(), OperatorError> {
        for _ in 0..ATTEMPTS {
            let now = self.live(incus, tenant, name).await?;
            let changes = ownership_changes(&before.object, &now.object);
            if changes.is_empty() {
                return Ok(());
            }
            let body = json!({"config": changes});
            match incus.patch(Kind::Instance, tenant, name, &body, &now.etag).await {
                Err(IncusError::PreconditionFailed) => {}
                done => return Ok(done?),
            }
        }
        Err(OperatorError::new(
            Failure::Refused,
            format!(
                "restored, but somebody keeps changing instance {name}: whose it is could not be written on it"
            ),
        ))
    }

    pub(super) async fn live(&self, incus: &Incus, tenant: &str, name: &str) -> Result<Live, OperatorError> {
        let live = incus.get(Kind::Instance, tenant, name).await?;
        live.ok_or_else(|| OperatorError::no_instance(&self.host, tenant, name))
    }
}

/// Which instance is meant.
pub(super) fn named(instance: Option<&InstanceRef>) -> Result<(&str, &str), OperatorError> {
    match instance {
        Some(instance) if !instance.tenant.is_empty() && !instance.name.is_empty() => {
            Ok((&instance.tenant, &instance.name))
        }
        _ => Err(OperatorError::new(Failure::Invalid, "no instance is named")),
    }
}

/// Whose an instance is, by what is written on it.
fn managed(live: &Live, cluster: &str) -> Managed {
    let uid = format!("instance/{}/{}@", live.project(), live.name());
    match (live.config("user.agent.cluster"), live.config("user.agent.uid")) {
        (None, _) => Managed::No,
        (Some(of), Some(named)) if of == cluster && named.starts_with(&uid) => {
            let applied = live.config("user.agent.applied").unwrap_or_default();
            let applied: Value = serde_json::from_str(applied).unwrap_or_default();
            let how = applied.pointer("/lifecycle/managed").and_then(Value::as_str);
            if how == Some("existence") {
                Managed::Existence
            } else {
                Managed::Full
            }
        }
        (Some(_), _) => Managed::NotOurs,
    }
}

fn snapshot(snapshot: &Value) -> Snapshot {
    let text = |field: &str| snapshot.get(field).and_then(Value::as_str).unwrap_or_default();
    // Incus says `web/s0` or `s0`, by where it is asked.
    let name = text("name");
    Snapshot {
        name: name.rsplit('/').next().unwrap_or(name).to_owned(),
        created_at: text("created_at").to_owned(),
        stateful: snapshot
            .get("stateful")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
    }
}

/// The patch of config that puts our keys back to what they were; `""` takes one away.
fn ownership_changes(before: &Value, now: &Value) -> Map<String, Value> {
    let keys = |object: &Value| -> Map<String, Value> {
        let config = object.get("config").and_then(Value::as_object);
        config
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with(OWNERSHIP_PREFIX))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (before, now) = (keys(before), keys(now));
    let removed = now.keys().filter(|key| !before.contains_key(*key));
    let removed = removed.map(|key| (key.clone(), Value::from("")));
    let changed = before
        .iter()
        .filter(|(key, value)| now.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()));
    removed.chain(changed).collect()
}

/// How long a task may take, for those who wait at another member: a guest's own time, and what Incus may take.
pub(crate) fn patience(task: &proto::peer::host_task::Task) -> Duration {
    use proto::peer::host_task::Task;
    match task {
        Task::ListInstances(_) | Task::ListBackups(_) => super::LIST_LIMIT,
        Task::BackUp(_) | Task::FetchBackup(_) | Task::RestoreBackup(_) => BACKUP_LIMIT,
        Task::ListSnapshots(_) | Task::Plan(_) | Task::ReadLive(_) | Task::Claim(_) => {
            Duration::from_secs(30)
        }
        Task::SwitchInstance(request) => {
            Duration::from_secs(330 + u64::from(request.timeout_seconds.min(STOP_LIMIT_SECONDS)))
        }
        Task::CreateSnapshot(_) | Task::RestoreSnapshot(_) => Duration::from_secs(900),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(config: &Value) -> Live {
        Live {
            object: json!({"name": "web", "project": "default", "config": config}),
            etag: String::new(),
        }
    }

    #[test]
    fn whose_an_instance_is_stands_on_it() {
        let check = |config: Value, expected: Managed| assert_eq!(managed(&live(&config), "c1"), expected);
        let ours = |applied: &str| {
            json!({"user.agent.cluster": "c1", "user.agent.uid": "instance/default/web@3",
                "user.agent.applied": applied})
        };
        check(json!({}), Managed::No);
        check(ours(""), Managed::Full);
        check(
            ours(r#"{"lifecycle":{"managed":"existence"}}"#),
            Managed::Existence,
        );
        check(
            json!({"user.agent.cluster": "c2", "user.agent.uid": "instance/default/web@3"}),
            Managed::NotOurs,
        );
        check(
            json!({"user.agent.cluster": "c1", "user.agent.uid": "instance/default/api@3"}),
            Managed::NotOurs,
        );
    }

    #[test]
    fn a_restored_instance_gets_its_owner_back() {
        let before =
            json!({"config": {"user.agent.uid": "u", "user.agent.revision": "9", "limits.cpu": "2"}});
        let now =
            json!({"config": {"user.agent.revision": "3", "user.agent.host": "ovh", "limits.cpu": "1"}});
        let changes = ownership_changes(&before, &now);
        assert_eq!(
            Value::Object(changes),
            json!({"user.agent.host": "", "user.agent.uid": "u", "user.agent.revision": "9"})
        );
        assert!(ownership_changes(&before, &before).is_empty());
    }
}
