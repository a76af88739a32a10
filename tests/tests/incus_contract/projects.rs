//! Projects and their profiles, and what lists show across them.

use agent::incus::{Incus, Kind};
use serde_json::json;

use super::{container, get, list};

pub(super) async fn project_lives(incus: &Incus) {
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

pub(super) async fn profile_lives(incus: &Incus) {
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

pub(super) async fn profiles_in_use_and_full_projects_stay(incus: &Incus) {
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

pub(super) async fn lists_span_projects(incus: &Incus) {
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
