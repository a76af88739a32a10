//! Golden plans. Rewritten by `UPDATE_EXPECT=1`.

mod hosts;
mod kinds;
mod placement;
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
        self.parser.read(self.revision, texts)
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

#[test]
fn nothing_wanted_and_nothing_ours_is_an_empty_plan() {
    Host::new()
        .instance(json!({"name": "by-hand", "project": "default", "status": "Running"}))
        .check(expect![""]);
}

#[test]
fn a_new_instance_is_created_and_started() {
    Host::new()
        .put(
            14,
            &web("  profiles: [default]\n  config: {limits.memory: 256MiB}"),
        )
        .check(expect![[r#"
            instance web @14: Progressing: create, start
                create {"profiles":["default"],"config":{"limits.memory":"256MiB"},"source":{"type":"image","alias":"busybox"},"name":"web"}
                start
        "#]]);
}

#[test]
fn a_virtual_machine_is_an_instance() {
    Host::new()
        .put(14, &web_with("running: false", "  type: virtual-machine"))
        .check(expect![[r#"
            instance web @14: Progressing: create
                create {"type":"virtual-machine","source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
        "#]]);
}

#[test]
fn what_agrees_needs_nothing() {
    let text = web("  profiles: [default]\n  config: {limits.memory: 256MiB}");
    let host = |over| Host::new().put(14, &text).instance(applied(&text, 14, over));
    host(json!({})).check(expect![[r#"
        instance web @14: Ready
    "#]]);
    // Other words for the same, and what Incus and hands added.
    host(json!({"config": {"limits.memory": "268435456", "volatile.uuid": "u", "image.os": "busybox", "user.x": "1"},
        "devices": {"eth0": {"type": "nic"}}, "description": "by hand", "status": "Ready"}))
    .check(expect![[r#"
        instance web @14: Ready
    "#]]);
}

#[test]
fn a_stopped_instance_may_be_wanted_so() {
    let text = web_with("running: false", "");
    Host::new()
        .put(14, &text)
        .instance(applied(&text, 14, json!({})))
        .check(expect![[r#"
            instance web @14: Stopped
        "#]]);
    Host::new()
        .put(14, &text)
        .instance(applied(&text, 14, json!({"status": "Running"})))
        .check(expect![[r#"
            instance web @14: Progressing: stop
                stop, by force after 30 s
        "#]]);
}

#[test]
fn an_instance_stopped_by_hand_is_started() {
    let text = web("");
    Host::new()
        .put(14, &text)
        .instance(applied(&text, 14, json!({"status": "Stopped"})))
        .check(expect![[r#"
            instance web @14: Progressing: start
                start
        "#]]);
}

#[test]
fn states_that_only_a_person_can_judge_are_reported() {
    let text = web("");
    for (status, expected) in [
        (
            "Frozen",
            expect![[r#"
            instance web @14: Failed: paused by hand; incus resume web wakes it
        "#]],
        ),
        (
            "Error",
            expect![[r#"
            instance web @14: Failed: Incus says Error; incus info --show-log says why
        "#]],
        ),
        (
            "Starting",
            expect![[r#"
            instance web @14: Progressing: Incus says Starting
        "#]],
        ),
    ] {
        Host::new()
            .put(14, &text)
            .instance(applied(&text, 14, json!({"status": status})))
            .check(expected);
    }
}

#[test]
fn an_edit_is_a_live_change() {
    let before = web("  config: {limits.memory: 256MiB, limits.cpu: 1}\n  devices: {old: {type: none}}");
    let after = web(
        "  description: the web\n  profiles: [default]\n  config: {limits.memory: 512MiB}\n  \
         devices: {data: {type: disk, path: /d, source: /srv}}",
    );
    Host::new()
        .put(14, &before)
        .put(20, &after)
        .instance(applied(&before, 14, json!({})))
        .check(expect![[r#"
            instance web @20: Progressing: change
                description: "" -> "the web"
                config.limits.cpu: 1 -> (unset)
                config.limits.memory: 256MiB -> 512MiB
                devices.data: {"type":"disk","path":"/d","source":"/srv"}
                devices.old: remove
                mark revision 20
        "#]]);
}

#[test]
fn taking_fields_out_undoes_what_we_set() {
    let before = web("  description: a\n  profiles: [web]\n  ephemeral: true\n  config: {user.a: 1}");
    let after = web("");
    let live = applied(&before, 14, json!({"config": {"user.theirs": "1"}}));
    Host::new()
        .put(14, &before)
        .put(20, &after)
        .instance(live)
        .check(expect![[r#"
            instance web @20: Progressing: change
                description: "a" -> ""
                profiles: ["web"] -> ["default"]
                ephemeral: true -> false
                config.user.a: 1 -> (unset)
                mark revision 20
        "#]]);
}

#[test]
fn drift_by_hand_is_put_back_where_the_document_speaks() {
    let text =
        web("  config: {limits.memory: 256MiB}\n  devices: {root: {type: disk, path: /, pool: default}}");
    let drifted = json!({"config": {"limits.memory": "1GiB", "limits.cpu": "4"},
        "devices": {"root": {"size": "5GiB"}, "eth0": {"type": "nic"}}});
    Host::new()
        .put(14, &text)
        .instance(applied(&text, 14, drifted))
        .check(expect![[r#"
            instance web @14: Progressing: change
                config.limits.memory: 1GiB -> 256MiB
                devices.root: {"type":"disk","path":"/","pool":"default"}
        "#]]);
}

#[test]
fn what_incus_writes_under_shared_keys_is_no_drift_but_an_edit_counts() {
    let before = web("  config: {environment.A: '1'}");
    let drifted = json!({"config": {"environment.A": "2", "environment.PATH": "/bin"}});
    Host::new()
        .put(14, &before)
        .instance(applied(&before, 14, drifted.clone()))
        .check(expect![[r#"
            instance web @14: Ready
        "#]]);
    let after = web("  config: {environment.A: '3'}");
    Host::new()
        .put(14, &before)
        .put(20, &after)
        .instance(applied(&before, 14, drifted))
        .check(expect![[r#"
            instance web @20: Progressing: change
                config.environment.A: 2 -> 3
                mark revision 20
        "#]]);
}

#[test]
fn a_change_that_needs_a_restart_is_made_only_where_that_is_allowed() {
    let before = web("");
    let spec = "  config: {security.privileged: true, limits.cpu: 2}";
    let live = |over| applied(&before, 14, over);
    Host::new()
        .put(14, &before)
        .put(20, &web(spec))
        .instance(live(json!({})))
        .check(expect![[r#"
            instance web @20: Failed (line 7): spec.config.security.privileged changes: needs restart, and lifecycle.update is live: not applied
        "#]]);
    let allowed = web_with("lifecycle: {update: restart}", spec);
    Host::new()
        .put(14, &before)
        .put(20, &allowed)
        .instance(live(json!({})))
        .check(expect![[r#"
            instance web @20: Progressing: stop, change, start
                stop, by force after 30 s
                config.limits.cpu: (unset) -> 2
                config.security.privileged: (unset) -> true
                mark revision 20
                start
        "#]]);
    // It does not run, so nothing has to be restarted.
    Host::new()
        .put(14, &before)
        .put(20, &web(spec))
        .instance(live(json!({"status": "Stopped"})))
        .check(expect![[r#"
            instance web @20: Progressing: change, start
                config.limits.cpu: (unset) -> 2
                config.security.privileged: (unset) -> true
                mark revision 20
                start
        "#]]);
}

#[test]
fn a_refused_change_does_not_keep_the_instance_from_running() {
    let before = web("");
    let after = web("  type: virtual-machine");
    let live = applied(&before, 14, json!({"status": "Stopped"}));
    Host::new()
        .put(14, &before)
        .put(20, &after)
        .instance(live)
        .check(expect![[r#"
            instance web @20: Failed (line 7): spec.type changes: needs rebuild, and lifecycle.update is live: not applied
                start
        "#]]);
}

#[test]
fn a_change_that_needs_a_rebuild_is_made_only_where_that_is_allowed() {
    let before = web("");
    let other_image = |fields: &str| {
        format!(
            "kind: instance\nname: web\nhost: ovh\n{fields}\nspec: {{source: {{type: image, alias: debian/12}}}}"
        )
    };
    let check = |fields, may_delete, expected| {
        let mut host = Host::new()
            .put(14, &before)
            .put(20, &other_image(fields))
            .instance(applied(&before, 14, json!({})));
        host.may_delete = may_delete;
        host.check(expected);
    };
    check(
        "",
        true,
        expect![[r#"
        instance web @20: Failed (line 5): spec.source changes: needs rebuild, and lifecycle.update is live: not applied
    "#]],
    );
    check(
        "lifecycle: {update: restart}",
        true,
        expect![[r#"
        instance web @20: Failed (line 5): spec.source changes: needs rebuild, and lifecycle.update is restart: not applied
    "#]],
    );
    check(
        "lifecycle: {update: rebuild}",
        true,
        expect![[r#"
        instance web @20: Progressing: stop, delete, create, start
            stop, by force after 10 s
            delete instance/default/web@14
            create {"source":{"type":"image","alias":"debian/12"},"name":"web","config":{}}
            start
    "#]],
    );
    check(
        "lifecycle: {update: rebuild, protect: true}",
        true,
        expect![[r#"
            instance web @20: Failed (line 5): spec.source changes: needs rebuild, and it is protected: not applied
        "#]],
    );
    check(
        "lifecycle: {update: rebuild}",
        false,
        expect![[r#"
        instance web @20: Pending: waits for a quorum: nothing is deleted on a view that may be old
    "#]],
    );
}

#[test]
fn managed_for_existence_is_made_and_then_left_alone() {
    let text = web_with(
        "lifecycle: {managed: existence}",
        "  config: {limits.memory: 256MiB}",
    );
    Host::new().put(14, &text).check(expect![[r#"
        instance web @14: Progressing: create, start
            create {"config":{"limits.memory":"256MiB"},"source":{"type":"image","alias":"busybox"},"name":"web"}
            start
    "#]]);
    let live = applied(
        &text,
        14,
        json!({"config": {"limits.memory": "1GiB"}, "status": "Stopped"}),
    );
    Host::new().put(14, &text).instance(live).check(expect![[r#"
        instance web @14: Ready
    "#]]);
}

#[test]
fn an_object_that_is_not_ours_is_a_conflict_and_untouched() {
    let text = web("  config: {limits.memory: 256MiB}");
    for (config, expected) in [
        (
            json!({}),
            expect![[r#"
            instance web @14: Conflict: one of this name is here already and is not ours; it is not touched
        "#]],
        ),
        (
            json!({"user.agent.cluster": "c9", "user.agent.uid": "instance/default/web@1"}),
            expect![[r#"
                instance web @14: Conflict: one of this name is here already and is cluster c9's; it is not touched
            "#]],
        ),
        (
            json!({"user.agent.cluster": "c1", "user.agent.uid": "instance/default/api@1"}),
            expect![[r#"
                instance web @14: Conflict: one of this name is here already, a copy of instance/default/api@1; it is not touched
            "#]],
        ),
    ] {
        let by_hand = json!({"name": "web", "project": "default", "type": "container", "status": "Stopped",
            "config": config});
        Host::new().put(14, &text).instance(by_hand).check(expected);
    }
}

#[test]
fn a_copy_made_by_hand_is_never_deleted() {
    let text = web("");
    let copy = applied(&text, 14, json!({"name": "web-copy"}));
    Host::new()
        .put(14, &text)
        .instance(applied(&text, 14, json!({})))
        .instance(copy)
        .check(expect![[r#"
            instance web @14: Ready
        "#]]);
}

#[test]
fn a_deleted_document_deletes_what_it_made() {
    let text = web("");
    let gone = |text: &str, over| Host::new().instance(applied(text, 14, over));
    gone(&text, json!({})).check(expect![[r#"
        instance web @0: Progressing: stop, delete
            stop, by force after 10 s
            delete instance/default/web@14
    "#]]);
    gone(&text, json!({"status": "Stopped"})).check(expect![[r#"
        instance web @0: Progressing: delete
            delete instance/default/web@14
    "#]]);
    gone(&web_with("lifecycle: {protect: true}", ""), json!({})).check(expect![[r#"
        instance web @0: Failed: not deleted: it is protected; put the document back, take lifecycle.protect off, then delete it
    "#]]);
    gone(&web_with("lifecycle: {deletion: retain}", ""), json!({})).check(expect![[r#"
        instance web @0: Progressing: change
            release
    "#]]);
    gone(&text, json!({"config": {"user.agent.applied": "?"}})).check(expect![[r#"
        instance web @0: Failed: not deleted: what the object remembers of its document cannot be read
    "#]]);
}

#[test]
fn nothing_is_deleted_on_a_view_that_may_be_old() {
    let text = web("");
    let mut host = Host::new().instance(applied(&text, 14, json!({})));
    host.may_delete = false;
    assert!(host.plan().wants_confirmation);
    host.check(expect![[r#"
        instance web @0: Pending: waits for a quorum: nothing is deleted on a view that may be old
    "#]]);
    // A store that was made anew has forgotten the documents, not deleted them.
    let mut host = Host::new().instance(applied(&text, 14, json!({})));
    host.revision = 3;
    host.check(expect![[r#"
        instance web @0: Failed: not deleted: it was made to agree with revision 14, and the store is at 3, so it may have forgotten
    "#]]);
}

#[test]
fn a_document_deleted_and_put_again_keeps_its_object() {
    let text = web("");
    Host::new()
        .put(30, &text)
        .instance(applied(&text, 14, json!({})))
        .check(expect![[r#"
            instance web @30: Progressing: change
                mark revision 30
        "#]]);
}

#[test]
fn an_instance_whose_document_moved_away_is_kept() {
    let text = web("");
    let moved = text.replace("host: ovh", "host: ionos");
    Host::new()
        .put(14, &text)
        .put(20, &moved)
        .instance(applied(&text, 14, json!({})))
        .check(expect![[r#"
            instance web @20: Conflict (line 3): the document names ionos now; the instance on ovh is kept as it is, and yours to delete
        "#]]);
    // Without an object of ours it is none of this host's business.
    Host::new().put(20, &moved).check(expect![""]);
}

fn several(count: usize, with_documents: usize) -> Host {
    let mut host = Host::new();
    for index in 0..count {
        let text = web("").replace("name: web", &format!("name: web{index}"));
        host = host.instance(applied(&text, 14, json!({})));
        if index < with_documents {
            host = host.put(14, &text);
        }
    }
    host
}

#[test]
fn the_brake_stops_many_deletions_and_lets_few_pass() {
    let deletions = |mut host: Host| {
        host.plan()
            .objects
            .values()
            .filter(|object| object.deletes())
            .count()
    };
    assert_eq!(deletions(several(3, 0)), 3);
    assert_eq!(deletions(several(4, 0)), 0);
    assert_eq!(deletions(several(20, 16)), 4);
    assert_eq!(deletions(several(19, 15)), 0);
    several(4, 0).check(expect![[r#"
        instance web0 @0: Pending: held: this would delete 4 of our 4 objects on this host at once; put documents back, or delete by hand what should go
        instance web1 @0: Pending: held: this would delete 4 of our 4 objects on this host at once; put documents back, or delete by hand what should go
        instance web2 @0: Pending: held: this would delete 4 of our 4 objects on this host at once; put documents back, or delete by hand what should go
        instance web3 @0: Pending: held: this would delete 4 of our 4 objects on this host at once; put documents back, or delete by hand what should go
    "#]]);
}

#[test]
fn a_wrong_document_changes_nothing_and_the_last_good_one_stays_in_force() {
    let good = web("  config: {limits.memory: 256MiB}");
    let wrong = web("  config: {limits.memroy: 512MiB}");
    let drifted = json!({"config": {"limits.memory": "1GiB"}, "status": "Stopped"});
    // Never applied here, never good.
    Host::new().put_at(WEB, 14, &wrong).check(expect![[r#"
        instance web @14: Invalid (line 7): spec.config.limits.memroy: no such key in Incus 6.0; did you mean limits.memory?
    "#]]);
    Host::new().put_at(WEB, 14, "kind: [").check(expect![[r#"
        instance web @14: Invalid (line 1): not YAML: unclosed bracket '['
    "#]]);
    Host::new()
        .put_at(WEB, 14, "kind: instance\nname: web\nhost: ionos\n")
        .check(expect![""]);
    // Remembered by this member.
    Host::new()
        .put(14, &good)
        .put_at(WEB, 20, &wrong)
        .instance(applied(&good, 14, drifted.clone()))
        .check(expect![[r#"
            instance web @20: Invalid (line 7): spec.config.limits.memroy: no such key in Incus 6.0; did you mean limits.memory? (revision 14 stays in force)
                config.limits.memory: 1GiB -> 256MiB
                start
        "#]]);
    Host::new()
        .put(14, &good)
        .put_at(WEB, 20, &wrong)
        .check(expect![[r#"
            instance web @20: Invalid (line 7): spec.config.limits.memroy: no such key in Incus 6.0; did you mean limits.memory? (revision 14 stays in force)
                create {"config":{"limits.memory":"256MiB"},"source":{"type":"image","alias":"busybox"},"name":"web"}
                start
        "#]]);
    // Remembered by the object only: the member was restarted.
    Host::new()
        .put_at(WEB, 20, "kind: [")
        .instance(applied(&good, 14, drifted))
        .check(expect![[r#"
            instance web @20: Invalid (line 1): not YAML: unclosed bracket '[' (revision 14 stays in force)
                config.limits.memory: 1GiB -> 256MiB
                start
        "#]]);
    Host::new()
        .put_at(WEB, 20, &wrong)
        .instance(applied(&good, 14, json!({})))
        .check(expect![[r#"
            instance web @20: Invalid (line 7): spec.config.limits.memroy: no such key in Incus 6.0; did you mean limits.memory? (revision 14 stays in force)
        "#]]);
}

#[test]
fn a_name_that_leads_nowhere_is_answered_with_its_line() {
    Host::new()
        .put(14, &web("  profiles: [default, nosuch]"))
        .check(expect![[r#"
            instance web @14: Invalid (line 7): spec.profiles[1]: no profile nosuch on ovh in project default
        "#]]);
    Host::new()
        .put(14, &web(""))
        .without(Kind::Image)
        .check(expect![[r#"
            instance web @14: Invalid (line 6): spec.source.alias: no image busybox on ovh; import it, put a document of kind image, or name the server that has it
        "#]]);
    Host::new()
        .put(14, &web_with("tenant: t1", ""))
        .check(expect![[r#"
            instance t1/web @14: Invalid (line 4): tenant: no project t1 on ovh; put a document of kind project
        "#]]);
    // An edit with a bad reference leaves what was applied in force.
    let good = web("");
    Host::new()
        .put(14, &good)
        .put(20, &web("  profiles: [nosuch]"))
        .instance(applied(&good, 14, json!({"status": "Stopped"})))
        .check(expect![[r#"
            instance web @20: Invalid (line 7): spec.profiles[0]: no profile nosuch on ovh in project default (revision 14 stays in force)
                start
        "#]]);
}

const PROJECT: &str =
    "kind: project\nname: t1\nspec: {config: {features.images: false, limits.instances: 5}}\n";
const PROFILE: &str = "kind: profile\nname: web\ntenant: t1\nspec: {config: {limits.memory: 256MiB}}\n";

#[test]
fn a_whole_tenant_is_made_in_order() {
    let instance = web_with("tenant: t1", "  profiles: [web]");
    let host = || Host::new().put(14, PROJECT).put(14, PROFILE).put(14, &instance);
    host().check(expect![[r#"
        project t1 @14: Progressing: create
            create {"config":{"features.images":"false","limits.instances":"5"},"name":"t1"}
        profile t1/web @14: Pending: waits for project t1
        instance t1/web @14: Invalid (line 6): spec.source.alias: no image busybox on ovh; import it, put a document of kind image, or name the server that has it
    "#]]);
    let host = || {
        host().project(applied(
            PROJECT,
            14,
            json!({"config": {"features.profiles": "true"}}),
        ))
    };
    host().check(expect![[r#"
        project t1 @14: Ready
        profile t1/web @14: Progressing: create
            create {"config":{"limits.memory":"256MiB"},"name":"web"}
        instance t1/web @14: Pending: waits for profile t1/web
    "#]]);
    // The instance waits while its profile is unfinished, too.
    let unfinished = applied(PROFILE, 14, json!({"config": {"limits.memory": "1GiB"}}));
    host().profile(unfinished).check(expect![[r#"
        project t1 @14: Ready
        profile t1/web @14: Progressing: change
            config.limits.memory: 1GiB -> 256MiB
        instance t1/web @14: Pending: waits for profile t1/web
    "#]]);
    host()
        .profile(applied(PROFILE, 14, json!({})))
        .check(expect![[r#"
            project t1 @14: Ready
            profile t1/web @14: Ready
            instance t1/web @14: Progressing: create, start
                create {"profiles":["web"],"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
                start
        "#]]);
}

#[test]
fn a_whole_tenant_is_deleted_in_order() {
    let instance = web_with("tenant: t1", "  profiles: [web]");
    let features = json!({"config": {"features.profiles": "true"}});
    let host = || {
        Host::new()
            .project(applied(PROJECT, 14, features.clone()))
            .profile(json!({"name": "default", "project": "t1"}))
            .profile(applied(PROFILE, 14, json!({})))
    };
    host()
        .instance(applied(&instance, 14, json!({})))
        .check(expect![[r#"
            project t1 @0: Pending: deleted once profile t1/web is gone from it
            profile t1/web @0: Pending: deleted once instance t1/web is gone from it
            instance t1/web @0: Progressing: stop, delete
                stop, by force after 10 s
                delete instance/t1/web@14
        "#]]);
    host().check(expect![[r#"
        project t1 @0: Pending: deleted once profile t1/web is gone from it
        profile t1/web @0: Progressing: delete
            delete profile/t1/web@14
    "#]]);
    Host::new()
        .project(applied(PROJECT, 14, features.clone()))
        .profile(json!({"name": "default", "project": "t1"}))
        .check(expect![[r#"
            project t1 @0: Progressing: delete
                delete project/t1@14
        "#]]);
}

#[test]
fn a_project_changes_without_losing_its_features() {
    let after = PROJECT.replace("limits.instances: 5", "limits.instances: 9");
    let live = applied(
        PROJECT,
        14,
        json!({"config": {"features.images": null, "features.profiles": "true"}}),
    );
    Host::new()
        .put(14, PROJECT)
        .put(20, &after)
        .project(live)
        .check(expect![[r#"
            project t1 @20: Progressing: change
                config.limits.instances: 5 -> 9
                mark revision 20
        "#]]);
}

#[test]
fn a_profile_changes_and_goes() {
    let before = "kind: profile\nname: web\nspec: {config: {limits.cpu: 1}, devices: {eth0: {type: nic}}}\n";
    let after = "kind: profile\nname: web\nspec: {description: d, config: {limits.cpu: 2}}\n";
    let live = || applied(before, 14, json!({}));
    Host::new()
        .put(14, before)
        .put(20, after)
        .profile(live())
        .check(expect![[r#"
            profile web @20: Progressing: change
                description: "" -> "d"
                config.limits.cpu: 1 -> 2
                devices.eth0: remove
                mark revision 20
        "#]]);
    Host::new().profile(live()).check(expect![[r#"
        profile web @0: Progressing: delete
            delete profile/default/web@14
    "#]]);
    // The document names other hosts now.
    Host::new()
        .put(20, &before.replace("spec", "hosts: [ionos]\nspec"))
        .profile(live())
        .check(expect![[r#"
            profile web @20: Progressing: delete
                delete profile/default/web@14
        "#]]);
    // Somebody uses it.
    let user = json!({"name": "by-hand", "project": "default", "profiles": ["web"], "status": "Running"});
    Host::new().profile(live()).instance(user).check(expect![[r#"
        profile web @0: Pending: deleted once instance by-hand is gone from it
    "#]]);
}

#[test]
fn a_profile_in_a_project_without_its_own_profiles_is_refused() {
    Host::new()
        .put(14, PROFILE)
        .project(json!({"name": "t1", "config": {}}))
        .check(expect![[r#"
            profile t1/web @14: Invalid (line 3): tenant: project t1 has features.profiles off: its profiles are those of tenant default
        "#]]);
}

#[test]
fn incus_own_default_profile_is_taken_over_and_released() {
    let text =
        "kind: profile\nname: default\nspec: {devices: {root: {type: disk, path: /, pool: default}}}\n";
    let by_hand = json!({"name": "default", "project": "default", "description": "Default Incus profile",
        "config": {}, "devices": {"eth0": {"type": "nic"}}});
    Host::new().put(14, text).profile(by_hand).check(expect![[r#"
        profile default @14: Progressing: change
            devices.root: {"type":"disk","path":"/","pool":"default"}
            mark revision 14
    "#]]);
    let taken = applied(text, 14, json!({"devices": {"eth0": {"type": "nic"}}}));
    Host::new()
        .put(14, text)
        .profile(taken.clone())
        .check(expect![[r#"
            profile default @14: Ready
        "#]]);
    Host::new()
        .gone("/tenants/default/desired/profiles/default")
        .profile(taken)
        .check(expect![[r#"
            profile default @0: Progressing: change
                devices.root: remove
                release
        "#]]);
}

/// As with `agent dev`, whose members all see this machine's Incus.
#[test]
fn members_that_share_an_incus_leave_each_others_objects_alone() {
    let text = "kind: profile\nname: web\nspec: {config: {limits.cpu: '1'}}\n";
    let mut of_ionos = applied(text, 14, json!({}));
    of_ionos["config"][ownership::HOST] = "ionos".into();
    // Gone, or for another host: who made it deletes it.
    Host::new().profile(of_ionos.clone()).check(expect![[""]]);
    Host::new()
        .put(20, &text.replace("spec", "hosts: [ionos]\nspec"))
        .profile(of_ionos.clone())
        .check(expect![[""]]);
    // For both: it agrees, whoever made it.
    Host::new().put(14, text).profile(of_ionos).check(expect![[r#"
        profile web @14: Ready
    "#]]);
}
