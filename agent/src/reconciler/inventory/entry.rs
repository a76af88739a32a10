//! What is worth keeping of an object: what people look for, as long as it stays the same by itself.
//!
//! The inventory is read by more people than Incus is, so that config is taken by namespaces that hold no secrets:
//! user-data, environment and keys of somebody's own stay where they are. Sizes are bounded: a text is cut, a list
//! ends, and an object that is still too large is kept without its config and devices, and says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::document::{DEFAULT_TENANT, DesiredKey, InventoryKey, InventoryKind, Kind};
use crate::reconciler::ownership::{CLUSTER, UID};

const TEXT_CHARS_MAX: usize = 256;
const LIST_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 8 << 10;
/// As in Incus' own lists.
const FINGERPRINT_CHARS: usize = 12;

/// Whose inventory it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    pub(super) name: &'a str,
    /// Our cluster's id, as ownership keys carry it.
    pub(super) cluster: &'a str,
}

/// The key and the value of one object; `None` for what has no name, or is no matter for an inventory.
pub(super) fn entry(kind: InventoryKind, object: &Value, host: Host<'_>) -> Option<(InventoryKey, Value)> {
    let key = InventoryKey {
        host: host.name.to_owned(),
        kind,
        project: project(kind, object).to_owned(),
        name: name(kind, object)?,
    };
    if key.project.contains('/') || key.name.contains(char::is_control) {
        return None;
    }
    let mut entry = Entry::new(&key);
    match kind {
        InventoryKind::Instance => instance(&mut entry, object),
        InventoryKind::Profile => {
            entry.text("description", object);
            entry.settings(object, &INSTANCE_CONFIG);
        }
        InventoryKind::Project => {
            entry.text("description", object);
            entry.settings(object, &["features.", "limits.", "restricted"]);
        }
        InventoryKind::Network => network(&mut entry, object)?,
        InventoryKind::StoragePool => {
            entry.texts(object, &["driver", "status", "description"]);
            entry.settings(object, &["source", "size", "volume.", "zfs.", "btrfs.", "lvm."]);
        }
        InventoryKind::Volume => {
            entry.texts(object, &["pool", "content_type", "description"]);
            entry.put("snapshots", object.get("snapshots").cloned().unwrap_or(json!(0)));
            entry.settings(object, &["size", "security.", "snapshots.", "block.", "zfs."]);
        }
        InventoryKind::Image => image(&mut entry, object),
        InventoryKind::Warning => warning(&mut entry, object),
    }
    if kind != InventoryKind::Warning {
        entry.owner(object, &key, host.cluster);
    }
    Some((key, entry.bounded()))
}

const INSTANCE_CONFIG: [&str; 6] = [
    "limits.",
    "security.",
    "boot.",
    "snapshots.",
    "migration.",
    "cluster.",
];

/// Where a device leads, and nothing of its fine tuning.
const DEVICE_FIELDS: [&str; 14] = [
    "type",
    "network",
    "nictype",
    "parent",
    "pool",
    "source",
    "path",
    "listen",
    "connect",
    "size",
    "ipv4.address",
    "ipv6.address",
    "hwaddr",
    "vlan",
];

/// A pool's custom volumes without the entries of their snapshots, which are counted instead.
pub(super) fn volumes_with_snapshots(pool: &str, volumes: Vec<Value>) -> Vec<Value> {
    let mut snapshots: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut whole = Vec::new();
    for volume in volumes {
        match text(&volume, "name").split_once('/') {
            Some((parent, _)) => {
                let of = (text(&volume, "project").to_owned(), parent.to_owned());
                *snapshots.entry(of).or_default() += 1;
            }
            None => whole.push(volume),
        }
    }
    for volume in &mut whole {
        let of = (
            text(volume, "project").to_owned(),
            text(volume, "name").to_owned(),
        );
        let count = snapshots.get(&of).copied().unwrap_or(0);
        if let Some(fields) = volume.as_object_mut() {
            fields.insert("pool".to_owned(), pool.into());
            fields.insert("snapshots".to_owned(), count.into());
        }
    }
    whole
}

fn project(kind: InventoryKind, object: &Value) -> &str {
    match kind {
        InventoryKind::Project | InventoryKind::StoragePool => "",
        // A warning about the host itself has none.
        InventoryKind::Warning => text(object, "project"),
        _ => match text(object, "project") {
            "" => DEFAULT_TENANT,
            project => project,
        },
    }
}

fn name(kind: InventoryKind, object: &Value) -> Option<String> {
    let name = match kind {
        InventoryKind::Image => text(object, "fingerprint")
            .chars()
            .take(FINGERPRINT_CHARS)
            .collect(),
        InventoryKind::Warning => text(object, "uuid").to_owned(),
        InventoryKind::Volume => format!("{}/{}", text(object, "pool"), text(object, "name")),
        _ => text(object, "name").to_owned(),
    };
    let named =
        !name.is_empty() && name.len() <= TEXT_CHARS_MAX && !name.starts_with('/') && !name.ends_with('/');
    named.then_some(name)
}

fn instance(entry: &mut Entry, object: &Value) {
    entry.texts(object, &["status", "type", "architecture", "description"]);
    let config = |key: &str| {
        object
            .pointer("/config")
            .and_then(|config| config.get(key)?.as_str())
    };
    let mut image = Map::new();
    if let Some(description) = config("image.description") {
        image.insert("description".to_owned(), cut(description).into());
    }
    if let Some(fingerprint) = config("volatile.base_image") {
        let short: String = fingerprint.chars().take(FINGERPRINT_CHARS).collect();
        image.insert("fingerprint".to_owned(), short.into());
    }
    if !image.is_empty() {
        entry.put("image", image.into());
    }
    if object.get("ephemeral") == Some(&Value::Bool(true)) {
        entry.put("ephemeral", true.into());
    }
    entry.list("profiles", object.get("profiles"));
    entry.put("addresses", addresses(object).into());
    let snapshots = object
        .get("snapshots")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    entry.put("snapshots", snapshots.into());
    entry.settings(object, &INSTANCE_CONFIG);
}

/// What others reach the instance by: no loopback, nothing that is only good on its link.
fn addresses(object: &Value) -> Vec<String> {
    let interfaces = object.pointer("/state/network").and_then(Value::as_object);
    let mut addresses: Vec<String> = interfaces
        .into_iter()
        .flatten()
        .filter_map(|(_, interface)| interface.get("addresses")?.as_array())
        .flatten()
        .filter(|address| text(address, "scope") == "global")
        .map(|address| cut(text(address, "address")))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(LIST_MAX);
    addresses
}

/// The host's own interfaces are listed too: instances hang on them. What comes and goes with instances is not.
fn network(entry: &mut Entry, object: &Value) -> Option<()> {
    let is_managed = object.get("managed") == Some(&Value::Bool(true));
    if !is_managed && matches!(text(object, "type"), "loopback" | "unknown" | "") {
        return None;
    }
    entry.texts(object, &["type", "status", "description"]);
    if !is_managed {
        entry.put("host_interface", true.into());
    }
    let config = [
        "ipv4.",
        "ipv6.",
        "bridge.",
        "dns.",
        "network",
        "parent",
        "vlan",
        "mtu",
        "security.",
    ];
    entry.settings(object, &config);
    Some(())
}

fn image(entry: &mut Entry, object: &Value) {
    let aliases = object.get("aliases").and_then(Value::as_array);
    let mut aliases: Vec<Value> = aliases
        .into_iter()
        .flatten()
        .map(|alias| Value::from(text(alias, "name")))
        .collect();
    aliases.sort_by(|left, right| left.as_str().cmp(&right.as_str()));
    entry.list("aliases", Some(&aliases.into()));
    let description = object.pointer("/properties/description").and_then(Value::as_str);
    if let Some(description) = description {
        entry.put("description", cut(description).into());
    }
    entry.texts(object, &["type", "architecture", "fingerprint"]);
    for flag in ["cached", "public"] {
        if object.get(flag) == Some(&Value::Bool(true)) {
            entry.put(flag, true.into());
        }
    }
    if let Some(size) = object.get("size").and_then(Value::as_u64) {
        entry.put("size_bytes", size.into());
    }
}

/// Without its count and its last time: they move while nothing happens.
fn warning(entry: &mut Entry, object: &Value) {
    entry.texts(object, &["severity", "status", "type"]);
    for (field, of) in [
        ("message", "last_message"),
        ("entity", "entity_url"),
        ("first_seen", "first_seen_at"),
    ] {
        if !text(object, of).is_empty() {
            entry.put(field, cut(text(object, of)).into());
        }
    }
}

/// A value on its way.
#[derive(Debug)]
struct Entry(Map<String, Value>);

impl Entry {
    fn new(key: &InventoryKey) -> Entry {
        let mut fields = Map::new();
        fields.insert("kind".to_owned(), key.kind.singular().into());
        fields.insert("name".to_owned(), key.name.clone().into());
        if !key.project.is_empty() {
            fields.insert("project".to_owned(), key.project.clone().into());
        }
        fields.insert("host".to_owned(), key.host.clone().into());
        Entry(fields)
    }

    fn put(&mut self, field: &str, value: Value) {
        self.0.insert(field.to_owned(), value);
    }

    /// A field of the object that is a text, if it says anything.
    fn text(&mut self, field: &str, object: &Value) {
        let value = text(object, field);
        if !value.is_empty() {
            self.put(field, cut(value).into());
        }
    }

    fn texts(&mut self, object: &Value, fields: &[&str]) {
        for field in fields {
            self.text(field, object);
        }
    }

    fn list(&mut self, field: &str, list: Option<&Value>) {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let list: Vec<Value> = list
            .filter_map(|item| Some(cut(item.as_str()?).into()))
            .take(LIST_MAX)
            .collect();
        self.put(field, list.into());
    }

    /// Config in these namespaces, and where the devices lead.
    fn settings(&mut self, object: &Value, namespaces: &[&str]) {
        let config = object.get("config").and_then(Value::as_object);
        let config: Map<String, Value> = config
            .into_iter()
            .flatten()
            .filter(|(key, _)| namespaces.iter().any(|namespace| key.starts_with(namespace)))
            .filter_map(|(key, value)| Some((key.clone(), cut(value.as_str()?).into())))
            .collect();
        if !config.is_empty() {
            self.put("config", config.into());
        }
        let devices = object.get("devices").and_then(Value::as_object);
        let devices: Map<String, Value> = devices
            .into_iter()
            .flatten()
            .map(|(name, device)| (name.clone(), device_fields(device).into()))
            .collect();
        if !devices.is_empty() {
            self.put("devices", devices.into());
        }
    }

    /// By which of our documents the object is kept, if by any.
    fn owner(&mut self, object: &Value, key: &InventoryKey, our_cluster: &str) {
        // An image has properties, and no config.
        let config = |key: &str| {
            let held = object.get("config").or_else(|| object.get("properties"))?;
            held.get(key)?.as_str()
        };
        let document = (config(CLUSTER) == Some(our_cluster))
            .then(|| document_of(config(UID)?, key))
            .flatten();
        self.put("managed", document.is_some().into());
        if let Some(document) = document {
            self.put("document", document.key().into());
        } else if let Some(cluster) = config(CLUSTER).filter(|cluster| *cluster != our_cluster) {
            self.put("cluster", cut(cluster).into());
        }
    }

    fn bounded(mut self) -> Value {
        if Value::Object(self.0.clone()).to_string().len() > VALUE_BYTES_MAX {
            self.0.shift_remove("config");
            self.0.shift_remove("devices");
            self.put("truncated", true.into());
        }
        Value::Object(self.0)
    }
}

fn device_fields(device: &Value) -> Map<String, Value> {
    let fields = device.as_object().into_iter().flatten();
    fields
        .filter(|(field, _)| DEVICE_FIELDS.contains(&field.as_str()))
        .filter_map(|(field, value)| Some((field.clone(), cut(value.as_str()?).into())))
        .collect()
}

/// The document that an object of ours carries the name of; `None` where it is a copy made by hand, which still has
/// the keys of what it was copied from.
fn document_of(uid: &str, key: &InventoryKey) -> Option<DesiredKey> {
    let (stem, _) = uid.rsplit_once('@')?;
    let (word, rest) = stem.split_once('/')?;
    let kind = Kind::from_word(word)?;
    let (tenant, name) = if kind.has_tenant() {
        rest.split_once('/')?
    } else {
        ("", rest)
    };
    // An image is known by its fingerprint here, which no document says.
    let is_same =
        key.kind == InventoryKind::Image || key.name == name || key.name.rsplit('/').next() == Some(name);
    (is_same && (tenant == key.project || !kind.has_tenant())).then(|| DesiredKey {
        kind,
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    })
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(TEXT_CHARS_MAX).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests;
