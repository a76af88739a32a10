//! What documents would change, and what was made by hand.

use tests::agentctl::text;
use tests::hosts::Hosts;
use tests::wait;

use super::{start, web};

/// What hosts would do is told before they do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_come_before_changes() {
    let Some(hosts) = start().await else { return };
    hosts.incus(0, &["launch", "busybox", "byhand", "-c", "limits.memory=32MiB"]);
    hosts.apply(&web("64MiB")).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(
        hosts.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );

    planned(&hosts).await;
    a_kept_plan_is_applied_as_it_is(&hosts).await;
    refused_by_its_host(&hosts).await;
    made_by_hand_and_adopted(&hosts).await;
    left_out_of_the_files(&hosts).await;
}

async fn planned(hosts: &Hosts) {
    let new = web("64MiB")
        .replace("name: web", "name: new")
        .replace("host: m1", "host: m0");
    let file = hosts.file("infra.yaml", &format!("{}---\n{new}", web("96MiB")));
    let before = hosts.agentctl(&["get", "-w", "json"]).await;
    let plan = hosts.agentctl(&["plan", "-f", &file]).await;
    assert_eq!(
        plan,
        "+ instance new             m0          create, start\n\
         ~ instance web             m1          config.limits.memory: 64MiB -> 96MiB (live)\n\
         1 to change, 1 to create, 0 to delete, 0 refused\n"
    );
    assert_eq!(
        hosts.agentctl(&["get", "-w", "json"]).await,
        before,
        "no document is touched"
    );
    assert_eq!(hosts.memory(1, "web"), "64MiB");
}

async fn a_kept_plan_is_applied_as_it_is(hosts: &Hosts) {
    let file = hosts.file("web.yaml", &web("96MiB"));
    let kept = hosts.cluster.folder().join("web.plan");
    let kept = kept.to_string_lossy();
    hosts.agentctl(&["plan", "-f", &file, "-o", &kept]).await;
    hosts.apply(&web("80MiB")).await;
    let error = hosts.fails(&["apply", &kept]).await;
    assert!(
        error.contains("instance web was at revision") && error.contains("plan again"),
        "{error}"
    );
    hosts.agentctl(&["status", "--wait=60s"]).await;
    // What a person changes in Incus meanwhile counts, too, though no document speaks of it.
    hosts.agentctl(&["plan", "-f", &file, "-o", &kept]).await;
    hosts.incus(1, &["config", "set", "web", "user.note=theirs"]);
    let error = hosts.fails(&["apply", &kept]).await;
    assert!(
        error.contains("instance web on m1 has been changed since the plan was made"),
        "{error}"
    );
    assert_eq!(hosts.memory(1, "web"), "80MiB");
    hosts.agentctl(&["plan", "-f", &file, "-o", &kept]).await;
    let applied = hosts.agentctl(&["apply", &kept]).await;
    assert!(
        applied.contains("config.limits.memory: 80MiB -> 96MiB"),
        "{applied}"
    );
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts.memory(1, "web"), "96MiB");
}

/// Spoken of before it is stored, and for as long as it stands there.
async fn refused_by_its_host(hosts: &Hosts) {
    let other_type = web("96MiB").replace("type: container", "type: virtual-machine");
    let file = hosts.file("vm.yaml", &other_type);
    let plan = hosts.agentctl(&["plan", "-f", &file]).await;
    assert!(
        plan.starts_with("! instance web             m1          spec.type changes: needs rebuild"),
        "{plan}"
    );
    assert!(
        plan.ends_with("0 to change, 0 to create, 0 to delete, 1 refused\n"),
        "{plan}"
    );
    hosts.apply(&other_type).await;
    let output = hosts.run(&["diff"], b"").await;
    let said = text(&output.stdout);
    assert!(
        said.starts_with("! instance web") && said.contains("needs rebuild"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    hosts.apply(&web("96MiB")).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
}

async fn made_by_hand_and_adopted(hosts: &Hosts) {
    let pid = |hosts: &Hosts| hosts.query(0, "/1.0/instances/byhand/state")["pid"].clone();
    let before = pid(hosts);
    let error = hosts.fails(&["adopt", "instance", "nosuch"]).await;
    assert!(error.contains("no host has an object instance nosuch"), "{error}");
    let said = hosts.agentctl(&["adopt", "instance", "byhand"]).await;
    assert!(said.contains("limits.memory: 32MiB"), "{said}");
    assert!(
        said.ends_with("instance byhand on m0 is kept as its document says from now on\n"),
        "{said}"
    );
    hosts.agentctl(&["status", "--wait=60s"]).await;
    let live = hosts.agentctl(&["get", "instance", "byhand", "--live"]).await;
    assert!(live.starts_with("instance byhand on m0: Ready"), "{live}");
    let row = live
        .lines()
        .find(|line| line.contains("config.limits.memory"))
        .unwrap_or_default();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["config.limits.memory", "32MiB", "32MiB"]
    );
    assert_eq!(pid(hosts), before, "nothing is restarted");
    let again = hosts.agentctl(&["adopt", "instance", "byhand"]).await;
    assert_eq!(again, "instance byhand on m0 was the cluster's already\n");
}

async fn left_out_of_the_files(hosts: &Hosts) {
    let file = hosts.file("all.yaml", &web("96MiB"));
    let plan = hosts.agentctl(&["plan", "-f", &file, "--prune"]).await;
    assert!(
        plan.starts_with("- instance byhand          m0          delete\n"),
        "{plan}"
    );
    let error = hosts.fails(&["apply", "-f", &file, "--prune"]).await;
    assert!(
        error.contains("would delete 1 document: instance byhand"),
        "{error}"
    );
    let applied = hosts.agentctl(&["apply", "-f", &file, "--prune", "--yes"]).await;
    assert!(applied.contains("- instance byhand"), "{applied}");
    wait::until("the instance to go with its document", async || {
        (!hosts
            .incus(0, &["list", "--format", "csv", "--columns", "n"])
            .contains("byhand"))
        .then_some(())
    })
    .await;
    assert_eq!(hosts.state(1, "web"), "Running");
}
