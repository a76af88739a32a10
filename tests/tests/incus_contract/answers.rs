//! What Incus answers to what it cannot do, and what it tells of what it did.

use std::time::Duration;

use agent::incus::{Event, EventStream, Incus, IncusError, Kind, StateAction};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{container, get, set_state};

/// How long an event may take to arrive.
const EVENT_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn server_says_its_version(incus: &Incus) {
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

pub(super) async fn stale_etag_is_refused(incus: &Incus) {
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

pub(super) async fn refused_creations_leave_nothing(incus: &Incus) {
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

pub(super) async fn missing_objects(incus: &Incus) {
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

pub(super) async fn events_tell_of_changes(incus: &Incus) {
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
