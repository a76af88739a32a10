//! A spec's devices: a map of maps of strings. What each type of device takes is Incus' to say.

use serde_json::{Map, Value};

use super::config::string;
use crate::document::DocumentError;
use crate::document::fields::{Reader, find, join, map, missing, one_of};
use crate::document::yaml::{Content, Node};

const PATH: &str = "spec.devices";

const TYPES: [&str; 12] = [
    "disk",
    "nic",
    "proxy",
    "none",
    "gpu",
    "usb",
    "pci",
    "tpm",
    "infiniband",
    "unix-char",
    "unix-block",
    "unix-hotplug",
];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let mut devices = Map::new();
    if matches!(node.content, Content::Null) {
        return Ok(devices);
    }
    for device in map(node, PATH)? {
        let path = join(PATH, &device.name);
        reader.remember(&path, device.line);
        let entries = map(&device.value, &path)?;
        match find(entries, "type") {
            Some(entry) => one_of(&entry.value, &join(&path, "type"), &TYPES)?,
            None => {
                return Err(missing(
                    &device.value,
                    &join(&path, "type"),
                    &format!("one of {}", TYPES.join(", ")),
                ));
            }
        };
        let mut fields = Map::new();
        for entry in entries {
            let path = join(&path, &entry.name);
            reader.remember(&path, entry.line);
            fields.insert(entry.name.clone(), string(&entry.value, &path)?.into());
        }
        devices.insert(device.name.clone(), fields.into());
    }
    Ok(devices)
}
