//! Golden plans. Rewritten by `UPDATE_EXPECT=1`.

mod faults;
mod hosts;
mod instances;
mod kinds;
mod owners;
mod placement;
mod projects;
mod renewal;
mod tenants;
mod tunnels;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::document::{key, parse};
use crate::incus::Live;
use crate::reconciler::desired::{Parser, StoredText};

const CLUSTER: &str = "c1";
const HOST: &str = "ovh";

/// A host: what documents say, in the order in which they were put, and what Incus has.
struct Host {
    parser: Parser,
    texts: Vec<(String, i64, i64, String)>,
    lists: BTreeMap<Kind, Vec<Live>>,
    revision: i64,
    may_delete: bool,
    busy: BTreeSet<DesiredKey>,
    /// The fenced instances that may run here.
    held: BTreeSet<DesiredKey>,
    due: BTreeMap<DesiredKey, String>,
    /// What waits for a secret, and the word for it.
    waiting: BTreeMap<DesiredKey, String>,
    seen: Seen,
}

impl Host {
    /// As Incus comes, a project and a profile, both named default, with a pool, a bridge and an image.
    fn new() -> Host {
        Host {
            parser: Parser::new(HOST),
            texts: Vec::new(),
            lists: BTreeMap::new(),
            revision: 100,
            may_delete: true,
            busy: BTreeSet::new(),
            held: BTreeSet::new(),
            due: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seen: Seen::default(),
        }
        .with(Kind::Incus, json!({"config": {}}))
        .with(
            Kind::StoragePool,
            json!({"name": "default", "driver": "dir", "config": {}}),
        )
        .with(
            Kind::Network,
            json!({"name": "incusbr0", "type": "bridge", "managed": true, "config": {}}),
        )
        .with(
            Kind::Project,
            json!({"name": "default", "config": {"features.profiles": "true"}}),
        )
        .with(
            Kind::Profile,
            json!({"name": "default", "project": "default", "config": {}, "devices": {}}),
        )
        .image("busybox")
        .image("debian/12")
    }

    fn with(mut self, kind: Kind, object: Value) -> Host {
        let list = self.lists.entry(kind).or_default();
        let is_same = |live: &Live| {
            kind != Kind::Image
                && ["name", "project", "pool"]
                    .iter()
                    .all(|field| live.object.get(field) == object.get(field))
        };
        list.retain(|live| !is_same(live));
        list.push(live(object));
        self
    }

    fn image(self, alias: &str) -> Host {
        let image = json!({"fingerprint": alias, "project": "default", "aliases": [{"name": alias}]});
        self.with(Kind::Image, image)
    }

    fn put(self, revision: i64, text: &str) -> Host {
        let key = key(&parse(text).unwrap());
        self.put_at(&key, revision, text)
    }

    fn put_at(mut self, key: &str, revision: i64, text: &str) -> Host {
        let created = self
            .texts
            .iter()
            .find(|(at, ..)| at == key)
            .map_or(revision, |(_, created, ..)| *created);
        self.texts.retain(|(at, ..)| at != key);
        self.texts
            .push((key.to_owned(), created, revision, text.to_owned()));
        self.read();
        self
    }

    fn gone(mut self, key: &str) -> Host {
        self.texts.retain(|(at, ..)| at != key);
        self
    }

    fn project(self, object: Value) -> Host {
        self.with(Kind::Project, object)
    }

    fn profile(self, object: Value) -> Host {
        self.with(Kind::Profile, object)
    }

    fn instance(self, object: Value) -> Host {
        self.with(Kind::Instance, object)
    }

    fn busy_with(mut self, key: &str) -> Host {
        self.busy.extend(crate::document::parse_desired_key(key));
        self
    }

    fn without(mut self, kind: Kind) -> Host {
        self.lists.remove(&kind);
        self
    }

    fn read(&mut self) -> Desired {
        let texts = self
            .texts
            .iter()
            .map(|(key, created_revision, revision, text)| StoredText {
                key: key.as_bytes(),
                value: text.as_bytes(),
                created_revision: *created_revision,
                revision: *revision,
            });
        Desired {
            waiting: self.waiting.clone(),
            ..self.parser.read(self.revision, texts)
        }
    }

    fn plan(&mut self) -> Plan {
        let observed = Observed::from_lists(self.lists.clone());
        let context = Context {
            host: HOST,
            cluster: CLUSTER,
            may_delete: self.may_delete,
            busy: &self.busy.clone(),
            held: Some(&self.held.clone()),
            due: &self.due.clone(),
        };
        plan(&self.read(), &observed, &self.seen.clone(), context)
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value at each use")]
    fn check(mut self, expected: Expect) {
        expected.assert_eq(&self.plan().to_string());
    }
}

fn live(object: Value) -> Live {
    Live {
        object,
        etag: String::new(),
    }
}

const WEB: &str = "/tenants/default/desired/instances/web";

/// The instance document `web`, with these lines in its spec.
fn web(spec: &str) -> String {
    web_with("", spec)
}

fn web_with(fields: &str, spec: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: ovh\n{fields}\nspec:\n  source: {{type: image, alias: busybox}}\n{spec}"
    )
}

/// An object as it is after the document was applied at a revision, with some fields laid over.
fn applied(text: &str, revision: i64, over: Value) -> Value {
    let document = parse(text).unwrap();
    let document = document.on_host(HOST);
    let words = crate::reconciler::observe::config_field(document.kind);
    let mut object = Value::Object(document.spec.clone());
    match document.kind {
        Kind::Image => {
            object["fingerprint"] = "f00".into();
            object["aliases"] = json!([{"name": super::create::image_alias(document)}]);
        }
        _ => object["name"] = document.name.clone().into(),
    }
    if document.kind.has_tenant() {
        object["project"] = document.tenant.clone().into();
    }
    if document.kind == Kind::Instance {
        object["status"] = if document.running { "Running" } else { "Stopped" }.into();
        if object.get("type").is_none() {
            object["type"] = "container".into();
        }
    }
    for (key, value) in ownership::keys(document, CLUSTER, revision, revision) {
        object[words][key] = value.into();
    }
    object[words][ownership::HOST] = HOST.into();
    object.as_object_mut().unwrap().remove("source");
    lay_over(&mut object, over);
    object
}

/// `null` removes; a map is merged; anything else replaces.
fn lay_over(object: &mut Value, over: Value) {
    match over {
        Value::Object(over) if object.is_object() => {
            for (field, value) in over {
                if value.is_null() {
                    object.as_object_mut().unwrap().remove(&field);
                } else {
                    lay_over(&mut object[&field], value);
                }
            }
        }
        over => *object = over,
    }
}
