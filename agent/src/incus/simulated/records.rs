//! What the simulated daemon keeps as plain records: the server's config, pools, networks and their forwards, ACLs,
//! volumes and images. Their names, what they live in and what keeps them from going are as with Incus; that a
//! network carries nothing and a volume holds nothing is the simulation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::change::{Changed, Happened, Refusal, Update, at_once};
use super::world::{DEFAULT, World, object_path};
use crate::incus::Kind;
use crate::incus::path::decode;

/// By kind, project and name, as [`Kind::name_of`] says it.
pub(super) type Records = BTreeMap<String, Record>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    project: String,
    name: String,
    object: Map<String, Value>,
}

pub(super) const fn is_record(kind: Kind) -> bool {
    !matches!(kind, Kind::Project | Kind::Profile | Kind::Instance)
}

/// The fields that an update may change.
const fn writable(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::NetworkAcl => &["config", "description", "ingress", "egress"],
        Kind::NetworkForward => &["config", "description", "ports"],
        Kind::Image => &["properties", "auto_update", "public"],
        _ => &["config", "description"],
    }
}

fn key(kind: Kind, project: &str, name: &str) -> String {
    format!("{}|{}|{name}", kind.singular(), home(kind, project))
}

/// Where an object of a project is kept: pools and the server are everybody's, and networks are in the default project.
fn home(kind: Kind, project: &str) -> &str {
    match kind {
        Kind::Volume | Kind::Image => project,
        _ => DEFAULT,
    }
}

impl World {
    pub(super) fn record(&self, kind: Kind, project: &str, name: &str) -> Option<Value> {
        let record = self.records.get(&key(kind, project, name));
        match record {
            Some(record) => Some(Value::Object(record.object.clone())),
            // It is there before anything was set.
            None if kind == Kind::Server => Some(json!({"config": {}})),
            None => None,
        }
    }

    pub(super) fn record_etag(&self, kind: Kind, project: &str, name: &str) -> Option<String> {
        let object = self.record(kind, project, name)?;
        let hash = Sha256::digest(object.to_string());
        Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The records of a kind: of one project or of all, and of one container or of all.
    pub(super) fn record_list(
        &self,
        kind: Kind,
        project: Option<&str>,
        container: Option<&str>,
    ) -> Vec<Value> {
        let prefix = format!("{}|", kind.singular());
        self.records
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, record)| record)
            .filter(|record| project.is_none_or(|project| record.project == home(kind, project)))
            .filter(|record| {
                container.is_none_or(|container| {
                    record
                        .name
                        .split_once('/')
                        .is_some_and(|(within, _)| within == container)
                })
            })
            .map(|record| Value::Object(record.object.clone()))
            .collect()
    }

    /// What a fresh Incus has beside projects and profiles.
    pub(super) fn default_records() -> Records {
        let pool = Record {
            project: DEFAULT.to_owned(),
            name: DEFAULT.to_owned(),
            object: fields(
                json!({"name": DEFAULT, "driver": "dir", "description": "", "config": {},
                "status": "Created", "used_by": [], "locations": ["none"]}),
            ),
        };
        BTreeMap::from([(key(Kind::StoragePool, DEFAULT, DEFAULT), pool)])
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// `container`: what the new object lives in, by the request's path.
pub(super) fn create(world: &mut World, kind: Kind, project: &str, container: &str, body: Value) -> Changed {
    if !world.projects.contains_key(home(kind, project)) {
        return Err(at_once(404, "Project not found"));
    }
    let body = fields(body);
    let object = new_object(kind, home(kind, project), &body)?;
    let own = kind.name_of(&Value::Object(object.clone()));
    let own = own.trim_start_matches('/');
    if own.is_empty() {
        return Err(at_once(400, "No name provided"));
    }
    let name = match kind.container() {
        None => own.to_owned(),
        Some(outer) => {
            if world.record(outer, DEFAULT, container).is_none() {
                return Err(at_once(404, format!("{} not found", outer.singular())));
            }
            format!("{container}/{own}")
        }
    };
    let key = key(kind, project, &name);
    if world.records.contains_key(&key) {
        return Err(at_once(
            if kind == Kind::StoragePool { 500 } else { 400 },
            format!("The {} {name:?} exists already", kind.singular()),
        ));
    }
    let record = Record {
        project: home(kind, project).to_owned(),
        name: name.clone(),
        object,
    };
    world.records.insert(key, record);
    Ok(vec![event(kind, "created", home(kind, project), &name)])
}

/// A body as Incus shows it afterwards.
fn new_object(kind: Kind, project: &str, body: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let given = |field: &str, default: Value| body.get(field).cloned().unwrap_or(default);
    let required = |field: &str| {
        body.get(field)
            .filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
            .cloned()
            .ok_or_else(|| at_once(400, format!("No {field} provided")))
    };
    let mut object = fields(match kind {
        Kind::StoragePool => {
            json!({"name": required("name")?, "driver": required("driver")?, "status": "Created",
            "used_by": [], "locations": ["none"]})
        }
        Kind::Network => {
            json!({"name": required("name")?, "type": given("type", "bridge".into()), "managed": true,
            "status": "Created", "used_by": [], "locations": ["none"], "project": project})
        }
        Kind::NetworkAcl => json!({"name": required("name")?, "ingress": given("ingress", json!([])),
            "egress": given("egress", json!([])), "used_by": [], "project": project}),
        Kind::NetworkForward => json!({"listen_address": required("listen_address")?,
            "ports": given("ports", json!([])), "location": "none"}),
        Kind::Volume => {
            json!({"name": required("name")?, "type": "custom", "location": "none", "used_by": [],
            "content_type": given("content_type", "filesystem".into()), "project": project})
        }
        Kind::Image => {
            let source = body.get("source").cloned().unwrap_or_default();
            let fingerprint = Sha256::digest(source.to_string());
            let fingerprint: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"fingerprint": fingerprint, "aliases": given("aliases", json!([])),
                "auto_update": given("auto_update", false.into()), "public": given("public", false.into()),
                "properties": given("properties", json!({})), "type": "container", "project": project})
        }
        Kind::Server | Kind::Project | Kind::Profile | Kind::Instance => json!({}),
    });
    if kind != Kind::Image {
        object.insert("config".into(), given("config", json!({})));
        object.insert("description".into(), given("description", "".into()));
    }
    Ok(object)
}

pub(super) fn update(
    world: &mut World,
    kind: Kind,
    project: &str,
    name: &str,
    body: &Value,
    update: Update,
) -> Changed {
    let Some(Value::Object(mut object)) = world.record(kind, project, name) else {
        return Err(at_once(404, format!("{} not found", kind.singular())));
    };
    for field in writable(kind) {
        let new = body.get(field);
        // Incus resets what it knows of the server's config; our own words it leaves.
        let update = if kind == Kind::Server {
            Update::Merge
        } else {
            update
        };
        match (update, new) {
            (Update::Replace, new) => {
                let empty = match object.get(*field) {
                    Some(Value::Object(_)) => json!({}),
                    Some(Value::Array(_)) => json!([]),
                    Some(Value::Bool(_)) => json!(false),
                    _ => json!(""),
                };
                object.insert((*field).to_owned(), new.cloned().unwrap_or(empty));
            }
            (Update::Merge, Some(Value::Object(entries))) => {
                let known = object.entry(*field).or_insert_with(|| json!({}));
                if let Some(known) = known.as_object_mut() {
                    known.extend(entries.clone());
                }
            }
            (Update::Merge, Some(value)) => {
                object.insert((*field).to_owned(), value.clone());
            }
            (Update::Merge, None) => {}
        }
    }
    if let Some(words) = object.get_mut(kind.config_field()).and_then(Value::as_object_mut) {
        words.retain(|_, value| value.as_str() != Some(""));
    }
    let record = Record {
        project: home(kind, project).to_owned(),
        name: name.to_owned(),
        object,
    };
    world.records.insert(key(kind, project, name), record);
    Ok(vec![event(kind, "updated", home(kind, project), name)])
}

pub(super) fn delete(world: &mut World, kind: Kind, project: &str, name: &str) -> Changed {
    let key = key(kind, project, name);
    if kind == Kind::Server || !world.records.contains_key(&key) {
        return Err(at_once(404, format!("{} not found", kind.singular())));
    }
    if let Some(user) = user(world, kind, name) {
        return Err(at_once(
            400,
            format!("The {} is in use by {user}", kind.singular()),
        ));
    }
    let gone = |other: &str| {
        kind == Kind::Network
            && other.starts_with(&format!("{}|{DEFAULT}|{name}/", Kind::NetworkForward.singular()))
    };
    world.records.retain(|other, _| *other != key && !gone(other));
    Ok(vec![event(kind, "deleted", home(kind, project), name)])
}

/// What an object cannot go before.
fn user(world: &World, kind: Kind, name: &str) -> Option<String> {
    let field = match kind {
        Kind::StoragePool => "pool",
        Kind::Network => "network",
        _ => return None,
    };
    if kind == Kind::StoragePool {
        let volume = world.records.values().find(|record| {
            record
                .name
                .split_once('/')
                .is_some_and(|(pool, _)| pool == name && record.object.contains_key("content_type"))
        });
        if let Some(volume) = volume {
            return Some(volume.name.clone());
        }
    }
    let uses = |devices: &super::world::Devices| {
        devices
            .values()
            .any(|device| device.get(field).is_some_and(|value| value == name))
    };
    world.projects.values().find_map(|project| {
        let profile = project
            .profiles
            .iter()
            .find(|(_, profile)| uses(&profile.devices));
        let instance = project
            .instances
            .iter()
            .find(|(_, instance)| uses(&instance.devices));
        profile
            .map(|(name, _)| format!("profile {name}"))
            .or_else(|| instance.map(|(name, _)| format!("instance {name}")))
    })
}

/// Keeps an image that was uploaded: its fingerprint, and the properties that came with it, encoded as a query.
pub(super) fn upload_image(world: &mut World, project: &str, properties: &str, file: &[u8]) -> Changed {
    let properties: Map<String, Value> = properties
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(key, value)| Some((decode(key)?, decode(value)?.into())))
        .collect();
    // Made as any other, of a source that nobody else has.
    let fingerprint: String = Sha256::digest(file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = json!({"source": {"type": "file", "fingerprint": fingerprint}, "properties": properties});
    create(world, Kind::Image, project, "", body)
}

/// Gives an image an alias, or takes it off.
pub(super) fn set_alias(world: &mut World, project: &str, alias: &str, fingerprint: Option<&str>) -> Changed {
    let taken = alias_target(world, project, alias);
    if fingerprint.is_some() && taken.is_some() {
        return Err(at_once(409, format!("Alias {alias:?} already exists")));
    }
    let Some(fingerprint) = fingerprint.map(str::to_owned).or(taken) else {
        return Err(at_once(404, "Image alias not found"));
    };
    let record = world
        .records
        .get_mut(&key(Kind::Image, project, &fingerprint))
        .ok_or_else(|| at_once(404, "Image not found"))?;
    let aliases = record.object.entry("aliases").or_insert_with(|| json!([]));
    if let Some(aliases) = aliases.as_array_mut() {
        let before = aliases.len();
        aliases.retain(|known| known.get("name").and_then(Value::as_str) != Some(alias));
        if before == aliases.len() {
            aliases.push(json!({"name": alias, "description": ""}));
        }
    }
    Ok(vec![event(Kind::Image, "updated", project, &fingerprint)])
}

/// The image that an alias is of.
pub(super) fn alias_target(world: &World, project: &str, alias: &str) -> Option<String> {
    world
        .record_list(Kind::Image, Some(project), None)
        .into_iter()
        .find(|image| {
            let aliases = image.get("aliases").and_then(Value::as_array);
            let mut names = aliases
                .into_iter()
                .flatten()
                .filter_map(|known| known.get("name")?.as_str());
            names.any(|name| name == alias)
        })
        .map(|image| Kind::Image.name_of(&image))
}

fn event(kind: Kind, what: &str, project: &str, name: &str) -> Happened {
    let source = match kind {
        Kind::Server => "/1.0".to_owned(),
        _ => match name.split_once('/').zip(kind.container()) {
            Some(((container, own), outer)) => {
                let folder = if kind == Kind::Volume {
                    "volumes/custom"
                } else {
                    "forwards"
                };
                format!("/1.0/{}/{container}/{folder}/{own}", outer.plural())
            }
            None => object_path(kind, project, name),
        },
    };
    Happened {
        action: format!("{}-{what}", kind.singular()).into(),
        source,
        name: name.to_owned(),
        project: project.to_owned(),
    }
}
