//! What stands in for secrets, and what is put in.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::document::{Kind, parse_desired_key};
use crate::incus::Live;
use crate::reconciler::desired::{Parser, StoredText};
use crate::reconciler::services::FileWanted;
use crate::reconciler::services::{Act, Place, Replaces};
use crate::secrets::{Keys, generate};

const AT: &str = "/tenants/default/desired/profiles/web";
const SECRET: &str = "/tenants/default/secrets/db";
const TEXT: &str =
    "kind: profile\nname: web\nspec: {config: {environment.DB: {secret: db}, user.a: plain}}\n";

struct World {
    _dir: tempfile::TempDir,
    secrets: Secrets,
    keys: Keys,
    parser: Parser,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.key");
    let text = generate().unwrap();
    std::fs::write(&path, &text).unwrap();
    World {
        _dir: dir,
        secrets: Secrets::new(Some(KeyFile::new(path))),
        keys: Keys::parse(&text, Path::new("")).unwrap(),
        parser: Parser::new("ovh"),
    }
}

impl World {
    fn sealed(&self, value: &str) -> String {
        Sealed::seal(&self.keys, SECRET, value.as_bytes())
            .unwrap()
            .to_string()
    }

    /// What stands in the store, with the revision of each.
    fn read(&mut self, texts: &[(&str, i64, &str)]) -> Desired {
        let stored = texts.iter().map(|(key, revision, text)| StoredText {
            key: key.as_bytes(),
            value: text.as_bytes(),
            created_revision: 2,
            revision: *revision,
        });
        let mut desired = self.parser.read(99, stored);
        self.secrets.stand_in(&mut desired, "ovh");
        desired
    }
}

fn key() -> DesiredKey {
    parse_desired_key(AT).unwrap()
}

fn config(desired: &Desired) -> &Value {
    &desired.documents[&key()].text.in_force().unwrap().spec["config"]
}

fn observed(config: &Value) -> Observed {
    let object = json!({"name": "web", "project": "default", "config": config, "devices": {}});
    let live = Live {
        object,
        etag: String::new(),
    };
    Observed::from_lists([(Kind::Profile, vec![live])])
}

#[test]
fn a_document_gets_stand_ins_or_waits() {
    let mut world = world();
    let sealed = world.sealed("hunter2");
    let desired = world.read(&[(AT, 3, TEXT), (SECRET, 7, &sealed)]);
    let standing = config(&desired)["environment.DB"].as_str().unwrap();
    assert_eq!(
        stands_for(standing).map(|one| (one.name, one.revision)),
        Some(("db", 7))
    );
    assert_eq!(config(&desired)["user.a"], "plain");
    assert!(desired.waiting.is_empty());

    let elsewhere = Sealed::seal(&world.keys, "/tenants/shop/secrets/db", b"x").unwrap();
    let mut waits = |secret: Option<&str>| {
        let texts: Vec<_> = secret.map(|text| (SECRET, 8, text)).into_iter().collect();
        let desired = world.read(&[&[(AT, 3, TEXT)], texts.as_slice()].concat());
        desired.waiting[&key()].clone()
    };
    assert_eq!(waits(None), "waits for secret db: agentctl secret set db");
    assert_eq!(waits(Some("hunter2")), "secret db is not sealed: set it again");
    let other = Keys::parse(&generate().unwrap(), Path::new("")).unwrap();
    let unknown = Sealed::seal(&other, SECRET, b"x").unwrap().to_string();
    assert!(waits(Some(&unknown)).contains("which is not in this host's --secrets-key-file"));
    assert!(waits(Some(&elsewhere.to_string())).contains("was sealed for another name"));
}

#[test]
fn what_incus_has_is_compared_and_not_seen() {
    let mut world = world();
    let sealed = world.sealed("hunter2");
    let desired = world.read(&[(AT, 3, TEXT), (SECRET, 7, &sealed)]);
    let seen = |config: &Value, desired: &[&Desired]| {
        let mut observed = observed(config);
        world.secrets.hide(&mut observed, desired);
        observed.objects[&key()].config.clone()
    };
    let standing = config(&desired)["environment.DB"].as_str().unwrap();
    let there = seen(
        &json!({"environment.DB": "hunter2", "user.a": "hunter2"}),
        &[&desired],
    );
    assert_eq!(there["environment.DB"], standing);
    assert_eq!(there["user.a"], "hunter2", "no secret, by its document");
    let other = seen(&json!({"environment.DB": "hunter1"}), &[&desired]);
    assert_eq!(other["environment.DB"], another_value());
    // Its document refers to nothing any more: what is noted on the object still tells.
    let plain = Desired::default();
    let applied = json!({"spec": {"config": {"environment.DB": standing}}}).to_string();
    let noted = json!({"environment.DB": "hunter2", "user.agent.applied": applied});
    assert_eq!(seen(&noted, &[&plain])["environment.DB"], standing);
}

#[test]
fn steps_get_values_and_errors_lose_them() {
    let mut world = world();
    let sealed = world.sealed("hunter2");
    let desired = world.read(&[(AT, 3, TEXT), (SECRET, 7, &sealed)]);
    let standing = config(&desired)["environment.DB"].clone();
    let file = FileWanted {
        path: "/etc/db".into(),
        content: Content::Secret {
            name: "db".into(),
            digest: digest(b"hunter2"),
        },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mark: None,
        at: "spec".into(),
    };
    let mut steps = [
        Step::Create {
            body: json!({"name": "web", "config": {"environment.DB": standing, "user.agent.applied": format!("{standing}")}}),
        },
        Step::Change {
            changes: vec![Change::Config {
                key: "environment.DB".into(),
                before: Some(another_value()),
                after: standing.as_str().map(str::to_owned),
            }],
        },
        Step::Service(Act {
            place: Place::Host,
            manager: None,
            action: Action::Write(Arc::new(file), Replaces::Nothing),
        }),
    ];
    let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(words[1], "config.environment.DB: (another value) -> (secret db)");
    assert_eq!(words[2], "host: write /etc/db 0600 0:0, secret db, new");

    let revealed = world.secrets.reveal(&key(), &mut steps).unwrap();
    let Step::Create { body } = &steps[0] else {
        panic!("{steps:?}")
    };
    assert_eq!(body["config"]["environment.DB"], "hunter2");
    assert!(
        !body["config"]["user.agent.applied"]
            .as_str()
            .unwrap()
            .contains("hunter2")
    );
    let Step::Change { changes } = &steps[1] else {
        panic!("{steps:?}")
    };
    assert!(matches!(&changes[0], Change::Config { after: Some(after), .. } if after == "hunter2"));
    let Step::Service(act) = &steps[2] else {
        panic!("{steps:?}")
    };
    assert!(
        matches!(&act.action, Action::Write(file, _) if file.content == Content::Plain(b"hunter2".to_vec()))
    );
    let error = "Invalid value \"hunter2\"".to_owned();
    assert_eq!(revealed.scrubbed(error), "Invalid value \"(secret db)\"");
    assert!(!format!("{revealed:?}{:?}", world.secrets).contains("hunter2"));

    // It is gone before the step is carried out.
    world.read(&[(AT, 3, TEXT)]);
    let mut steps = [Step::Create {
        body: json!({"config": {"environment.DB": standing}}),
    }];
    let error = world.secrets.reveal(&key(), &mut steps).unwrap_err();
    assert_eq!(error, "secret db is not to be had any more");
}

#[test]
fn config_takes_text_only() {
    let mut world = world();
    let sealed = Sealed::seal(&world.keys, SECRET, b"\xff").unwrap().to_string();
    let desired = world.read(&[(AT, 3, TEXT), (SECRET, 7, &sealed)]);
    let standing = config(&desired)["environment.DB"].clone();
    let mut steps = [Step::Create {
        body: json!({"config": {"environment.DB": standing}}),
    }];
    let error = world.secrets.reveal(&key(), &mut steps).unwrap_err();
    assert_eq!(error, "secret db is no text, which config has to be");
}
