//! What a tenant may do, and the project that holds it to that.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::document::{Document, Kind};

/// What can be allowed, in Incus' words: `devices.gpu` is the project's `restricted.devices.gpu`.
pub(super) const ALLOWABLE: [&str; 16] = [
    "backups",
    "containers.interception",
    "containers.lowlevel",
    "containers.nesting",
    "containers.privilege",
    "devices.disk",
    "devices.gpu",
    "devices.infiniband",
    "devices.nic",
    "devices.pci",
    "devices.proxy",
    "devices.unix-block",
    "devices.unix-char",
    "devices.unix-hotplug",
    "devices.usb",
    "virtual-machines.lowlevel",
];

/// What a tenant's documents may say beyond their project. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    allow: BTreeSet<String>,
    /// The networks that its instances may use; `None`: any that Incus manages.
    networks: Option<BTreeSet<String>>,
}

impl Permissions {
    /// Those of a document of kind tenant, which [`crate::document::parse`] has found to be right.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let words = |field: &str| -> Option<BTreeSet<String>> {
            let list = document.spec.get(field)?.as_array()?;
            Some(
                list.iter()
                    .filter_map(|word| word.as_str().map(str::to_owned))
                    .collect(),
            )
        };
        Self {
            allow: words("allow").unwrap_or_default(),
            networks: words("networks"),
        }
    }

    pub(super) fn allows(&self, what: &str) -> bool {
        self.allow.contains(what)
    }

    pub(super) fn may_use_network(&self, network: &str) -> bool {
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.contains(network))
    }
}

/// The spec of the project that holds the tenant to what it may do.
pub(in crate::document) fn project(tenant: &Document) -> Map<String, Value> {
    let mut config = Map::new();
    let mut set = |key: &str, value: &str| {
        config.insert(key.to_owned(), value.into());
    };
    // Images, profiles and volumes of its own: those of the default project are not its to change.
    for feature in ["images", "profiles", "storage.buckets", "storage.volumes"] {
        set(&format!("features.{feature}"), "true");
    }
    set("features.networks", "false");
    set("restricted", "true");
    // They stay within the project, and undoing a mistake is nobody's privilege.
    set("restricted.snapshots", "allow");
    let permissions = Permissions::of(tenant);
    for what in &permissions.allow {
        set(&format!("restricted.{what}"), "allow");
    }
    if let Some(networks) = &permissions.networks {
        let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
        set("restricted.networks.access", &networks.join(","));
    }
    let limits = tenant.spec.get("limits").and_then(Value::as_object);
    for (limit, value) in limits.into_iter().flatten() {
        set(&format!("limits.{limit}"), value.as_str().unwrap_or_default());
    }
    let mut spec = Map::new();
    if let Some(description) = tenant.spec.get("description") {
        spec.insert("description".to_owned(), json!(description));
    }
    spec.insert("config".to_owned(), config.into());
    debug_assert_eq!(tenant.kind, Kind::Tenant);
    spec
}
