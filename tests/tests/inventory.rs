//! What a real Incus has, in the store and on the command line: made by hand, changed, gone.

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_by_hand_appears_changes_and_goes() {
    let Some(hosts) = Hosts::builder(1).start().await else {
        return;
    };
    let incus = |args: &[&str]| hosts.incus(0, args);

    incus(&[
        "project",
        "create",
        "shop",
        "-c",
        "features.images=false",
        "-c",
        "features.profiles=false",
    ]);
    incus(&[
        "launch",
        "busybox",
        "byhand",
        "--project",
        "shop",
        "-c",
        "limits.memory=64MiB",
        "-c",
        "user.secret=s",
    ]);
    incus(&["storage", "volume", "create", "default", "data"]);
    incus(&["storage", "volume", "snapshot", "create", "default", "data", "s0"]);
    let entry = |kind: &'static str, name: &'static str| find(&hosts, kind, name);
    let byhand = until(&entry, "instances", "byhand", &|entry| {
        entry["status"] == "Running"
    })
    .await;
    assert_eq!(byhand["managed"], false, "{byhand}");
    assert_eq!(byhand["project"], "shop", "{byhand}");
    assert_eq!(byhand["image"]["description"], "busybox", "{byhand}");
    assert_eq!(byhand["config"]["limits.memory"], "64MiB", "{byhand}");
    assert!(!byhand.to_string().contains("secret"), "{byhand}");
    let data = until(&entry, "volumes", "default/data", &|entry| {
        entry["snapshots"] == 1
    })
    .await;
    assert_eq!(
        (&data["pool"], &data["project"]),
        (&"default".into(), &"default".into())
    );
    for (kind, name) in [
        ("storage-pools", "default"),
        ("projects", "shop"),
        ("profiles", "default"),
    ] {
        until(&entry, kind, name, &|_| true).await;
    }
    let images = hosts
        .agentctl(&["inventory", "query", "images", "--where", "aliases=busybox"])
        .await;
    assert!(images.contains("busybox"), "{images}");

    incus(&["snapshot", "create", "byhand", "s0", "--project", "shop"]);
    until(&entry, "instances", "byhand", &|entry| entry["snapshots"] == 1).await;
    incus(&["stop", "--force", "byhand", "--project", "shop"]);
    until(&entry, "instances", "byhand", &|entry| {
        entry["status"] == "Stopped"
    })
    .await;

    // Nothing has changed since, so nothing is written, however often Incus is looked at.
    let table = hosts
        .agentctl(&["inventory", "query", "instances", "--where", "managed=false"])
        .await;
    assert!(
        table.contains("byhand") && table.contains("1 snapshot"),
        "{table}"
    );
    let tenants = hosts
        .agentctl(&["inventory", "query", "--tenant", "shop", "-w", "simple"])
        .await;
    assert_eq!(tenants, "/hosts/m0/inventory/instances/shop/byhand\n");
    let warnings = incus(&["query", "/1.0/warnings"]);
    let warnings: Value = serde_json::from_str(&warnings).expect("JSON");
    let first = warnings
        .get(0)
        .and_then(Value::as_str)
        .and_then(|path| path.rsplit('/').next());
    if let Some(uuid) = first {
        let shown = hosts.agentctl(&["inventory", "warnings"]).await;
        assert!(shown.contains(uuid), "{uuid} in\n{shown}");
    }

    incus(&["delete", "byhand", "--project", "shop"]);
    incus(&["storage", "volume", "delete", "default", "data"]);
    for (kind, name) in [("instances", "byhand"), ("volumes", "default/data")] {
        wait::until(&format!("{name} to go"), async || {
            entry(kind, name).await.is_none().then_some(())
        })
        .await;
    }
}

/// Waits for an entry that is as it should be.
async fn until<F: Future<Output = Option<Value>>>(
    entry: &impl Fn(&'static str, &'static str) -> F,
    kind: &'static str,
    name: &'static str,
    check: &impl Fn(&Value) -> bool,
) -> Value {
    wait::until(&format!("{kind} {name} in the inventory"), async || {
        entry(kind, name).await.filter(|entry| check(entry))
    })
    .await
}

async fn find(hosts: &Hosts, kind: &str, name: &str) -> Option<Value> {
    let filter = format!("name={name}");
    let said = hosts
        .agentctl(&["inventory", "query", kind, "--where", &filter, "-w", "json"])
        .await;
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    answer["entries"].as_array()?.first().cloned()
}
