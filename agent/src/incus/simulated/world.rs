//! What the simulated daemon remembers, how it is kept on disk and how it is shown.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::records::{Records, is_record};
use super::snapshots::Snapshot;
use crate::incus::Kind;
use crate::incus::path::encode;

/// The file's format. There is no older one to upgrade from.
const FORMAT: u32 = 1;
const FILE: &str = "simulated-incus.json";
/// No clock here: this is what Incus itself shows where it has no time to show.
pub(super) const NO_TIME: &str = "1970-01-01T00:00:00Z";

pub(super) const DEFAULT: &str = "default";

pub(super) type Config = BTreeMap<String, String>;
pub(super) type Devices = BTreeMap<String, Config>;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct World {
    format: u32,
    pub(super) projects: BTreeMap<String, Project>,
    #[serde(default = "World::default_records")]
    pub(super) records: Records,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Project {
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) profiles: BTreeMap<String, Profile>,
    pub(super) instances: BTreeMap<String, Instance>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) devices: Devices,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Instance {
    /// `container` or `virtual-machine`: nothing else here depends on it but the idmap.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) architecture: String,
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) devices: Devices,
    pub(super) profiles: Vec<String>,
    pub(super) ephemeral: bool,
    pub(super) running: bool,
    /// The oldest first.
    #[serde(default)]
    pub(super) snapshots: Vec<Snapshot>,
}

impl World {
    /// A fresh Incus with a root disk on its default profile, as `incus admin init --minimal` leaves it.
    pub(super) fn new() -> Self {
        let root = [("path", "/"), ("pool", DEFAULT), ("type", "disk")];
        let root = root
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let profile = Profile {
            description: "Default Incus profile".to_owned(),
            devices: Devices::from([("root".to_owned(), root)]),
            ..Profile::default()
        };
        let mut config = with_features(Config::new());
        for feature in ["features.networks", "features.networks.zones"] {
            config.insert(feature.to_owned(), "true".to_owned());
        }
        let project = Project {
            config,
            description: "Default Incus project".to_owned(),
            profiles: BTreeMap::from([(DEFAULT.to_owned(), profile)]),
            instances: BTreeMap::new(),
        };
        Self {
            format: FORMAT,
            projects: BTreeMap::from([(DEFAULT.to_owned(), project)]),
            records: Self::default_records(),
        }
    }

    /// What the directory keeps, or a fresh world where it keeps nothing yet.
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        let bytes = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new()),
            bytes => bytes?,
        };
        let world: Self = serde_json::from_slice(&bytes)?;
        if world.format == FORMAT {
            Ok(world)
        } else {
            let reason = format!("format {} of {FILE} is not known, only {FORMAT}", world.format);
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }

    /// Replaces the file at once: a kill leaves the old one or the new one. Not synced: nothing real depends on it.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, dir.join(FILE))
    }

    /// The project whose profiles this project uses: its own, or the default one's.
    pub(super) fn profile_project<'a>(&self, project: &'a str) -> &'a str {
        match self.projects.get(project) {
            Some(known)
                if known
                    .config
                    .get("features.profiles")
                    .is_none_or(|value| value != "true") =>
            {
                DEFAULT
            }
            // One that is not there has no profiles either.
            _ => project,
        }
    }

    pub(super) fn profile(&self, project: &str, name: &str) -> Option<&Profile> {
        self.projects
            .get(self.profile_project(project))?
            .profiles
            .get(name)
    }

    /// Every object of a kind in one project, or in all of them, with the project it is in.
    pub(super) fn names<'a>(&'a self, kind: Kind, project: Option<&str>) -> Vec<(&'a str, &'a str)> {
        let owner = project.map(|project| match kind {
            Kind::Profile => self.profile_project(project),
            _ => project,
        });
        let mut names = Vec::new();
        for (project, contents) in &self.projects {
            let is_wanted = owner.is_none_or(|owner| owner == project);
            match kind {
                Kind::Project => names.push((DEFAULT, project.as_str())),
                Kind::Profile if is_wanted => {
                    names.extend(
                        contents
                            .profiles
                            .keys()
                            .map(|name| (project.as_str(), name.as_str())),
                    );
                }
                Kind::Instance if is_wanted => {
                    names.extend(
                        contents
                            .instances
                            .keys()
                            .map(|name| (project.as_str(), name.as_str())),
                    );
                }
                _ => {}
            }
        }
        names
    }

    /// One object as Incus shows it; `with_state` adds what `recursion=2` adds to an instance.
    pub(super) fn show(&self, kind: Kind, project: &str, name: &str, with_state: bool) -> Option<Value> {
        match kind {
            Kind::Project => self.show_project(name),
            Kind::Profile => self.show_profile(project, name),
            Kind::Instance => self.show_instance(project, name, with_state),
            _ => self.record(kind, project, name),
        }
    }

    /// Covers what an update can change, an instance's `volatile.*` included: a start changes it.
    pub(super) fn etag(&self, kind: Kind, project: &str, name: &str) -> Option<String> {
        let content = match kind {
            kind if is_record(kind) => return self.record_etag(kind, project, name),
            Kind::Project => {
                let project = self.projects.get(name)?;
                json!([project.config, project.description])
            }
            Kind::Profile => json!(self.profile(project, name)?),
            _ => {
                let instance = self.projects.get(project)?.instances.get(name)?;
                json!([
                    instance.architecture,
                    instance.config,
                    instance.devices,
                    instance.ephemeral,
                    instance.profiles
                ])
            }
        };
        let hash = Sha256::digest(content.to_string());
        Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn show_project(&self, name: &str) -> Option<Value> {
        let project = self.projects.get(name)?;
        let profiles = project
            .profiles
            .keys()
            .map(|profile| object_path(Kind::Profile, name, profile));
        let instances = project
            .instances
            .keys()
            .map(|instance| object_path(Kind::Instance, name, instance));
        Some(json!({
            "config": project.config, "description": project.description, "name": name,
            "used_by": instances.chain(profiles).collect::<Vec<_>>(),
        }))
    }

    fn show_profile(&self, project: &str, name: &str) -> Option<Value> {
        let project = self.profile_project(project);
        let profile = self.profile(project, name)?;
        Some(json!({
            "config": profile.config, "description": profile.description, "devices": profile.devices,
            "name": name, "used_by": self.profile_users(project, name), "project": project,
        }))
    }

    /// The instances that use a profile of `project`, which has profiles of its own.
    pub(super) fn profile_users(&self, project: &str, profile: &str) -> Vec<String> {
        let sharing = self
            .projects
            .iter()
            .filter(|(name, _)| self.profile_project(name) == project);
        sharing
            .flat_map(|(name, project)| {
                let using = project
                    .instances
                    .iter()
                    .filter(|(_, i)| i.profiles.iter().any(|p| p == profile));
                using.map(move |(instance, _)| object_path(Kind::Instance, name, instance))
            })
            .collect()
    }

    fn show_instance(&self, project: &str, name: &str, with_state: bool) -> Option<Value> {
        let instance = self.projects.get(project)?.instances.get(name)?;
        let (expanded_config, expanded_devices) = self.expand(project, instance);
        let (status, status_code) = if instance.running {
            ("Running", 103)
        } else {
            ("Stopped", 102)
        };
        let mut shown = json!({
            "architecture": instance.architecture, "config": instance.config, "devices": instance.devices,
            "ephemeral": instance.ephemeral, "profiles": instance.profiles, "stateful": false,
            "description": instance.description, "created_at": NO_TIME,
            "expanded_config": expanded_config, "expanded_devices": expanded_devices,
            "name": name, "status": status, "status_code": status_code, "last_used_at": NO_TIME,
            "location": "none", "type": instance.kind, "project": project,
        });
        if with_state && let Some(shown) = shown.as_object_mut() {
            let processes = if instance.running { 1 } else { 0 };
            let state = json!({"status": status, "status_code": status_code, "disk": {}, "memory": {},
                "network": {}, "pid": 0, "processes": processes, "cpu": {"usage": 0}});
            shown.extend([
                ("backups".to_owned(), Value::Array(Vec::new())),
                ("state".to_owned(), state),
                (
                    "snapshots".to_owned(),
                    instance.snapshots.iter().map(Snapshot::show).collect(),
                ),
            ]);
        }
        Some(shown)
    }

    /// The profiles in their order, then the instance's own: the later one wins.
    pub(super) fn expand(&self, project: &str, instance: &Instance) -> (Config, Devices) {
        let mut config = Config::new();
        let mut devices = Devices::new();
        for profile in instance
            .profiles
            .iter()
            .filter_map(|name| self.profile(project, name))
        {
            config.extend(profile.config.clone());
            devices.extend(profile.devices.clone());
        }
        config.extend(instance.config.clone());
        devices.extend(instance.devices.clone());
        (config, devices)
    }
}

/// A new project has these unless its creator says otherwise.
pub(super) fn with_features(mut config: Config) -> Config {
    for feature in ["images", "profiles", "storage.buckets", "storage.volumes"] {
        config
            .entry(format!("features.{feature}"))
            .or_insert_with(|| "true".to_owned());
    }
    config
}

/// An object's path as Incus shows it in answers and events: the default project is left out.
pub(super) fn object_path(kind: Kind, project: &str, name: &str) -> String {
    let path = format!("/1.0/{}/{}", kind.plural(), encode(name));
    if project == DEFAULT {
        path
    } else {
        format!("{path}?project={}", encode(project))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_world_loads_again_and_an_unknown_format_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::load(dir.path()).unwrap();
        assert_eq!(world, World::new());
        world.projects.insert("t1".to_owned(), Project::default());
        world.save(dir.path()).unwrap();
        assert_eq!(World::load(dir.path()).unwrap(), world);
        world.format = 2;
        world.save(dir.path()).unwrap();
        let error = World::load(dir.path()).unwrap_err().to_string();
        assert_eq!(error, "format 2 of simulated-incus.json is not known, only 1");
    }
}
