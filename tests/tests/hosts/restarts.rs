//! A host that was booted anew: its instances are adopted, or, where that is said, made anew once.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

const VOLUME: &str = "kind: volume\nname: data\nhost: m0\nspec: {pool: default}\n";

/// With a volume of its own, which is no part of it.
const WEB: &str = "kind: instance
name: web
host: m0
spec:
  type: container
  profiles: [default]
  source: {type: image, alias: busybox}
  devices: {data: {type: disk, pool: default, source: data, path: /data}}
";

fn like_web(name: &str, lifecycle: &str) -> String {
    format!(
        "kind: instance\nname: {name}\nhost: m0\nrunning: false\nlifecycle: {lifecycle}\nspec:\n  type: container\n  \
         profiles: [default]\n  source: {{type: image, alias: busybox}}\n"
    )
}

/// Everything that Incus has, by name, as it was born.
fn births(hosts: &Hosts) -> BTreeMap<String, String> {
    let list = hosts.query(0, "/1.0/instances?recursion=1");
    let instances = list.as_array().expect("a list of instances").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    instances
        .map(|instance| {
            let born = format!(
                "{} {}",
                text(&instance["created_at"]),
                text(&instance["config"]["volatile.uuid"])
            );
            (text(&instance["name"]), born)
        })
        .collect()
}

/// Which of two files are there: one in the instance, one in its volume.
fn files(hosts: &Hosts) -> [bool; 2] {
    ["/inside", "/data/inside"].map(|path| {
        let daemon = hosts.daemon(0);
        daemon
            .incus(&["exec", "web", "--", "busybox", "test", "-e", path])
            .is_ok()
    })
}

/// Until everything is as the documents say; the agent is told in which boot it is.
async fn started(hosts: &mut Hosts, boot: &str) {
    hosts.cluster.terminate(0).await;
    hosts.boot(boot);
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    wait::until("the first pass", async || {
        let passes = hosts.cluster.metrics(0).await;
        let done = passes
            .get("agent_reconciler_pass_duration_seconds_count")
            .copied();
        (done.unwrap_or_default() >= 1.0).then_some(())
    })
    .await;
    hosts.agentctl(&["status", "--wait=120s"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_host_adopts_or_rebuilds() {
    let Some(mut hosts) = Hosts::builder(1).booted("first").start().await else {
        return;
    };
    hosts.apply(VOLUME).await;
    hosts.apply(WEB).await;
    for (name, lifecycle) in [
        ("protected", "{protect: true}"),
        ("retained", "{deletion: retain}"),
        ("by-hand", "{managed: existence}"),
    ] {
        hosts.apply(&like_web(name, lifecycle)).await;
    }
    hosts.incus(0, &["create", "busybox", "foreign"]);
    hosts.agentctl(&["status", "--wait=120s"]).await;
    for path in ["/inside", "/data/inside"] {
        hosts.incus(0, &["exec", "web", "--", "busybox", "touch", path]);
    }
    let first = births(&hosts);
    assert_eq!(first.len(), 5, "{first:?}");

    started(&mut hosts, "second").await;
    assert_eq!(births(&hosts), first, "adopted");
    assert_eq!(files(&hosts), [true, true]);

    // That it is said now changes nothing about a boot that is over.
    hosts.cluster.set_arg("--on-restart", "rebuild");
    started(&mut hosts, "second").await;
    assert_eq!(births(&hosts), first, "the agent alone was restarted");

    started(&mut hosts, "third").await;
    let status = wait::until("web to be another one", async || {
        (births(&hosts).get("web") != first.get("web")).then_some(())
    });
    status.await;
    hosts.running(0, "web").await;
    hosts.agentctl(&["status", "--wait=120s"]).await;
    let second = births(&hosts);
    for (name, born) in &first {
        assert_eq!(second.get(name) == Some(born), name != "web", "{name}");
    }
    assert_eq!(files(&hosts), [false, true], "the volume is the same one");
    let pid = hosts.pid(0, "web");
    let log = hosts.cluster.member(0).log();
    for said in [
        "not made anew after the restart of the host: it is protected (lifecycle.protect)",
        "not made anew after the restart of the host: it is to be kept (lifecycle.deletion)",
        "not made anew after the restart of the host: it is managed by hand (lifecycle.managed)",
    ] {
        assert!(log.contains(said), "{said}");
    }

    started(&mut hosts, "third").await;
    assert_eq!(births(&hosts), second, "once for each boot");
    assert_eq!(hosts.pid(0, "web"), pid);
}
