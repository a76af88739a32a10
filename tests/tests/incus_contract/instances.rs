//! Instances: their life, their snapshots, and what Incus notes on them.

use agent::incus::{Incus, Kind, StateAction};
use serde_json::json;

use super::{container, get, set_state, simulated_subject};

pub(super) async fn container_lives(incus: &Incus) {
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    life(incus, "container").await;
}

/// Virtual machines take the same path; only where there is no kernel for them are they simulated alone.
#[tokio::test]
async fn virtual_machine_lives_like_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let (simulated, incus) = simulated_subject(&dir).await;
    let mut body = container("a");
    body["type"] = json!("virtual-machine");
    incus.create(Kind::Instance, "default", &body).await.unwrap();
    life(&incus, "virtual-machine").await;
    simulated.stop().await;
}

/// From its creation to its end; the same for a virtual machine.
async fn life(incus: &Incus, kind: &str) {
    let live = get(incus, Kind::Instance, "default", "a").await;
    assert_eq!(
        (live.name(), live.project(), live.status()),
        ("a", "default", "Stopped")
    );
    assert_eq!(live.object["type"], kind);
    assert_eq!(live.object["profiles"], json!(["default"]));
    assert_eq!(live.object["expanded_devices"]["root"]["path"], "/");
    assert!(live.config("volatile.uuid").is_some());

    set_state(incus, StateAction::Start, false).await.unwrap();
    let running = get(incus, Kind::Instance, "default", "a").await;
    assert_eq!(running.status(), "Running");
    assert_eq!(running.config("volatile.last_state.power"), Some("RUNNING"));
    assert_ne!(running.etag, live.etag, "a start changes the etag");
    assert!(
        set_state(incus, StateAction::Start, false).await.is_err(),
        "it runs already"
    );
    assert!(
        incus.delete(Kind::Instance, "default", "a").await.is_err(),
        "a running instance stays"
    );

    let patch = json!({"config": {"limits.memory": "64MiB", "user.a": ""}});
    let live = get(incus, Kind::Instance, "default", "a").await;
    incus
        .patch(Kind::Instance, "default", "a", &patch, &live.etag)
        .await
        .unwrap();
    let patched = get(incus, Kind::Instance, "default", "a").await;
    assert_eq!(
        (patched.config("limits.memory"), patched.config("user.a")),
        (Some("64MiB"), None)
    );
    assert_eq!(patched.config("user.b"), Some("1"));
    assert_eq!(patched.status(), "Running");

    set_state(incus, StateAction::Restart, true).await.unwrap();
    assert_eq!(
        get(incus, Kind::Instance, "default", "a").await.status(),
        "Running"
    );
    set_state(incus, StateAction::Stop, true).await.unwrap();
    assert_eq!(
        get(incus, Kind::Instance, "default", "a").await.status(),
        "Stopped"
    );
    assert!(
        set_state(incus, StateAction::Stop, true).await.is_err(),
        "it is stopped already"
    );

    let live = get(incus, Kind::Instance, "default", "a").await;
    let mut body = json!({"profiles": ["default"], "config": live.object["config"], "description": "two"});
    body["config"]["security.protection.delete"] = json!("true");
    incus
        .replace(Kind::Instance, "default", "a", &body, &live.etag)
        .await
        .unwrap();
    assert!(
        incus.delete(Kind::Instance, "default", "a").await.is_err(),
        "a protected instance stays"
    );
    let live = get(incus, Kind::Instance, "default", "a").await;
    assert_eq!(live.object["description"], "two");
    let patch = json!({"config": {"security.protection.delete": ""}});
    incus
        .patch(Kind::Instance, "default", "a", &patch, &live.etag)
        .await
        .unwrap();
    incus.delete(Kind::Instance, "default", "a").await.unwrap();
    assert!(incus.get(Kind::Instance, "default", "a").await.unwrap().is_none());
}

pub(super) async fn snapshots_bring_config_back(incus: &Incus) {
    let body = json!({"name": "a", "type": "container", "config": {"user.a": "1", "user.agent.uid": "u"},
        "source": {"type": "image", "alias": "busybox"}});
    incus.create(Kind::Instance, "default", &body).await.unwrap();
    assert!(incus.snapshots("default", "a").await.unwrap().is_empty());
    assert_eq!(incus.snapshot("default", "a", "s0").await.unwrap(), None);
    incus.create_snapshot("default", "a", "s0").await.unwrap();
    assert!(
        incus.create_snapshot("default", "a", "s0").await.is_err(),
        "it is there already"
    );
    incus.create_snapshot("default", "a", "s1").await.unwrap();
    let names: Vec<String> = incus
        .snapshots("default", "a")
        .await
        .unwrap()
        .iter()
        .filter_map(|snapshot| snapshot["name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(names, ["s0", "s1"]);

    let live = get(incus, Kind::Instance, "default", "a").await;
    let change = json!({"config": {"user.a": "2", "user.b": "new"}});
    incus
        .patch(Kind::Instance, "default", "a", &change, &live.etag)
        .await
        .unwrap();
    let kept = incus.snapshot("default", "a", "s0").await.unwrap().unwrap();
    assert_eq!(kept["config"]["user.a"], "1");
    incus.restore_snapshot("default", "a", "s0").await.unwrap();
    let live = get(incus, Kind::Instance, "default", "a").await;
    assert_eq!((live.config("user.a"), live.config("user.b")), (Some("1"), None));
    let missing = incus.restore_snapshot("default", "a", "nosuch").await;
    assert!(missing.is_err(), "{missing:?}");

    let state = incus.state("default", "a").await.unwrap().unwrap();
    assert_eq!(state["status"], "Stopped");
    assert_eq!(incus.state("default", "nosuch").await.unwrap(), None);
    assert!(!incus.server().await.unwrap().fingerprint.is_empty());
}

pub(super) async fn volatile_must_come_back(incus: &Incus) {
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    let live = get(incus, Kind::Instance, "default", "a").await;
    let body = json!({"profiles": ["default"], "config": {"user.a": "2"}});
    assert!(
        incus
            .replace(Kind::Instance, "default", "a", &body, &live.etag)
            .await
            .is_err()
    );
    assert_eq!(
        get(incus, Kind::Instance, "default", "a").await.object["config"],
        live.object["config"]
    );
}
