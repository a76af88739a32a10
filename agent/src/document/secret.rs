//! Secrets: where they live, how documents refer to them, and what stands for one wherever documents are worked with. Pure.
//!
//! A document says `{secret: NAME}` in the place of a value. While hosts work with it, a stand-in has that place: a text
//! that names the secret and the revision of its value, and is not its value. Plans, status and what is written on objects
//! are made of stand-ins; what they stand for is put in where a step is carried out, and nowhere else.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use super::fields::{fault, find, join, word};
use super::name;
use super::yaml::{Content, Node};
use super::{DEFAULT_TENANT, DocumentError};

/// Every stand-in begins with it, and no text of a document's author does: a character of nobody's alphabet.
const MARK: char = '\u{F8FF}';
const FIELD: &str = "secret";
/// Stands for a value that is not the secret's.
const ANOTHER: &str = "\u{F8FF}another";

/// What config may be a secret: nothing that inventories or other people's eyes have.
const CONFIG: [&str; 3] = ["environment.", "cloud-init.", "user."];

/// Whose secret, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    pub tenant: String,
    pub name: String,
}

/// What stands for a secret, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn<'a> {
    pub name: &'a str,
    /// The revision that put the value.
    pub revision: i64,
    /// Of the value, where it becomes a file: files are compared by their digests.
    pub digest: Option<&'a str>,
}

/// Where a tenant's secrets live.
#[must_use]
pub fn secret_prefix(tenant: &str) -> String {
    format!("/tenants/{tenant}/secrets/")
}

/// Whether a key is among secrets, whatever its name.
#[must_use]
pub fn is_among_secrets(key: &[u8]) -> bool {
    let below = key.strip_prefix(b"/tenants/");
    let rest = below.and_then(|below| {
        let tenant = below.iter().position(|byte| *byte == b'/')?;
        below.get(tenant..)
    });
    rest.is_some_and(|rest| rest.starts_with(b"/secrets/"))
}

/// Takes a secret's key apart; `None` for any other key, and for a name that no secret can have.
#[must_use]
pub fn parse_secret_key(key: &str) -> Option<SecretKey> {
    let segments: Vec<&str> = key.strip_prefix("/tenants/")?.split('/').collect();
    match segments.as_slice() {
        [tenant, "secrets", name] if !tenant.is_empty() && name::plain_fault(name).is_none() => {
            Some(SecretKey {
                tenant: (*tenant).to_owned(),
                name: (*name).to_owned(),
            })
        }
        _ => None,
    }
}

impl SecretKey {
    #[must_use]
    pub fn key(&self) -> String {
        secret_prefix(&self.tenant) + &self.name
    }
}

impl fmt::Display for SecretKey {
    /// `db`, or with its tenant where that is not the default one: `shop/db`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant == DEFAULT_TENANT {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.tenant, self.name)
        }
    }
}

/// Why `name` is no name for a secret; `None` when it is one.
#[must_use]
pub fn secret_name_fault(name: &str) -> Option<&'static str> {
    name::plain_fault(name)
}

/// Reads `{secret: NAME}`; `None` for anything that is no map.
pub(super) fn reference(node: &Node, path: &str) -> Result<Option<Value>, DocumentError> {
    let Content::Map(entries) = &node.content else {
        return Ok(None);
    };
    if let Some(other) = entries.iter().find(|entry| entry.name != FIELD) {
        let message = "no such field: a value is a text, or {secret: NAME}";
        return Err(fault(other, &join(path, &other.name), message));
    }
    let Some(entry) = find(entries, FIELD) else {
        let message = "is empty: a value is a text, or {secret: NAME}";
        return Err(DocumentError::new(node.line, node.column, path, message));
    };
    let path = join(path, FIELD);
    let name = word(&entry.value, &path)?;
    match name::plain_fault(name) {
        Some(wrong) => Err(fault(entry, &path, wrong)),
        None => Ok(Some(json!({ FIELD: name }))),
    }
}

/// Whether a key of an instance's or a profile's config may be a secret.
pub(super) fn may_be_config(key: &str) -> bool {
    CONFIG.iter().any(|prefix| key.starts_with(prefix))
}

/// Which config may be a secret, for whoever wrote another.
pub(super) const CONFIG_FAULT: &str = "cannot be a secret: environment.*, cloud-init.* and user.* of instances and profiles can, and contents of files";

/// Why a text is none that an author writes; `None`: it is one.
pub(super) fn text_fault(text: &str) -> Option<&'static str> {
    text.starts_with(MARK)
        .then_some("begins with U+F8FF, which stands for secrets here")
}

/// The name in a reference; `None` for any other value.
#[must_use]
pub fn secret_named_by(value: &Value) -> Option<&str> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.get(FIELD)?.as_str()
}

/// Where a value that may be a secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Config,
    File,
}

/// Every place of a spec where a secret may stand.
fn visit(spec: &mut Map<String, Value>, mut each: impl FnMut(&mut Value, Use)) {
    for (field, value) in spec {
        match (field.as_str(), value) {
            ("config", Value::Object(config)) => {
                config.values_mut().for_each(|value| each(value, Use::Config));
            }
            ("content", value) => each(value, Use::File),
            ("files", Value::Array(files)) => {
                let contents = files.iter_mut().filter_map(|file| file.get_mut("content"));
                contents.for_each(|value| each(value, Use::File));
            }
            _ => {}
        }
    }
}

/// The secrets that a spec refers to.
pub(super) fn named_in(spec: &mut Map<String, Value>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    visit(spec, |value, _| {
        names.extend(secret_named_by(value).map(str::to_owned));
    });
    names
}

/// Puts stand-ins in the place of references. `known` gives a secret's revision and the digest of its value; what it does
/// not know stays a reference.
pub(super) fn stand_in(spec: &mut Map<String, Value>, known: impl Fn(&str) -> Option<(i64, String)>) {
    visit(spec, |value, how| {
        let Some(name) = secret_named_by(value) else {
            return;
        };
        let Some((revision, digest)) = known(name) else {
            return;
        };
        *value = match how {
            Use::Config => format!("{MARK}secret:{name}@{revision}"),
            Use::File => format!("{MARK}secret:{name}@{revision}:{digest}"),
        }
        .into();
    });
}

/// The spec as its author wrote it: references in the place of stand-ins.
pub(super) fn as_written(spec: &Map<String, Value>) -> Map<String, Value> {
    let mut written = spec.clone();
    visit(&mut written, |value, _| {
        if let Some(reference) = value
            .as_str()
            .and_then(stands_for)
            .map(|one| json!({ FIELD: one.name }))
        {
            *value = reference;
        }
    });
    written
}

/// Takes a stand-in apart; `None` for any other text.
#[must_use]
pub fn stands_for(text: &str) -> Option<StandIn<'_>> {
    let rest = text.strip_prefix(MARK)?.strip_prefix("secret:")?;
    let (name, rest) = rest.split_once('@')?;
    let (revision, digest) = match rest.split_once(':') {
        Some((revision, digest)) => (revision, Some(digest)),
        None => (rest, None),
    };
    Some(StandIn {
        name,
        revision: revision.parse().ok()?,
        digest,
    })
}

/// What stands in config for a value that is not the secret's.
#[must_use]
pub fn another_value() -> String {
    ANOTHER.to_owned()
}

/// Whether there may be a stand-in in a text: cheap, and never wrong about there being none.
#[must_use]
pub fn may_hold_stand_in(text: &str) -> bool {
    text.contains(MARK)
}

/// A value for people: a stand-in in words, anything else as it is.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    match stands_for(text) {
        Some(one) => format!("(secret {})", one.name).into(),
        None if text == ANOTHER => "(another value)".into(),
        None => text.into(),
    }
}

/// An object of Incus as people may see it: references in the place of the values that came from secrets, by what is
/// noted on it. What an instance has from profiles that may be such a value is left out.
pub fn hide_secrets(object: &mut Value) {
    let noted = object
        .pointer("/config/user.agent.applied")
        .and_then(Value::as_str);
    let noted: Value = noted
        .filter(|text| may_hold_stand_in(text))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let noted = noted.pointer("/spec/config").and_then(Value::as_object);
    if let (Some(noted), Some(config)) = (noted, object.get_mut("config").and_then(Value::as_object_mut)) {
        for (key, text) in noted {
            if let (Some(one), Some(value)) = (text.as_str().and_then(stands_for), config.get_mut(key)) {
                *value = json!({ FIELD: one.name });
            }
        }
    }
    if let Some(expanded) = object.get_mut("expanded_config").and_then(Value::as_object_mut) {
        expanded.retain(|key, _| !may_be_config(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{canonical_text, parse};

    #[test]
    fn keys_of_secrets() {
        let db = parse_secret_key("/tenants/shop/secrets/db").unwrap();
        assert_eq!(
            (db.to_string().as_str(), db.key().as_str()),
            ("shop/db", "/tenants/shop/secrets/db")
        );
        for key in [
            "/tenants/shop/secrets/",
            "/tenants/shop/secrets/a/b",
            "/tenants//secrets/a",
            "/tenants/shop/x/a",
        ] {
            assert_eq!(parse_secret_key(key), None, "{key}");
        }
        for (key, among) in [
            ("/tenants/shop/secrets/a/b", true),
            ("/tenants/shop/secrets/", true),
            ("/tenants//secrets/a", true),
            ("/tenants/shop/secret/a", false),
            ("/tenants/shop", false),
            ("/tenants/a/b/secrets/c", false),
        ] {
            assert_eq!(is_among_secrets(key.as_bytes()), among, "{key}");
        }
    }

    #[test]
    fn what_stands_in_is_written_as_the_reference_again() {
        let text = "kind: service\nname: web\nspec:\n  exec: /bin/web\n  files:\n  - path: /etc/web.key\n    \
                    content: {secret: web-key}\n  - path: /etc/web.conf\n    content: plain\n";
        let document = parse(text).unwrap();
        assert_eq!(document.secrets(), &["web-key".to_owned()].into());
        let written = canonical_text(&document);
        let mut standing = document.clone();
        standing.stand_in_for_secrets(|name| (name == "web-key").then(|| (7, "abc".to_owned())));
        let content = standing.spec["files"][0]["content"].as_str().unwrap();
        let expected = StandIn {
            name: "web-key",
            revision: 7,
            digest: Some("abc"),
        };
        assert_eq!(stands_for(content), Some(expected));
        assert_eq!(shown(content), "(secret web-key)");
        assert_eq!(canonical_text(&standing), written);
        assert_eq!(standing.spec["files"][1]["content"], "plain");
    }

    #[test]
    fn an_object_is_shown_without_its_secrets() {
        let applied = format!(r#"{{"spec":{{"config":{{"environment.DB":"{MARK}secret:db@4"}}}}}}"#);
        let mut object = json!({"name": "web",
            "config": {"environment.DB": "hunter2", "user.x": "1", "user.agent.applied": applied},
            "expanded_config": {"environment.DB": "hunter2", "user.y": "of a profile", "limits.cpu": "1"}});
        hide_secrets(&mut object);
        assert_eq!(object["config"]["environment.DB"], json!({"secret": "db"}));
        assert_eq!(object["config"]["user.x"], "1");
        assert_eq!(object["expanded_config"], json!({"limits.cpu": "1"}));
        assert!(!object.to_string().contains("hunter2"));
    }

    #[test]
    fn nobody_writes_a_stand_in() {
        for (text, wrong) in [
            (
                "config: {limits.cpu: {secret: a}}",
                "spec.config.limits.cpu: cannot be a secret",
            ),
            (
                "config: {user.a: {secret: a/b}}",
                "spec.config.user.a.secret: a name has letters",
            ),
            (
                "config: {user.a: {secrets: a}}",
                "spec.config.user.a.secrets: no such field",
            ),
            ("config: {user.a: {}}", "spec.config.user.a: is empty"),
            (
                "config: {user.a: \"\u{F8FF}secret:a@1\"}",
                "spec.config.user.a: begins with U+F8FF",
            ),
        ] {
            let document = format!("kind: profile\nname: web\nspec:\n  {text}\n");
            let error = parse(&document).unwrap_err().text();
            assert!(error.starts_with(wrong), "{error}");
        }
        let network = "kind: network\nname: br1\nspec:\n  config: {user.a: {secret: a}}\n";
        assert!(parse(network).unwrap_err().text().contains("cannot be a secret"));
    }
}
