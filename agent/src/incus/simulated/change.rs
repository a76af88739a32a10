//! The simulated daemon's rules: what a request changes, or why it is refused and when.
//!
//! Pure: a change works on a copy of the world that is kept only if it succeeds.

use std::borrow::Cow;

use serde::Deserialize;

use super::check::{check_body, check_hostname, new_name};
use super::world::{Config, DEFAULT, Devices, Instance, Profile, Project, World, object_path, with_features};
use crate::incus::Kind;

/// A real daemon has no such limit; a simulation's file is written whole with each change.
const OBJECTS_LIMIT: usize = 1_000;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request is answered with this status.
    AtOnce { status: u16, message: String },
    /// An operation begins, and fails.
    InOperation { status: u16, message: String },
}

/// A lifecycle event to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) action: Cow<'static, str>,
    /// The object's path, with its project.
    pub(super) source: String,
    pub(super) name: String,
    pub(super) project: String,
}

pub(super) type Changed = Result<Vec<Happened>, Refusal>;

/// The bodies of all writes: what is absent stays as it is in a `PATCH` and becomes empty in a `PUT`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Body {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) config: Option<Config>,
    pub(super) description: Option<String>,
    pub(super) devices: Option<Devices>,
    pub(super) profiles: Option<Vec<String>>,
    pub(super) ephemeral: Option<bool>,
    pub(super) source: Source,
    pub(super) start: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    #[serde(rename = "type")]
    kind: String,
    alias: Option<String>,
}

/// `PUT` or `PATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    Replace,
    Merge,
}

/// Whether an image of this alias is there: any is, but those made to be missing.
pub(super) fn image_alias_exists(alias: &str) -> bool {
    !alias.starts_with("missing")
}

pub(super) fn create_project(world: &mut World, body: Body) -> Changed {
    let name = new_name(body.name.as_deref())?;
    check_body(&body).map_err(|message| at_once(400, message))?;
    if world.projects.contains_key(&name) {
        return Err(at_once(
            500,
            format!("Failed creating project {name:?}: it is there"),
        ));
    }
    check_room(world.projects.len())?;
    let mut project = Project {
        config: with_features(body.config.unwrap_or_default()),
        description: body.description.unwrap_or_default(),
        ..Project::default()
    };
    keep_default_profile(&name, &mut project);
    world.projects.insert(name.clone(), project);
    Ok(vec![project_event("project-created", &name)])
}

/// Both kinds of update replace a project's whole config: this is how Incus has it.
pub(super) fn update_project(world: &mut World, name: &str, body: Body, update: Update) -> Changed {
    let project = project_mut(world, name)?;
    check_body(&body).map_err(|message| at_once(400, message))?;
    project.config = body.config.unwrap_or_default();
    if let Some(description) = updated(body.description, update) {
        project.description = description;
    }
    keep_default_profile(name, project);
    Ok(vec![project_event("project-updated", name)])
}

pub(super) fn delete_project(world: &mut World, name: &str) -> Changed {
    let project = project_mut(world, name)?;
    if name == DEFAULT {
        return Err(at_once(403, "The 'default' project cannot be deleted"));
    }
    if !project.instances.is_empty() || project.profiles.keys().any(|profile| profile != DEFAULT) {
        return Err(at_once(500, "Only empty projects can be removed."));
    }
    world.projects.remove(name);
    Ok(vec![project_event("project-deleted", name)])
}

pub(super) fn create_profile(world: &mut World, project: &str, body: Body) -> Changed {
    let name = new_name(body.name.as_deref())?;
    check_body(&body).map_err(|message| at_once(400, message))?;
    let owner = world.profile_project(project);
    let profiles = &mut project_mut(world, owner)?.profiles;
    if profiles.contains_key(&name) {
        return Err(at_once(
            500,
            format!("Error inserting {name:?} into database: it is there"),
        ));
    }
    check_room(profiles.len())?;
    let profile = Profile {
        config: body.config.unwrap_or_default(),
        description: body.description.unwrap_or_default(),
        devices: body.devices.unwrap_or_default(),
    };
    profiles.insert(name.clone(), profile);
    Ok(vec![event("profile-created", Kind::Profile, owner, &name)])
}

pub(super) fn update_profile(
    world: &mut World,
    project: &str,
    name: &str,
    body: Body,
    update: Update,
) -> Changed {
    let owner = world.profile_project(project);
    let profile = project_mut(world, owner)?
        .profiles
        .get_mut(name)
        .ok_or_else(|| not_found("Profile not found"))?;
    check_body(&body).map_err(|message| at_once(400, message))?;
    update_config(&mut profile.config, body.config, update);
    update_devices(&mut profile.devices, body.devices, update);
    if let Some(description) = updated(body.description, update) {
        profile.description = description;
    }
    Ok(vec![event("profile-updated", Kind::Profile, owner, name)])
}

pub(super) fn delete_profile(world: &mut World, project: &str, name: &str) -> Changed {
    let owner = world.profile_project(project);
    if world.profile(owner, name).is_none() {
        return Err(not_found("Profile not found"));
    }
    if name == DEFAULT {
        return Err(at_once(403, "The \"default\" profile cannot be deleted"));
    }
    if !world.profile_users(owner, name).is_empty() {
        return Err(at_once(500, "Profile is currently in use"));
    }
    project_mut(world, owner)?.profiles.remove(name);
    Ok(vec![event("profile-deleted", Kind::Profile, owner, name)])
}

/// `new_uuid` becomes the instance's `volatile.uuid`.
pub(super) fn create_instance(world: &mut World, project: &str, body: Body, new_uuid: &str) -> Changed {
    project_mut(world, project)?;
    let name = body.name.clone().unwrap_or_default();
    check_hostname(&name)?;
    let kind = body.kind.clone().unwrap_or_else(|| "container".to_owned());
    if !matches!(kind.as_str(), "container" | "virtual-machine") {
        return Err(at_once(400, format!("Invalid instance type: {kind:?}")));
    }
    let profiles = body.profiles.clone().unwrap_or_else(|| vec![DEFAULT.to_owned()]);
    if let Some(missing) = profiles
        .iter()
        .find(|profile| world.profile(project, profile).is_none())
    {
        return Err(at_once(
            500,
            format!("Requested profile {missing:?} doesn't exist"),
        ));
    }
    if !has_image(&body.source) {
        return Err(in_operation(500, "Image not provided for instance creation"));
    }
    check_body(&body).map_err(|message| in_operation(500, message))?;
    let mut config = body.config.unwrap_or_default();
    add_volatile(&mut config, &kind, new_uuid);
    let instance = Instance {
        kind,
        architecture: std::env::consts::ARCH.to_owned(),
        config,
        description: body.description.unwrap_or_default(),
        devices: body.devices.unwrap_or_default(),
        profiles,
        ephemeral: body.ephemeral.unwrap_or_default(),
        running: false,
        snapshots: Vec::new(),
    };
    check_root_disk(world, project, &instance).map_err(|message| in_operation(500, message))?;
    let instances = &mut project_mut(world, project)?.instances;
    if instances.contains_key(&name) {
        return Err(in_operation(500, "Failed creating instance record: it is there"));
    }
    check_room(instances.len())?;
    instances.insert(name.clone(), instance);
    let mut happened = vec![event("instance-created", Kind::Instance, project, &name)];
    if body.start {
        happened.extend(set_state(world, project, &name, "start")?);
    }
    Ok(happened)
}

pub(super) fn update_instance(
    world: &mut World,
    project: &str,
    name: &str,
    body: Body,
    update: Update,
) -> Changed {
    let refuse: fn(u16, String) -> Refusal = match update {
        Update::Replace => |status, message| Refusal::InOperation { status, message },
        Update::Merge => |status, message| Refusal::AtOnce { status, message },
    };
    let mut instance = instance_mut(world, project, name)?.clone();
    check_body(&body).map_err(|message| refuse(500, format!("Invalid config: {message}")))?;
    if let Some(profiles) = updated(body.profiles, update) {
        if profiles
            .iter()
            .any(|profile| world.profile(project, profile).is_none())
        {
            return Err(not_found("Profile not found"));
        }
        instance.profiles = profiles;
    }
    let idmap_before = volatile_idmap(&instance.config);
    update_config(&mut instance.config, body.config, update);
    if volatile_idmap(&instance.config) != idmap_before {
        return Err(refuse(
            500,
            "Volatile idmap keys can't be deleted by the user".to_owned(),
        ));
    }
    update_devices(&mut instance.devices, body.devices, update);
    if let Some(description) = updated(body.description, update) {
        instance.description = description;
    }
    if let Some(ephemeral) = updated(body.ephemeral, update) {
        instance.ephemeral = ephemeral;
    }
    check_root_disk(world, project, &instance).map_err(|message| refuse(500, message))?;
    *instance_mut(world, project, name)? = instance;
    Ok(vec![event("instance-updated", Kind::Instance, project, name)])
}

pub(super) fn delete_instance(world: &mut World, project: &str, name: &str) -> Changed {
    let instance = instance_mut(world, project, name)?.clone();
    if instance.running {
        return Err(at_once(400, "Instance is running"));
    }
    let (config, _) = world.expand(project, &instance);
    if config
        .get("security.protection.delete")
        .is_some_and(|value| value == "true")
    {
        return Err(in_operation(500, "Instance is protected"));
    }
    project_mut(world, project)?.instances.remove(name);
    Ok(vec![event("instance-deleted", Kind::Instance, project, name)])
}

pub(super) fn set_state(world: &mut World, project: &str, name: &str, action: &str) -> Changed {
    let instance = instance_mut(world, project, name)?;
    let (running, power, word) = match (action, instance.running) {
        ("start", false) => (true, "RUNNING", "instance-started"),
        ("stop", true) => (false, "STOPPED", "instance-stopped"),
        ("restart", true) => (true, "RUNNING", "instance-restarted"),
        ("start", true) => return Err(in_operation(500, "The instance is already running")),
        ("stop" | "restart", false) => return Err(in_operation(400, "The instance is already stopped")),
        _ => return Err(at_once(400, format!("Unknown action: '{action}'"))),
    };
    instance.running = running;
    instance
        .config
        .insert("volatile.last_state.power".to_owned(), power.to_owned());
    let is_gone = instance.ephemeral && !running;
    let mut happened = vec![event(word, Kind::Instance, project, name)];
    if is_gone {
        project_mut(world, project)?.instances.remove(name);
        happened.push(event("instance-deleted", Kind::Instance, project, name));
    }
    Ok(happened)
}

fn project_mut<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Project, Refusal> {
    world
        .projects
        .get_mut(name)
        .ok_or_else(|| not_found("Project not found"))
}

pub(super) fn instance_mut<'a>(
    world: &'a mut World,
    project: &str,
    name: &str,
) -> Result<&'a mut Instance, Refusal> {
    project_mut(world, project)?
        .instances
        .get_mut(name)
        .ok_or_else(|| not_found("Instance not found"))
}

/// A field's new value; `None` where a merge leaves it alone.
fn updated<T: Default>(new: Option<T>, update: Update) -> Option<T> {
    match update {
        Update::Replace => Some(new.unwrap_or_default()),
        Update::Merge => new,
    }
}

fn update_config(config: &mut Config, new: Option<Config>, update: Update) {
    if update == Update::Replace {
        config.clear();
    }
    config.extend(new.unwrap_or_default());
    config.retain(|_, value| !value.is_empty());
}

/// A device's entry is replaced whole; a merge removes none.
fn update_devices(devices: &mut Devices, new: Option<Devices>, update: Update) {
    if update == Update::Replace {
        devices.clear();
    }
    devices.extend(new.unwrap_or_default());
}

/// A project has its own default profile as long as it has profiles of its own.
fn keep_default_profile(name: &str, project: &mut Project) {
    if project
        .config
        .get("features.profiles")
        .is_some_and(|value| value == "true")
    {
        project
            .profiles
            .entry(DEFAULT.to_owned())
            .or_insert_with(|| Profile {
                description: format!("Default Incus profile for project {name}"),
                ..Profile::default()
            });
    } else {
        project.profiles.remove(DEFAULT);
    }
}

fn has_image(source: &Source) -> bool {
    match source.kind.as_str() {
        "none" => true,
        "image" => source.alias.as_deref().is_none_or(image_alias_exists),
        _ => false,
    }
}

/// What Incus writes into every new instance; the idmap is a container's.
fn add_volatile(config: &mut Config, kind: &str, uuid: &str) {
    let image = "0".repeat(64);
    let mut set = |key: &str, value: &str| config.insert(key.to_owned(), value.to_owned());
    set("image.description", "simulated");
    set("volatile.base_image", &image);
    set("volatile.cloud-init.instance-id", uuid);
    set("volatile.uuid", uuid);
    set("volatile.uuid.generation", uuid);
    if kind == "container" {
        set("volatile.idmap.base", "0");
        set("volatile.idmap.current", "[]");
        set("volatile.idmap.next", "[]");
        set("volatile.last_state.idmap", "[]");
    }
}

fn volatile_idmap(config: &Config) -> Config {
    let idmap = config
        .iter()
        .filter(|(key, _)| key.starts_with("volatile.idmap."));
    idmap.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn check_root_disk(world: &World, project: &str, instance: &Instance) -> Result<(), String> {
    let (_, devices) = world.expand(project, instance);
    let is_root = |device: &Config| {
        let has = |key: &str, value: &str| device.get(key).is_some_and(|found| found == value);
        has("type", "disk") && has("path", "/")
    };
    if devices.values().any(is_root) {
        Ok(())
    } else {
        Err("Failed getting root disk: No root device could be found".to_owned())
    }
}

fn check_room(count: usize) -> Result<(), Refusal> {
    if count < OBJECTS_LIMIT {
        Ok(())
    } else {
        Err(at_once(
            500,
            format!("the simulation keeps at most {OBJECTS_LIMIT} objects of a kind in a project"),
        ))
    }
}

pub(super) fn event(action: &'static str, kind: Kind, project: &str, name: &str) -> Happened {
    Happened {
        action: action.into(),
        source: object_path(kind, project, name),
        name: name.to_owned(),
        project: project.to_owned(),
    }
}

fn project_event(action: &'static str, name: &str) -> Happened {
    let source = object_path(Kind::Project, DEFAULT, name);
    Happened {
        action: action.into(),
        source,
        name: name.to_owned(),
        project: name.to_owned(),
    }
}

pub(super) fn at_once(status: u16, message: impl Into<String>) -> Refusal {
    Refusal::AtOnce {
        status,
        message: message.into(),
    }
}

fn in_operation(status: u16, message: impl Into<String>) -> Refusal {
    Refusal::InOperation {
        status,
        message: message.into(),
    }
}

fn not_found(message: &str) -> Refusal {
    at_once(404, message)
}
