//! Documents that are wrong, or name what is not there.

use super::*;

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
