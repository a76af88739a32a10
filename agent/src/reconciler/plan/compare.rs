//! The three-way comparison: what the document says, what was last applied, what Incus has.
//!
//! A field that the document names is set where Incus has it otherwise. A field that it does not name is touched
//! only if we set it before. Whatever else is there is somebody else's.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::meaning::{config_agrees, device_field_agrees};
use crate::document::{Kind, Update, needs_restart};
use crate::reconciler::observe::Object;
use crate::reconciler::step::Change;

/// How an object differs from its document.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) changes: Vec<Change>,
    /// What costs more than a live change: how much, and which field.
    pub(super) costs: Vec<(Update, String)>,
}

/// Compares one object.
pub(super) fn compare(
    kind: Kind,
    desired: &Map<String, Value>,
    applied: Option<&Map<String, Value>>,
    live: &Object,
) -> Differences {
    let mut differences = Differences::default();
    if let Some(change) = description(desired, applied, live) {
        differences.changes.push(change);
    }
    if kind == Kind::Instance {
        differences.changes.extend(profiles(desired, applied, live));
        differences.changes.extend(ephemeral(desired, applied, live));
        differences.costs.extend(rebuilds(desired, applied, live));
    }
    let config = config(desired, applied, live);
    if kind == Kind::Instance {
        let is_virtual_machine = live.text("type") == "virtual-machine";
        for change in &config {
            if let Change::Config { key, .. } = change
                && needs_restart(key, is_virtual_machine)
            {
                differences.costs.push((Update::Restart, change.path()));
            }
        }
    }
    differences.changes.extend(config);
    if kind != Kind::Project {
        differences.changes.extend(devices(desired, applied, live));
    }
    differences
}

fn description(
    desired: &Map<String, Value>,
    applied: Option<&Map<String, Value>>,
    live: &Object,
) -> Option<Change> {
    let wanted = match desired.get("description") {
        Some(wanted) => wanted.as_str().unwrap_or_default(),
        None if applied.is_some_and(|applied| applied.contains_key("description")) => "",
        None => return None,
    };
    let has = live.text("description");
    (has != wanted).then(|| Change::Field {
        name: "description",
        before: json!(has),
        after: json!(wanted),
    })
}

fn profiles(
    desired: &Map<String, Value>,
    applied: Option<&Map<String, Value>>,
    live: &Object,
) -> Option<Change> {
    let wanted = match desired.get("profiles") {
        Some(wanted) => wanted.clone(),
        // What Incus gives to an instance that asks for nothing.
        None if applied.is_some_and(|applied| applied.contains_key("profiles")) => json!(["default"]),
        None => return None,
    };
    let has = json!(live.profiles);
    (has != wanted).then_some(Change::Field {
        name: "profiles",
        before: has,
        after: wanted,
    })
}

fn ephemeral(
    desired: &Map<String, Value>,
    applied: Option<&Map<String, Value>>,
    live: &Object,
) -> Option<Change> {
    let wanted = match desired.get("ephemeral") {
        Some(wanted) => wanted.as_bool().unwrap_or_default(),
        None if applied.is_some_and(|applied| applied.contains_key("ephemeral")) => false,
        None => return None,
    };
    let has = live
        .field("ephemeral")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    (has != wanted).then(|| Change::Field {
        name: "ephemeral",
        before: json!(has),
        after: json!(wanted),
    })
}

/// What an instance is born with.
fn rebuilds(
    desired: &Map<String, Value>,
    applied: Option<&Map<String, Value>>,
    live: &Object,
) -> Vec<(Update, String)> {
    let mut fields = Vec::new();
    let wanted = desired.get("type").and_then(Value::as_str).unwrap_or("container");
    if wanted != live.text("type") {
        fields.push("type");
    }
    // Incus forgets where an instance came from, and names architectures in its own way: what counts is what we
    // asked for.
    for field in ["source", "architecture"] {
        if applied.is_some_and(|applied| applied.get(field) != desired.get(field)) {
            fields.push(field);
        }
    }
    fields
        .into_iter()
        .map(|field| (Update::Rebuild, field.to_owned()))
        .collect()
}

fn config(desired: &Map<String, Value>, applied: Option<&Map<String, Value>>, live: &Object) -> Vec<Change> {
    let wanted = |key: &str| desired.get("config")?.get(key)?.as_str();
    let last = |key: &str| applied?.get("config")?.get(key)?.as_str();
    let mut changes = Vec::new();
    for key in keys_of("config", desired, applied) {
        let (after, before) = (wanted(key), live.config.get(key).map(String::as_str));
        if config_agrees(key, after, before) {
            continue;
        }
        // Incus and the image write under these too. What they write is not drift: only an edit counts.
        let is_shared = ["environment.", "image.", "oci."]
            .iter()
            .any(|prefix| key.starts_with(prefix));
        if is_shared && applied.is_some() && after == last(key) {
            continue;
        }
        changes.push(Change::Config {
            key: key.to_owned(),
            before: before.map(str::to_owned),
            after: after.filter(|value| !value.is_empty()).map(str::to_owned),
        });
    }
    changes
}

fn devices(desired: &Map<String, Value>, applied: Option<&Map<String, Value>>, live: &Object) -> Vec<Change> {
    let mut changes = Vec::new();
    for name in keys_of("devices", desired, applied) {
        let after = desired
            .get("devices")
            .and_then(|devices| devices.get(name)?.as_object());
        let before = live.devices.get(name).and_then(Value::as_object);
        if !devices_agree(after, before) {
            changes.push(Change::Device {
                name: name.to_owned(),
                after: after.cloned(),
            });
        }
    }
    changes
}

/// Incus replaces a device's entry whole, so it is compared whole.
fn devices_agree(left: Option<&Map<String, Value>>, right: Option<&Map<String, Value>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => left.keys().chain(right.keys()).all(|field| {
            let value =
                |device: &Map<String, Value>| device.get(field).and_then(Value::as_str).map(str::to_owned);
            device_field_agrees(field, value(left).as_deref(), value(right).as_deref())
        }),
        _ => false,
    }
}

/// The keys that are ours to set or to take back, sorted.
fn keys_of<'a>(
    field: &str,
    desired: &'a Map<String, Value>,
    applied: Option<&'a Map<String, Value>>,
) -> BTreeSet<&'a str> {
    [Some(desired), applied]
        .into_iter()
        .flatten()
        .filter_map(|spec| spec.get(field)?.as_object())
        .flat_map(|entries| entries.keys().map(String::as_str))
        .collect()
}
