//! The simulated daemon's REST API: requests in, Incus' envelope out. What a request means is [`super::change`]'s.

use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::change::{self, Changed, Refusal, Update};
use super::operations::{Operation, new_uuid};
use super::records::{self, is_record};
use super::world::{DEFAULT, World, object_path};
use super::{Daemon, VERSION, events, nested, snapshots};
use crate::incus::{Kind, SIMULATED_SERVER};

const REQUEST_LIMIT_BYTES: usize = 4 << 20;

/// Where an object is: its kind and name, and the query.
type At = (Path<(String, String)>, Query<Params>);

/// The query's parameters this daemon knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Params {
    project: Option<String>,
    all_projects: Option<String>,
    recursion: u8,
}

impl Params {
    pub(super) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or(DEFAULT)
    }

    pub(super) fn all_projects(&self) -> bool {
        self.all_projects.as_deref() == Some("true")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StateChange {
    action: String,
}

pub(super) fn router(daemon: Daemon) -> Router {
    Router::new()
        .route("/1.0", get(server).put(replace_server).patch(merge_server))
        .route("/1.0/events", get(events::listen))
        .route("/1.0/operations/{id}", get(read_operation))
        .route("/1.0/operations/{id}/wait", get(wait))
        .route(
            "/1.0/instances/{name}/state",
            put(put_state).get(snapshots::read_state),
        )
        .merge(snapshots::router())
        .route("/1.0/images/aliases", post(add_image_alias))
        .route(
            "/1.0/images/aliases/{alias}",
            get(image_alias).delete(remove_image_alias),
        )
        .route("/1.0/warnings", get(nothing))
        .route("/1.0/{kinds}", get(list).post(create))
        .route(
            "/1.0/{kinds}/{name}",
            get(read).put(replace).patch(merge).delete(delete),
        )
        .merge(nested::routes())
        .fallback(|| async { error(404, "not found") })
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT_BYTES))
        .with_state(daemon)
}

async fn server(State(daemon): State<Daemon>) -> Response {
    // As with the real one, another daemon has another.
    let fingerprint = Sha256::digest(daemon.dir.as_os_str().as_encoded_bytes());
    let fingerprint: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    let environment = json!({"server": SIMULATED_SERVER, "server_version": VERSION,
        "server_name": "simulated", "certificate_fingerprint": fingerprint, "server_clustered": false, "project": DEFAULT});
    let extensions = [
        "instances",
        "projects",
        "profiles_all_projects",
        "instance_all_projects",
        "event_project",
    ];
    let world = daemon.world.lock();
    let config = world.record(Kind::Server, "", "").unwrap_or_default()["config"].take();
    let metadata = json!({"config": config, "api_status": "stable", "api_version": "1.0", "auth": "trusted",
        "api_extensions": extensions, "environment": environment});
    sync(&metadata, world.etag(Kind::Server, "", "").as_deref())
}

async fn replace_server(State(daemon): State<Daemon>, headers: HeaderMap, body: Bytes) -> Response {
    update_at(
        &daemon,
        (Kind::Server, ""),
        &Params::default(),
        &headers,
        &body,
        Update::Replace,
    )
}

async fn merge_server(State(daemon): State<Daemon>, headers: HeaderMap, body: Bytes) -> Response {
    update_at(
        &daemon,
        (Kind::Server, ""),
        &Params::default(),
        &headers,
        &body,
        Update::Merge,
    )
}

async fn wait(State(daemon): State<Daemon>, Path(id): Path<String>) -> Response {
    match daemon
        .operations
        .lock()
        .get(Instant::now(), &id)
        .map(Operation::ended)
    {
        None => error(404, "Operation not found"),
        Some(Ok(operation)) => sync(&operation, None),
        // The request itself went well: this is how Incus has it.
        Some(Err((code, message))) => envelope(StatusCode::OK, &failure_body(code, &message)),
    }
}

async fn read_operation(State(daemon): State<Daemon>, Path(id): Path<String>) -> Response {
    match daemon.operations.lock().get(Instant::now(), &id) {
        None => error(404, "Operation not found"),
        Some(operation) => sync(&operation.shown(), None),
    }
}

/// Images of a server need no making here: any alias leads to one, but those made to be missing.
async fn image_alias(
    State(daemon): State<Daemon>,
    Path(alias): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    let target = records::alias_target(&daemon.world.lock(), params.project(), &alias);
    let target = target.or_else(|| change::image_alias_exists(&alias).then(|| "0".repeat(64)));
    match target {
        Some(target) => sync(
            &json!({"name": alias, "description": "", "target": target, "type": "container"}),
            None,
        ),
        None => error(404, "Image alias not found"),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewAlias {
    name: String,
    target: String,
}

async fn add_image_alias(
    State(daemon): State<Daemon>,
    Query(params): Query<Params>,
    body: Bytes,
) -> Response {
    daemon.answer(StatusCode::CREATED, None, |world| {
        let alias: NewAlias = parse(&body)?;
        records::set_alias(world, params.project(), &alias.name, Some(&alias.target))
    })
}

async fn remove_image_alias(
    State(daemon): State<Daemon>,
    Path(alias): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    daemon.answer(StatusCode::OK, None, |world| {
        records::set_alias(world, params.project(), &alias, None)
    })
}

/// There is nothing to warn of.
async fn nothing() -> Response {
    sync(&json!([]), None)
}

async fn list(
    State(daemon): State<Daemon>,
    Path(kinds): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    match kind(&kinds) {
        Some(kind) => list_of(&daemon, kind, None, &params),
        None => error(404, "not found"),
    }
}

pub(super) fn list_of(daemon: &Daemon, kind: Kind, container: Option<&str>, params: &Params) -> Response {
    let world = daemon.world.lock();
    let project = if params.all_projects() {
        None
    } else {
        Some(params.project())
    };
    if is_record(kind) {
        return sync(&world.record_list(kind, project, container).into(), None);
    }
    let names = world.names(kind, project).into_iter();
    let shown = names.filter_map(|(project, name)| match params.recursion {
        0 => Some(Value::String(object_path(kind, project, name))),
        depth => world.show(kind, project, name, depth > 1),
    });
    sync(&shown.collect(), None)
}

async fn read(
    State(daemon): State<Daemon>,
    Path((kinds, name)): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Response {
    match kind(&kinds) {
        Some(kind) => read_at(&daemon, kind, &name, &params),
        None => error(404, "not found"),
    }
}

pub(super) fn read_at(daemon: &Daemon, kind: Kind, name: &str, params: &Params) -> Response {
    let world = daemon.world.lock();
    match world.show(kind, params.project(), name, params.recursion > 0) {
        Some(object) => sync(&object, world.etag(kind, params.project(), name).as_deref()),
        None => error(404, "not found"),
    }
}

async fn create(
    State(daemon): State<Daemon>,
    Path(kinds): Path<String>,
    Query(params): Query<Params>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_file = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|content| content == "application/octet-stream");
    match kind(&kinds) {
        Some(Kind::Image) if is_file => upload_image(&daemon, &params, &headers, &body),
        Some(kind) => create_in(&daemon, kind, "", &params, &body),
        None => error(404, "not found"),
    }
}

fn upload_image(daemon: &Daemon, params: &Params, headers: &HeaderMap, file: &[u8]) -> Response {
    let properties = headers
        .get("X-Incus-properties")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    daemon.answer(StatusCode::CREATED, Some("Downloading image"), |world| {
        records::upload_image(world, params.project(), properties, file)
    })
}

pub(super) fn create_in(
    daemon: &Daemon,
    kind: Kind,
    container: &str,
    params: &Params,
    body: &[u8],
) -> Response {
    let operation = match kind {
        Kind::Instance => Some("Creating instance"),
        Kind::Image => Some("Downloading image"),
        _ => None,
    };
    daemon.answer(StatusCode::CREATED, operation, |world| match kind {
        Kind::Project => change::create_project(world, parse(body)?),
        Kind::Profile => change::create_profile(world, params.project(), parse(body)?),
        Kind::Instance => change::create_instance(world, params.project(), parse(body)?, &new_uuid()),
        _ => records::create(world, kind, params.project(), container, parse(body)?),
    })
}

async fn replace(daemon: State<Daemon>, at: At, headers: HeaderMap, body: Bytes) -> Response {
    update(&daemon, &at, &headers, &body, Update::Replace)
}

async fn merge(daemon: State<Daemon>, at: At, headers: HeaderMap, body: Bytes) -> Response {
    update(&daemon, &at, &headers, &body, Update::Merge)
}

fn update(daemon: &Daemon, at: &At, headers: &HeaderMap, body: &[u8], update: Update) -> Response {
    let (Path((kinds, name)), Query(params)) = at;
    match kind(kinds) {
        Some(kind) => update_at(daemon, (kind, name), params, headers, body, update),
        None => error(404, "not found"),
    }
}

pub(super) fn update_at(
    daemon: &Daemon,
    (kind, name): (Kind, &str),
    params: &Params,
    headers: &HeaderMap,
    body: &[u8],
    update: Update,
) -> Response {
    let project = params.project();
    // Only an instance's replacement is an operation.
    let operation = (kind == Kind::Instance && update == Update::Replace).then_some("Updating instance");
    let to_restore = operation.and_then(|_| snapshots::to_restore(body));
    daemon.answer(StatusCode::OK, operation, |world| {
        check_etag(headers, world.etag(kind, project, name))?;
        if let Some(snapshot) = &to_restore {
            return snapshots::restore(world, project, name, snapshot);
        }
        match kind {
            Kind::Project => change::update_project(world, name, parse(body)?, update),
            Kind::Profile => change::update_profile(world, project, name, parse(body)?, update),
            Kind::Instance => change::update_instance(world, project, name, parse(body)?, update),
            _ => records::update(world, kind, project, name, &parse(body)?, update),
        }
    })
}

async fn delete(State(daemon): State<Daemon>, at: At) -> Response {
    let (Path((kinds, name)), Query(params)) = at;
    match kind(&kinds) {
        Some(kind) => delete_at(&daemon, kind, &name, &params),
        None => error(404, "not found"),
    }
}

pub(super) fn delete_at(daemon: &Daemon, kind: Kind, name: &str, params: &Params) -> Response {
    let operation = match kind {
        Kind::Instance => Some("Deleting instance"),
        Kind::Image => Some("Deleting image"),
        _ => None,
    };
    daemon.answer(StatusCode::OK, operation, |world| match kind {
        Kind::Project => change::delete_project(world, name),
        Kind::Profile => change::delete_profile(world, params.project(), name),
        Kind::Instance => change::delete_instance(world, params.project(), name),
        _ => records::delete(world, kind, params.project(), name),
    })
}

async fn put_state(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
    body: Bytes,
) -> Response {
    daemon.answer(
        StatusCode::OK,
        Some("Changing the state of an instance"),
        |world| {
            let change: StateChange = parse(&body)?;
            change::set_state(world, params.project(), &name, &change.action)
        },
    )
}

impl Daemon {
    /// Makes a change and answers for it: at once, or by an operation that has ended already.
    pub(super) fn answer(
        &self,
        success: StatusCode,
        operation: Option<&'static str>,
        change: impl FnOnce(&mut World) -> Changed,
    ) -> Response {
        let failure = match self.change(change) {
            Ok(()) => None,
            Err(Refusal::AtOnce { status, message }) => return error(status, &message),
            Err(Refusal::InOperation { status, message }) => Some((status, message)),
        };
        match (operation, failure) {
            (None, None) => envelope(success, &success_body(&Value::Null)),
            (None, Some((status, message))) => error(status, &message),
            (Some(description), failure) => {
                let begun = self.operations.lock().begin(Instant::now(), description, failure);
                let id = begun.get("id").and_then(Value::as_str).unwrap_or_default();
                let body = json!({"type": "async", "status": "Operation created", "status_code": 100,
                    "operation": format!("/1.0/operations/{id}"), "error_code": 0, "error": "", "metadata": begun});
                envelope(StatusCode::ACCEPTED, &body)
            }
        }
    }
}

/// The kinds that have a folder of their own.
fn kind(plural: &str) -> Option<Kind> {
    Kind::ALL
        .into_iter()
        .filter(|kind| !matches!(kind, Kind::Server | Kind::Volume | Kind::NetworkForward))
        .find(|kind| kind.plural() == plural)
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::AtOnce {
        status: 400,
        message: error.to_string(),
    })
}

/// An object that is not there has no ETag: the change itself says so.
fn check_etag(headers: &HeaderMap, etag: Option<String>) -> Result<(), Refusal> {
    let (Some(wanted), Some(etag)) = (headers.get(header::IF_MATCH), etag) else {
        return Ok(());
    };
    let wanted = wanted.to_str().unwrap_or_default().trim_matches('"');
    if wanted == etag {
        Ok(())
    } else {
        Err(Refusal::AtOnce {
            status: 412,
            message: format!("ETag doesn't match: {etag} vs {wanted}"),
        })
    }
}

fn success_body(metadata: &Value) -> Value {
    json!({"type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0,
        "error": "", "metadata": metadata})
}

pub(super) fn sync(metadata: &Value, etag: Option<&str>) -> Response {
    let mut response = envelope(StatusCode::OK, &success_body(metadata));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(&format!("\"{etag}\"")).ok()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn failure_body(code: u16, message: &str) -> Value {
    json!({"type": "error", "status": "", "status_code": 0, "operation": "", "error_code": code,
        "error": message, "metadata": null})
}

pub(super) fn error(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    envelope(status, &failure_body(code, message))
}

fn envelope(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}
