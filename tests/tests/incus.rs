//! Documents, three agents, and a real Incus at each: what is written becomes so, and nothing else is touched.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};
use tokio::process::Command;

/// What a change may take to reach Incus. What it does take is printed.
const REACHES_WITHIN: Duration = Duration::from_secs(10);

/// Agents with an Incus each, and `agentctl`.
struct Hosts {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    cluster: Cluster,
    lab: Lab,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_an_instance() {
    let Some(mut hosts) = Hosts::start(3).await else {
        return;
    };
    hosts.incus(0, &["launch", "busybox", "byhand"]);
    let by_hand = hosts.by_hand();

    let applied = hosts.apply(&web("64MiB")).await;
    assert!(applied.contains("instance web"), "{applied}");
    hosts.running("web").await;
    let status = hosts.agentctl(&["status", "--wait=60s"]).await;
    let revision = applied
        .rsplit("revision ")
        .next()
        .map(str::trim)
        .expect("a revision");
    assert!(
        status.contains("Ready") && status.contains(revision),
        "revision {revision} in:\n{status}"
    );
    assert!(
        hosts.list(1).is_empty() && hosts.list(2).is_empty(),
        "other hosts have nothing of it"
    );

    changed_live(&hosts).await;
    stopped_by_hand_is_healed(&hosts).await;
    agents_restart(&mut hosts).await;
    moved_to_another_name(&hosts).await;

    let deleted = hosts.agentctl(&["delete", "instance", "web"]).await;
    assert!(deleted.contains("instance web"), "{deleted}");
    wait::until("the instance to be deleted", async || {
        (!hosts.list(0).contains(&"web".to_owned())).then_some(())
    })
    .await;
    assert_eq!(hosts.by_hand(), by_hand, "what was made by hand is never touched");
}

async fn changed_live(hosts: &Hosts) {
    let pid = hosts.pid("web");
    let edited = Instant::now();
    hosts
        .agentctl(&[
            "kv",
            "put",
            "/tenants/default/desired/instances/web",
            &web("96MiB"),
        ])
        .await;
    let reached = wait::within(REACHES_WITHIN, "limits.memory to reach Incus", async || {
        (hosts.memory("web") == "96MiB").then(|| edited.elapsed())
    });
    let reached = reached.await.expect("the change reaches Incus");
    notes::measured(&format!(
        "an edit of limits.memory reached Incus after {} ms",
        reached.as_millis()
    ));
    assert_eq!(hosts.pid("web"), pid, "changed while it runs");
}

async fn stopped_by_hand_is_healed(hosts: &Hosts) {
    hosts.incus(0, &["stop", "--force", "web"]);
    let stopped = Instant::now();
    hosts.running("web").await;
    notes::measured(&format!(
        "stopped by hand, running again after {} ms",
        stopped.elapsed().as_millis()
    ));
}

/// Neither a kill nor a stop of an agent is felt by what it looks after.
async fn agents_restart(hosts: &mut Hosts) {
    let pid = hosts.pid("web");
    hosts.cluster.kill(0);
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    hosts.cluster.terminate(0).await;
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    // A change that arrives says that the agent has been all over its documents.
    hosts
        .agentctl(&[
            "kv",
            "put",
            "/tenants/default/desired/instances/web",
            &web("128MiB"),
        ])
        .await;
    wait::until("the restarted agent to work", async || {
        (hosts.memory("web") == "128MiB").then_some(())
    })
    .await;
    assert_eq!(hosts.pid("web"), pid, "the instance was restarted with its agent");
}

/// A document of a name that is there already, and not ours, is a conflict.
async fn moved_to_another_name(hosts: &Hosts) {
    hosts
        .apply(&web("64MiB").replace("name: web", "name: byhand"))
        .await;
    let status = hosts.status_of("byhand", "Conflict").await;
    assert!(
        !status["message"].as_str().unwrap_or_default().is_empty(),
        "{status}"
    );
    hosts.agentctl(&["delete", "instance", "byhand"]).await;
    wait::until("the status to go with the document", async || {
        hosts.status("byhand").await.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_documents_change_nothing() {
    let Some(hosts) = Hosts::start(1).await else {
        return;
    };
    hosts.apply(&web("64MiB")).await;
    hosts.running("web").await;
    let (pid, before) = (hosts.pid("web"), hosts.list(0));

    // What stands in the document, the line that is named (0: whichever), a word of the reason.
    let wrong = [
        ("name: web\n  host: [".to_owned(), 0, ""),
        (
            web("64MiB").replace("kind: instance", "kind: instanze"),
            1,
            "instanze",
        ),
        (web("64MiB").replace("running: true", "runing: true"), 4, "runing"),
        (web("64MiB").replace("host: m0", "hots: m0"), 3, "hots"),
    ];
    for (text, line, reason) in wrong {
        hosts
            .agentctl(&["kv", "put", "/tenants/default/desired/instances/web", &text])
            .await;
        let what = format!("a status Invalid with `{reason}` of:\n{text}");
        let status = wait::until(&what, async || {
            let status = hosts.status("web").await?;
            let message = status["message"].as_str()?.to_owned();
            (status["phase"] == "Invalid" && message.contains(reason)).then_some(status)
        });
        let status = status.await;
        assert!(
            line == 0 || status["line"] == line,
            "line {line} of:\n{text}\n{status}"
        );
        let shown = hosts.agentctl_says(&["status"]).await;
        assert!(shown.contains("Invalid") && shown.contains(reason), "{shown}");
        assert_eq!(
            (hosts.pid("web"), hosts.list(0)),
            (pid, before.clone()),
            "the last good one is in force"
        );
    }

    // A reference to what is not there: nothing is made of it, and the status names it.
    let missing = web("64MiB")
        .replace("name: web", "name: other")
        .replace("[default]", "[nosuch]");
    hosts
        .agentctl(&["kv", "put", "/tenants/default/desired/instances/other", &missing])
        .await;
    wait::until("the missing profile to be named", async || {
        let status = hosts.status("other").await?;
        (status["phase"] != "Ready" && status["message"].as_str()?.contains("nosuch")).then_some(())
    })
    .await;
    assert_eq!((hosts.pid("web"), hosts.list(0)), (pid, before));
}

fn web(memory: &str) -> String {
    format!(
        "kind: instance
name: web
host: m0
running: true
spec:
  type: container
  profiles: [default]
  config: {{limits.memory: {memory}}}
  source: {{type: image, alias: busybox}}
"
    )
}

impl Hosts {
    /// `None`, said aloud, where Incus cannot run.
    async fn start(count: usize) -> Option<Hosts> {
        if let Err(missing) = Lab::available() {
            notes::skipped(&missing);
            return None;
        }
        let lab = tokio::task::spawn_blocking(move || Lab::start(count))
            .await
            .expect("a task");
        let lab = lab.expect("Incus starts");
        let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
        let cluster = Cluster::builder(&Subject::agent(), count)
            .incus(&sockets)
            .start()
            .await;
        Some(Hosts { cluster, lab })
    }

    fn incus(&self, host: usize, args: &[&str]) -> String {
        self.lab.daemons()[host]
            .incus(args)
            .unwrap_or_else(|error| panic!("incus {args:?}: {error:#}"))
    }

    fn query(&self, path: &str) -> Option<Value> {
        let answer = self.lab.daemons()[0].incus(&["query", path]).ok()?;
        serde_json::from_str(&answer).ok()
    }

    fn list(&self, host: usize) -> Vec<String> {
        let names = self.incus(host, &["list", "--format", "csv", "--columns", "n"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Everything about the instance made by hand that a meddler would change.
    fn by_hand(&self) -> Value {
        let instance = self.query("/1.0/instances/byhand").expect("the instance");
        let fields = [
            "config",
            "devices",
            "profiles",
            "status",
            "description",
            "last_used_at",
        ];
        let kept: Vec<Value> = fields.iter().map(|field| instance[*field].clone()).collect();
        Value::Array([kept, vec![Value::from(self.pid("byhand"))]].concat())
    }

    fn pid(&self, name: &str) -> i64 {
        let state = self
            .query(&format!("/1.0/instances/{name}/state"))
            .expect("the state");
        state["pid"].as_i64().expect("a pid")
    }

    fn memory(&self, name: &str) -> String {
        let instance = self.query(&format!("/1.0/instances/{name}")).unwrap_or_default();
        instance["config"]["limits.memory"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    async fn running(&self, name: &str) {
        wait::until(&format!("{name} to run"), async || {
            let instance = self.query(&format!("/1.0/instances/{name}"))?;
            (instance["status"] == "Running").then_some(())
        })
        .await;
    }

    /// What the host says on an instance's document.
    async fn status(&self, name: &str) -> Option<Value> {
        let prefix = format!("/tenants/default/status/instances/{name}/");
        let answer = self.cluster.client(0).get_prefix(&prefix, false).await.ok()?;
        serde_json::from_slice(&answer.kvs.first()?.value).ok()
    }

    async fn status_of(&self, name: &str, phase: &str) -> Value {
        wait::until(&format!("the status of {name} to be {phase}"), async || {
            self.status(name).await.filter(|status| status["phase"] == phase)
        })
        .await
    }

    async fn apply(&self, document: &str) -> String {
        let file = self.cluster.folder().join("document.yaml");
        std::fs::write(&file, document).expect("write the document");
        self.agentctl(&["apply", "-f", &file.to_string_lossy()]).await
    }

    /// What it prints; it must succeed.
    async fn agentctl(&self, args: &[&str]) -> String {
        let output = self.run_agentctl(args).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "agentctl {args:?} ended with {}:\n{stdout}{stderr}",
            output.status
        );
        stdout
    }

    /// What it prints, whether it succeeds or not.
    async fn agentctl_says(&self, args: &[&str]) -> String {
        let output = self.run_agentctl(args).await;
        text(&output.stdout) + &text(&output.stderr)
    }

    async fn run_agentctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(tools::agentctl());
        command
            .env_clear()
            .env("AGENTCTL_ENDPOINTS", self.cluster.endpoints().join(","))
            .args(args);
        let output = tokio::time::timeout(wait::PATIENCE * 2, command.kill_on_drop(true).output()).await;
        output.expect("an end of agentctl").expect("start agentctl")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
