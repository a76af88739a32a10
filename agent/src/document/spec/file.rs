//! A file's spec.

use serde_json::{Map, Value};

use super::host;
use crate::document::DocumentError;
use crate::document::fields::{Reader, fault, find, join, missing};
use crate::document::yaml::Node;

const FIELDS: [&str; 6] = ["path", "mode", "uid", "gid", "content", "source"];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = host::known(reader, node, "file", &FIELDS)?;
    if let Some(source) = find(entries, "source") {
        let message = "a source arrives later; write the content itself";
        return Err(fault(source, "spec.source", message));
    }
    for (name, what) in [("path", "where the file is"), ("content", "what is in the file")] {
        if find(entries, name).is_none() {
            return Err(missing(node, &join("spec", name), what));
        }
    }
    let mut spec = Map::new();
    for entry in entries {
        let at = join("spec", &entry.name);
        let value: Value = match entry.name.as_str() {
            "path" => host::path(entry, &at)?.into(),
            "mode" => host::mode(entry, &at)?.into(),
            "uid" | "gid" => host::id(entry, &at)?.into(),
            _ => host::content(entry, &at)?,
        };
        spec.insert(entry.name.clone(), value);
    }
    Ok(spec)
}
