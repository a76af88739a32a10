//! Instances from their documents to Incus and back.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_lives_as_its_document_does() {
    let host = Host::start().await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    let status = host.until(WEB, Phase::Ready, revision).await;
    assert_eq!((status.message.as_str(), status.host.as_str()), ("", "ovh"));
    assert_eq!(host.instance("web").await.unwrap()["status"], "Running");

    let revision = host.put(&web("  config: {limits.memory: 512MiB}")).await;
    host.until(WEB, Phase::Ready, revision).await;
    assert_eq!(
        host.instance("web").await.unwrap()["config"]["limits.memory"],
        "512MiB"
    );

    host.incus
        .set_state("default", "web", StateAction::Stop, true, 5)
        .await
        .unwrap();
    host.until_instance("web", |instance| instance["status"] == "Running")
        .await;

    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, None);
}

/// The host is the cluster's own: it has no user, and nothing is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_hinders_no_host() {
    let host = Host::start().await;
    let root = || "root".to_owned();
    let add = auth_change::UserAdd {
        name: root(),
        ..Default::default()
    };
    let grant = auth_change::UserRole {
        user: root(),
        role: root(),
    };
    for change in [
        Change::UserAdd(add),
        Change::UserGrantRole(grant),
        Change::Enable(auth_change::Enable::default()),
    ] {
        let change = AuthChange { change: Some(change) };
        host.node.propose(Op::Auth(change)).await.unwrap();
    }
    assert!(host.node.store().auth().is_enabled());
    let revision = host.put(&web("")).await;
    host.until(WEB, Phase::Ready, revision).await;
    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_by_hand_is_never_touched() {
    let host = Host::start().await;
    let by_hand = json!({"name": "web", "source": {"type": "image", "alias": "busybox"},
        "config": {"limits.memory": "1GiB"}});
    host.incus
        .create(Kind::Instance, "default", &by_hand)
        .await
        .unwrap();
    let before = host.instance("web").await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    host.until(WEB, Phase::Conflict, revision).await;
    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_document_says_so_and_changes_nothing() {
    let host = Host::start().await;
    let good = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    host.until(WEB, Phase::Ready, good).await;
    let before = host.instance("web").await;
    for (text, line, message) in [
        ("kind: [".to_owned(), 1, "not YAML"),
        (
            web("  config: {limits.memroy: 1GiB}"),
            6,
            "did you mean limits.memory?",
        ),
        (web("  profiles: [nosuch]"), 6, "no profile nosuch"),
        (
            web("").replace("kind: instance", "kind: machine"),
            1,
            "no such kind",
        ),
        (
            web("").replace("host: ovh", "host: ovh\ncolour: red"),
            4,
            "no such field",
        ),
    ] {
        let revision = host.put_at(WEB, &text).await;
        let status = host.until(WEB, Phase::Invalid, revision).await;
        assert_eq!(status.line, Some(line), "{status:?}");
        assert!(status.message.contains(message), "{status:?}");
        assert!(
            status
                .message
                .contains(&format!("revision {good} stays in force")),
            "{status:?}"
        );
    }
    assert_eq!(host.instance("web").await, before);
    // The last good one is in force, not only remembered.
    host.incus
        .set_state("default", "web", StateAction::Stop, true, 5)
        .await
        .unwrap();
    host.until_instance("web", |instance| instance["status"] == "Running")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_is_a_bad_reference() {
    let host = Host::start().await;
    let revision = host.put(&web("").replace("busybox", "missing/1")).await;
    let status = host.until(WEB, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(5));
    assert!(
        status
            .message
            .starts_with("spec.source.alias: no image missing/1"),
        "{status:?}"
    );
    assert_eq!(host.instance("web").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_agent_leaves_instances_alone() {
    let mut host = Host::start().await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    let status = host.until(WEB, Phase::Ready, revision).await;
    let before = host.instance("web").await;
    host.stop_reconciling().await;
    host.reconcile();
    let revision = host.put("kind: profile\nname: after\nspec: {}\n").await;
    host.until("/tenants/default/desired/profiles/after", Phase::Ready, revision)
        .await;
    assert_eq!(host.instance("web").await, before);
    assert_eq!(host.status(WEB), Some(status));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_machine_takes_the_same_path() {
    let host = Host::start().await;
    let machine = |fields: &str, config: &str| {
        web(&format!("  type: virtual-machine\n  config: {{{config}}}"))
            .replace("spec:", &format!("{fields}spec:"))
    };
    let revision = host.put(&machine("", "limits.cpu: 2")).await;
    host.until(WEB, Phase::Ready, revision).await;
    assert_eq!(host.instance("web").await.unwrap()["type"], "virtual-machine");
    let revision = host.put(&machine("", "security.secureboot: false")).await;
    host.until(WEB, Phase::Failed, revision).await;
    let revision = host
        .put(&machine(
            "lifecycle: {update: restart}\n",
            "security.secureboot: false",
        ))
        .await;
    host.until(WEB, Phase::Ready, revision).await;
    let revision = host
        .put(&machine("running: false\n", "security.secureboot: false"))
        .await;
    host.until(WEB, Phase::Stopped, revision).await;
    assert_eq!(host.instance("web").await.unwrap()["status"], "Stopped");
}
