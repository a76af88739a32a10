//! Golden plans of a host's own document, and of all others while it is in maintenance.

use expect_test::expect;

use super::{HOST, Host, web};
use crate::reconciler::plan::maintenance;

const IN_MAINTENANCE: &str = "kind: host\nname: ovh\nspec: {provider: OVH, maintenance: true}\n";
const PROFILE: &str = "kind: profile\nname: default\nspec: {}\n";

#[test]
fn nothing_is_changed_in_maintenance() {
    let at_work = IN_MAINTENANCE.replace("true", "false");
    let of_another = IN_MAINTENANCE.replace("ovh", "ionos");
    let wrong = "kind: host\nname: ovh\nspec: {maintenance: never}\n";
    let at = "/cluster/desired/hosts/ovh";
    let host = || Host::new().put(13, PROFILE).put(14, &web(""));
    let stages = [
        ("at work", host().put(20, &at_work)),
        ("in maintenance", host().put(20, IN_MAINTENANCE)),
        ("another host is", host().put(20, &of_another)),
        (
            "with a mistake in its document",
            host().put(20, IN_MAINTENANCE).put_at(at, 21, wrong),
        ),
        ("with a mistake from the start", host().put_at(at, 21, wrong)),
        (
            "a document that is wrong stays wrong",
            Host::new()
                .put(14, &web("  profiles: [nosuch]"))
                .put(20, IN_MAINTENANCE),
        ),
    ];
    let mut text = String::new();
    for (stage, mut host) in stages {
        let mut plan = host.plan();
        maintenance::pause(&mut plan, &host.read(), HOST);
        text += &format!("{stage}\n{plan}");
    }
    expect![[r#"
        at work
        host ovh @20: Ready
        profile default @13: Progressing: change
            mark revision 13
        instance web @14: Progressing: create, start
            create {"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
            start
        in maintenance
        host ovh @20: Stopped: in maintenance: nothing is changed here, and 2 objects wait
        profile default @13: Pending: host ovh is in maintenance; then: change
        instance web @14: Pending: host ovh is in maintenance; then: create, start
        another host is
        profile default @13: Progressing: change
            mark revision 13
        instance web @14: Progressing: create, start
            create {"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
            start
        with a mistake in its document
        host ovh @21: Invalid (line 3): spec.maintenance: expected true or false, found "never" (revision 20 stays in force)
        profile default @13: Pending: host ovh is in maintenance; then: change
        instance web @14: Pending: host ovh is in maintenance; then: create, start
        with a mistake from the start
        host ovh @21: Invalid (line 3): spec.maintenance: expected true or false, found "never"
        profile default @13: Progressing: change
            mark revision 13
        instance web @14: Progressing: create, start
            create {"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
            start
        a document that is wrong stays wrong
        host ovh @20: Stopped: in maintenance: nothing is changed here
        instance web @14: Invalid (line 7): spec.profiles[0]: no profile nosuch on ovh in project default
    "#]].assert_eq(&text);
}
