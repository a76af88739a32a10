//! Instances that may be on several hosts: what is done here follows from where their binding puts them.

use super::*;

const BINDING: &str = "/tenants/default/bindings/instances/web";

/// The instance as it runs here, with this binding.
fn bound(binding: &str) -> Host {
    let text = "kind: instance\nname: web\nplacement: {}\nspec: {source: {type: image, alias: busybox}}\n";
    let host = Host::new().put(14, text).instance(applied(text, 14, json!({})));
    if binding.is_empty() {
        return host;
    }
    host.put_at(
        BINDING,
        15,
        &format!(r#"{{"epoch": 1, "since": "", "reason": "", {binding}}}"#),
    )
}

fn stopped(binding: &str) -> Host {
    let mut host = bound(binding);
    let instances = host.lists.get_mut(&Kind::Instance).unwrap();
    instances[0].object["status"] = "Stopped".into();
    host
}

#[test]
fn it_is_kept_where_it_is_bound() {
    stopped(r#""host": "ovh""#).check(expect![[r#"
        instance web @14: Progressing: start
            start
    "#]]);
}

#[test]
fn nothing_is_done_before_it_is_bound() {
    for binding in ["", r#""host": """#] {
        bound(binding).check(expect![[r#"
            instance web @14: Pending: waits for a host to be chosen; the copy on ovh stays as it is
        "#]]);
    }
}

#[test]
fn a_copy_that_was_given_up_is_stopped_and_kept() {
    bound(r#""host": "ionos""#).check(expect![[r#"
        instance web @14: Progressing: stop
            stop, by force after 30 s
    "#]]);
    stopped(r#""host": "ionos""#).check(expect![[r#"
        instance web @14: Progressing: change
            mark
    "#]]);
    given_up().check(expect![[r#"
        instance web @14: Stopped: it is on ionos now; this copy is stopped and kept, also when its document goes, and yours to delete
    "#]]);
}

/// As its host keeps it.
fn given_up() -> Host {
    let mut host = stopped(r#""host": "ionos""#);
    let applied = &mut config(&mut host)["user.agent.applied"];
    let text = applied.as_str().unwrap();
    *applied = text
        .replace(r#""deletion":"delete""#, r#""deletion":"retain""#)
        .into();
    host
}

fn config(host: &mut Host) -> &mut Value {
    &mut host.lists.get_mut(&Kind::Instance).unwrap()[0].object["config"]
}

/// Its data may be nowhere else, and whoever deletes the document means the instance that is in use.
#[test]
fn a_copy_that_was_given_up_outlives_its_document() {
    let mut host = given_up();
    host.texts.retain(|(at, ..)| at != WEB);
    host.check(expect![[r#"
        instance web @0: Progressing: change
            release
    "#]]);
}

#[test]
fn what_has_a_volume_is_not_stopped_to_move() {
    let mut host = bound(r#""host": "ovh", "moving_to": "ionos""#);
    host.lists.get_mut(&Kind::Instance).unwrap()[0].object["expanded_devices"] = json!({"root": {"type": "disk", "path": "/", "pool": "default"},
            "data": {"type": "disk", "path": "/data", "pool": "default", "source": "data"}});
    host.check(expect![[r#"
        instance web @14: Progressing: not stopped for its move to ionos: it has volume data of pool default, which does not move
    "#]]);
}

/// The document says nothing any more of where it is, and the binding still does.
#[test]
fn a_wrong_document_starts_no_second_copy() {
    for wrong in ["kind: [", "kind: instance\nname: web\nplacement: {}\nspecs: {}\n"] {
        given_up().put_at(WEB, 16, wrong).check(expect![[r#"
            instance web @16: Stopped: it is on ionos now; this copy is stopped and kept, also when its document goes, and yours to delete
        "#]]);
    }
}

#[test]
fn what_moves_is_stopped_and_deleted_once_it_arrived() {
    bound(r#""host": "ovh", "moving_to": "ionos""#).check(expect![[r#"
        instance web @14: Progressing: stop
            stop, by force after 30 s
    "#]]);
    stopped(r#""host": "ovh", "moving_to": "ionos""#).check(expect![[r#"
        instance web @14: Progressing: stopped, and on its way to ionos
    "#]]);
    stopped(r#""host": "ionos", "moved_from": "ovh""#).check(expect![[r#"
        instance web @14: Progressing: copied to ionos; deleted here once it is up there
    "#]]);
    stopped(r#""host": "ionos", "moved_from": "ovh", "arrived": true"#).check(expect![[r#"
        instance web @14: Progressing: delete
            delete instance/default/web@14
    "#]]);
}

#[test]
fn what_came_is_marked_before_it_starts() {
    let mut host = stopped(r#""host": "ovh", "moved_from": "ionos""#);
    let instances = host.lists.get_mut(&Kind::Instance).unwrap();
    instances[0].object["config"]["user.agent.host"] = "ionos".into();
    host.check(expect![[r#"
        instance web @14: Progressing: change, start
            mark
            start
    "#]]);
}

/// Fenced, and stopped where it is bound.
fn fenced(binding: &str) -> Host {
    let text = "kind: instance\nname: web\nplacement: {failover: fenced}\nspec: {source: {type: image, alias: busybox}}\n";
    stopped(&format!(r#""host": "ovh"{binding}"#)).put(16, text)
}

/// The guard has it.
fn held(mut host: Host) -> Host {
    host.held.extend(crate::document::parse_desired_key(WEB));
    host
}

#[test]
fn a_fenced_one_starts_once_its_fence_holds() {
    // Neither the guard alone nor the binding alone.
    let noted = r#", "fence_seconds": 20"#;
    for waits in [fenced(""), fenced(noted), held(fenced(""))] {
        waits.check(expect![[r#"
            instance web @16: Pending: not started: no quorum has said just now that it is to run here
        "#]]);
    }
    held(fenced(noted)).check(expect![[r#"
        instance web @16: Progressing: change, start
            config.boot.autostart: (unset) -> false
            mark revision 16
            start
    "#]]);
}
