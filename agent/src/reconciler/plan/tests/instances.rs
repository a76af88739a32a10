//! Instances that documents name: made, kept as they should be, changed at the cost that is allowed.

use super::*;

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
