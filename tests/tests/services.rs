//! Services and files, on a host and inside an instance of a real Incus: what is written becomes so, once, and nothing
//! else is touched.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};
use tokio::process::Command;

/// One agent with an Incus, whose host is a folder: no path of this machine is written.
struct Host {
    // Before the daemon: fields are dropped in this order, and an agent should not see its Incus go.
    cluster: Cluster,
    lab: Lab,
    root: TempDir,
}

const INSTANCE: &str = "kind: instance
name: web
host: m0
spec:
  profiles: [default]
  source: {type: image, alias: busybox}
";

/// Says in a file how often it was started, and with what.
fn inside(content: &str) -> String {
    format!(
        "kind: service
name: counter
instance: web
spec:
  exec: /bin/sh
  args: [-c, 'read line </srv/counter/conf; echo \"$line $WHO\" >>/starts; exec sleep 300']
  environment: {{WHO: counter}}
  files:
    - {{path: /srv/counter/conf, mode: 0640, owner: 5:6, content: \"{content}\\n\"}}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_inside_an_instance() {
    let Some(host) = Host::start().await else {
        return;
    };
    host.apply(INSTANCE).await;
    let planned = host
        .agentctl(&["plan", "-f", &host.document(&inside("one"))])
        .await;
    assert!(
        planned.contains("+ service  counter         m0          create"),
        "{planned}"
    );
    host.apply(&inside("one")).await;
    host.reported("services/counter", "Ready", 0).await;
    assert_eq!(
        host.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );
    let planned = host
        .agentctl(&["plan", "-f", &host.document(&inside("two"))])
        .await;
    assert!(
        planned
            .contains("~ service  counter         m0          /srv/counter/conf: content differs (restart)"),
        "{planned}"
    );
    host.starts(&["one counter"]).await;
    assert_eq!(
        host.exec("/bin/busybox stat -c '%a %u:%g' /srv/counter/conf"),
        "640 5:6\n"
    );

    // Another content: one restart, with it.
    let revision = host.apply(&inside("two")).await;
    host.reported("services/counter", "Ready", revision).await;
    host.starts(&["one counter", "two counter"]).await;
    // The same in other words: none.
    let revision = host.apply(&format!("# a remark\n{}", inside("two"))).await;
    host.reported("services/counter", "Ready", revision).await;

    // It dies, and is started again. So it is when its instance stops, which the agent starts again.
    host.exec("read -r pid rest </run/agent-counter; kill -9 $pid");
    host.starts(&["one counter", "two counter", "two counter"]).await;
    host.incus(&["stop", "--force", "web"]);
    host.starts(&["one counter", "two counter", "two counter", "two counter"])
        .await;

    host.agentctl(&["delete", "service", "counter"]).await;
    host.forgotten("services/counter").await;
    assert_eq!(
        host.exec("ls /srv /etc/agent 2>&1 | grep -v 'No such'; true"),
        "",
        "nothing of ours is left"
    );
    assert_eq!(host.exec("ps | grep 'sleep 30[0]' || echo none"), "none\n");
    host.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_inside_an_instance() {
    let Some(host) = Host::start().await else {
        return;
    };
    let file = |path: &str, content: &str| {
        format!("kind: file\nname: f\ninstance: web\nspec: {{path: {path}, content: \"{content}\\n\"}}\n")
    };
    let revision = host.apply(&file("/etc/inittab", "mine")).await;
    host.reported("files/f", "Pending", revision).await;
    host.apply(INSTANCE).await;
    let message = host.reported("files/f", "Conflict", revision).await;
    assert!(message.contains("/etc/inittab is there already"), "{message}");
    assert!(
        host.exec("cat /etc/inittab").contains("sysinit"),
        "it is not touched"
    );

    let revision = host.apply(&file("/etc/app/motd", "hello")).await;
    host.reported("files/f", "Ready", revision).await;
    assert_eq!(host.exec("cat /etc/app/motd"), "hello\n");
    host.exec("echo changed by hand >/etc/app/motd");
    wait::until("the file to be changed back", async || {
        (host.exec("cat /etc/app/motd") == "hello\n").then_some(())
    })
    .await;
    let revision = host.apply(&file("/etc/app/motd", "hello again")).await;
    host.reported("files/f", "Ready", revision).await;
    assert_eq!(host.exec("cat /etc/app/motd"), "hello again\n");
    // Somebody else's beside it: the folder that we made stays for it.
    host.exec("echo theirs >/etc/app/other");
    host.agentctl(&["delete", "file", "f"]).await;
    host.forgotten("files/f").await;
    assert_eq!(host.exec("ls /etc/app"), "other\n");

    // Nothing is put into an instance that is not ours.
    host.incus(&["launch", "busybox", "byhand"]);
    let theirs = file("/etc/app/motd", "hello").replace("instance: web", "instance: byhand");
    let revision = host.apply(&theirs).await;
    host.reported("files/f", "Conflict", revision).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_the_host() {
    let Some(mut host) = Host::start().await else {
        return;
    };
    let pids = host.root.path().join("pids");
    let service = |argument: &str| {
        let script = format!("echo $$ >>{}; exec sleep 300", pids.display());
        format!(
            "kind: service
name: sleeper
host: m0
spec:
  exec: /bin/sh
  args: [-c, '{script}', '{argument}']
  files: [{{path: /etc/sleeper/conf, content: x}}]
"
        )
    };
    let started = |count: usize| wait_for_lines(&pids, count);
    let revision = host.apply(&service("first")).await;
    host.reported("services/sleeper", "Ready", revision).await;
    let first = started(1).await;
    assert_eq!(
        fs::read_to_string(host.root.path().join("etc/sleeper/conf")).expect("the file"),
        "x"
    );

    // An agent that goes, asked or not, takes nothing with it, and its successor starts nothing twice.
    host.cluster.kill(0);
    host.cluster.start(0);
    host.cluster.ready().await;
    host.cluster.terminate(0).await;
    host.cluster.start(0);
    host.cluster.ready().await;
    let revision = host.apply(&format!("# a remark\n{}", service("first"))).await;
    host.reported("services/sleeper", "Ready", revision).await;
    assert_eq!(started(1).await, first);

    let revision = host.apply(&service("second")).await;
    host.reported("services/sleeper", "Ready", revision).await;
    let both = started(2).await;
    assert!(!runs(first[0]), "the first one is gone");
    kill(both[1], Signal::SIGKILL).expect("it runs");
    let all = started(3).await;

    // What reaches root on a host is the operators' alone.
    let tenants = service("second").replace("name: sleeper", "name: sleeper\ntenant: t1");
    let refused = host
        .agentctl_says(&["apply", "-f", &host.document(&tenants)])
        .await;
    assert!(refused.contains("tenant default"), "{refused}");

    host.agentctl(&["delete", "service", "sleeper"]).await;
    host.forgotten("services/sleeper").await;
    assert!(!runs(all[2]), "it is gone");
    assert!(!host.root.path().join("etc/sleeper").exists());
    host.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_os_service_without_systemd() {
    let Some(host) = Host::start().await else {
        return;
    };
    let document = "kind: os-service\nname: multipath\nhost: m0\nspec: {config: {enabled: true}}\n";
    host.apply(document).await;
    let status = wait::until("the answer", async || {
        let answer = host
            .cluster
            .client(0)
            .get_prefix("/cluster/status/os-services/", false)
            .await
            .ok()?;
        serde_json::from_slice::<Value>(&answer.kvs.first()?.value).ok()
    })
    .await;
    assert_eq!(
        (status["phase"].as_str(), status["message"].as_str()),
        (Some("Unsupported"), Some("needs systemd on the host"))
    );
    let shown = host.agentctl(&["status"]).await;
    assert!(
        shown.contains("os-service") && shown.contains("Unsupported"),
        "{shown}"
    );
    host.stop();
}

async fn wait_for_lines(path: &std::path::Path, count: usize) -> Vec<Pid> {
    wait::until(&format!("{count} starts"), async || {
        let text = fs::read_to_string(path).ok()?;
        let pids: Vec<Pid> = text
            .lines()
            .map(|line| Pid::from_raw(line.parse().expect("a pid")))
            .collect();
        assert!(pids.len() <= count, "started more often: {pids:?}");
        (pids.len() == count).then_some(pids)
    })
    .await
}

/// One that ended and was not waited for does not.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with('Z'))
}

impl Host {
    /// `None`, said aloud, where Incus cannot run.
    async fn start() -> Option<Host> {
        if let Err(missing) = Lab::available() {
            notes::skipped(&missing);
            return None;
        }
        let lab = tokio::task::spawn_blocking(|| Lab::start(1))
            .await
            .expect("a task");
        let lab = lab.expect("Incus starts");
        let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("etc")).expect("a folder");
        let cluster = Cluster::builder(&Subject::agent(), 1)
            .incus(&sockets)
            .arg("--service-manager", "supervised")
            .arg("--host-root", &root.path().to_string_lossy())
            .start()
            .await;
        Some(Host { cluster, lab, root })
    }

    fn stop(self) {
        drop(self);
    }

    fn incus(&self, args: &[&str]) -> String {
        let daemon = self.lab.daemons().first().expect("a daemon");
        daemon
            .incus(args)
            .unwrap_or_else(|error| panic!("incus {args:?}: {error:#}"))
    }

    /// Runs a line in the instance.
    fn exec(&self, line: &str) -> String {
        self.incus(&["exec", "web", "--", "/bin/sh", "-c", line])
    }

    async fn starts(&self, lines: &[&str]) {
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let what = format!("the starts to be {lines:?}");
        wait::until(&what, async || {
            let daemon = self.lab.daemons().first()?;
            let text = daemon
                .incus(&["exec", "web", "--", "/bin/sh", "-c", "cat /starts"])
                .ok()?;
            assert!(text.len() <= expected.len(), "started more often: {text}");
            (text == expected).then_some(())
        })
        .await;
    }

    fn document(&self, text: &str) -> String {
        let file = self.cluster.folder().join("document.yaml");
        fs::write(&file, text).expect("write the document");
        file.to_string_lossy().into_owned()
    }

    /// The revision at which it is stored.
    async fn apply(&self, document: &str) -> i64 {
        let applied = self.agentctl(&["apply", "-f", &self.document(document)]).await;
        let revision = applied
            .rsplit("revision ")
            .next()
            .map(str::trim)
            .and_then(|text| text.parse().ok());
        revision.unwrap_or_else(|| panic!("no revision: {applied}"))
    }

    async fn status(&self, document: &str) -> Option<Value> {
        let prefix = format!("/tenants/default/status/{document}/");
        let answer = self.cluster.client(0).get_prefix(&prefix, false).await.ok()?;
        serde_json::from_slice(&answer.kvs.first()?.value).ok()
    }

    /// Waits for a phase at a revision, or at any; the message.
    async fn reported(&self, document: &str, phase: &str, revision: i64) -> String {
        let what = format!("{document} to be {phase}");
        let waited = wait::within(wait::PATIENCE, &what, async || {
            let status = self.status(document).await?;
            let is_it = status["phase"] == phase && (revision == 0 || status["revision"] == revision);
            is_it.then(|| status["message"].as_str().unwrap_or_default().to_owned())
        });
        match waited.await {
            Ok(message) => message,
            Err(vain) => panic!("{vain}: {:?}", self.status(document).await),
        }
    }

    async fn forgotten(&self, document: &str) {
        wait::until(&format!("{document} to be forgotten"), async || {
            self.status(document).await.is_none().then_some(())
        })
        .await;
    }

    async fn agentctl(&self, args: &[&str]) -> String {
        let (success, says) = self.run(args).await;
        assert!(success, "agentctl {args:?}: {says}");
        says
    }

    async fn agentctl_says(&self, args: &[&str]) -> String {
        self.run(args).await.1
    }

    async fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(tools::agentctl());
        command
            .env_clear()
            .env("AGENTCTL_ENDPOINTS", self.cluster.endpoints().join(","))
            .args(args);
        let output = tokio::time::timeout(wait::PATIENCE * 2, command.kill_on_drop(true).output()).await;
        let output = output.expect("an end of agentctl").expect("start agentctl");
        let says = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&says).into_owned(),
        )
    }
}
