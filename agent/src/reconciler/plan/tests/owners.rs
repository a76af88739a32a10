//! Whose an object is, and what follows when its document goes.

use super::*;

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
