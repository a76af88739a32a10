//! The body of a new object: what Incus takes, with our keys on it.

use serde_json::{Map, Value, json};

use super::View;
use super::keep::InForce;
use crate::document::{Document, Kind};
use crate::reconciler::observe::config_field;
use crate::reconciler::ownership;
use crate::reconciler::step::Step;

/// Makes the document's object, and starts an instance that should run.
pub(super) fn create(view: View<'_>, in_force: InForce<'_>) -> Vec<Step> {
    let InForce {
        document,
        revision,
        created_revision,
    } = in_force;
    let mut body = match document.kind {
        Kind::Image => image(document),
        _ => document.spec.clone(),
    };
    // A forward has no name but its address, and an image none but its aliases.
    if !matches!(document.kind, Kind::NetworkForward | Kind::Image) {
        body.insert("name".into(), document.name.clone().into());
    }
    let config = body
        .entry(config_field(document.kind))
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(config) = config.as_object_mut() {
        for (key, value) in ownership::keys(document, view.context.cluster, created_revision, revision) {
            config.insert(key.to_owned(), value.into());
        }
        config.insert(ownership::HOST.to_owned(), view.context.host.into());
    }
    let create = Step::Create {
        body: Value::Object(body),
    };
    let starts = document.kind == Kind::Instance && document.running;
    std::iter::once(create)
        .chain(starts.then_some(Step::Start))
        .collect()
}

/// The name under which instances ask for an image.
pub(super) fn image_alias(document: &Document) -> &str {
    let alias = document.spec.get("alias").and_then(Value::as_str);
    alias.unwrap_or(&document.name)
}

fn image(document: &Document) -> Map<String, Value> {
    let mut body = document.spec.clone();
    body.remove("alias");
    body.insert("aliases".into(), json!([{"name": image_alias(document)}]));
    if let Some(source) = body.get_mut("source").and_then(Value::as_object_mut)
        && source.get("type").and_then(Value::as_str) == Some("image")
    {
        source.insert("mode".into(), "pull".into());
        source.entry("protocol").or_insert_with(|| "simplestreams".into());
    }
    body
}
