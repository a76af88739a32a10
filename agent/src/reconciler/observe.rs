//! What is: the objects that Incus has on this host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::desired::{Desired, Text};
use super::ownership;
use crate::document::{BUILTIN, DesiredKey, Kind, kinds};
use crate::incus::{self, AttachedVolume, Incus, IncusError, Live, attached_volumes};

/// Everything in Incus that documents can speak of, ours or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) objects: BTreeMap<DesiredKey, Object>,
    /// The aliases of images, by the project that they can be had in.
    aliases: BTreeSet<(String, String)>,
}

/// One object, taken apart as far as planning needs it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The words on it: an image's are its properties.
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) devices: Map<String, Value>,
    pub(crate) profiles: Vec<String>,
    pub(crate) power: Power,
    /// What Incus calls it, with what it lives in.
    pub(crate) incus_name: String,
    object: Value,
}

/// An instance's status, as far as it decides anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Running,
    Stopped,
    /// Paused by hand.
    Frozen,
    /// On its way somewhere, or in a state that only a person can judge: in Incus' word.
    Other(String),
}

impl Observed {
    pub(crate) fn from_lists(lists: impl IntoIterator<Item = (Kind, Vec<Live>)>) -> Observed {
        let mut observed = Observed::default();
        for (kind, list) in lists {
            for live in list {
                observed.take(kind, live);
            }
        }
        observed
    }

    fn take(&mut self, kind: Kind, live: Live) {
        let tenant = if kind.has_tenant() {
            live.project().to_owned()
        } else {
            String::new()
        };
        if kind == Kind::Image {
            let names = aliases(&live.object).map(str::to_owned);
            self.aliases.extend(names.map(|alias| (tenant.clone(), alias)));
        }
        let object = Object::new(kind, live.object);
        let key = DesiredKey {
            kind,
            name: object.document_name(kind),
            tenant,
        };
        // Of two volumes of one name in two pools, ours is the one that a document speaks of.
        let ours = object.config.contains_key(ownership::UID);
        if ours || !self.objects.contains_key(&key) {
            self.objects.insert(key, object);
        }
    }

    pub(crate) fn project(&self, name: &str) -> Option<&Object> {
        let key = DesiredKey {
            kind: Kind::Project,
            tenant: String::new(),
            name: name.to_owned(),
        };
        self.objects.get(&key)
    }

    pub(crate) fn has_image(&self, project: &str, alias: &str) -> bool {
        self.aliases.contains(&(project.to_owned(), alias.to_owned()))
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&DesiredKey, &Object)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }
}

/// [`Object::birth`], of an object as Incus shows it.
pub(crate) fn birth(object: &Value) -> String {
    let uuid = object
        .get("config")
        .and_then(|config| config.get("volatile.uuid"));
    let words = [object.get("created_at"), uuid].map(|word| word.and_then(Value::as_str));
    words.map(Option::unwrap_or_default).join(" ").trim().to_owned()
}

fn aliases(image: &Value) -> impl Iterator<Item = &str> {
    let aliases = image.get("aliases").and_then(Value::as_array);
    aliases
        .into_iter()
        .flatten()
        .filter_map(|alias| alias.get("name")?.as_str())
}

impl Object {
    pub(crate) fn new(kind: Kind, object: Value) -> Object {
        let config = object.get(config_field(kind)).and_then(Value::as_object);
        let profiles = object.get("profiles").and_then(Value::as_array);
        Object {
            config: config
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            devices: object
                .get("devices")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            profiles: profiles
                .into_iter()
                .flatten()
                .filter_map(|profile| profile.as_str().map(str::to_owned))
                .collect(),
            power: Power::from_status(object.get("status").and_then(Value::as_str).unwrap_or_default()),
            incus_name: in_incus(kind)
                .map(|kind| kind.name_of(&object))
                .unwrap_or_default(),
            object,
        }
    }

    /// The name that a document of it has. Incus knows some things by other names than people do: what is ours says
    /// itself which document it is.
    fn document_name(&self, kind: Kind) -> String {
        match kind {
            Kind::Incus => BUILTIN.to_owned(),
            Kind::Image | Kind::NetworkForward => {
                let ours = self.config.get(ownership::UID);
                let known_as = || aliases(&self.object).next().unwrap_or(&self.incus_name);
                ours.and_then(|uid| ownership::name_of(uid))
                    .unwrap_or_else(known_as)
                    .to_owned()
            }
            _ => self.text("name").to_owned(),
        }
    }

    /// Tells an instance from every other of its name, before it and after. It may be started and changed meanwhile.
    pub(crate) fn birth(&self) -> String {
        birth(&self.object)
    }

    /// The names under which an image can be had.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        aliases(&self.object)
    }

    /// All of it, as Incus shows it.
    pub(crate) fn whole(&self) -> &Value {
        &self.object
    }

    /// Any other field, as Incus shows it.
    /// The custom volumes that an instance has as disks.
    pub(crate) fn volumes(&self) -> Vec<AttachedVolume> {
        attached_volumes(&self.object)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.object.get(name)
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.field(field).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Power {
    fn from_status(status: &str) -> Power {
        match status {
            // A guest that said that it is ready runs.
            "Running" | "Ready" => Power::Running,
            "Stopped" => Power::Stopped,
            "Frozen" => Power::Frozen,
            other => Power::Other(other.to_owned()),
        }
    }
}

/// Reads everything once: a list for each kind, and for each pool and network what lives in it. An alias that a missing
/// instance needs and no list has is asked for: Incus knows of images that it shares between projects.
pub(crate) async fn observe(incus: &Incus, desired: &Desired, host: &str) -> Result<Observed, IncusError> {
    let mut lists: Vec<(Kind, Vec<Live>)> = Vec::with_capacity(kinds().len());
    for &kind in kinds() {
        let Some(wanted) = in_incus(kind) else { continue };
        // What it lives in comes before it, and was listed already.
        let containers = wanted.container().and_then(|container| {
            lists
                .iter()
                .find(|(listed, _)| in_incus(*listed) == Some(container))
        });
        let list = match containers {
            Some((_, containers)) => incus.list_within(wanted, containers).await?,
            None => incus.list_all(wanted).await?,
        };
        lists.push((kind, list));
    }
    let mut observed = Observed::from_lists(lists);
    for (project, alias) in aliases_needed(desired, &observed, host) {
        let exists = match incus.image_alias_exists(&project, &alias).await {
            // An alias that cannot stand in a path is no image's.
            Err(IncusError::BadName { .. }) => false,
            answer => answer?,
        };
        if exists {
            observed.aliases.insert((project, alias));
        }
    }
    Ok(observed)
}

/// The local aliases, with their project, of instances that are to be made here, as far as no list has them.
fn aliases_needed(desired: &Desired, observed: &Observed, host: &str) -> BTreeSet<(String, String)> {
    desired
        .documents
        .iter()
        .filter(|(key, _)| !observed.objects.contains_key(*key) && key.kind == Kind::Instance)
        .filter(|(key, _)| observed.project(&key.tenant).is_some())
        .filter_map(|(key, wanted)| match &wanted.text {
            Text::Good(document) if document.names_host(host) => {
                Some((key.tenant.clone(), local_alias(&document.spec)?.to_owned()))
            }
            _ => None,
        })
        .filter(|needed| !observed.aliases.contains(needed))
        .collect()
}

/// The alias of an image that must be on the host already.
pub(crate) fn local_alias(spec: &Map<String, Value>) -> Option<&str> {
    let source = spec.get("source")?;
    let is_local = source.get("server").is_none() && source.get("type")?.as_str()? == "image";
    is_local.then(|| source.get("alias")?.as_str()).flatten()
}

/// What Incus calls a kind; `None` for one that is no object of Incus.
pub(crate) const fn in_incus(kind: Kind) -> Option<incus::Kind> {
    Some(match kind {
        Kind::Incus => incus::Kind::Server,
        Kind::StoragePool => incus::Kind::StoragePool,
        Kind::NetworkAcl => incus::Kind::NetworkAcl,
        Kind::Network => incus::Kind::Network,
        Kind::NetworkForward => incus::Kind::NetworkForward,
        Kind::Project => incus::Kind::Project,
        Kind::Profile => incus::Kind::Profile,
        Kind::Volume => incus::Kind::Volume,
        Kind::Image => incus::Kind::Image,
        Kind::Instance => incus::Kind::Instance,
        Kind::Host
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Backup
        | Kind::Tunnel
        | Kind::Tenant
        | Kind::Template => {
            return None;
        }
    })
}

/// The field of an object that holds its config, and our keys with it.
pub(crate) fn config_field(kind: Kind) -> &'static str {
    in_incus(kind).map_or("config", incus::Kind::config_field)
}
