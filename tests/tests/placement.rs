//! Instances that may be on several hosts, with real Incus daemons: the cluster chooses, and stays with its choice.

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
