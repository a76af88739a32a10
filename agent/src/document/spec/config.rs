//! A spec's config: every value a string, every key one that Incus knows.

use serde_json::{Map, Value};

use super::config_keys::{INSTANCE, PROJECT, Table};
use crate::document::fields::{Reader, fault, join, map};
use crate::document::yaml::{Content, Entry, Node};
use crate::document::{DocumentError, Kind, OWNERSHIP_PREFIX};

const PATH: &str = "spec.config";

pub(super) fn read(
    reader: &mut Reader,
    kind: Kind,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    let mut config = Map::new();
    if matches!(node.content, Content::Null) {
        return Ok(config);
    }
    let table = if kind == Kind::Project {
        &PROJECT
    } else {
        &INSTANCE
    };
    for entry in map(node, PATH)? {
        let path = join(PATH, &entry.name);
        known_key(table, entry, &path)?;
        reader.remember(&path, entry.line);
        config.insert(entry.name.clone(), string(&entry.value, &path)?.into());
    }
    Ok(config)
}

/// A value that Incus keeps as a string: as written, whatever it looks like.
pub(super) fn string(node: &Node, path: &str) -> Result<String, DocumentError> {
    match &node.content {
        Content::Scalar { text, .. } => Ok(text.clone()),
        Content::Null => Err(DocumentError::new(
            node.line,
            node.column,
            path,
            "has no value; leave the key out to unset it, or write \"\" for an empty string",
        )),
        Content::List(_) | Content::Map(_) => {
            let message = format!(
                "expected a string, a number, true or false, found {}",
                node.found()
            );
            Err(DocumentError::new(node.line, node.column, path, message))
        }
    }
}

fn known_key(table: &Table, entry: &Entry, path: &str) -> Result<(), DocumentError> {
    let key = entry.name.as_str();
    if key.starts_with(OWNERSHIP_PREFIX) {
        return Err(fault(
            entry,
            path,
            "is kept by the agent itself; choose another name under user",
        ));
    }
    if key.starts_with("volatile.") {
        return Err(fault(entry, path, "is kept by Incus itself"));
    }
    if table.knows(key) {
        return Ok(());
    }
    Err(fault(
        entry,
        path,
        format!("no such key in Incus 6.0{}", table.suggestion(key)),
    ))
}
