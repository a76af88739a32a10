//! Instances of a host that was restarted, where that makes them anew.

use super::*;

/// The instance as it was before the restart.
fn before(text: &str, over: Value) -> Host {
    let mut object = applied(
        text,
        14,
        json!({"created_at": "noon", "config": {"volatile.uuid": "u"}}),
    );
    lay_over(&mut object, over);
    Host::new().put(14, text).instance(object).restarted()
}

impl Host {
    /// Everything that is here was here before.
    fn restarted(mut self) -> Host {
        let observed = Observed::from_lists(self.lists.clone());
        self.due = observed
            .of_kind(Kind::Instance)
            .map(|(key, object)| (key.clone(), object.birth()))
            .collect();
        self
    }

    /// What becomes of each that is due.
    fn renewals(&mut self) -> String {
        let renewals = self.plan().renewals;
        let lines = renewals
            .iter()
            .map(|(key, renewal)| format!("{key}: {renewal:?}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn what_runs_is_made_anew() {
    before(&web(""), json!({})).check(expect![[r#"
        instance web @14: Progressing: stop, discard after the host's restart, create, start
            stop, by force after 10 s
            discard instance/default/web@14 of before the host's restart, born noon u
            create {"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
            start
    "#]]);
}

#[test]
fn what_is_stopped_stays_so() {
    before(&web_with("running: false", ""), json!({})).check(expect![[r#"
        instance web @14: Progressing: discard after the host's restart, create
            discard instance/default/web@14 of before the host's restart, born noon u
            create {"source":{"type":"image","alias":"busybox"},"name":"web","config":{}}
    "#]]);
}

/// Once, and whatever has taken its place is another one.
#[test]
fn what_was_made_since_is_left_alone() {
    let mut host = before(&web(""), json!({}));
    let anew = applied(
        &web(""),
        14,
        json!({"created_at": "one", "config": {"volatile.uuid": "v"}}),
    );
    host = host.instance(anew);
    assert_eq!(host.renewals(), "instance web: Done");
    host.check(expect![[r#"
        instance web @14: Ready
    "#]]);
    let mut gone = before(&web(""), json!({})).without(Kind::Instance);
    assert_eq!(gone.renewals(), "instance web: Done");
}

/// It would be gone, and could not be made.
#[test]
fn nothing_is_made_anew_without_its_secrets() {
    let mut host = before(&web(""), json!({}));
    let key = crate::document::parse_desired_key(WEB).unwrap();
    host.waiting.insert(key, "waits for secret db".to_owned());
    assert_eq!(host.renewals(), r#"instance web: Later("waits for secret db")"#);
    host.check(expect![[r#"
        instance web @14: Pending: waits for secret db
    "#]]);
}

#[test]
fn nothing_is_made_anew_without_a_quorum() {
    let mut host = before(&web(""), json!({"status": "Stopped"}));
    host.may_delete = false;
    assert!(host.plan().wants_confirmation);
    assert_eq!(host.renewals(), r#"instance web: Later("waits for a quorum")"#);
    host.check(expect![[r#"
        instance web @14: Progressing: start
            start
    "#]]);
}

#[test]
fn it_waits_for_what_it_is_made_of() {
    let profile = "kind: profile\nname: small\nhost: ovh\nspec: {}\n";
    let text = web("  profiles: [small]");
    let mut host = before(&text, json!({})).put(13, profile);
    assert_eq!(
        host.renewals(),
        r#"instance web: Later("waits for profile small")"#
    );
    let mut busy = before(&web(""), json!({})).busy_with(WEB);
    assert_eq!(
        busy.renewals(),
        r#"instance web: Later("somebody is at work on it")"#
    );
}

#[test]
fn what_is_not_only_its_documents_is_never_made_anew() {
    let check = |mut host: Host, why: &str| {
        assert_eq!(host.renewals(), format!("instance web: Never({why:?})"));
        let steps = host.plan().objects.into_values().flat_map(|object| object.steps);
        let words: Vec<&str> = steps.map(|step| step.word()).collect();
        assert!(!words.contains(&"create"), "{why}: {words:?}");
    };
    for (fields, why) in [
        (
            "lifecycle: {protect: true}",
            "it is protected (lifecycle.protect)",
        ),
        (
            "lifecycle: {deletion: retain}",
            "it is to be kept (lifecycle.deletion)",
        ),
        (
            "lifecycle: {managed: existence}",
            "it is managed by hand (lifecycle.managed)",
        ),
    ] {
        check(before(&web_with(fields, ""), json!({})), why);
    }
    // The document says so no more, and the object still does.
    let protected = applied(&web_with("lifecycle: {protect: true}", ""), 14, json!({}));
    check(
        Host::new().put(14, &web("")).instance(protected).restarted(),
        "it is protected (lifecycle.protect)",
    );
    check(
        before(&web(""), json!({})).put_at(WEB, 15, "kind: ["),
        "its document is wrong",
    );
    check(
        before(&web(""), json!({})).put(15, &web("  profiles: [nowhere]")),
        "its document is wrong",
    );
    check(
        before(&web(""), json!({})).put(15, &web("").replace("host: ovh", "host: ionos")),
        "its document has it on another host",
    );
    check(before(&web(""), json!({})).gone(WEB), "its document is gone");
    let foreign = json!({"config": {"user.agent.cluster": "c2"}});
    check(before(&web(""), foreign), "it is not ours any more");
}

#[test]
fn what_another_host_may_have_is_never_made_anew() {
    let binding = "/tenants/default/bindings/instances/web";
    for (placement, bound, why) in [
        ("{}", r#""moving_to": "ionos""#, "it moves to ionos"),
        (
            "{}",
            r#""moved_from": "ionos""#,
            "its move to this host is not over",
        ),
        ("{}", r#""fence_seconds": 20"#, "it is fenced"),
        ("{failover: fenced}", r#""arrived": true"#, "it is fenced"),
    ] {
        let text = format!(
            "kind: instance\nname: web\nplacement: {placement}\nspec: {{source: {{type: image, alias: busybox}}}}\n"
        );
        let bound = format!(r#"{{"host": "ovh", "epoch": 1, "since": "", "reason": "", {bound}}}"#);
        let mut host = before(&text, json!({})).put_at(binding, 15, &bound);
        assert_eq!(host.renewals(), format!("instance web: Never({why:?})"));
    }
    let text = "kind: instance\nname: web\nplacement: {}\nspec: {source: {type: image, alias: busybox}}\n";
    let arrived =
        r#"{"host": "ovh", "epoch": 2, "since": "", "reason": "", "moved_from": "ionos", "arrived": true}"#;
    let mut host = before(text, json!({})).put_at(binding, 15, arrived);
    assert_eq!(host.renewals(), "instance web: Now");
}

/// A host that has many would never get past the brake, which is for slips.
#[test]
fn the_brake_does_not_hold_what_was_asked_for() {
    let mut host = Host::new();
    for number in 0..10 {
        let text = web("").replace("name: web", &format!("name: web{number}"));
        host = host.put(14, &text).instance(applied(&text, 14, json!({})));
    }
    let mut host = host.restarted();
    let plan = host.plan();
    let anew = plan.objects.values().filter(|object| {
        let words: Vec<&str> = object.steps.iter().map(Step::word).collect();
        words == ["stop", "discard after the host's restart", "create", "start"]
    });
    assert_eq!(anew.count(), 10);
}

#[test]
fn a_host_in_maintenance_keeps_them_until_it_is_over() {
    let maintenance = "kind: host\nname: ovh\nspec: {maintenance: true}\n";
    let mut host = before(&web(""), json!({})).put(15, maintenance);
    let mut plan = host.plan();
    let desired = host.read();
    maintenance::pause(&mut plan, &desired, HOST);
    expect![[r#"
        host ovh @15: Stopped: in maintenance: nothing is changed here, and 1 object waits
        instance web @14: Pending: host ovh is in maintenance; then: stop, discard after the host's restart, create, start
    "#]]
    .assert_eq(&plan.to_string());
    assert_eq!(host.renewals(), "instance web: Now");
}
