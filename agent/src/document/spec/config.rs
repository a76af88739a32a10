//! A spec's config: every value a string, every key one that Incus knows.

use serde_json::{Map, Value};

use super::config_keys::{self, Table};
use crate::document::fields::{Reader, fault, join, map};
use crate::document::yaml::{Content, Entry, Node};
use crate::document::{DocumentError, Kind, OWNERSHIP_PREFIX, secret};

const PATH: &str = "spec.config";
const KEPT_BY_AGENT: &str = "is kept by the agent itself; choose another name under user";

pub(super) fn read(
    reader: &mut Reader,
    kind: Kind,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    let mut config = Map::new();
    if matches!(node.content, Content::Null) {
        return Ok(config);
    }
    for entry in map(node, PATH)? {
        let path = join(PATH, &entry.name);
        known_key(config_keys::table(kind), entry, &path)?;
        reader.remember(&path, entry.line);
        let value = match secret::reference(&entry.value, &path)? {
            Some(_) if !may_be_secret(kind, &entry.name) => {
                return Err(fault(entry, &path, secret::CONFIG_FAULT));
            }
            Some(reference) => reference,
            None => string(&entry.value, &path)?.into(),
        };
        config.insert(entry.name.clone(), value);
    }
    Ok(config)
}

fn may_be_secret(kind: Kind, key: &str) -> bool {
    matches!(kind, Kind::Instance | Kind::Profile) && secret::may_be_config(key)
}

/// A map of words whose keys are anybody's.
pub(super) fn properties(node: &Node, path: &str) -> Result<Map<String, Value>, DocumentError> {
    let mut properties = Map::new();
    for entry in map(node, path)? {
        let path = join(path, &entry.name);
        if entry.name.starts_with(OWNERSHIP_PREFIX) {
            return Err(fault(entry, &path, KEPT_BY_AGENT));
        }
        properties.insert(entry.name.clone(), string(&entry.value, &path)?.into());
    }
    Ok(properties)
}

/// A value that Incus keeps as a string: as written, whatever it looks like.
pub(super) fn string(node: &Node, path: &str) -> Result<String, DocumentError> {
    match &node.content {
        Content::Scalar { text, .. } => match secret::text_fault(text) {
            Some(wrong) => Err(DocumentError::new(node.line, node.column, path, wrong)),
            None => Ok(text.clone()),
        },
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
        return Err(fault(entry, path, KEPT_BY_AGENT));
    }
    if key.starts_with("volatile.") {
        return Err(fault(entry, path, "is kept by Incus itself"));
    }
    if !table.refuses(key) {
        return Ok(());
    }
    Err(fault(
        entry,
        path,
        format!("no such key in Incus 6.0{}", table.suggestion(key)),
    ))
}
