//! What is to be done to one object, as data: decided by the plan, carried out without further thought.

use std::fmt;

use serde_json::{Map, Value};

use super::observe::config_field;
use super::ownership;
use super::services::Act;
use crate::document::{Kind, OWNERSHIP_PREFIX, TunnelSpec, shown};

/// One thing to do. Each may be repeated: what is done already does no harm.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The body as Incus takes it, with our keys in its config.
    Create {
        body: Value,
    },
    /// Changes of the object as it is when the step is carried out.
    Change {
        changes: Vec<Change>,
    },
    Start,
    /// Asks the guest, and forces it after so long.
    Stop {
        timeout_seconds: u32,
    },
    /// Only while the object still carries this uid.
    Delete {
        uid: String,
    },
    /// Only that very object, which is of before the restart of the host: another one is made in its place.
    Discard {
        uid: String,
        birth: String,
    },
    /// For a service or a file, which are no objects of Incus.
    Service(Act),
    /// For a tunnel.
    Tunnel(TunnelStep),
}

/// What is done about a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TunnelStep {
    /// Opens it, or has the open one be so.
    Listen(TunnelSpec),
    Close,
}

/// One change within an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// `None` removes the key. `before` is for people.
    Config {
        key: String,
        before: Option<String>,
        after: Option<String>,
    },
    /// The whole entry; `None` removes it.
    Device {
        name: String,
        after: Option<Map<String, Value>>,
    },
    /// An image can be had by one more name, or by one less.
    Alias { name: String, add: bool },
    /// A field of the object itself: description, profiles, ephemeral.
    Field {
        name: &'static str,
        before: Value,
        after: Value,
    },
}

/// The steps, each in a word.
pub(crate) fn in_words(steps: &[Step]) -> String {
    let words = steps.iter().map(Step::word).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(", ")
}

/// The fields of a `PUT`, by kind: the rest of an object is Incus' to say. An instance's architecture is left
/// out, because Incus wants it never sent on an update.
fn writable(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Host
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Backup
        | Kind::Tunnel
        | Kind::Tenant
        | Kind::Template => &[],
        Kind::Incus => &["config"],
        Kind::StoragePool | Kind::Network | Kind::Project | Kind::Volume => &["description", "config"],
        Kind::NetworkAcl => &["description", "config", "ingress", "egress"],
        Kind::NetworkForward => &["description", "config", "ports"],
        Kind::Image => &["properties", "auto_update", "public", "expires_at", "profiles"],
        Kind::Profile => &["description", "config", "devices"],
        Kind::Instance => &[
            "description",
            "config",
            "devices",
            "profiles",
            "ephemeral",
            "stateful",
        ],
    }
}

/// The body of the `PUT` that makes `changes` to the object as it is now. Everything else is sent back as it came,
/// `volatile.*` included.
pub(crate) fn body_after(kind: Kind, live: &Value, changes: &[Change]) -> Value {
    let mut body = Map::new();
    for field in writable(kind) {
        if let Some(value) = live.get(field) {
            body.insert((*field).to_owned(), value.clone());
        }
    }
    for change in changes {
        match change {
            Change::Config { key, after, .. } => {
                let field = config_field(kind);
                // The server keeps what a change does not mention.
                let removal = (kind == Kind::Incus).then(String::new);
                set(
                    &mut body,
                    field,
                    key,
                    after.clone().or(removal).map(Value::String),
                );
            }
            Change::Alias { .. } => {}
            Change::Device { name, after } => {
                set(&mut body, "devices", name, after.clone().map(Value::Object));
            }
            Change::Field { name, after, .. } => {
                body.insert((*name).to_owned(), after.clone());
            }
        }
    }
    Value::Object(body)
}

fn set(body: &mut Map<String, Value>, field: &str, name: &str, value: Option<Value>) {
    let entry = body.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    if let Some(entries) = entry.as_object_mut() {
        match value {
            Some(value) => entries.insert(name.to_owned(), value),
            None => entries.remove(name),
        };
    }
}

impl Step {
    /// The step in a word, for a status. Empty: nothing that anybody sees.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Step::Create { .. } => "create",
            Step::Change { .. } => "change",
            Step::Start => "start",
            Step::Stop { .. } => "stop",
            Step::Delete { .. } => "delete",
            Step::Discard { .. } => "discard after the host's restart",
            Step::Service(act) => act.action.word(),
            Step::Tunnel(TunnelStep::Listen(_)) => "listen",
            Step::Tunnel(TunnelStep::Close) => "close",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create { body } => write!(f, "create {}", without_ownership(body)),
            Step::Change { changes } => {
                let mut lines: Vec<String> = changes
                    .iter()
                    .filter(|change| !change.is_ownership())
                    .map(ToString::to_string)
                    .collect();
                lines.extend(ownership_in_words(changes));
                f.write_str(&lines.join("\n"))
            }
            Step::Start => f.write_str("start"),
            Step::Stop { timeout_seconds } => write!(f, "stop, by force after {timeout_seconds} s"),
            Step::Delete { uid } => write!(f, "delete {uid}"),
            Step::Discard { uid, birth } => {
                write!(f, "discard {uid} of before the host's restart, born {birth}")
            }
            Step::Service(act) => act.fmt(f),
            Step::Tunnel(TunnelStep::Listen(spec)) => write!(f, "listen {spec}"),
            Step::Tunnel(TunnelStep::Close) => f.write_str("close"),
        }
    }
}

/// What the changes to our own keys amount to.
fn ownership_in_words(changes: &[Change]) -> Option<String> {
    let ours: Vec<&Change> = changes.iter().filter(|change| change.is_ownership()).collect();
    if ours.is_empty() {
        return None;
    }
    for change in &ours {
        if let Change::Config { key, after, .. } = change {
            match after {
                None if key == ownership::CLUSTER => return Some("release".to_owned()),
                Some(revision) if key == ownership::REVISION => {
                    return Some(format!("mark revision {revision}"));
                }
                _ => {}
            }
        }
    }
    Some("mark".to_owned())
}

fn without_ownership(body: &Value) -> Value {
    let mut body = body.clone();
    for field in ["config", "properties"] {
        if let Some(words) = body.get_mut(field).and_then(Value::as_object_mut) {
            words.retain(|key, _| !key.starts_with(OWNERSHIP_PREFIX));
        }
    }
    body
}

impl Change {
    pub(crate) fn is_ownership(&self) -> bool {
        matches!(self, Change::Config { key, .. } if key.starts_with(OWNERSHIP_PREFIX))
    }

    /// Where in a document's spec the change comes from.
    pub(crate) fn path(&self) -> String {
        match self {
            Change::Config { key, .. } => format!("config.{key}"),
            Change::Device { name, .. } => format!("devices.{name}"),
            Change::Alias { name, .. } => format!("alias {name}"),
            Change::Field { name, .. } => (*name).to_owned(),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Config { before, after, .. } => {
                let word = |value: &Option<String>| match value {
                    Some(value) => shown(value).into_owned(),
                    None => "(unset)".to_owned(),
                };
                write!(f, "{}: {} -> {}", self.path(), word(before), word(after))
            }
            Change::Device {
                after: Some(device), ..
            } => {
                write!(f, "{}: {}", self.path(), Value::Object(device.clone()))
            }
            Change::Device { after: None, .. } => write!(f, "{}: remove", self.path()),
            Change::Alias { add, .. } => {
                write!(f, "{}: {}", self.path(), if *add { "add" } else { "remove" })
            }
            Change::Field { before, after, .. } => write!(f, "{}: {before} -> {after}", self.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_put_carries_back_everything_but_what_changes() {
        let live = json!({"name": "web", "type": "container", "architecture": "x86_64", "status": "Running",
            "description": "by hand", "profiles": ["default"], "ephemeral": false, "stateful": false,
            "config": {"volatile.uuid": "u", "limits.cpu": "2", "user.theirs": "1"},
            "devices": {"root": {"type": "disk"}, "old": {"type": "none"}}, "expanded_config": {}});
        let changes = [
            Change::Config {
                key: "limits.memory".into(),
                before: None,
                after: Some("1GiB".into()),
            },
            Change::Config {
                key: "limits.cpu".into(),
                before: Some("2".into()),
                after: None,
            },
            Change::Device {
                name: "old".into(),
                after: None,
            },
            Change::Field {
                name: "profiles",
                before: json!([]),
                after: json!(["default", "web"]),
            },
        ];
        assert_eq!(
            body_after(Kind::Instance, &live, &changes),
            json!({"description": "by hand", "profiles": ["default", "web"], "ephemeral": false,
                "stateful": false,
                "config": {"volatile.uuid": "u", "user.theirs": "1", "limits.memory": "1GiB"},
                "devices": {"root": {"type": "disk"}}})
        );
        assert_eq!(
            body_after(Kind::Project, &live, &[]),
            json!({"description": "by hand", "config": live["config"]})
        );
    }

    #[test]
    fn a_body_without_config_gets_one() {
        let changes = [Change::Config {
            key: "a".into(),
            before: None,
            after: Some("1".into()),
        }];
        assert_eq!(
            body_after(Kind::Profile, &json!({"config": null}), &changes),
            json!({"config": {"a": "1"}})
        );
    }
}
