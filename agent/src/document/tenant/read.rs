//! A tenant's spec: how much it may have, and what it is allowed beyond its project.

use serde_json::{Map, Value};

use super::ALLOWABLE;
use crate::document::DocumentError;
use crate::document::fields::{Reader, fault, find, join, map, one_of, word, wrong_type};
use crate::document::suggest::did_you_mean;
use crate::document::yaml::{Content, Entry, Node};

/// What of can be limited, in Incus' words: `memory` is the project's `limits.memory`.
const LIMITS: [&str; 8] = [
    "containers",
    "cpu",
    "disk",
    "instances",
    "memory",
    "networks",
    "processes",
    "virtual-machines",
];

pub(in crate::document) fn read(
    reader: &mut Reader,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    let entries = map(node, "spec")?;
    let fields = ["description", "limits", "allow", "networks"];
    reader.known(entries, "spec", &fields, "no such field for kind tenant")?;
    let mut spec = Map::new();
    if let Some(entry) = find(entries, "description") {
        spec.insert(
            "description".into(),
            word(&entry.value, "spec.description")?.into(),
        );
    }
    if let Some(entry) = find(entries, "limits") {
        spec.insert("limits".into(), limits(reader, entry)?.into());
    }
    if let Some(entry) = find(entries, "allow") {
        spec.insert(
            "allow".into(),
            words(entry, "spec.allow", Some(&ALLOWABLE))?.into(),
        );
    }
    if let Some(entry) = find(entries, "networks") {
        spec.insert("networks".into(), words(entry, "spec.networks", None)?.into());
    }
    Ok(spec)
}

fn limits(reader: &mut Reader, entry: &Entry) -> Result<Map<String, Value>, DocumentError> {
    let mut limits = Map::new();
    for entry in map(&entry.value, "spec.limits")? {
        let path = join("spec.limits", &entry.name);
        if !LIMITS.contains(&entry.name.as_str()) {
            let near = did_you_mean(&entry.name, LIMITS);
            let near = if near.is_empty() {
                format!("; there are {}", LIMITS.join(", "))
            } else {
                near
            };
            return Err(fault(entry, &path, format!("no such limit{near}")));
        }
        reader.remember(&path, entry.line);
        limits.insert(entry.name.clone(), word(&entry.value, &path)?.into());
    }
    Ok(limits)
}

fn words(entry: &Entry, path: &str, known: Option<&[&str]>) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, path, "a list"));
    };
    let mut words: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let word = match known {
            Some(known) => one_of(item, &path, known)?,
            None => word(item, &path)?,
        };
        if word.contains(',') || word.is_empty() {
            return Err(wrong_type(item, &path, "a name"));
        }
        if words.iter().any(|other| other == word) {
            let message = format!("{word} stands here twice");
            return Err(DocumentError::new(item.line, item.column, &path, message));
        }
        words.push(word.into());
    }
    Ok(words)
}
