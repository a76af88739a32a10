//! Instances that may be on several hosts, with real Incus daemons: the cluster chooses, and stays with its choice.

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

fn instance(name: &str, placement: &str, memory: &str) -> String {
    format!(
        "kind: instance\nname: {name}\nplacement: {placement}\nrunning: false\nspec:\n  type: container\n  \
         config: {{limits.memory: {memory}}}\n  source: {{type: none}}\n"
    )
}

/// On which hosts an instance is.
fn hosts_with(hosts: &Hosts, name: &str) -> Vec<usize> {
    (0..3)
        .filter(|host| !hosts.instance(*host, name).is_null())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_spread_and_stay() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    let web = |name: &str| instance(name, "{spread: provider, group: web}", "64MiB");
    let three = ["a", "b", "c"].map(web).join("---\n");
    hosts.apply(&three).await;
    let status = hosts.agentctl(&["status", "--wait=120s"]).await;
    let mut at: Vec<usize> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| hosts_with(&hosts, name))
        .collect();
    at.sort_unstable();
    assert_eq!(at, [0, 1, 2], "{status}");

    planned_where_it_goes(&hosts).await;
    an_edit_moves_nothing(&hosts).await;
    a_dead_host_is_not_chosen(&mut hosts).await;
}

async fn planned_where_it_goes(hosts: &Hosts) {
    let file = hosts.file(
        "new.yaml",
        &instance("new", "{hosts: [m1, m2], spread: provider}", "64MiB"),
    );
    let plan = hosts.agentctl(&["plan", "-f", &file]).await;
    assert!(
        plan.starts_with("+ instance new             m1          create\n"),
        "{plan}"
    );
    hosts
        .apply(&instance("new", "{hosts: [m1, m2], spread: provider}", "64MiB"))
        .await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts_with(hosts, "new"), [1]);
    let listed = hosts.agentctl(&["get", "instances", "-w", "table"]).await;
    assert!(
        listed
            .lines()
            .any(|line| line.split_whitespace().take(3).eq(["instance", "new", "m1"])),
        "{listed}"
    );
}

/// Neither of its own document, nor of anybody else's.
async fn an_edit_moves_nothing(hosts: &Hosts) {
    let before = hosts_with(hosts, "new");
    hosts
        .apply(&instance(
            "new",
            "{hosts: [m1, m2, m0], spread: provider}",
            "96MiB",
        ))
        .await;
    hosts.apply(&instance("other", "{hosts: [m1]}", "64MiB")).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts_with(hosts, "new"), before);
    assert_eq!(hosts.memory(1, "new"), "96MiB");
}

async fn a_dead_host_is_not_chosen(hosts: &mut Hosts) {
    // It says goodbye: a host that only falls silent is missed when its lease runs out.
    hosts.cluster.terminate(2).await;
    hosts.apply(&instance("late", "{hosts: [m2]}", "64MiB")).await;
    hosts
        .apply(&instance(
            "elsewhere",
            "{hosts: [m0, m2], spread: provider, group: web}",
            "64MiB",
        ))
        .await;
    let said = wait::until("a word on where they go", async || {
        let status = hosts.agentctl(&["status", "instance"]).await;
        let done = status.contains("no host fits: m2 is not alive") && hosts_with(hosts, "elsewhere") == [0];
        done.then_some(status)
    })
    .await;
    let late = said
        .lines()
        .find(|line| line.contains(" late "))
        .unwrap_or_default();
    assert!(late.contains(" - ") && late.contains(" Pending "), "{said}");

    hosts.cluster.start(2);
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts_with(hosts, "late"), [2]);
}

/// A container that runs, and may be on the first two hosts.
fn running(name: &str, failover: &str) -> String {
    format!(
        "kind: instance\nname: {name}\nplacement: {{hosts: [m0, m1], failover: {failover}}}\nspec:\n  \
         type: container\n  source: {{type: image, alias: busybox}}\n"
    )
}

/// Makes an instance with a word in it; the host that it is on.
async fn with_data(hosts: &Hosts, name: &str, failover: &str) -> usize {
    hosts.apply(&running(name, failover)).await;
    hosts.agentctl(&["status", "--wait=120s"]).await;
    let at = hosts_with(hosts, name);
    hosts.incus(
        at[0],
        &[
            "exec",
            name,
            "--",
            "sh",
            "-c",
            "echo precious > /kept; busybox sync",
        ],
    );
    at[0]
}

fn data(hosts: &Hosts, host: usize, name: &str) -> String {
    hosts.incus(host, &["exec", name, "--", "busybox", "cat", "/kept"])
}

async fn binding(hosts: &Hosts, name: &str) -> Value {
    let key = format!("/tenants/default/bindings/instances/{name}");
    let said = hosts.agentctl(&["kv", "get", "--print-value-only", &key]).await;
    serde_json::from_str(&said).unwrap_or_default()
}

/// Waits until it runs on one host, with its data, and is on no other.
async fn only_on(hosts: &Hosts, host: usize, name: &str) {
    let alone = wait::within(wait::PATIENCE * 2, "one copy to be left", async || {
        (hosts_with(hosts, name) == [host] && hosts.state(host, name) == "Running").then_some(())
    });
    if let Err(vain) = alone.await {
        let status = hosts.agentctl(&["status"]).await;
        panic!(
            "{vain}: {:?} {}\n{status}",
            hosts_with(hosts, name),
            binding(hosts, name).await
        );
    }
    assert_eq!(data(hosts, host, name), "precious\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_moves_with_its_data() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    let from = with_data(&hosts, "web", "never").await;
    let to = 1 - from;
    let target = format!("m{to}");
    hosts.agentctl(&["instance", "snapshot", "web", "s0"]).await;
    let error = hosts.fails(&["instance", "move", "web", "m2"]).await;
    assert!(
        error.contains("placement.hosts of instance web names m0, m1"),
        "{error}"
    );
    let error = hosts
        .fails(&["instance", "move", "web", &format!("m{from}")])
        .await;
    assert!(error.contains("already"), "{error}");

    let said = hosts.agentctl(&["instance", "move", "web", &target]).await;
    assert_eq!(said, format!("web moved from m{from} to {target}\n"));
    only_on(&hosts, to, "web").await;
    let binding = binding(&hosts, "web").await;
    assert_eq!(
        (binding["host"].as_str(), binding["epoch"].as_u64()),
        (Some(target.as_str()), Some(2))
    );
    assert_eq!(
        hosts
            .agentctl(&["instance", "snapshots", "web", "-w", "simple"])
            .await,
        "s0\n"
    );
    assert_eq!(
        hosts.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );

    // Back, and an agent is killed on the way: first where it goes, then where it comes from.
    killed_on_the_way(&mut hosts, to, from, from).await;
    killed_on_the_way(&mut hosts, from, to, from).await;
}

async fn killed_on_the_way(hosts: &mut Hosts, from: usize, to: usize, killed: usize) {
    let mut mover = hosts
        .command(&["instance", "move", "web", &format!("m{to}")])
        .kill_on_drop(true)
        .spawn()
        .expect("start agentctl");
    wait::until("the move to begin", async || {
        let binding = binding(hosts, "web").await;
        let begun = binding["moving_to"].is_string() || binding["host"] == format!("m{to}");
        begun.then_some(())
    })
    .await;
    hosts.cluster.kill(killed);
    hosts.cluster.start(killed);
    only_on(hosts, to, "web").await;
    let _ = mover.kill().await;
    assert_eq!(hosts_with(hosts, "web"), [to], "moved from m{from}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_gone_is_given_up_by_hand_only() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    let from = with_data(&hosts, "api", "never").await;
    let target = format!("m{}", 1 - from);
    // It says goodbye, so that nobody waits for its lease to run out. Its Incus goes on, as one that is cut off does.
    hosts.cluster.terminate(from).await;
    let error = hosts.fails(&["instance", "move", "api", &target]).await;
    assert!(error.contains("failover: never"), "{error}");
    hosts.apply(&running("api", "manual")).await;
    let error = hosts.fails(&["instance", "move", "api", &target]).await;
    assert!(
        error.contains(&format!("all its data stay on m{from}")) && error.contains("--yes"),
        "{error}"
    );
    assert_eq!(hosts_with(&hosts, "api"), [from]);

    let said = hosts
        .agentctl(&["instance", "move", "api", &target, "--yes"])
        .await;
    assert!(said.contains(&format!("api was made anew on {target}")), "{said}");
    assert_eq!(hosts.state(1 - from, "api"), "Running");

    // It comes back, and finds that it has lost its instance.
    hosts.cluster.start(from);
    wait::until("the old copy to be stopped", async || {
        (hosts.state(from, "api") == "Stopped").then_some(())
    })
    .await;
    let status = hosts.reported(from, "instances/api", "Stopped", None).await;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("stopped and kept"), "{status}");
    assert_eq!(hosts.state(1 - from, "api"), "Running");
    hosts.incus(from, &["start", "api"]);
    wait::until("the old copy to be stopped again", async || {
        (hosts.state(from, "api") == "Stopped").then_some(())
    })
    .await;
    // Nothing is fetched over what was kept.
    let error = hosts
        .fails(&["instance", "move", "api", &format!("m{from}")])
        .await;
    assert!(error.contains("has an instance api already"), "{error}");
    let running = wait::until("it to run where it was", async || {
        (hosts.state(1 - from, "api") == "Running").then_some(())
    });
    running.await;
    // Nor does it go with the document: what was written on it is nowhere else.
    hosts.agentctl(&["delete", "instance", "api"]).await;
    wait::until(
        "the one in use to go, and the old copy to be nobody's",
        async || {
            let config = hosts.instance(from, "api")["config"].clone();
            let is_ours = config
                .as_object()?
                .keys()
                .any(|key| key.starts_with("user.agent."));
            (hosts_with(&hosts, "api") == [from] && !is_ours).then_some(())
        },
    )
    .await;
    hosts.incus(from, &["start", "api"]);
    assert_eq!(data(&hosts, from, "api"), "precious\n");
}

/// A volume stays where it is. So does its instance, without being stopped, and says why and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_with_a_volume_does_not_move() {
    let Some(hosts) = Hosts::builder(3).start().await else {
        return;
    };
    // On both hosts, and not with the same in it.
    let volume = "kind: volume\nname: data\nspec: {pool: default}\n";
    let device = "  devices: {data: {type: disk, pool: default, source: data, path: /data}}\n";
    let web = running("web", "never") + device;
    hosts.apply(&format!("{volume}---\n{web}")).await;
    hosts.agentctl(&["status", "--wait=120s"]).await;
    let from = hosts_with(&hosts, "web")[0];
    let before = hosts.instance(from, "web");
    let error = hosts
        .fails(&["instance", "move", "web", &format!("m{}", 1 - from)])
        .await;
    assert!(
        error.contains("has volume data of pool default as its device data")
            && error.contains(&format!("web stays on m{from}")),
        "{error}"
    );
    let after = hosts.instance(from, "web");
    assert_eq!(
        (after["status"].as_str(), &after["last_used_at"]),
        (Some("Running"), &before["last_used_at"])
    );
    assert_eq!(binding(&hosts, "web").await["moving_to"], Value::Null);
}
