//! What stands in an entry, for each kind of object.

use expect_test::{Expect, expect};

use super::*;
use crate::document::INVENTORY_FIELDS;

const HOST: Host<'static> = Host {
    name: "ovh",
    cluster: "c1",
};

#[expect(clippy::needless_pass_by_value, reason = "a literal at each call")]
fn check(kind: InventoryKind, object: Value, expected: &Expect) {
    let (key, value) = entry(kind, &object, HOST).expect("an entry");
    for field in value.as_object().expect("an object").keys() {
        assert!(
            INVENTORY_FIELDS.contains(&field.as_str()),
            "{field} is on no list"
        );
    }
    expected.assert_eq(&format!("{}\n{value:#}\n", key.key()));
}

fn web() -> Value {
    json!({
        "name": "web", "project": "default", "type": "container", "status": "Running",
        "architecture": "x86_64", "ephemeral": false, "profiles": ["default"], "status_code": 103,
        "last_used_at": "2026-01-01T00:00:00Z",
        "config": {
            "limits.memory": "256MiB", "image.description": "Debian bookworm", "volatile.uuid": "u",
            "volatile.base_image": "5f7ae194ebc273a6010c64e9", "cloud-init.user-data": "password: secret",
            "environment.TOKEN": "secret", "user.password": "secret", "raw.lxc": "secret",
            "user.agent.cluster": "c1", "user.agent.uid": "instance/default/web@14",
        },
        "devices": {"data": {"type": "disk", "pool": "fast", "source": "d", "path": "/d", "io.cache": "none"}},
        "state": {"cpu": {"usage": 7}, "pid": 12, "network": {
            "eth0": {"addresses": [
                {"scope": "global", "address": "fd00::5"}, {"scope": "link", "address": "fe80::1"},
                {"scope": "global", "address": "10.0.0.5"}]},
            "lo": {"addresses": [{"scope": "local", "address": "127.0.0.1"}]},
        }},
        "snapshots": [{"name": "a"}, {"name": "b"}],
    })
}

#[test]
fn an_instance_of_ours() {
    check(
        InventoryKind::Instance,
        web(),
        &expect![[r#"
        /hosts/ovh/inventory/instances/default/web
        {
          "kind": "instance",
          "name": "web",
          "project": "default",
          "host": "ovh",
          "status": "Running",
          "type": "container",
          "architecture": "x86_64",
          "image": {
            "description": "Debian bookworm",
            "fingerprint": "5f7ae194ebc2"
          },
          "profiles": [
            "default"
          ],
          "addresses": [
            "10.0.0.5",
            "fd00::5"
          ],
          "snapshots": 2,
          "config": {
            "limits.memory": "256MiB"
          },
          "devices": {
            "data": {
              "type": "disk",
              "pool": "fast",
              "source": "d",
              "path": "/d"
            }
          },
          "managed": true,
          "document": "/tenants/default/desired/instances/web"
        }
    "#]],
    );
}

#[test]
fn what_moves_by_itself_and_what_is_secret_does_not_matter() {
    let before = entry(InventoryKind::Instance, &web(), HOST);
    let mut after = web();
    after["state"]["cpu"]["usage"] = json!(8);
    after["state"]["pid"] = json!(13);
    after["config"]["volatile.uuid"] = json!("v");
    after["config"]["user.password"] = json!("another");
    after["last_used_at"] = json!("2026-01-02T00:00:00Z");
    after["state"]["network"]["eth0"]["addresses"]
        .as_array_mut()
        .unwrap()
        .reverse();
    assert_eq!(entry(InventoryKind::Instance, &after, HOST), before);
    assert!(!format!("{before:?}").contains("secret"));
}

#[test]
fn whose_it_is() {
    let owner = |config: Value, name: &str| {
        let object = json!({"name": name, "project": "default", "config": config});
        let (_, value) = entry(InventoryKind::Instance, &object, HOST).unwrap();
        ["managed", "document", "cluster"].map(|field| value.get(field).cloned().unwrap_or_default())
    };
    let ours = json!({"user.agent.cluster": "c1", "user.agent.uid": "instance/default/web@14"});
    let document = "/tenants/default/desired/instances/web";
    assert_eq!(
        owner(ours.clone(), "web"),
        [json!(true), json!(document), Value::Null]
    );
    assert_eq!(owner(ours, "copy"), [json!(false), Value::Null, Value::Null]);
    assert_eq!(owner(json!({}), "web"), [json!(false), Value::Null, Value::Null]);
    let theirs = json!({"user.agent.cluster": "c2", "user.agent.uid": "instance/default/web@14"});
    assert_eq!(owner(theirs, "web"), [json!(false), Value::Null, json!("c2")]);
}

#[test]
fn networks() {
    let bridge = json!({"name": "incusbr0", "type": "bridge", "managed": true, "status": "Created",
        "project": "default", "config": {"ipv4.address": "10.0.0.1/24", "bgp.peers.a.password": "secret",
        "volatile.network.ipv4": "x"}, "used_by": ["/1.0/instances/web"]});
    check(
        InventoryKind::Network,
        bridge,
        &expect![[r#"
        /hosts/ovh/inventory/networks/default/incusbr0
        {
          "kind": "network",
          "name": "incusbr0",
          "project": "default",
          "host": "ovh",
          "type": "bridge",
          "status": "Created",
          "config": {
            "ipv4.address": "10.0.0.1/24"
          },
          "managed": false
        }
    "#]],
    );
    let interface =
        |kind: &str| json!({"name": "eth0", "type": kind, "managed": false, "project": "default"});
    let (_, value) = entry(InventoryKind::Network, &interface("physical"), HOST).unwrap();
    assert_eq!(value["host_interface"], json!(true));
    for kind in ["loopback", "unknown"] {
        assert_eq!(
            entry(InventoryKind::Network, &interface(kind), HOST),
            None,
            "{kind}"
        );
    }
}

#[test]
fn storage() {
    check(
        InventoryKind::StoragePool,
        json!({"name": "fast", "driver": "zfs", "status": "Created", "description": "",
            "config": {"source": "tank", "zfs.pool_name": "tank"}, "used_by": ["/1.0/profiles/default"]}),
        &expect![[r#"
            /hosts/ovh/inventory/storage-pools/-/fast
            {
              "kind": "storage-pool",
              "name": "fast",
              "host": "ovh",
              "driver": "zfs",
              "status": "Created",
              "config": {
                "source": "tank",
                "zfs.pool_name": "tank"
              },
              "managed": false
            }
        "#]],
    );
    let volumes = volumes_with_snapshots(
        "fast",
        vec![
            json!({"name": "d", "project": "t1", "content_type": "filesystem", "config": {"size": "1GiB"}}),
            json!({"name": "d/s0", "project": "t1"}),
            json!({"name": "d/s1", "project": "t1"}),
            json!({"name": "d", "project": "default"}),
        ],
    );
    assert_eq!(volumes.len(), 2);
    check(
        InventoryKind::Volume,
        volumes[0].clone(),
        &expect![[r#"
        /hosts/ovh/inventory/volumes/t1/fast/d
        {
          "kind": "volume",
          "name": "fast/d",
          "project": "t1",
          "host": "ovh",
          "pool": "fast",
          "content_type": "filesystem",
          "snapshots": 2,
          "config": {
            "size": "1GiB"
          },
          "managed": false
        }
    "#]],
    );
    assert_eq!(
        entry(InventoryKind::Volume, &volumes[1], HOST).unwrap().1["snapshots"],
        json!(0)
    );
}

#[test]
fn images_and_warnings() {
    check(
        InventoryKind::Image,
        json!({"fingerprint": "5f7ae194ebc273a6010c64e9afee", "aliases": [{"name": "b"}, {"name": "a"}],
            "properties": {"description": "busybox"}, "type": "container", "architecture": "x86_64",
            "size": 1_031_023, "public": false, "cached": true, "last_used_at": "x", "project": "default"}),
        &expect![[r#"
            /hosts/ovh/inventory/images/default/5f7ae194ebc2
            {
              "kind": "image",
              "name": "5f7ae194ebc2",
              "project": "default",
              "host": "ovh",
              "aliases": [
                "a",
                "b"
              ],
              "description": "busybox",
              "type": "container",
              "architecture": "x86_64",
              "fingerprint": "5f7ae194ebc273a6010c64e9afee",
              "cached": true,
              "size_bytes": 1031023,
              "managed": false
            }
        "#]],
    );
    check(
        InventoryKind::Warning,
        json!({"uuid": "1180afaa", "severity": "low", "status": "new", "project": "", "count": 7,
            "type": "Instance type not operational", "last_message": "vhost_vsock kernel module not loaded",
            "entity_url": "", "first_seen_at": "2026-11-21T19:48:25Z", "last_seen_at": "2026-11-22T00:00:00Z"}),
        &expect![[r#"
            /hosts/ovh/inventory/warnings/-/1180afaa
            {
              "kind": "warning",
              "name": "1180afaa",
              "host": "ovh",
              "severity": "low",
              "status": "new",
              "type": "Instance type not operational",
              "message": "vhost_vsock kernel module not loaded",
              "first_seen": "2026-11-21T19:48:25Z"
            }
        "#]],
    );
}

#[test]
fn nothing_is_larger_than_a_value_may_be() {
    let config: Map<String, Value> = (0..1_000)
        .map(|number| (format!("limits.kernel.{number}"), "x".repeat(1_000).into()))
        .collect();
    let object = json!({"name": "web", "project": "default", "config": config,
        "profiles": vec!["p".repeat(1_000); 100], "description": "ü".repeat(1_000)});
    let (_, value) = entry(InventoryKind::Instance, &object, HOST).unwrap();
    assert_eq!(value["truncated"], json!(true));
    assert!(
        value.to_string().len() <= VALUE_BYTES_MAX + LIST_MAX * TEXT_CHARS_MAX,
        "{value}"
    );
}

#[test]
fn what_cannot_be_a_key_is_left_out() {
    for object in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "a\nb"}),
        json!({"name": "a", "project": "b/c"}),
        json!({"name": "x".repeat(300)}),
        json!([]),
    ] {
        assert_eq!(entry(InventoryKind::Instance, &object, HOST), None, "{object}");
    }
}
