//! What a real Incus has, in the store and on the command line: made by hand, changed, gone.

use std::path::PathBuf;

use serde_json::Value;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_by_hand_appears_changes_and_goes() {
    if let Err(missing) = Lab::available() {
        return notes::skipped(&missing);
    }
    let lab = tokio::task::spawn_blocking(|| Lab::start(1))
        .await
        .expect("a task");
    let lab = lab.expect("Incus starts");
    let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
    let cluster = Cluster::builder(&Subject::agent(), 1)
        .incus(&sockets)
        .start()
        .await;
    let incus = |args: &[&str]| {
        let said = lab.daemons()[0].incus(args);
        said.unwrap_or_else(|error| panic!("incus {args:?}: {error:#}"))
    };

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
    let entry = |kind: &'static str, name: &'static str| find(&cluster, kind, name);
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
    let images = agentctl(
        &cluster,
        &["inventory", "query", "images", "--where", "aliases=busybox"],
    )
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
    let table = agentctl(
        &cluster,
        &["inventory", "query", "instances", "--where", "managed=false"],
    )
    .await;
    assert!(
        table.contains("byhand") && table.contains("1 snapshot"),
        "{table}"
    );
    let tenants = agentctl(
        &cluster,
        &["inventory", "query", "--tenant", "shop", "-w", "simple"],
    )
    .await;
    assert_eq!(tenants, "/hosts/m0/inventory/instances/shop/byhand\n");
    let warnings = incus(&["query", "/1.0/warnings"]);
    let warnings: Value = serde_json::from_str(&warnings).expect("JSON");
    let first = warnings
        .get(0)
        .and_then(Value::as_str)
        .and_then(|path| path.rsplit('/').next());
    if let Some(uuid) = first {
        let shown = agentctl(&cluster, &["inventory", "warnings"]).await;
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

async fn find(cluster: &Cluster, kind: &str, name: &str) -> Option<Value> {
    let filter = format!("name={name}");
    let said = agentctl(
        cluster,
        &["inventory", "query", kind, "--where", &filter, "-w", "json"],
    )
    .await;
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    answer["entries"].as_array()?.first().cloned()
}

async fn agentctl(cluster: &Cluster, args: &[&str]) -> String {
    let mut command = Command::new(tools::agentctl());
    command
        .env_clear()
        .env("AGENTCTL_ENDPOINTS", cluster.endpoints().join(","))
        .args(args)
        .kill_on_drop(true);
    let output = tokio::time::timeout(wait::PATIENCE, command.output()).await;
    let output = output.expect("an end of agentctl").expect("start agentctl");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "agentctl {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
