//! The three-way comparison: what the document says, what was last applied, what Incus has.
//!
//! A field that the document names is set where Incus has it otherwise. A field that it does not name is touched
//! only if we set it before. Whatever else is there is somebody else's.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::meaning::{config_agrees, device_field_agrees};
use crate::document::{Kind, Update, needs_restart};
use crate::reconciler::observe::{Object, config_field};
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
    let both = Both {
        desired,
        applied,
        live,
    };
    let mut differences = Differences::default();
    differences.costs.extend(both.rebuilds(kind));
    differences
        .changes
        .extend(fields(kind).iter().filter_map(|field| both.field(field)));
    let config = both.config(kind);
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
    if matches!(kind, Kind::Profile | Kind::Instance) {
        differences.changes.extend(both.devices());
    }
    differences
}

/// A field of the object itself that a change can set, and what it is where nobody sets it.
struct Field {
    name: &'static str,
    unset: fn() -> Value,
}

const DESCRIPTION: Field = Field {
    name: "description",
    unset: || json!(""),
};

const fn fields(kind: Kind) -> &'static [Field] {
    const NO_RULES: fn() -> Value = || json!([]);
    const NO: fn() -> Value = || json!(false);
    match kind {
        Kind::Host
        | Kind::Incus
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Backup
        | Kind::Tunnel
        | Kind::Tenant
        | Kind::Template => &[],
        Kind::StoragePool | Kind::Network | Kind::Project | Kind::Profile | Kind::Volume => &[DESCRIPTION],
        Kind::NetworkAcl => &[
            DESCRIPTION,
            Field {
                name: "ingress",
                unset: NO_RULES,
            },
            Field {
                name: "egress",
                unset: NO_RULES,
            },
        ],
        Kind::NetworkForward => &[
            DESCRIPTION,
            Field {
                name: "ports",
                unset: NO_RULES,
            },
        ],
        Kind::Image => &[
            Field {
                name: "auto_update",
                unset: NO,
            },
            Field {
                name: "public",
                unset: NO,
            },
        ],
        Kind::Instance => &[
            DESCRIPTION,
            Field {
                name: "profiles",
                // What Incus gives to an instance that asks for nothing.
                unset: || json!(["default"]),
            },
            Field {
                name: "ephemeral",
                unset: NO,
            },
        ],
    }
}

/// What an object is born with, and what it is where the document does not say.
const fn born_with(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::StoragePool => &[("driver", "")],
        Kind::Network => &[("type", "bridge")],
        Kind::NetworkForward => &[("network", ""), ("listen_address", "")],
        Kind::Volume => &[("pool", ""), ("content_type", "filesystem")],
        Kind::Instance => &[("type", "container")],
        _ => &[],
    }
}

/// Where an object came from. Incus forgets that, or says it in its own way: what counts is what we asked for.
const fn came_from(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Image => &["source"],
        Kind::Instance => &["source", "architecture"],
        _ => &[],
    }
}

/// The three sides of a comparison.
#[derive(Clone, Copy)]
struct Both<'a> {
    desired: &'a Map<String, Value>,
    applied: Option<&'a Map<String, Value>>,
    live: &'a Object,
}

impl Both<'_> {
    fn was_applied(&self, field: &str) -> bool {
        self.applied.is_some_and(|applied| applied.contains_key(field))
    }

    fn field(&self, field: &Field) -> Option<Change> {
        let unset = (field.unset)();
        let wanted = match self.desired.get(field.name) {
            Some(wanted) => wanted.clone(),
            None if self.was_applied(field.name) => unset.clone(),
            None => return None,
        };
        let has = match self.live.field(field.name) {
            None | Some(Value::Null) => unset,
            Some(has) => said(has),
        };
        (has != wanted).then_some(Change::Field {
            name: field.name,
            before: has,
            after: wanted,
        })
    }

    fn rebuilds(&self, kind: Kind) -> Vec<(Update, String)> {
        let born = born_with(kind).iter().filter(|(field, unset)| {
            let wanted = self.desired.get(*field).and_then(Value::as_str).unwrap_or(unset);
            wanted != self.live.text(field)
        });
        let came = came_from(kind).iter().filter(|field| {
            self.applied
                .is_some_and(|applied| applied.get(**field) != self.desired.get(**field))
        });
        born.map(|(field, _)| *field)
            .chain(came.copied())
            .map(|field| (Update::Rebuild, field.to_owned()))
            .collect()
    }

    fn config(&self, kind: Kind) -> Vec<Change> {
        let field = config_field(kind);
        let wanted = |key: &str| self.desired.get(field)?.get(key)?.as_str();
        let last = |key: &str| self.applied?.get(field)?.get(key)?.as_str();
        let mut changes = Vec::new();
        for key in keys_of(field, self.desired, self.applied) {
            let (after, before) = (wanted(key), self.live.config.get(key).map(String::as_str));
            if config_agrees(kind, key, after, before) {
                continue;
            }
            if is_shared(kind, key) && self.applied.is_some() && after == last(key) {
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

    fn devices(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in keys_of("devices", self.desired, self.applied) {
            let after = self
                .desired
                .get("devices")
                .and_then(|devices| devices.get(name)?.as_object());
            let before = self.live.devices.get(name).and_then(Value::as_object);
            if !devices_agree(after, before) {
                changes.push(Change::Device {
                    name: name.to_owned(),
                    after: after.cloned(),
                });
            }
        }
        changes
    }
}

/// Incus, an image and a driver write under these, too. What they write is no drift: only an edit counts.
fn is_shared(kind: Kind, key: &str) -> bool {
    match kind {
        Kind::StoragePool => matches!(key, "source" | "size" | "zfs.pool_name") || key.starts_with("lvm."),
        Kind::Image => true,
        _ => ["environment.", "image.", "oci."]
            .iter()
            .any(|prefix| key.starts_with(prefix)),
    }
}

/// Rules without what says nothing: Incus shows some empty fields and not others.
fn said(value: &Value) -> Value {
    let Value::Array(rules) = value else {
        return value.clone();
    };
    let rules = rules.iter().map(|rule| match rule {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| value.as_str() != Some(""));
            Value::Object(said.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        other => other.clone(),
    });
    Value::Array(rules.collect())
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
