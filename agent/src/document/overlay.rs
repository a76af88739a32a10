//! `perHost`: what a document says of one host, laid over what it says of all.

use serde_json::{Map, Value};

use super::yaml::{Content, Node};

/// Maps are merged, field by field; anything else is replaced whole. What comes from the overlay keeps its own line.
pub(super) fn merge(base: &Node, over: &Node) -> Node {
    let (Content::Map(entries), Content::Map(overs)) = (&base.content, &over.content) else {
        return over.clone();
    };
    let mut entries = entries.clone();
    for entry in overs {
        match entries.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => {
                known.value = merge(&known.value, &entry.value);
                (known.line, known.column) = (entry.line, entry.column);
            }
            None => entries.push(entry.clone()),
        }
    }
    Node {
        content: Content::Map(entries),
        ..*base
    }
}

/// A node as JSON that reads back as the same: what looks like a number stays the text that it is.
pub(super) fn value(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Scalar { text, plain: true } if text == "true" => Value::Bool(true),
        Content::Scalar { text, plain: true } if text == "false" => Value::Bool(false),
        Content::Scalar { text, .. } => Value::String(text.clone()),
        Content::List(items) => Value::Array(items.iter().map(value).collect()),
        Content::Map(entries) => {
            let fields = entries
                .iter()
                .map(|entry| (entry.name.clone(), value(&entry.value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}
