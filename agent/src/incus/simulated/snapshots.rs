//! Snapshots of the simulated daemon's instances, how instances are now, and what it cannot do inside of them.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Daemon;
use super::api::{Params, error, parse, sync};
use super::change::{Changed, Refusal, at_once, event, instance_mut};
use super::world::{Config, Devices, Instance, NO_TIME, World};
use crate::incus::Kind;

/// A real daemon has no such limit; a simulation's file is written whole with each change.
const SNAPSHOTS_LIMIT: usize = 100;

/// What an instance was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    name: String,
    config: Config,
    description: String,
    devices: Devices,
    profiles: Vec<String>,
    ephemeral: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewSnapshot {
    name: String,
}

/// The paths below an instance.
pub(super) fn router() -> Router<Daemon> {
    Router::new()
        .route("/1.0/instances/{name}/snapshots", get(list).post(create))
        .route("/1.0/instances/{name}/snapshots/{snapshot}", get(read))
        .route("/1.0/instances/{name}/exec", post(nobody_inside))
        .route("/1.0/instances/{name}/console", post(nobody_inside))
}

/// The handler of an instance's state, beside the one that changes it.
pub(super) async fn read_state(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    let world = daemon.world.lock();
    let shown = world.show(Kind::Instance, params.project(), &name, true);
    match shown.and_then(|shown| shown.get("state").cloned()) {
        Some(state) => sync(&state, None),
        None => error(404, "Instance not found"),
    }
}

async fn list(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    let world = daemon.world.lock();
    match instance(&world, params.project(), &name) {
        Some(instance) => sync(&instance.snapshots.iter().map(Snapshot::show).collect(), None),
        None => error(404, "Instance not found"),
    }
}

async fn read(
    State(daemon): State<Daemon>,
    Path((name, snapshot)): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Response {
    let world = daemon.world.lock();
    let found = instance(&world, params.project(), &name)
        .and_then(|instance| instance.snapshots.iter().find(|kept| kept.name == snapshot));
    match found {
        Some(snapshot) => sync(&snapshot.show(), None),
        None => error(404, "Instance snapshot not found"),
    }
}

async fn create(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
    body: Bytes,
) -> Response {
    daemon.answer(StatusCode::OK, Some("Snapshotting instance"), |world| {
        let new: NewSnapshot = parse(&body)?;
        let project = params.project();
        let instance = instance_mut(world, project, &name)?;
        if new.name.is_empty() || new.name.contains(['/', ' ']) {
            return Err(at_once(400, "Invalid snapshot name"));
        }
        if instance.snapshots.iter().any(|kept| kept.name == new.name) {
            return Err(at_once(
                409,
                format!("Snapshot \"{name}/{}\" is there already", new.name),
            ));
        }
        if instance.snapshots.len() >= SNAPSHOTS_LIMIT {
            let message = format!("the simulation keeps at most {SNAPSHOTS_LIMIT} snapshots of an instance");
            return Err(at_once(500, message));
        }
        instance.snapshots.push(Snapshot {
            name: new.name,
            config: instance.config.clone(),
            description: instance.description.clone(),
            devices: instance.devices.clone(),
            profiles: instance.profiles.clone(),
            ephemeral: instance.ephemeral,
        });
        Ok(vec![event(
            "instance-snapshot-created",
            Kind::Instance,
            project,
            &name,
        )])
    })
}

async fn nobody_inside() -> Response {
    error(
        501,
        "this Incus is simulated: there is nothing inside its instances",
    )
}

/// The name of the snapshot to restore, where a replacement of an instance is about nothing else.
pub(super) fn to_restore(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let name = body.get("restore")?.as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned)
}

/// The instance's config, devices and profiles are the snapshot's again. Whether it runs stays.
pub(super) fn restore(world: &mut World, project: &str, name: &str, snapshot: &str) -> Changed {
    let instance = instance_mut(world, project, name)?;
    let kept = instance.snapshots.iter().find(|kept| kept.name == snapshot);
    let Some(kept) = kept.cloned() else {
        return Err(Refusal::InOperation {
            status: 404,
            message: "Instance snapshot not found".to_owned(),
        });
    };
    instance.config = kept.config;
    instance.description = kept.description;
    instance.devices = kept.devices;
    instance.profiles = kept.profiles;
    instance.ephemeral = kept.ephemeral;
    Ok(vec![event("instance-restored", Kind::Instance, project, name)])
}

fn instance<'a>(world: &'a World, project: &str, name: &str) -> Option<&'a Instance> {
    world.projects.get(project)?.instances.get(name)
}

impl Snapshot {
    pub(super) fn show(&self) -> Value {
        json!({
            "name": self.name, "config": self.config, "devices": self.devices, "profiles": self.profiles,
            "description": self.description, "ephemeral": self.ephemeral, "stateful": false,
            "created_at": NO_TIME, "expires_at": NO_TIME, "last_used_at": NO_TIME,
        })
    }
}
