//! The inventory as a table for people. Pure.

use serde_json::Value;

use super::Entry;
use crate::cli::format::columns::{columns, size};
use crate::cli::get::tenant_cell;
use crate::document::InventoryKind;

/// Config keys that are shown; the rest is in the JSON.
const CONFIG_SHOWN: usize = 2;

/// One line for each entry; its kind too, where there may be several.
pub(super) fn entries(entries: &[Entry], with_kind: bool) -> String {
    let row = |entry: &Entry| {
        let kind = if with_kind { entry.key.kind.singular() } else { "" };
        [
            kind.to_owned(),
            entry.key.host.clone(),
            tenant_cell(&entry.key.project),
            entry.key.name.clone(),
            text(&entry.value, "status").to_owned(),
            managed(&entry.value),
            detail(entry),
        ]
    };
    let headings = ["KIND", "HOST", "PROJECT", "NAME", "STATUS", "MANAGED", "DETAIL"];
    columns(headings, &entries.iter().map(row).collect::<Vec<_>>())
}

/// Warnings have more to say than a table of everything has room for.
pub(super) fn warnings(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        let value = &entry.value;
        [
            entry.key.host.clone(),
            text(value, "severity").to_owned(),
            text(value, "status").to_owned(),
            tenant_cell(&entry.key.project),
            text(value, "type").to_owned(),
            text(value, "message").to_owned(),
            text(value, "entity").to_owned(),
            entry.key.name.clone(),
        ]
    };
    let headings = [
        "HOST", "SEVERITY", "STATUS", "PROJECT", "TYPE", "MESSAGE", "ENTITY", "UUID",
    ];
    columns(headings, &entries.iter().map(row).collect::<Vec<_>>())
}

fn managed(value: &Value) -> String {
    match (
        value.get("managed").and_then(Value::as_bool),
        text(value, "cluster"),
    ) {
        (Some(true), _) => "yes".to_owned(),
        (Some(false), "") => "no".to_owned(),
        (Some(false), cluster) => format!("by cluster {cluster}"),
        (None, _) => String::new(),
    }
}

fn detail(entry: &Entry) -> String {
    let value = &entry.value;
    let mut words: Vec<String> = Vec::new();
    let mut say = |word: &str| {
        if !word.is_empty() {
            words.push(word.to_owned());
        }
    };
    match entry.key.kind {
        InventoryKind::Instance => {
            say(text(value, "type"));
            say(value
                .pointer("/image/description")
                .and_then(Value::as_str)
                .unwrap_or_default());
            say(&list(value, "addresses"));
            say(&snapshots(value));
        }
        InventoryKind::Profile | InventoryKind::Project => {
            say(&config(value));
            say(text(value, "description"));
        }
        InventoryKind::Network => {
            say(text(value, "type"));
            if value.get("host_interface").is_some() {
                say("the host's own");
            }
            let address = value.pointer("/config/ipv4.address").and_then(Value::as_str);
            say(address.unwrap_or_default());
        }
        InventoryKind::StoragePool => say(text(value, "driver")),
        InventoryKind::Volume => {
            say(text(value, "content_type"));
            say(value
                .pointer("/config/size")
                .and_then(Value::as_str)
                .unwrap_or_default());
            say(&snapshots(value));
        }
        InventoryKind::Image => {
            say(&list(value, "aliases"));
            say(text(value, "description"));
            say(&value
                .get("size_bytes")
                .and_then(Value::as_i64)
                .map_or_else(String::new, size));
        }
        InventoryKind::Warning => {
            say(text(value, "severity"));
            say(text(value, "type"));
        }
    }
    words.join(", ")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value, field: &str) -> String {
    let items = value.get(field).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn snapshots(value: &Value) -> String {
    match value.get("snapshots").and_then(Value::as_u64) {
        None | Some(0) => String::new(),
        Some(1) => "1 snapshot".to_owned(),
        Some(many) => format!("{many} snapshots"),
    }
}

/// The first settings that say something: what a project has of its own goes without saying.
fn config(value: &Value) -> String {
    let settings = value.get("config").and_then(Value::as_object);
    let mut settings: Vec<String> = settings
        .into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with("features."))
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    let more = settings.len().saturating_sub(CONFIG_SHOWN);
    settings.truncate(CONFIG_SHOWN);
    if more > 0 {
        settings.push(format!("and {more} more"));
    }
    settings.join(", ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::document::parse_inventory_key;

    fn entry(key: &str, value: Value) -> Entry {
        Entry {
            key: parse_inventory_key(&format!("/hosts/{key}")).unwrap(),
            value,
        }
    }

    fn everything() -> Vec<Entry> {
        vec![
            entry(
                "ovh/inventory/images/default/5f7ae194ebc2",
                json!({"aliases": ["busybox", "bb"], "description": "busybox", "size_bytes": 1_031_023}),
            ),
            entry(
                "ovh/inventory/instances/default/web",
                json!({"status": "Running", "type": "container", "image": {"description": "Debian bookworm"},
                    "addresses": ["10.0.0.5", "fd00::5"], "snapshots": 2, "managed": true}),
            ),
            entry(
                "ionos/inventory/instances/shop/byhand",
                json!({"status": "Stopped", "type": "virtual-machine", "snapshots": 0, "managed": false}),
            ),
            entry(
                "ionos/inventory/networks/default/eth0",
                json!({"type": "physical", "host_interface": true, "managed": false}),
            ),
            entry(
                "ionos/inventory/projects/-/shop",
                json!({"managed": false, "cluster": "c2", "config": {"features.images": "true", "restricted": "true",
                    "limits.cpu": "4", "limits.memory": "4GiB"}}),
            ),
            entry(
                "ionos/inventory/storage-pools/-/fast",
                json!({"driver": "zfs", "status": "Created"}),
            ),
            entry(
                "ionos/inventory/volumes/default/fast/data",
                json!({"content_type": "filesystem", "config": {"size": "1GiB"}, "snapshots": 1}),
            ),
        ]
    }

    #[test]
    fn everything_there_is() {
        expect![[r#"
            KIND          HOST   PROJECT  NAME          STATUS   MANAGED        DETAIL
            image         ovh             5f7ae194ebc2                          busybox bb, busybox, 1.0 MB
            instance      ovh             web           Running  yes            container, Debian bookworm, 10.0.0.5 fd00::5, 2 snapshots
            instance      ionos  shop     byhand        Stopped  no             virtual-machine
            network       ionos           eth0                   no             physical, the host's own
            project       ionos           shop                   by cluster c2  restricted=true, limits.cpu=4, and 1 more
            storage-pool  ionos           fast          Created                 zfs
            volume        ionos           fast/data                             filesystem, 1GiB, 1 snapshot
        "#]].assert_eq(&entries(&everything(), true));
    }

    #[test]
    fn warnings_say_how_bad_and_of_what() {
        let warning = entry(
            "ovh/inventory/warnings/-/1180afaa-c4f8-4554-9e83-824a05d7a740",
            json!({"severity": "low", "status": "new", "type": "Instance type not operational",
                "message": "vhost_vsock kernel module not loaded"}),
        );
        expect![[r#"
            HOST  SEVERITY  STATUS  TYPE                           MESSAGE                               UUID
            ovh   low       new     Instance type not operational  vhost_vsock kernel module not loaded  1180afaa-c4f8-4554-9e83-824a05d7a740
        "#]].assert_eq(&warnings(&[warning]));
    }
}
