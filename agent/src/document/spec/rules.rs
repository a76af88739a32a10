//! Lists of rules, each a map of words: an ACL's, and the ports of a forward.

use serde_json::{Map, Value};

use super::config::string;
use crate::document::DocumentError;
use crate::document::fields::{Reader, find, join, map, missing, one_of, wrong_type};
use crate::document::yaml::{Content, Node};

/// What one kind of rule may say, in Incus' words.
pub(super) struct Rules {
    fields: &'static [&'static str],
    /// Those that it must say, and what they may be; any word where the list is empty.
    required: &'static [(&'static str, &'static [&'static str])],
}

pub(super) const ACL: Rules = Rules {
    fields: &[
        "action",
        "state",
        "description",
        "source",
        "destination",
        "protocol",
        "source_port",
        "destination_port",
        "icmp_type",
        "icmp_code",
    ],
    required: &[
        ("action", &["allow", "allow-stateless", "drop", "reject"]),
        ("state", &["enabled", "disabled", "logged"]),
    ],
};

pub(super) const PORTS: Rules = Rules {
    fields: &[
        "description",
        "protocol",
        "listen_port",
        "target_port",
        "target_address",
    ],
    required: &[
        ("protocol", &["tcp", "udp"]),
        ("listen_port", &[]),
        ("target_address", &[]),
    ],
};

impl Rules {
    pub(super) fn read(
        &self,
        reader: &mut Reader,
        node: &Node,
        path: &str,
    ) -> Result<Vec<Value>, DocumentError> {
        let Content::List(items) = &node.content else {
            return Err(wrong_type(node, path, "a list of rules"));
        };
        items
            .iter()
            .enumerate()
            .map(|(index, item)| self.one(reader, item, &format!("{path}[{index}]")))
            .collect()
    }

    fn one(&self, reader: &mut Reader, item: &Node, path: &str) -> Result<Value, DocumentError> {
        reader.remember(path, item.line);
        let entries = map(item, path)?;
        reader.known(entries, path, self.fields, "no such field in a rule")?;
        for (name, words) in self.required {
            let path = join(path, name);
            match find(entries, name) {
                None if words.is_empty() => return Err(missing(item, &path, "a word")),
                None => return Err(missing(item, &path, &format!("one of {}", words.join(", ")))),
                Some(entry) if !words.is_empty() => {
                    one_of(&entry.value, &path, words)?;
                }
                Some(_) => {}
            }
        }
        let mut rule = Map::new();
        for entry in entries {
            let text = string(&entry.value, &join(path, &entry.name))?;
            // Incus does not keep what says nothing.
            if !text.is_empty() {
                rule.insert(entry.name.clone(), text.into());
            }
        }
        Ok(rule.into())
    }
}
