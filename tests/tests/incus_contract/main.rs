//! What our client relies on, asked of a real Incus and of the simulated one: so the simulation cannot drift.
//!
//! A scenario knows its subject only through the client. Where the two may differ, in prose and in status codes of
//! refusals, nothing is asserted: the reconciler decides by reading, not by errors.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario fails by panicking, outside of test functions too"
)]

mod foundations;

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::incus::simulated::SimulatedIncus;
use agent::incus::{Event, EventStream, Incus, IncusError, Kind, Live, StateAction};
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::lab::{IncusDaemon, Lab};

use foundations::{
    images_live, networks_acls_and_forwards_live, pools_and_volumes_live, server_config_lives,
};

/// How long an event may take to arrive.
const EVENT_LIMIT: Duration = Duration::from_secs(20);
const STATE_TIMEOUT_SECONDS: u32 = 20;

/// Names a scenario once for each subject.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod simulated {
            $(#[tokio::test]
            async fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                let subject = super::simulated_subject(&dir).await;
                super::$scenario(&subject.1).await;
                subject.0.stop().await;
            })*
        }
        mod real {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                let Some(lab) = super::real_subject() else { return };
                super::$scenario(&super::client(&lab.daemons()[0].socket())).await;
            })*
        }
    };
}

on_both!(
    server_says_its_version,
    project_lives,
    profile_lives,
    container_lives,
    stale_etag_is_refused,
    refused_creations_leave_nothing,
    missing_objects,
    volatile_must_come_back,
    profiles_in_use_and_full_projects_stay,
    lists_span_projects,
    events_tell_of_changes,
    snapshots_bring_config_back,
    server_config_lives,
    pools_and_volumes_live,
    networks_acls_and_forwards_live,
    images_live,
);

fn client(socket: &Path) -> Incus {
    Incus::connect(socket).unwrap()
}

async fn simulated_subject(dir: &TempDir) -> (SimulatedIncus, Incus) {
    let socket = dir.path().join("unix.socket");
    let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
    (simulated, client(&socket))
}

fn real_subject() -> Option<Lab> {
    match Lab::available() {
        Ok(()) => Some(Lab::start(1).unwrap()),
        Err(reason) => {
            tests::notes::skipped(&reason);
            None
        }
    }
}

async fn server_says_its_version(incus: &Incus) {
    let server = incus.server().await.unwrap();
    assert!(
        server.version.starts_with(|c: char| c.is_ascii_digit()),
        "{server:?}"
    );
    for extension in ["profiles_all_projects", "instance_all_projects", "event_project"] {
        assert!(
            server.extensions.iter().any(|known| known == extension),
            "{extension}: {server:?}"
        );
    }
}

async fn snapshots_bring_config_back(incus: &Incus) {
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

async fn project_lives(incus: &Incus) {
    let body =
        json!({"name": "t1", "description": "one", "config": {"features.images": "false", "user.a": "1"}});
    incus.create(Kind::Project, "", &body).await.unwrap();
    let live = get(incus, Kind::Project, "", "t1").await;
    assert_eq!((live.name(), live.project()), ("t1", ""));
    assert_eq!(live.config("features.images"), Some("false"));
    assert_eq!(
        live.config("features.profiles"),
        Some("true"),
        "features not asked for are on"
    );
    assert_eq!(live.object["description"], "one");
    get(incus, Kind::Profile, "t1", "default").await;

    let mut config = live.object["config"].clone();
    config["user.a"] = json!("2");
    let body = json!({"description": "two", "config": config});
    incus
        .replace(Kind::Project, "", "t1", &body, &live.etag)
        .await
        .unwrap();
    let live = get(incus, Kind::Project, "", "t1").await;
    assert_eq!(
        (live.config("user.a"), &live.object["description"]),
        (Some("2"), &json!("two"))
    );

    incus.delete(Kind::Project, "", "t1").await.unwrap();
    assert!(incus.get(Kind::Project, "", "t1").await.unwrap().is_none());
    assert!(incus.delete(Kind::Project, "", "default").await.is_err());
}

async fn profile_lives(incus: &Incus) {
    let devices = json!({"a": {"type": "none"}, "b": {"type": "none"}});
    let body = json!({"name": "web", "description": "one", "devices": devices,
        "config": {"limits.memory": "0128MiB", "user.a": "1", "user.b": "1"}});
    incus.create(Kind::Profile, "default", &body).await.unwrap();
    let live = get(incus, Kind::Profile, "default", "web").await;
    assert_eq!((live.name(), live.project()), ("web", "default"));
    assert_eq!(
        live.config("limits.memory"),
        Some("0128MiB"),
        "values are kept verbatim"
    );

    let patch =
        json!({"config": {"user.a": "", "user.b": "2"}, "devices": {"b": {"type": "disk", "path": "/"}}});
    incus
        .patch(Kind::Profile, "default", "web", &patch, &live.etag)
        .await
        .unwrap_err();
    let patch = json!({"config": {"user.a": "", "user.b": "2"},
        "devices": {"b": {"type": "disk", "path": "/", "pool": "default"}}});
    incus
        .patch(Kind::Profile, "default", "web", &patch, &live.etag)
        .await
        .unwrap();
    let patched = get(incus, Kind::Profile, "default", "web").await;
    assert_eq!(patched.config("user.a"), None);
    assert_eq!(patched.config("user.b"), Some("2"));
    assert_eq!(
        patched.config("limits.memory"),
        Some("0128MiB"),
        "a patch merges config"
    );
    assert_eq!(
        patched.object["devices"]["a"],
        json!({"type": "none"}),
        "a patch keeps other devices"
    );
    assert_ne!(patched.etag, live.etag);

    let body = json!({"config": {"user.c": "3"}});
    incus
        .replace(Kind::Profile, "default", "web", &body, &patched.etag)
        .await
        .unwrap();
    let replaced = get(incus, Kind::Profile, "default", "web").await;
    assert_eq!(replaced.object["config"], json!({"user.c": "3"}));
    assert_eq!(replaced.object["devices"], json!({}));
    assert_eq!(replaced.object["description"], "");

    incus.delete(Kind::Profile, "default", "web").await.unwrap();
    assert!(
        incus
            .get(Kind::Profile, "default", "web")
            .await
            .unwrap()
            .is_none()
    );
    assert!(incus.delete(Kind::Profile, "default", "default").await.is_err());
}

async fn container_lives(incus: &Incus) {
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    life(incus, "container").await;
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

async fn stale_etag_is_refused(incus: &Incus) {
    incus
        .create(Kind::Project, "", &json!({"name": "t1"}))
        .await
        .unwrap();
    incus
        .create(Kind::Profile, "default", &json!({"name": "p"}))
        .await
        .unwrap();
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    for (kind, name) in [(Kind::Project, "t1"), (Kind::Profile, "p"), (Kind::Instance, "a")] {
        let before = get(incus, kind, "default", name).await;
        let mut config = before.object["config"].clone();
        config["user.x"] = json!("1");
        let mut body = json!({"config": config, "description": ""});
        if kind == Kind::Instance {
            body["profiles"] = json!(["default"]);
        }
        incus
            .replace(kind, "default", name, &body, &before.etag)
            .await
            .unwrap();
        body["config"]["user.x"] = json!("2");
        let late = incus.replace(kind, "default", name, &body, &before.etag).await;
        assert!(
            matches!(late, Err(IncusError::PreconditionFailed)),
            "{kind:?}: {late:?}"
        );
        if kind != Kind::Project {
            let late = incus.patch(kind, "default", name, &body, &before.etag).await;
            assert!(
                matches!(late, Err(IncusError::PreconditionFailed)),
                "{kind:?}: {late:?}"
            );
        }
        assert_eq!(
            get(incus, kind, "default", name).await.config("user.x"),
            Some("1")
        );
    }
}

async fn refused_creations_leave_nothing(incus: &Incus) {
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    let before = get(incus, Kind::Instance, "default", "a").await;
    let with = |field: &str, value: Value| {
        let mut body = container("b");
        body[field] = value;
        body
    };
    let mut wrong = vec![
        with("source", json!({"type": "image", "alias": "missing"})),
        with("profiles", json!(["nope"])),
        with("profiles", json!([])),
        with("config", json!({"nonsense.key": "1"})),
        with("config", json!({"limits.cpu": 1})),
        with("type", json!("submarine")),
    ];
    for body in wrong.drain(..) {
        let refused = incus.create(Kind::Instance, "default", &body).await;
        assert!(refused.is_err(), "{body}");
        assert!(
            incus.get(Kind::Instance, "default", "b").await.unwrap().is_none(),
            "{body}"
        );
    }
    for name in ["a_b", "-a", "a-", "12"] {
        assert!(
            incus
                .create(Kind::Instance, "default", &container(name))
                .await
                .is_err(),
            "{name}"
        );
    }
    assert!(
        incus
            .create(Kind::Instance, "nope", &container("b"))
            .await
            .is_err(),
        "no such project"
    );
    assert!(
        incus
            .create(Kind::Instance, "default", &container("a"))
            .await
            .is_err(),
        "it exists"
    );
    assert_eq!(get(incus, Kind::Instance, "default", "a").await, before);
    for (kind, name) in [(Kind::Project, "default"), (Kind::Profile, "default")] {
        let before = get(incus, kind, "default", name).await;
        assert!(
            incus
                .create(kind, "default", &json!({"name": name}))
                .await
                .is_err(),
            "{kind:?} exists"
        );
        assert_eq!(get(incus, kind, "default", name).await, before);
    }
    let wrong = json!({"name": "p", "config": {"nonsense.key": "1"}});
    assert!(incus.create(Kind::Profile, "default", &wrong).await.is_err());
    assert!(incus.get(Kind::Profile, "default", "p").await.unwrap().is_none());
}

async fn missing_objects(incus: &Incus) {
    // The server is always there, and what lives in another object goes by two names.
    let named = Kind::ALL
        .into_iter()
        .filter(|kind| !matches!(kind, Kind::Server | Kind::Volume | Kind::NetworkForward));
    for kind in named {
        for project in ["default", "nope"] {
            assert!(
                incus.get(kind, project, "nope").await.unwrap().is_none(),
                "{kind:?} {project}"
            );
            let deleted = incus.delete(kind, project, "nope").await;
            assert!(
                matches!(deleted, Err(IncusError::NotFound { .. })),
                "{kind:?} {project}: {deleted:?}"
            );
            let body = json!({"config": {}});
            let replaced = incus.replace(kind, project, "nope", &body, "e").await;
            assert!(
                matches!(replaced, Err(IncusError::NotFound { .. })),
                "{kind:?} {project}: {replaced:?}"
            );
        }
    }
    assert!(
        incus
            .get(Kind::Profile, "nope", "default")
            .await
            .unwrap()
            .is_none(),
        "of a missing project"
    );
    let started = incus
        .set_state("default", "nope", StateAction::Start, false, 1)
        .await;
    assert!(matches!(started, Err(IncusError::NotFound { .. })), "{started:?}");
    assert!(incus.image_alias_exists("default", "busybox").await.unwrap());
    assert!(!incus.image_alias_exists("default", "missing").await.unwrap());
    assert!(!incus.image_alias_exists("default", "missing/12").await.unwrap());
}

async fn volatile_must_come_back(incus: &Incus) {
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

async fn profiles_in_use_and_full_projects_stay(incus: &Incus) {
    incus
        .create(
            Kind::Project,
            "",
            &json!({"name": "t1", "config": {"features.images": "false"}}),
        )
        .await
        .unwrap();
    let root = json!({"root": {"type": "disk", "path": "/", "pool": "default"}});
    incus
        .create(Kind::Profile, "t1", &json!({"name": "web", "devices": root}))
        .await
        .unwrap();
    assert!(
        incus.delete(Kind::Project, "", "t1").await.is_err(),
        "it has a profile"
    );
    let mut body = container("a");
    body["profiles"] = json!(["web"]);
    incus.create(Kind::Instance, "t1", &body).await.unwrap();
    let profile = get(incus, Kind::Profile, "t1", "web").await;
    assert_eq!(profile.object["used_by"], json!(["/1.0/instances/a?project=t1"]));
    assert!(
        incus.delete(Kind::Profile, "t1", "web").await.is_err(),
        "it is in use"
    );
    assert!(
        incus.delete(Kind::Project, "", "t1").await.is_err(),
        "it has an instance"
    );
    incus.delete(Kind::Instance, "t1", "a").await.unwrap();
    incus.delete(Kind::Profile, "t1", "web").await.unwrap();
    incus.delete(Kind::Project, "", "t1").await.unwrap();
}

async fn lists_span_projects(incus: &Incus) {
    // One project with profiles of its own, one that shares the default project's.
    let own = json!({"name": "own", "config": {"features.images": "false"}});
    let sharing =
        json!({"name": "sharing", "config": {"features.images": "false", "features.profiles": "false"}});
    for project in [own, sharing] {
        incus.create(Kind::Project, "", &project).await.unwrap();
    }
    incus
        .create(Kind::Profile, "sharing", &json!({"name": "web"}))
        .await
        .unwrap();
    incus
        .create(Kind::Instance, "sharing", &container("a"))
        .await
        .unwrap();
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    assert_eq!(list(incus, Kind::Project).await, ["/default", "/own", "/sharing"]);
    assert_eq!(
        list(incus, Kind::Profile).await,
        ["default/default", "default/web", "own/default"]
    );
    assert_eq!(list(incus, Kind::Instance).await, ["default/a", "sharing/a"]);
    for instance in incus.list_all(Kind::Instance).await.unwrap() {
        assert_eq!(instance.status(), "Stopped");
        assert_eq!(instance.etag, "", "a list does not tell");
    }
}

async fn events_tell_of_changes(incus: &Incus) {
    let mut events = incus.events().await.unwrap();
    incus
        .create(
            Kind::Project,
            "",
            &json!({"name": "t1", "config": {"features.images": "false"}}),
        )
        .await
        .unwrap();
    saw(&mut events, Kind::Project, "", "t1", "project-created").await;
    let root = json!({"root": {"type": "disk", "path": "/", "pool": "default"}});
    incus
        .create(Kind::Profile, "t1", &json!({"name": "web", "devices": root}))
        .await
        .unwrap();
    saw(&mut events, Kind::Profile, "t1", "web", "profile-created").await;
    let mut body = container("b");
    body["profiles"] = json!(["web"]);
    incus.create(Kind::Instance, "t1", &body).await.unwrap();
    saw(&mut events, Kind::Instance, "t1", "b", "instance-created").await;
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    saw(&mut events, Kind::Instance, "default", "a", "instance-created").await;
    set_state(incus, StateAction::Start, false).await.unwrap();
    saw(&mut events, Kind::Instance, "default", "a", "instance-started").await;
    let live = get(incus, Kind::Instance, "default", "a").await;
    let patch = json!({"config": {"user.a": "2"}});
    incus
        .patch(Kind::Instance, "default", "a", &patch, &live.etag)
        .await
        .unwrap();
    saw(&mut events, Kind::Instance, "default", "a", "instance-updated").await;
    set_state(incus, StateAction::Stop, true).await.unwrap();
    saw(&mut events, Kind::Instance, "default", "a", "instance-stopped").await;
    incus.delete(Kind::Instance, "default", "a").await.unwrap();
    saw(&mut events, Kind::Instance, "default", "a", "instance-deleted").await;
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

#[tokio::test]
async fn simulated_incus_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (simulated, incus) = simulated_subject(&dir).await;
    assert!(incus.server().await.unwrap().simulated);
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    set_state(&incus, StateAction::Start, false).await.unwrap();
    let before = get(&incus, Kind::Instance, "default", "a").await;
    let socket = simulated.socket().to_owned();
    let second = SimulatedIncus::start(dir.path(), &socket).await;
    assert!(second.is_err(), "one listens there already");
    let mut events = incus.events().await.unwrap();
    simulated.stop().await;
    assert!(
        events.next().await.is_none_or(|event| event.is_err()),
        "the events end with the daemon"
    );
    assert!(events.next().await.is_none());
    let gone = incus.get(Kind::Instance, "default", "a").await.unwrap_err();
    assert!(gone.is_transient(), "{gone:?}");

    let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
    assert_eq!(
        get(&incus, Kind::Instance, "default", "a").await,
        before,
        "the same client reaches it again"
    );
    simulated.stop().await;
}

/// The lab itself: as many daemons as a cluster has hosts, a container in each, and nothing of them afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_at_once() {
    if let Err(reason) = Lab::available() {
        tests::notes::skipped(&reason);
        return;
    }
    let mut lab = Lab::start(3).unwrap();
    for daemon in lab.daemons() {
        let incus = client(&daemon.socket());
        assert!(!incus.server().await.unwrap().simulated);
        incus
            .create(Kind::Instance, "default", &container("a"))
            .await
            .unwrap();
        set_state(&incus, StateAction::Start, false).await.unwrap();
    }
    for daemon in lab.daemons() {
        assert_eq!(
            list(&client(&daemon.socket()), Kind::Instance).await,
            ["default/a"]
        );
        let echoed = daemon
            .incus(&["exec", "a", "--", "/bin/busybox", "echo", "hello"])
            .unwrap();
        assert_eq!(echoed, "hello\n");
    }
    let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
    for daemon in lab.daemons_mut().drain(..) {
        daemon.stop().unwrap();
    }
    for socket in sockets {
        let gone = client(&socket).server().await.unwrap_err();
        assert!(matches!(gone, IncusError::Unreachable { .. }), "{gone:?}");
    }
}

fn container(name: &str) -> Value {
    json!({"name": name, "type": "container", "profiles": ["default"],
        "config": {"user.a": "1", "user.b": "1"}, "source": {"type": "image", "alias": "busybox"}})
}

async fn get(incus: &Incus, kind: Kind, project: &str, name: &str) -> Live {
    let live = incus.get(kind, project, name).await.unwrap();
    live.unwrap_or_else(|| panic!("no {kind:?} {name} in {project}"))
}

async fn set_state(incus: &Incus, action: StateAction, force: bool) -> Result<(), IncusError> {
    incus
        .set_state("default", "a", action, force, STATE_TIMEOUT_SECONDS)
        .await
}

/// All objects of a kind as `project/name`, sorted.
async fn list(incus: &Incus, kind: Kind) -> Vec<String> {
    let listed = incus.list_all(kind).await.unwrap();
    let mut names: Vec<_> = listed
        .iter()
        .map(|live| format!("{}/{}", live.project(), live.name()))
        .collect();
    names.sort();
    names
}

/// Reads on until this event; a real daemon tells of more than we ask for.
async fn saw(events: &mut EventStream, kind: Kind, project: &str, name: &str, action: &str) {
    let wanted = Event {
        project: project.to_owned(),
        kind,
        name: name.to_owned(),
        action: action.to_owned(),
    };
    let search = async {
        let mut others = Vec::new();
        loop {
            match events.next().await {
                Some(Ok(event)) if event == wanted => return,
                Some(Ok(event)) => others.push(event),
                end => panic!("{end:?} instead of {wanted:?}, after {others:?}"),
            }
        }
    };
    if tokio::time::timeout(EVENT_LIMIT, search).await.is_err() {
        panic!("no {wanted:?} within {EVENT_LIMIT:?}");
    }
}
