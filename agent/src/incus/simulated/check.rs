//! What the simulated daemon takes for a name, a config key or a device. Pure, and coarser than Incus: which keys a
//! namespace has, and what values are valid, only a real daemon knows.

use super::change::{Body, Refusal, at_once};
use super::world::{Config, Devices};

/// The first parts of Incus' config keys. Which keys each holds is not simulated.
const NAMESPACES: [&str; 17] = [
    "agent",
    "boot",
    "cloud-init",
    "cluster",
    "environment",
    "features",
    "image",
    "images",
    "limits",
    "linux",
    "migration",
    "nvidia",
    "oci",
    "raw",
    "restricted",
    "security",
    "snapshots",
];

const DEVICE_TYPES: [&str; 12] = [
    "none",
    "nic",
    "disk",
    "unix-char",
    "unix-block",
    "usb",
    "gpu",
    "infiniband",
    "proxy",
    "unix-hotplug",
    "tpm",
    "pci",
];

/// What a body brings, wherever it goes.
pub(super) fn check_body(body: &Body) -> Result<(), String> {
    body.config.as_ref().map_or(Ok(()), check_keys)?;
    body.devices.as_ref().map_or(Ok(()), check_devices)
}

/// A new project's or profile's name.
pub(super) fn new_name(name: Option<&str>) -> Result<String, Refusal> {
    let name = name.unwrap_or_default();
    if name.is_empty() {
        Err(at_once(400, "No name provided"))
    } else if name.contains('/') || matches!(name, "." | "..") {
        Err(at_once(400, format!("Invalid name {name:?}")))
    } else {
        Ok(name.to_owned())
    }
}

/// An instance's name becomes its host name.
pub(super) fn check_hostname(name: &str) -> Result<(), Refusal> {
    let is_hostname = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.bytes().all(|byte| byte.is_ascii_digit());
    if is_hostname {
        Ok(())
    } else {
        Err(at_once(400, "Invalid instance name: not a host name"))
    }
}

/// Of a device's settings only those without which Incus takes none of its type.
fn check_devices(devices: &Devices) -> Result<(), String> {
    for (name, device) in devices {
        let has = |key: &str| device.get(key).is_some_and(|value| !value.is_empty());
        let kind = device.get("type").map(String::as_str).unwrap_or_default();
        if !DEVICE_TYPES.contains(&kind) {
            return Err(format!(
                "Device validation failed for {name:?}: Unsupported device type {kind:?}"
            ));
        }
        if kind == "disk" && !(has("path") && (has("source") || has("pool"))) {
            return Err(format!(
                "Device validation failed for {name:?}: a disk needs a path and a source"
            ));
        }
    }
    Ok(())
}

fn check_keys(config: &Config) -> Result<(), String> {
    let unknown = config.keys().find(|key| {
        let namespace = key.split('.').next().unwrap_or_default();
        !matches!(namespace, "user" | "volatile") && !NAMESPACES.contains(&namespace)
    });
    unknown.map_or(Ok(()), |key| Err(format!("Unknown configuration key: {key}")))
}
