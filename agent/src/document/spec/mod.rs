//! What is told to Incus: its own fields, verbatim, checked as far as a text can be.

mod config;
mod config_keys;
mod devices;
mod instance;

use serde_json::{Map, Value};

use super::fields::{Reader, find, map, word};
use super::yaml::Node;
use super::{DocumentError, Kind};

pub use config_keys::needs_restart;

/// Reads the spec of a kind.
pub(super) fn read(
    reader: &mut Reader,
    kind: Kind,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    let fields: &[&str] = match kind {
        Kind::Instance => &instance::FIELDS,
        Kind::Profile => &["description", "config", "devices"],
        Kind::Project => &["description", "config"],
    };
    let entries = map(node, "spec")?;
    let complaint = format!("no such field for kind {kind}");
    reader.known(entries, "spec", fields, &complaint)?;
    let mut spec = Map::new();
    if let Some(entry) = find(entries, "description") {
        spec.insert(
            "description".into(),
            word(&entry.value, "spec.description")?.into(),
        );
    }
    if let Some(entry) = find(entries, "config") {
        spec.insert("config".into(), config::read(reader, kind, &entry.value)?.into());
    }
    if let Some(entry) = find(entries, "devices") {
        spec.insert("devices".into(), devices::read(reader, &entry.value)?.into());
    }
    if kind == Kind::Instance {
        instance::read(reader, node, entries, &mut spec)?;
    }
    Ok(spec)
}
