//! Instances that may be on several hosts, with real Incus daemons: the cluster chooses, and stays with its choice.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};
use tokio::process::Command;

/// Three members with an Incus each: `m0`, `m1`, `m2`.
struct Hosts {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    cluster: Cluster,
    lab: Lab,
}

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
    let Some(mut hosts) = Hosts::start().await else {
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

impl Hosts {
    /// `None`, said aloud, where Incus cannot run.
    async fn start() -> Option<Hosts> {
        if let Err(missing) = Lab::available() {
            notes::skipped(&missing);
            return None;
        }
        let lab = tokio::task::spawn_blocking(|| Lab::start(3))
            .await
            .expect("a task");
        let lab = lab.expect("Incus starts");
        let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
        let cluster = Cluster::builder(&Subject::agent(), 3)
            .incus(&sockets)
            .start()
            .await;
        Some(Hosts { cluster, lab })
    }

    /// An instance as Incus has it, null if there is none.
    fn instance(&self, host: usize, name: &str) -> Value {
        let answer = self.lab.daemons()[host].incus(&["query", &format!("/1.0/instances/{name}")]);
        answer
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    fn memory(&self, host: usize, name: &str) -> String {
        let instance = self.instance(host, name);
        instance["config"]["limits.memory"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.cluster.folder().join(name);
        std::fs::write(&file, text).expect("write a file");
        file.to_string_lossy().into_owned()
    }

    async fn apply(&self, documents: &str) {
        let file = self.file("document.yaml", documents);
        self.agentctl(&["apply", "-f", &file]).await;
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::agentctl());
        command
            .env_clear()
            .env("AGENTCTL_ENDPOINTS", self.cluster.endpoints().join(","))
            .args(args)
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> (Output, String) {
        let output = tokio::time::timeout(wait::PATIENCE * 5, self.command(args).output()).await;
        let output = output.expect("an end of agentctl").expect("start agentctl");
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        (output, String::from_utf8_lossy(&said).into_owned())
    }

    /// What it says; it must succeed.
    async fn agentctl(&self, args: &[&str]) -> String {
        let (output, said) = self.run(args).await;
        assert!(output.status.success(), "agentctl {args:?}: {said}");
        said
    }
}
