//! What only an instance's spec has: its type, its profiles, where it comes from.

use serde_json::{Map, Value};

use super::config::{self, string};
use crate::document::DocumentError;
use crate::document::fields::{Reader, boolean, find, join, map, missing, one_of, word, wrong_type};
use crate::document::yaml::{Content, Entry, Node};

/// Sources that need nothing but this host and an image server.
const SOURCE_TYPES: [&str; 3] = ["image", "none", "copy"];

const SOURCE_FIELDS: [&str; 13] = [
    "type",
    "alias",
    "fingerprint",
    "properties",
    "server",
    "protocol",
    "certificate",
    "secret",
    "mode",
    "project",
    "source",
    "instance_only",
    "allow_inconsistent",
];

pub(super) fn profiles(reader: &mut Reader, entry: &Entry) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, "spec.profiles", "a list of profiles"));
    };
    let mut profiles: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("spec.profiles[{index}]");
        reader.remember(&path, item.line);
        let profile = Value::from(word(item, &path)?);
        if profiles.contains(&profile) {
            let message = format!("{} stands here twice", item.found());
            return Err(DocumentError::new(item.line, item.column, &path, message));
        }
        profiles.push(profile);
    }
    Ok(profiles)
}

pub(super) fn source(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = map(node, "spec.source")?;
    reader.known(
        entries,
        "spec.source",
        &SOURCE_FIELDS,
        "no such field in a source",
    )?;
    let Some(kind) = find(entries, "type") else {
        return Err(missing(
            node,
            "spec.source.type",
            &format!("one of {}", SOURCE_TYPES.join(", ")),
        ));
    };
    let kind = one_of(&kind.value, "spec.source.type", &SOURCE_TYPES)?;
    let named = ["alias", "fingerprint", "properties"]
        .iter()
        .any(|name| find(entries, name).is_some());
    if kind == "image" && !named {
        return Err(missing(
            node,
            "spec.source.alias",
            "which image, by alias or fingerprint",
        ));
    }
    if kind == "copy" && find(entries, "source").is_none() {
        return Err(missing(node, "spec.source.source", "which instance to copy"));
    }
    let mut source = Map::new();
    for entry in entries {
        let path = join("spec.source", &entry.name);
        let value = match entry.name.as_str() {
            "instance_only" | "allow_inconsistent" => boolean(&entry.value, &path)?.into(),
            "properties" => config::properties(&entry.value, &path)?.into(),
            _ => string(&entry.value, &path)?.into(),
        };
        source.insert(entry.name.clone(), value);
    }
    Ok(source)
}
