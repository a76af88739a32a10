//! A host in maintenance: what runs there goes on, and nothing is changed until it is over.

use tests::wait;

use super::{start, web};

fn host(maintenance: bool) -> String {
    format!("kind: host\nname: m1\nspec: {{provider: IONOS, maintenance: {maintenance}}}\n")
}

/// It would be put on m1, which has the fewest, were that not in maintenance.
const PLACED: &str = "kind: instance
name: placed
placement: {}
running: false
spec: {type: container, profiles: [default], source: {type: image, alias: busybox}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_changed_on_a_host_in_maintenance() {
    let Some(hosts) = start().await else { return };
    hosts.apply(&web("64MiB")).await;
    // So that m0, by the numbers, is not the one to choose.
    for name in ["first", "second"] {
        let other = web("64MiB").replace("name: web", &format!("name: {name}"));
        let other = other
            .replace("host: m1", "host: m0")
            .replace("running: true", "running: false");
        hosts.apply(&other).await;
    }
    hosts.agentctl(&["status", "--wait=60s"]).await;
    let pid = hosts.pid(1, "web");

    let revision = hosts.apply(&host(true)).await;
    let status = hosts.reported(1, "hosts/m1", "Stopped", revision).await;
    assert_eq!(status["message"], "in maintenance: nothing is changed here");
    let revision = hosts.apply(&web("96MiB")).await;
    let status = hosts.reported(1, "instances/web", "Pending", revision).await;
    assert_eq!(status["message"], "host m1 is in maintenance; then: change");
    wait::until("the host to count what waits", async || {
        let status = hosts.status(1, "hosts/m1").await?;
        status["message"]
            .as_str()?
            .ends_with("1 object waits")
            .then_some(())
    })
    .await;
    let planned = hosts.agentctl_says(&["diff"]).await;
    assert!(planned.contains("waits: host m1 is in maintenance"), "{planned}");
    hosts.apply(PLACED).await;
    hosts.reported(0, "instances/placed", "Stopped", None).await;
    assert_eq!(hosts.memory(1, "web"), "64MiB");

    hosts.apply(&host(false)).await;
    hosts.reported(1, "hosts/m1", "Ready", None).await;
    hosts.reported(1, "instances/web", "Ready", revision).await;
    assert_eq!(hosts.memory(1, "web"), "96MiB");
    assert_eq!(hosts.pid(1, "web"), pid, "it was not started anew");
}
