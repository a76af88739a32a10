//! Backups on real Incus daemons: by schedule and by hand, on another host, too, and what becomes of them when a host is
//! lost.

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

const DB: &str = "kind: instance
name: db
host: m0
spec:
  profiles: [default]
  source: {type: image, alias: busybox}
";

/// Once a year: only the first, which is made at once, is ever due here.
const NIGHTLY: &str = "kind: backup
name: nightly
spec:
  instance: db
  snapshots: {schedule: '0 0 1 1 *', keep: {last: 1}}
  exports: {schedule: '0 0 1 1 *', keep: {last: 1}, to: [m1]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_schedule_made_outlives_its_host() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    hosts.apply(DB).await;
    hosts.running(0, "db").await;
    hosts.incus(0, &["exec", "db", "--", "sh", "-c", "echo kept >/kept"]);
    hosts.incus(0, &["snapshot", "create", "db", "byhand"]);
    hosts.incus(0, &["snapshot", "create", "db", "agent-nightly-20200101T000000Z"]);

    // The first at once; the one of before is pruned, and what a person made is not.
    let revision = hosts.apply(NIGHTLY).await;
    until_both(&hosts, revision).await;
    wait::until("one snapshot of the schedule", async || {
        let names = snapshots(&hosts, 0);
        let new = names.iter().filter(|name| name.starts_with("agent-nightly-2"));
        let is_pruned = !names.contains(&"agent-nightly-20200101T000000Z".to_owned());
        (is_pruned && new.count() == 1 && names.contains(&"byhand".to_owned())).then_some(())
    })
    .await;
    wait::until("the export on both hosts", async || {
        (listed(&hosts, "m0").await.len() == 1 && listed(&hosts, "m1").await.len() == 1).then_some(())
    })
    .await;
    let (here, there) = (listed(&hosts, "m0").await, listed(&hosts, "m1").await);
    assert_eq!(
        (&here[0]["id"], &here[0]["sha256"]),
        (&there[0]["id"], &there[0]["sha256"])
    );
    assert!(here[0]["bytes"].as_u64() > Some(1_000), "{here:?}");

    // An agent that comes back makes nothing twice.
    hosts.cluster.kill(0);
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    hosts.incus(0, &["exec", "db", "--", "sh", "-c", "echo later >/kept"]);
    let made = hosts.agentctl(&["backup", "now", "db", "--to", "m1"]).await;
    assert!(
        made.contains("made on m0") && made.contains("copied to m1"),
        "{made}"
    );
    assert_eq!(listed(&hosts, "m0").await.len(), 2, "the scheduled one, and this");
    assert_eq!(snapshots(&hosts, 0).len(), 2);
    let refused = hosts.fails(&["backup", "restore", "db"]).await;
    assert!(refused.contains("--replace"), "{refused}");
    let refused = hosts.fails(&["backup", "restore", "db", "--to", "m2"]).await;
    assert!(refused.contains("there would be two of it"), "{refused}");

    // The host is lost, with everything on it.
    hosts.cluster.kill(0);
    hosts.ask(Some(2));
    let restored = hosts.agentctl(&["backup", "restore", "db", "--to", "m2"]).await;
    assert!(restored.contains("its document names m2 now"), "{restored}");
    hosts.running(2, "db").await;
    assert_eq!(
        hosts.incus(2, &["exec", "db", "--", "busybox", "cat", "/kept"]),
        "later\n"
    );
    hosts.reported(2, "instances/db", "Ready", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_takes_the_place_of_what_is_there() {
    let Some(hosts) = Hosts::builder(1).start().await else {
        return;
    };
    hosts.apply(DB).await;
    hosts.running(0, "db").await;
    hosts.incus(0, &["exec", "db", "--", "sh", "-c", "echo before >/word"]);
    hosts.agentctl(&["backup", "now", "db"]).await;
    hosts.incus(0, &["exec", "db", "--", "sh", "-c", "echo after >/word"]);
    let restored = hosts.agentctl(&["backup", "restore", "db", "--replace"]).await;
    assert!(restored.contains("what was there is db-replaced-"), "{restored}");
    hosts.running(0, "db").await;
    assert_eq!(
        hosts.incus(0, &["exec", "db", "--", "busybox", "cat", "/word"]),
        "before\n"
    );
    let names = hosts.list(0);
    assert!(
        names.iter().any(|name| name.starts_with("db-replaced-")),
        "{names:?}"
    );
    // Nobody's document speaks of it: made again by hand only.
    hosts.agentctl(&["delete", "instance", "db"]).await;
    wait::until("the instance to go", async || {
        (!hosts.list(0).contains(&"db".to_owned())).then_some(())
    })
    .await;
    hosts.agentctl(&["backup", "restore", "db"]).await;
    let config = hosts.instance(0, "db")["config"].clone();
    let ours = config.as_object().expect("a config");
    assert!(!ours.keys().any(|key| key.starts_with("user.agent.")), "{config}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_kept_too() {
    let Some(hosts) = Hosts::builder(1).start().await else {
        return;
    };
    hosts
        .apply("kind: volume\nname: data\nspec: {pool: default}\n")
        .await;
    hosts.reported(0, "volumes/data", "Ready", None).await;
    let document = NIGHTLY
        .replace("instance: db", "volume: data\n  pool: default")
        .replace(", to: [m1]", "");
    let revision = hosts.apply(&document).await;
    until_both(&hosts, revision).await;
    assert_eq!(listed(&hosts, "m0").await[0]["kind"], "volume");
}

/// Waits until the host says that it has made a snapshot and an export.
async fn until_both(hosts: &Hosts, revision: i64) {
    wait::until("a snapshot and an export", async || {
        let status = hosts.status(0, "backups/nightly").await?;
        let message = status["message"].as_str()?.to_owned();
        let is_done = status["phase"] == "Ready" && status["revision"] == revision;
        (is_done && message.contains("export ") && message.contains("snapshot ")).then_some(())
    })
    .await;
}

fn snapshots(hosts: &Hosts, host: usize) -> Vec<String> {
    let list = hosts.query(host, "/1.0/instances/db/snapshots?recursion=1");
    let names = list.as_array().expect("a list").iter();
    names
        .map(|snapshot| snapshot["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// The complete backups on a host.
async fn listed(hosts: &Hosts, host: &str) -> Vec<Value> {
    let output = hosts.run(&["backup", "list", "-w", "json"], b"").await;
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let backups = listed["backups"].as_array().expect("a list").iter();
    backups.filter(|backup| backup["host"] == host).cloned().collect()
}

/// A volume, and an instance that has it: both are on every host that the documents name.
const DATA: &str = "kind: volume
name: data
host: m0
spec: {pool: default}
---
kind: instance
name: db
host: m0
spec:
  devices:
    data: {type: disk, pool: default, source: data, path: /data}
  source: {type: image, alias: busybox}
---
kind: backup
name: data
spec:
  volume: data
  pool: default
  exports: {schedule: '0 0 1 1 *', keep: {last: 1}, to: [m1]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_comes_back_while_an_instance_has_it() {
    let Some(hosts) = Hosts::builder(2).start().await else {
        return;
    };
    let (before, backup) = DATA.rsplit_once("---\n").expect("three documents");
    hosts.apply(before).await;
    hosts.running(0, "db").await;
    let inside = |line: &str| hosts.incus(0, &["exec", "db", "--", "sh", "-c", line]);
    inside("echo before >/data/word; busybox sync");
    hosts.apply(backup).await;
    wait::until("the export on both hosts", async || {
        (listed(&hosts, "m0").await.len() == 1 && listed(&hosts, "m1").await.len() == 1).then_some(())
    })
    .await;
    inside("echo after >/data/word");

    let refused = hosts.fails(&["backup", "restore", "data", "--volume"]).await;
    assert!(refused.contains("--replace"), "{refused}");
    let restored = hosts
        .agentctl(&["backup", "restore", "data", "--volume", "--replace"])
        .await;
    assert!(
        restored.contains("what was there is data-replaced-"),
        "{restored}"
    );
    hosts.running(0, "db").await;
    assert_eq!(inside("busybox cat /data/word"), "before\n");
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(
        hosts.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );
    let device = hosts.instance(0, "db")["devices"]["data"]["source"].clone();
    assert_eq!(device, "data");

    // Where no document speaks of it, it is nobody's.
    hosts
        .agentctl(&["backup", "restore", "data", "--volume", "--to", "m1"])
        .await;
    let there = hosts.query(1, "/1.0/storage-pools/default/volumes/custom/data");
    assert!(there["config"].get("user.agent.uid").is_none(), "{there}");
}
