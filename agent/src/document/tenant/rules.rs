//! What a tenant's document may not say.
//!
//! Told from what a document says, not from what Incus makes of it: a profile is judged as an instance is, since it
//! may be anybody's in the project.

use serde_json::{Map, Value};

use super::Permissions;
use crate::document::{DEFAULT_TENANT, Document, Kind};

/// A field that reaches out of the tenant's project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the document, as `spec.config.security.nesting`.
    pub path: String,
    pub message: String,
}

/// Refuses a document that reaches out of its tenant's project further than is allowed.
///
/// # Errors
/// The first field that does.
pub fn check(document: &Document, permissions: &Permissions) -> Result<(), Violation> {
    if !document.kind.has_tenant() || document.tenant == DEFAULT_TENANT {
        return Ok(());
    }
    let tenant = document.tenant.as_str();
    // The address is the host's, as that of a proxy device would be.
    if document.kind == Kind::Tunnel && !permissions.allows("devices.proxy") {
        return Err(not_allowed(tenant, "spec.listen", "devices.proxy"));
    }
    let map = |field: &str| {
        document
            .spec
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    for (key, value) in map("config") {
        let value = value.as_str().unwrap_or_default();
        if let Some(needed) = config_needs(key, value).filter(|needed| !permissions.allows(needed)) {
            return Err(not_allowed(tenant, &format!("spec.config.{key}"), needed));
        }
    }
    for (name, device) in map("devices") {
        let Some(device) = device.as_object() else {
            continue;
        };
        let path = format!("spec.devices.{name}");
        device_is_allowed(tenant, &path, device, permissions)?;
    }
    for (field, value) in map("source") {
        // An image out of a file: the agent reads it, and may read everything.
        if field == "path" && !permissions.allows("devices.disk") {
            return Err(not_allowed(tenant, "spec.source.path", "devices.disk"));
        }
        if field == "project" && value.as_str() != Some(tenant) {
            let message = format!("is another project; what tenant {tenant} makes comes from its own");
            return Err(Violation {
                path: "spec.source.project".to_owned(),
                message,
            });
        }
    }
    Ok(())
}

fn not_allowed(tenant: &str, path: &str, needed: &str) -> Violation {
    Violation {
        path: path.to_owned(),
        message: format!(
            "reaches out of the project of tenant {tenant}; who runs the cluster can allow it, with {needed} under \
             spec.allow of tenant {tenant}"
        ),
    }
}

/// What must be allowed for a config key to stand there.
fn config_needs(key: &str, value: &str) -> Option<&'static str> {
    let is_off = matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "0" | "false" | "no" | "off"
    );
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    match key {
        "security.privileged" => (!is_off).then_some("containers.privilege"),
        "security.nesting" => (!is_off).then_some("containers.nesting"),
        "limits.memory.hugepages" => (!is_off).then_some("virtual-machines.lowlevel"),
        _ if begins(&["security.syscalls.intercept."]) => (!is_off).then_some("containers.interception"),
        _ if begins(&["raw.qemu"]) => Some("virtual-machines.lowlevel"),
        _ if begins(&["nvidia."]) => Some("devices.gpu"),
        "boot.host_shutdown_timeout" | "security.guestapi.images" => Some("containers.lowlevel"),
        _ if begins(&[
            "raw.",
            "linux.",
            "limits.kernel.",
            "limits.hugepages.",
            "security.bpffs.",
            "security.idmap.",
            "security.selinux.",
            "security.syscalls.",
        ]) =>
        {
            Some("containers.lowlevel")
        }
        _ => None,
    }
}

fn device_is_allowed(
    tenant: &str,
    path: &str,
    device: &Map<String, Value>,
    permissions: &Permissions,
) -> Result<(), Violation> {
    let text = |field: &str| device.get(field).and_then(Value::as_str).unwrap_or_default();
    let needs = |field: &str, needed: &str| {
        if permissions.allows(needed) {
            return Ok(());
        }
        let path = if field.is_empty() {
            path.to_owned()
        } else {
            format!("{path}.{field}")
        };
        Err(not_allowed(tenant, &path, needed))
    };
    match text("type") {
        // A volume of a pool, or what Incus itself puts in; any other source is a path of the host.
        "disk" => {
            let is_of_host = device.contains_key("source") && text("pool").is_empty();
            let is_made = matches!(text("source"), "cloud-init:config" | "agent:config");
            if is_of_host && !is_made {
                return needs("source", "devices.disk");
            }
            for field in ["raw.mount.options", "propagation"] {
                if device.contains_key(field) {
                    return needs(field, "devices.disk");
                }
            }
            Ok(())
        }
        "nic" => {
            for field in ["parent", "nictype"] {
                if device.contains_key(field) {
                    return needs(field, "devices.nic");
                }
            }
            if permissions.may_use_network(text("network")) {
                return Ok(());
            }
            let message = format!(
                "is no network of tenant {tenant}; who runs the cluster can add it under spec.networks of tenant {tenant}"
            );
            Err(Violation {
                path: format!("{path}.network"),
                message,
            })
        }
        // Either end is the host's: it listens there, or it reaches what only the host can.
        "proxy" => needs("", "devices.proxy"),
        "gpu" => needs("", "devices.gpu"),
        "usb" => needs("", "devices.usb"),
        "pci" => needs("", "devices.pci"),
        "infiniband" => needs("", "devices.infiniband"),
        "unix-char" => needs("", "devices.unix-char"),
        "unix-block" => needs("", "devices.unix-block"),
        "unix-hotplug" => needs("", "devices.unix-hotplug"),
        _ => Ok(()),
    }
}
