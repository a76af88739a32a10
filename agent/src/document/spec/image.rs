//! Where an image comes from: another server, a URL, or a file on the host.

use serde_json::{Map, Value};

use super::config::string;
use crate::document::DocumentError;
use crate::document::fields::{Reader, fault, find, join, map, missing, one_of};
use crate::document::yaml::Node;

const PATH: &str = "spec.source";

/// For each type: the fields that it takes, and those that it needs one of.
const TYPES: [(&str, &[&str], &[&str]); 3] = [
    (
        "image",
        &[
            "type",
            "server",
            "protocol",
            "alias",
            "fingerprint",
            "certificate",
            "image_type",
        ],
        &["alias", "fingerprint"],
    ),
    ("url", &["type", "url"], &["url"]),
    ("file", &["type", "path"], &["path"]),
];

pub(super) fn source(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = map(node, PATH)?;
    let words = TYPES.map(|(word, ..)| word);
    let Some(entry) = find(entries, "type") else {
        return Err(missing(
            node,
            "spec.source.type",
            &format!("one of {}", words.join(", ")),
        ));
    };
    let word = one_of(&entry.value, "spec.source.type", &words)?;
    let (_, fields, needed) = TYPES
        .into_iter()
        .find(|(known, ..)| *known == word)
        .unwrap_or(TYPES[0]);
    reader.known(
        entries,
        PATH,
        fields,
        &format!("no such field in a source of type {word}"),
    )?;
    if !needed.iter().any(|name| find(entries, name).is_some()) {
        let path = join(PATH, needed.first().copied().unwrap_or_default());
        return Err(missing(node, &path, "which image"));
    }
    if word == "image" && find(entries, "server").is_none() {
        return Err(missing(
            node,
            "spec.source.server",
            "the URL of the server that has it",
        ));
    }
    let mut source = Map::new();
    for entry in entries {
        let path = join(PATH, &entry.name);
        let text = string(&entry.value, &path)?;
        if entry.name == "path" && !text.starts_with('/') {
            return Err(fault(entry, &path, "is a path on the host, from its root"));
        }
        source.insert(entry.name.clone(), text.into());
    }
    Ok(source)
}
