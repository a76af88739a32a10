//! An os-service's spec: IncusOS' own field, `config`. What of it this host can do is the reconciler's to say.

use serde_json::{Map, Value};

use super::host;
use crate::document::DocumentError;
use crate::document::fields::{Reader, boolean, fault, find, map, missing};
use crate::document::yaml::{Content, Entry, Node};

/// IncusOS' names.
pub(in crate::document) const NAMES: [&str; 10] = [
    "ceph",
    "iscsi",
    "linstor",
    "lvm",
    "multipath",
    "netbird",
    "nvme",
    "ovn",
    "tailscale",
    "usbip",
];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = host::known(reader, node, "os-service", &["config"])?;
    let Some(config) = find(entries, "config") else {
        return Err(missing(
            node,
            "spec.config",
            "as IncusOS takes it, with enabled: true",
        ));
    };
    let fields = map(&config.value, "spec.config")?;
    match find(fields, "enabled") {
        Some(enabled) => boolean(&enabled.value, "spec.config.enabled")?,
        None => {
            return Err(missing(&config.value, "spec.config.enabled", "true or false"));
        }
    };
    Ok([("config".to_owned(), value(reader, config, "spec.config")?)]
        .into_iter()
        .collect())
}

/// Any value, as JSON has it.
fn value(reader: &mut Reader, entry: &Entry, at: &str) -> Result<Value, DocumentError> {
    reader.remember(at, entry.line);
    of_node(reader, &entry.value, at).map_err(|message| fault(entry, at, message))
}

fn of_node(reader: &mut Reader, node: &Node, at: &str) -> Result<Value, String> {
    Ok(match &node.content {
        Content::Null => Value::Null,
        Content::Scalar { text, plain: true } if text == "true" || text == "false" => (text == "true").into(),
        Content::Scalar { text, plain } => match text.parse::<i64>() {
            Ok(number) if *plain => number.into(),
            _ if text.chars().any(char::is_control) => {
                return Err("has no control characters".to_owned());
            }
            _ => text.clone().into(),
        },
        Content::List(items) => {
            let items = items.iter().map(|item| of_node(reader, item, at));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Content::Map(entries) => {
            let mut fields = Map::new();
            for entry in entries {
                let at = format!("{at}.{}", entry.name);
                reader.remember(&at, entry.line);
                fields.insert(entry.name.clone(), of_node(reader, &entry.value, &at)?);
            }
            fields.into()
        }
    })
}
