//! One text for one meaning: fields sorted, nothing that is not needed.

use serde_json::{Map, Value, json};

use super::{Document, secret};

/// The document as compact JSON with sorted fields. Two documents that say the same have the same canonical
/// text, and it parses back to the same document.
#[must_use]
pub fn canonical_text(document: &Document) -> String {
    let mut fields = Map::new();
    fields.insert("kind".into(), json!(document.kind));
    fields.insert("lifecycle".into(), json!(document.lifecycle));
    fields.insert("name".into(), json!(document.name));
    if document.kind.has_tenant() {
        fields.insert("tenant".into(), json!(document.tenant));
    }
    if let Some(placement) = &document.placement {
        fields.insert("placement".into(), placement.canonical());
    }
    // Where an instance with placement is, is not its document's to say.
    let hosts = document.hosts.as_slice();
    match if document.placement.is_some() { &[] } else { hosts } {
        [] => {}
        [host] => {
            fields.insert("host".into(), json!(host));
        }
        hosts => {
            fields.insert("hosts".into(), json!(hosts));
        }
    }
    if let Some(instance) = &document.instance {
        fields.insert("instance".into(), json!(instance));
    }
    if document.kind == super::Kind::Instance {
        fields.insert("running".into(), json!(document.running));
    }
    if let Some(origin) = &document.origin {
        fields.insert("origin".into(), json!(origin));
    }
    if !document.per_host.is_empty() {
        fields.insert("perHost".into(), Value::Object(document.per_host.clone()));
    }
    fields.insert("spec".into(), Value::Object(secret::as_written(&document.spec)));
    sorted(&Value::Object(fields)).to_string()
}

/// A spec as compact JSON with sorted fields.
#[must_use]
pub fn canonical_spec(spec: &Map<String, Value>) -> String {
    sorted(&Value::Object(spec.clone())).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(right.0));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
