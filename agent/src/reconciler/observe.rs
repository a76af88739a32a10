//! What is: the objects that Incus has on this host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::desired::{Desired, Text};
use crate::document::{DesiredKey, Kind};
use crate::incus::{self, Incus, IncusError, Live};

/// Everything in Incus that documents can speak of, ours or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) objects: BTreeMap<DesiredKey, Object>,
    /// Local image aliases, by project, that documents name and this host does not have.
    pub(crate) missing_images: BTreeSet<(String, String)>,
}

/// One object, taken apart as far as planning needs it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) devices: Map<String, Value>,
    pub(crate) profiles: Vec<String>,
    pub(crate) power: Power,
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
    pub(crate) fn from_lists(projects: Vec<Live>, profiles: Vec<Live>, instances: Vec<Live>) -> Observed {
        let mut objects = BTreeMap::new();
        let lists = [
            (Kind::Project, projects),
            (Kind::Profile, profiles),
            (Kind::Instance, instances),
        ];
        for (kind, list) in lists {
            for live in list {
                let tenant = if kind.has_tenant() {
                    live.project().to_owned()
                } else {
                    String::new()
                };
                let key = DesiredKey {
                    kind,
                    tenant,
                    name: live.name().to_owned(),
                };
                objects.insert(key, Object::new(live.object));
            }
        }
        Observed {
            objects,
            missing_images: BTreeSet::new(),
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

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&DesiredKey, &Object)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }
}

impl Object {
    pub(crate) fn new(object: Value) -> Object {
        let config = object.get("config").and_then(Value::as_object);
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
            object,
        }
    }

    /// Any other field, as Incus shows it.
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

/// Reads everything once. Three lists, and one question for each image that a missing instance needs.
pub(crate) async fn observe(incus: &Incus, desired: &Desired, host: &str) -> Result<Observed, IncusError> {
    let projects = incus.list_all(incus::Kind::Project).await?;
    let profiles = incus.list_all(incus::Kind::Profile).await?;
    let instances = incus.list_all(incus::Kind::Instance).await?;
    let mut observed = Observed::from_lists(projects, profiles, instances);
    for (project, alias) in images_needed(desired, &observed, host) {
        let exists = match incus.image_alias_exists(&project, &alias).await {
            // An alias that cannot stand in a path is no image's.
            Err(IncusError::BadName { .. }) => false,
            answer => answer?,
        };
        if !exists {
            observed.missing_images.insert((project, alias));
        }
    }
    Ok(observed)
}

/// The local aliases, with their project, of instances that are to be made here.
fn images_needed(desired: &Desired, observed: &Observed, host: &str) -> BTreeSet<(String, String)> {
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
        .collect()
}

/// The alias of an image that must be on the host already.
pub(crate) fn local_alias(spec: &Map<String, Value>) -> Option<&str> {
    let source = spec.get("source")?;
    let is_local = source.get("server").is_none() && source.get("type")?.as_str()? == "image";
    is_local.then(|| source.get("alias")?.as_str()).flatten()
}

impl From<Kind> for incus::Kind {
    fn from(kind: Kind) -> incus::Kind {
        match kind {
            Kind::Project => incus::Kind::Project,
            Kind::Profile => incus::Kind::Profile,
            Kind::Instance => incus::Kind::Instance,
        }
    }
}
