//! Whose an object is: what we write on it, and how we read that back.
//!
//! The keys stand in the object's own config, where they survive everything that the object does: a restart of
//! the agent, a lost data directory, a restored snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{DesiredKey, Document, Kind, Lifecycle, canonical_spec};

/// The cluster that made the object.
pub(crate) const CLUSTER: &str = "user.agent.cluster";
/// Which object of that cluster it is: `instance/default/web@14`, the last the revision that created the document.
pub(crate) const UID: &str = "user.agent.uid";
/// The revision of the document that the object was last made to agree with.
pub(crate) const REVISION: &str = "user.agent.revision";
/// What was set then: [`Applied`] in JSON.
pub(crate) const APPLIED: &str = "user.agent.applied";

/// The host whose member made the object. Members that share one Incus, as those of `agent dev` do, see each
/// other's objects: who made one is who deletes it. Written once.
pub(crate) const HOST: &str = "user.agent.host";

/// Everything we write on an object, in the order in which it is taken off again: the claim itself last.
pub(crate) const KEYS: [&str; 5] = [APPLIED, REVISION, HOST, UID, CLUSTER];

/// What we last set on an object. Outlives its document: deletion asks it what is allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// The format of this value.
    v: u32,
    pub(crate) spec: Map<String, Value>,
    pub(crate) running: bool,
    pub(crate) lifecycle: Lifecycle,
}

/// The format written now. An older one is read by an upgrade function here; there is none yet.
const FORMAT: u32 = 1;

/// Whose an object is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owner {
    /// Made by hand, or released by us.
    Nobody,
    /// Another cluster's.
    Another {
        cluster: String,
    },
    /// It carries our keys, but those of another object: a copy or a rename made by hand.
    CopyOf {
        uid: String,
    },
    Ours(Claim),
}

/// Our keys on an object of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) uid: String,
    pub(crate) revision: i64,
    /// Who made it. `None`: not said, which makes it this host's.
    pub(crate) host: Option<String>,
    /// `None` where it cannot be read: written by a newer agent, or damaged by hand.
    pub(crate) applied: Option<Applied>,
}

impl Claim {
    /// Whether another member made the object, in an Incus that both see.
    pub(crate) fn is_of_another_host(&self, host: &str) -> bool {
        self.host.as_deref().is_some_and(|maker| maker != host)
    }
}

/// Reads the keys on the object `id`.
pub(crate) fn owner(config: &BTreeMap<String, String>, cluster: &str, id: &DesiredKey) -> Owner {
    match (config.get(CLUSTER), config.get(UID)) {
        (None, _) => Owner::Nobody,
        (Some(other), _) if other != cluster => Owner::Another {
            cluster: other.clone(),
        },
        (Some(_), Some(uid)) if uid_is_of(uid, id) => Owner::Ours(Claim {
            uid: uid.clone(),
            revision: config
                .get(REVISION)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            host: config.get(HOST).cloned(),
            applied: config.get(APPLIED).and_then(|text| Applied::from_text(text)),
        }),
        (Some(_), uid) => Owner::CopyOf {
            uid: uid.cloned().unwrap_or_default(),
        },
    }
}

/// The keys to write on a document's object.
pub(crate) fn keys(
    document: &Document,
    cluster: &str,
    created_revision: i64,
    revision: i64,
) -> [(&'static str, String); 4] {
    [
        (CLUSTER, cluster.to_owned()),
        (
            UID,
            format!("{}@{created_revision}", uid_stem(&document.desired_key())),
        ),
        (REVISION, revision.to_string()),
        (APPLIED, Applied::of(document).to_text()),
    ]
}

fn uid_stem(id: &DesiredKey) -> String {
    if id.kind.has_tenant() {
        format!("{}/{}/{}", id.kind, id.tenant, id.name)
    } else {
        format!("{}/{}", id.kind, id.name)
    }
}

/// The name of the document that an object is of.
pub(crate) fn name_of(uid: &str) -> Option<&str> {
    uid.rsplit_once('@')?.0.rsplit('/').next()
}

fn uid_is_of(uid: &str, id: &DesiredKey) -> bool {
    uid.rsplit_once('@').is_some_and(|(stem, _)| stem == uid_stem(id))
}

/// What of a spec is on the object itself: of a preseed only the server's config is.
fn applied_part(document: &Document) -> Map<String, Value> {
    let mut spec = document.spec.clone();
    if document.kind == Kind::Incus {
        spec.retain(|field, _| field == "config");
    }
    spec
}

impl Applied {
    pub(crate) fn of(document: &Document) -> Applied {
        Applied {
            v: FORMAT,
            spec: applied_part(document),
            running: document.running,
            lifecycle: document.lifecycle,
        }
    }

    /// Always the same text for the same content, so that it can be compared as text.
    pub(crate) fn to_text(&self) -> String {
        let spec = canonical_spec(&self.spec);
        let lifecycle = serde_json::to_string(&self.lifecycle).unwrap_or_default();
        format!(
            r#"{{"v":{},"running":{},"lifecycle":{lifecycle},"spec":{spec}}}"#,
            self.v, self.running
        )
    }

    fn from_text(text: &str) -> Option<Applied> {
        serde_json::from_str(text)
            .ok()
            .filter(|applied: &Applied| applied.v == FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::document::{Kind, parse};

    fn web() -> DesiredKey {
        DesiredKey {
            kind: Kind::Instance,
            tenant: "default".into(),
            name: "web".into(),
        }
    }

    fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The format that objects in the field carry. A change of it needs a new version and an upgrade.
    #[test]
    fn the_written_format_is_this_one() {
        let text = "kind: instance\nname: web\nhost: ovh\nlifecycle: {protect: true}\nspec:\n  \
                    source: {type: image, alias: a}\n  config: {limits.memory: 256MiB}\n";
        let keys = keys(&parse(text).unwrap(), "c1", 14, 20);
        let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
        expect![[r#"
            user.agent.cluster=c1
            user.agent.uid=instance/default/web@14
            user.agent.revision=20
            user.agent.applied={"v":1,"running":true,"lifecycle":{"protect":true,"deletion":"delete","update":"live","managed":"full"},"spec":{"config":{"limits.memory":"256MiB"},"source":{"alias":"a","type":"image"}}}"#]]
        .assert_eq(&lines.join("\n"));
        let config = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let Owner::Ours(claim) = owner(&config, "c1", &web()) else {
            panic!("not ours")
        };
        assert_eq!(claim.revision, 20);
        assert_eq!(claim.applied, Some(Applied::of(&parse(text).unwrap())));
    }

    #[test]
    fn a_copy_made_by_hand_is_not_ours() {
        let copied = config(&[(CLUSTER, "c1"), (UID, "instance/default/api@3")]);
        assert_eq!(
            owner(&copied, "c1", &web()),
            Owner::CopyOf {
                uid: "instance/default/api@3".into()
            }
        );
        let bare = config(&[(CLUSTER, "c1")]);
        assert_eq!(owner(&bare, "c1", &web()), Owner::CopyOf { uid: String::new() });
    }

    #[test]
    fn others_are_recognised() {
        assert_eq!(owner(&config(&[]), "c1", &web()), Owner::Nobody);
        assert_eq!(
            owner(
                &config(&[(CLUSTER, "c2"), (UID, "instance/default/web@3")]),
                "c1",
                &web()
            ),
            Owner::Another { cluster: "c2".into() }
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        for text in ["", "{}", r#"{"v":2,"running":true,"lifecycle":{},"spec":{}}"#] {
            let config = config(&[(CLUSTER, "c1"), (UID, "instance/default/web@3"), (APPLIED, text)]);
            let Owner::Ours(claim) = owner(&config, "c1", &web()) else {
                panic!("not ours")
            };
            assert_eq!(claim.applied, None, "{text}");
        }
    }
}
