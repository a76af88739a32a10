//! Projects and their profiles: what a tenant has of its own, and what Incus has.

use super::*;

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
