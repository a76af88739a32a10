//! What instances stand on: the server's config, pools and volumes, networks, ACLs and forwards, images.

use agent::incus::{Incus, IncusError, Kind, Live};
use serde_json::{Value, json};

use super::get;

/// Puts `config` on an object, keeping what else it has, and reads it back.
async fn put_config(incus: &Incus, kind: Kind, project: &str, name: &str, more: Value) -> Live {
    let live = get(incus, kind, project, name).await;
    let mut body = live.object.clone();
    let field = kind.config_field();
    body[field]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let fields = [
        "config",
        "properties",
        "description",
        "ingress",
        "egress",
        "ports",
        "auto_update",
        "public",
    ];
    let body: serde_json::Map<String, Value> = body
        .as_object()
        .unwrap()
        .iter()
        .filter(|(field, _)| fields.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    incus
        .replace(kind, project, name, &body.into(), &live.etag)
        .await
        .unwrap();
    let changed = get(incus, kind, project, name).await;
    assert_ne!(changed.etag, live.etag, "a change moves the etag");
    changed
}

async fn names(incus: &Incus, kind: Kind) -> Vec<String> {
    let list = incus.list_all(kind).await.unwrap();
    list.iter().map(|live| kind.name_of(&live.object)).collect()
}

fn word<'a>(live: &'a Live, key: &str) -> Option<&'a str> {
    live.object["config"][key].as_str()
}

pub(crate) async fn server_config_lives(incus: &Incus) {
    let live = put_config(incus, Kind::Server, "", "", json!({"user.a": "1", "user.b": "2"})).await;
    assert_eq!(word(&live, "user.a"), Some("1"));
    // What is left out stays, though this is no patch; only an empty value takes it off.
    let body = json!({"config": {"user.b": "2"}});
    incus
        .replace(Kind::Server, "", "", &body, &live.etag)
        .await
        .unwrap();
    let live = get(incus, Kind::Server, "", "").await;
    assert_eq!(word(&live, "user.a"), Some("1"));
    let body = json!({"config": {"user.a": "", "user.b": "2"}});
    incus
        .replace(Kind::Server, "", "", &body, &live.etag)
        .await
        .unwrap();
    let live = get(incus, Kind::Server, "", "").await;
    assert_eq!((word(&live, "user.a"), word(&live, "user.b")), (None, Some("2")));
    assert_eq!(incus.list_all(Kind::Server).await.unwrap().len(), 1);
}

pub(crate) async fn pools_and_volumes_live(incus: &Incus) {
    let pool = json!({"name": "fast", "driver": "dir", "config": {"user.a": "1"}});
    incus.create(Kind::StoragePool, "", &pool).await.unwrap();
    assert!(incus.create(Kind::StoragePool, "", &pool).await.is_err(), "twice");
    let live = put_config(
        incus,
        Kind::StoragePool,
        "",
        "fast",
        json!({"rsync.bwlimit": "10MB"}),
    )
    .await;
    assert_eq!(
        (word(&live, "user.a"), word(&live, "rsync.bwlimit")),
        (Some("1"), Some("10MB"))
    );
    assert_eq!(live.object["driver"], "dir");

    let volume = json!({"pool": "fast", "name": "data", "config": {"user.a": "1"}});
    incus.create(Kind::Volume, "default", &volume).await.unwrap();
    assert!(
        incus.create(Kind::Volume, "default", &volume).await.is_err(),
        "twice"
    );
    let homeless = json!({"pool": "none", "name": "data"});
    let refused = incus.create(Kind::Volume, "default", &homeless).await;
    assert!(matches!(refused, Err(IncusError::NotFound { .. })), "{refused:?}");
    let live = put_config(
        incus,
        Kind::Volume,
        "default",
        "fast/data",
        json!({"user.b": "2"}),
    )
    .await;
    assert_eq!(word(&live, "user.b"), Some("2"));
    assert_eq!(live.object["content_type"], "filesystem");
    let listed = incus.list_all(Kind::Volume).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(Kind::Volume.name_of(&listed[0].object), "fast/data");
    assert_eq!(listed[0].project(), "default");

    assert!(
        incus.delete(Kind::StoragePool, "", "fast").await.is_err(),
        "it holds a volume"
    );
    incus.delete(Kind::Volume, "default", "fast/data").await.unwrap();
    let gone = incus.delete(Kind::Volume, "default", "fast/data").await;
    assert!(matches!(gone, Err(IncusError::NotFound { .. })), "{gone:?}");
    incus.delete(Kind::StoragePool, "", "fast").await.unwrap();
    assert!(!names(incus, Kind::StoragePool).await.contains(&"fast".to_owned()));
    assert!(
        incus.delete(Kind::StoragePool, "", "default").await.is_err(),
        "a root disk is in it"
    );
}

/// A bridge is the machine's: its name and its addresses are this process' own.
pub(crate) async fn networks_acls_and_forwards_live(incus: &Incus) {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let name = format!(
        "ct{high:02x}{low:02x}{}",
        names(incus, Kind::StoragePool).await.len()
    );
    let address = format!("10.{}.{low}.1/24", 128 + high % 64);
    let network = json!({"name": name, "type": "bridge", "config": {"user.a": "1", "ipv4.address": address, "ipv6.address": "none"}});
    incus.create(Kind::Network, "", &network).await.unwrap();
    assert!(incus.create(Kind::Network, "", &network).await.is_err(), "twice");
    let live = put_config(incus, Kind::Network, "", &name, json!({"user.b": "2"})).await;
    assert_eq!(
        (word(&live, "user.a"), word(&live, "user.b")),
        (Some("1"), Some("2"))
    );
    assert_eq!(live.object["managed"], true);
    assert!(names(incus, Kind::Network).await.contains(&name));

    let rule = json!({"action": "allow", "state": "enabled", "protocol": "tcp", "destination_port": "80"});
    let acl = json!({"name": "web", "config": {"user.a": "1"}, "ingress": [rule]});
    incus.create(Kind::NetworkAcl, "", &acl).await.unwrap();
    let live = put_config(incus, Kind::NetworkAcl, "", "web", json!({"user.b": "2"})).await;
    assert_eq!(
        live.object["ingress"],
        json!([rule]),
        "rules come back as they were written"
    );
    assert_eq!(names(incus, Kind::NetworkAcl).await, ["web"]);
    incus.delete(Kind::NetworkAcl, "", "web").await.unwrap();

    let target = format!("10.{}.{low}.9", 128 + high % 64);
    let port = json!({"protocol": "tcp", "listen_port": "80", "target_address": target});
    let forward =
        json!({"network": name, "listen_address": "192.0.2.1", "config": {"user.a": "1"}, "ports": [port]});
    incus.create(Kind::NetworkForward, "", &forward).await.unwrap();
    assert!(
        incus.create(Kind::NetworkForward, "", &forward).await.is_err(),
        "twice"
    );
    let forward_name = format!("{name}/192.0.2.1");
    assert_eq!(
        names(incus, Kind::NetworkForward).await,
        std::slice::from_ref(&forward_name)
    );
    let live = put_config(
        incus,
        Kind::NetworkForward,
        "",
        &forward_name,
        json!({"user.b": "2"}),
    )
    .await;
    assert_eq!(live.object["ports"][0]["target_address"], target.as_str());
    incus
        .delete(Kind::NetworkForward, "", &forward_name)
        .await
        .unwrap();
    assert!(names(incus, Kind::NetworkForward).await.is_empty());

    incus.delete(Kind::Network, "", &name).await.unwrap();
    assert!(incus.get(Kind::Network, "", &name).await.unwrap().is_none());
}

pub(crate) async fn images_live(incus: &Incus) {
    let dir = tempfile::tempdir().unwrap();
    let file = tests::lab::build_image(dir.path()).unwrap();
    let body = json!({"source": {"type": "file", "path": file.to_str().unwrap()}, "properties": {"user.a": "1 & 2"}});
    // The lab's own image is of the same file: only one of a fingerprint can be there.
    for live in incus.list_all(Kind::Image).await.unwrap() {
        let fingerprint = Kind::Image.name_of(&live.object);
        incus.delete(Kind::Image, "default", &fingerprint).await.unwrap();
    }
    incus.create_image("default", &body).await.unwrap();
    let listed = incus.list_all(Kind::Image).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].project(), "default");
    assert_eq!(listed[0].object["properties"]["user.a"], "1 & 2");
    let fingerprint = Kind::Image.name_of(&listed[0].object);
    let live = put_config(
        incus,
        Kind::Image,
        "default",
        &fingerprint,
        json!({"user.b": "2"}),
    )
    .await;
    assert_eq!(live.object["properties"]["user.a"], "1 & 2");
    assert_eq!(live.object["properties"]["user.b"], "2");

    assert!(!incus.image_alias_exists("default", "missing/1").await.unwrap());
    incus
        .add_image_alias("default", "missing/1", &fingerprint)
        .await
        .unwrap();
    assert!(
        incus
            .add_image_alias("default", "missing/1", &fingerprint)
            .await
            .is_err(),
        "twice"
    );
    assert!(incus.image_alias_exists("default", "missing/1").await.unwrap());
    let live = get(incus, Kind::Image, "default", &fingerprint).await;
    assert_eq!(live.object["aliases"][0]["name"], "missing/1");
    incus.remove_image_alias("default", "missing/1").await.unwrap();
    incus.remove_image_alias("default", "missing/1").await.unwrap();
    assert!(!incus.image_alias_exists("default", "missing/1").await.unwrap());

    let nowhere = json!({"source": {"type": "file", "path": dir.path().join("none").to_str().unwrap()}});
    let refused = incus.create_image("default", &nowhere).await;
    assert!(
        matches!(refused, Err(IncusError::Unreadable { .. })),
        "{refused:?}"
    );
    incus.delete(Kind::Image, "default", &fingerprint).await.unwrap();
    assert!(incus.list_all(Kind::Image).await.unwrap().is_empty());
}
