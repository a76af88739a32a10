//! One host of three is left: it goes on with what it knows, deletes nothing, and says that it is alone.

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

/// The one that is left.
const LEFT: usize = 2;
const PROFILE: &str = "kind: profile\nname: web\nspec:\n  config: {limits.processes: 500}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_goes_on_alone() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    let revision = hosts.apply(&format!("{PROFILE}---\n{}", web("64MiB"))).await;
    hosts.reported(LEFT, "profiles/web", "Ready", revision).await;
    hosts.reported(LEFT, "instances/web", "Ready", revision).await;

    hosts.cluster.kill(0);
    hosts.cluster.kill(1);
    drift_is_healed(&hosts).await;
    of_no_document_that_it_knows(&hosts);
    // Healed after that appeared: the host has looked at everything since, and left it alone.
    drift_is_healed(&hosts).await;
    assert_eq!(hosts.list(LEFT), ["orphan", "web"]);

    // An agent that starts alone knows what it knew.
    hosts.cluster.kill(LEFT);
    hosts.incus(LEFT, &["stop", "--force", "web"]);
    hosts.cluster.start(LEFT);
    hosts.running(LEFT, "web").await;
    drift_is_healed(&hosts).await;
    assert_eq!(hosts.list(LEFT), ["orphan", "web"]);

    people_are_told(&mut hosts).await;
    the_others_come_back(&mut hosts).await;
}

async fn drift_is_healed(hosts: &Hosts) {
    hosts.incus(LEFT, &["stop", "--force", "web"]);
    hosts.running(LEFT, "web").await;
    hosts.incus(LEFT, &["profile", "set", "web", "limits.processes=7"]);
    wait::until("the profile to be as its document says", async || {
        let profile = hosts.query(LEFT, "/1.0/profiles/web");
        (profile["config"]["limits.processes"] == "500").then_some(())
    })
    .await;
}

/// Ours by every mark on it, as what another host's last edit would have left here. A confirmed view without its
/// document would be a reason to delete it.
fn of_no_document_that_it_knows(hosts: &Hosts) {
    let web = hosts.instance(LEFT, "web");
    let mut init = vec!["init".to_owned(), "busybox".to_owned(), "orphan".to_owned()];
    let marks = web["config"].as_object().expect("its config");
    for (mark, value) in marks.iter().filter(|(mark, _)| mark.starts_with("user.agent.")) {
        let value = value.as_str().expect("text");
        let value = value.replace("instance/default/web@", "instance/default/orphan@");
        init.extend(["-c".to_owned(), format!("{mark}={value}")]);
    }
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    hosts.incus(LEFT, &init);
}

async fn people_are_told(hosts: &mut Hosts) {
    hosts.ask(Some(LEFT));
    for command in [["status", "instance", "web"], ["get", "instance", "web"]] {
        let said = hosts.agentctl_says(&command).await;
        assert!(
            said.contains("no quorum: this is what the member at") && said.contains("web"),
            "{said}"
        );
    }
    let status = hosts.agentctl(&["status", "instance", "web", "-w", "json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON alone on the standard output");
    assert_eq!(status[0]["phase"], "Ready", "{status}");
    let file = hosts.file("web.yaml", &web("96MiB"));
    let refused = hosts.fails(&["apply", "-f", &file]).await;
    assert!(refused.contains("are most members up?"), "{refused}");
    hosts.ask(None);
}

/// What was agreed on without it arrives, and what is of no document goes, now that this is certain.
async fn the_others_come_back(hosts: &mut Hosts) {
    hosts.cluster.kill(LEFT);
    hosts.cluster.start(0);
    hosts.cluster.start(1);
    hosts.cluster.ready().await;
    hosts.apply(&web("96MiB")).await;
    assert_eq!(hosts.memory(LEFT, "web"), "64MiB");
    hosts.cluster.start(LEFT);
    hosts.cluster.ready().await;
    wait::until("the edit made meanwhile to arrive", async || {
        (hosts.memory(LEFT, "web") == "96MiB").then_some(())
    })
    .await;
    wait::until("what is of no document to go", async || {
        (hosts.list(LEFT) == ["web"]).then_some(())
    })
    .await;
}

fn web(memory: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: m{LEFT}\nspec:\n  profiles: [default, web]\n  \
         config: {{limits.memory: {memory}}}\n  source: {{type: image, alias: busybox}}\n"
    )
}
