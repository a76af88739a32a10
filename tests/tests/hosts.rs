//! From any host, for any host: what `agentctl instance`, `tunnel` and a tenant's role reach, with real Incus daemons.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const WEB_KEY: &str = "/tenants/default/desired/instances/web";

/// Three members; the first two have an Incus each. Every command is given to the third, which has none.
struct Hosts {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    cluster: Cluster,
    lab: Lab,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_host_reaches_any_instance() {
    let Some(hosts) = Hosts::start().await else { return };
    hosts.incus(0, &["launch", "busybox", "byhand"]);
    hosts.apply(&web("64MiB")).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;

    listed(&hosts).await;
    commands_run(&hosts).await;
    a_terminal_is_given(&hosts).await;
    a_caller_that_dies_ends_its_command(&hosts).await;
    switched_by_document(&hosts).await;
    switched_directly(&hosts).await;
    snapshots_take_the_document_along(&hosts).await;
    a_port_is_reached(&hosts).await;
}

async fn listed(hosts: &Hosts) {
    let listed: Value =
        serde_json::from_str(&hosts.agentctl(&["instance", "list", "-w", "json"]).await).expect("JSON");
    let found: Vec<String> = listed["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|instance| {
            let text = |field: &str| instance[field].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {} {}",
                text("name"),
                text("host"),
                text("state"),
                text("managed")
            )
        })
        .collect();
    assert_eq!(found, ["byhand m0 Running no", "web m1 Running yes"]);
    let error = hosts.fails(&["instance", "list", "--host", "m2"]).await;
    assert!(error.contains("host m2 has no Incus"), "{error}");
}

async fn commands_run(hosts: &Hosts) {
    // Streams apart, the exit code, arguments as they are.
    let output = hosts
        .run(
            &[
                "instance",
                "exec",
                "web",
                "--",
                "sh",
                "-c",
                "echo out; echo err >&2; exit 7",
            ],
            b"",
        )
        .await;
    assert_eq!(
        (text(&output.stdout), text(&output.stderr), output.status.code()),
        ("out\n".to_owned(), "err\n".to_owned(), Some(7))
    );
    let said = hosts
        .agentctl(&[
            "instance",
            "exec",
            "byhand",
            "--env",
            "A=b c",
            "--cwd",
            "/tmp",
            "--",
            "sh",
            "-c",
            "echo $A $PWD",
        ])
        .await;
    assert_eq!(said, "b c /tmp\n");

    // More than all the queues on the way hold, both ways.
    let much: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let output = hosts
        .run(&["instance", "exec", "web", "--", "busybox", "cat"], &much)
        .await;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == much, "{} bytes came back", output.stdout.len());

    let output = hosts.run(&["instance", "exec", "web", "--", "nosuch"], b"").await;
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        ("error: there is no command nosuch in web\n".to_owned(), Some(127))
    );
    let error = hosts.fails(&["instance", "exec", "nosuch", "--", "true"]).await;
    assert!(error.contains("no host has an instance nosuch"), "{error}");
    let error = hosts
        .fails(&["instance", "exec", "web", "--host", "m0", "--", "true"])
        .await;
    assert!(error.contains("there is no instance web on m0"), "{error}");
}

async fn a_terminal_is_given(hosts: &Hosts) {
    let command = "test -t 0 && echo is a terminal; busybox stty size";
    let said = hosts
        .agentctl(&["instance", "exec", "-t", "web", "--", "sh", "-c", command])
        .await;
    assert_eq!(said, "is a terminal\r\n24 80\r\n");
}

async fn a_caller_that_dies_ends_its_command(hosts: &Hosts) {
    let mut caller = hosts
        .command(&[
            "instance",
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "echo started; exec busybox sleep 4242",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start agentctl");
    let mut started = [0; 8];
    caller
        .stdout
        .as_mut()
        .expect("its output")
        .read_exact(&mut started)
        .await
        .expect("the command's first words");
    let running = || {
        hosts
            .incus(1, &["exec", "web", "--", "busybox", "ps"])
            .contains("sleep 4242")
    };
    assert!(running());
    caller.kill().await.expect("kill agentctl");
    wait::until("the command to end with its caller", async || {
        (!running()).then_some(())
    })
    .await;
}

async fn switched_by_document(hosts: &Hosts) {
    let said = hosts.agentctl(&["instance", "stop", "web"]).await;
    assert_eq!(
        said,
        "~ instance web  m1  running: true -> false\nweb is stopped on m1\n"
    );
    assert_eq!(hosts.state(1, "web"), "Stopped");
    let document = hosts
        .agentctl(&["kv", "get", "--print-value-only", WEB_KEY])
        .await;
    assert!(document.contains("\nrunning: false # by hand\n"), "{document}");
    let error = hosts.fails(&["instance", "exec", "web", "--", "true"]).await;
    assert!(error.contains("instance web on m1 is stopped"), "{error}");
    let error = hosts.fails(&["instance", "restart", "web"]).await;
    assert!(error.contains("says `running: false`"), "{error}");

    hosts.agentctl(&["instance", "start", "web"]).await;
    assert_eq!(hosts.state(1, "web"), "Running");
    let said = hosts.agentctl(&["instance", "start", "web"]).await;
    assert_eq!(said, "web is running on m1 already\n");
}

async fn switched_directly(hosts: &Hosts) {
    let said = hosts.agentctl(&["instance", "stop", "byhand", "--force"]).await;
    assert_eq!(said, "byhand is stopped on m0\n");
    assert_eq!(hosts.state(0, "byhand"), "Stopped");
    let said = hosts.agentctl(&["instance", "start", "byhand"]).await;
    assert_eq!(said, "byhand is running on m0\n");
    let said = hosts
        .agentctl(&["instance", "restart", "byhand", "--force"])
        .await;
    assert_eq!(said, "byhand is running on m0\n");
}

/// What is restored is not undone by the host, because its document says it, too.
async fn snapshots_take_the_document_along(hosts: &Hosts) {
    let said = hosts.agentctl(&["instance", "snapshot", "web", "s0"]).await;
    assert_eq!(said, "snapshot s0 of web made on m1\n");
    let listed: Value =
        serde_json::from_str(&hosts.agentctl(&["instance", "list", "-w", "json"]).await).expect("JSON");
    let instances = listed["instances"].as_array().expect("a list");
    let shown = instances
        .iter()
        .find(|instance| instance["name"] == "web")
        .expect("web");
    assert_eq!(shown["snapshots"], 1, "{shown}");
    hosts.apply(&web("96MiB")).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts.memory("web"), "96MiB");
    let listed = hosts
        .agentctl(&["instance", "snapshots", "web", "-w", "simple"])
        .await;
    assert_eq!(listed, "s0\n");

    let said = hosts.agentctl(&["instance", "restore", "web", "s0"]).await;
    assert!(
        said.starts_with("web on m1 is as at s0\nits document, too: revision "),
        "{said}"
    );
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts.memory("web"), "64MiB");
    let document = hosts
        .agentctl(&["kv", "get", "--print-value-only", WEB_KEY])
        .await;
    assert!(document.contains("64MiB"), "{document}");
    let error = hosts.fails(&["instance", "restore", "web", "s1"]).await;
    assert!(error.contains("has no snapshot s1"), "{error}");
}

/// A container with an address, a server in it, and a client here.
async fn a_port_is_reached(hosts: &Hosts) {
    const NIC: [&str; 7] = ["config", "device", "add", "byhand", "eth0", "nic", "nictype=p2p"];
    hosts.incus(0, &NIC);
    let host_side = hosts.incus(0, &["config", "get", "byhand", "volatile.eth0.host_name"]);
    let added = std::process::Command::new("ip")
        .args(["addr", "add", "10.213.7.1/30", "dev", host_side.trim()])
        .status();
    assert!(
        added.is_ok_and(|status| status.success()),
        "an address for {host_side}"
    );
    let up = "busybox ip addr add 10.213.7.2/30 dev eth0 && busybox ip link set eth0 up";
    hosts
        .agentctl(&["instance", "exec", "byhand", "--", "sh", "-c", up])
        .await;
    let _server = hosts
        .command(&[
            "instance", "exec", "byhand", "--", "busybox", "nc", "-l", "-p", "7000", "-e", "busybox", "cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("start agentctl");
    wait::until("the server to listen", async || {
        let listening = hosts.incus(0, &["exec", "byhand", "--", "busybox", "netstat", "-ltn"]);
        listening.contains(":7000").then_some(())
    })
    .await;
    let (_tunnel, port) = hosts.tunnel(&["tunnel", "byhand", "0:7000"]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the tunnel");
    stream.write_all(b"there and back").await.expect("write");
    let mut back = [0; 14];
    let read = tokio::time::timeout(wait::PATIENCE, stream.read_exact(&mut back)).await;
    read.expect("an answer in time").expect("an answer");
    assert_eq!(&back, b"there and back");
}

/// What hosts would do is told before they do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_come_before_changes() {
    let Some(hosts) = Hosts::start().await else { return };
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
    assert_eq!(hosts.memory("web"), "64MiB");
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
    hosts.agentctl(&["plan", "-f", &file, "-o", &kept]).await;
    let applied = hosts.agentctl(&["apply", &kept]).await;
    assert!(
        applied.contains("config.limits.memory: 80MiB -> 96MiB"),
        "{applied}"
    );
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts.memory("web"), "96MiB");
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

/// A tenant's role reaches its own instances and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_reaches_its_own() {
    let Some(hosts) = Hosts::start().await else { return };
    for (project, name) in [("default", "ours"), ("shop", "theirs")] {
        if project != "default" {
            hosts.incus(
                0,
                &[
                    "project",
                    "create",
                    project,
                    "-c",
                    "features.images=false",
                    "-c",
                    "features.profiles=false",
                ],
            );
        }
        hosts.incus(0, &["launch", "busybox", name, "--project", project]);
    }
    for line in [
        "user add root --new-user-password pw",
        "user grant-role root root",
        "user add eva --new-user-password pw",
        "role add shop",
        "role grant-permission shop readwrite --prefix /tenants/shop/",
        "user grant-role eva shop",
        "user add max --new-user-password pw",
        "role add looker",
        "role grant-permission looker read --prefix /tenants/shop/",
        "user grant-role max looker",
        "auth enable",
    ] {
        hosts.agentctl(&line.split(' ').collect::<Vec<_>>()).await;
    }
    let listed = async |user: &str| {
        hosts
            .agentctl(&["instance", "list", "-w", "simple", "--user", user])
            .await
    };
    assert_eq!(listed("eva:pw").await, "m0 theirs\n");
    assert_eq!(listed("max:pw").await, "m0 theirs\n");
    assert_eq!(listed("root:pw").await, "m0 ours\nm0 theirs\n");

    let exec = [
        "instance", "exec", "theirs", "--tenant", "shop", "--user", "eva:pw", "--", "busybox", "hostname",
    ];
    assert_eq!(hosts.agentctl(&exec).await, "theirs\n");
    for denied in [
        [
            "instance", "exec", "ours", "--tenant", "default", "--user", "eva:pw", "--", "busybox",
            "hostname",
        ],
        [
            "instance", "exec", "theirs", "--tenant", "shop", "--user", "max:pw", "--", "busybox", "hostname",
        ],
    ] {
        let error = hosts.fails(&denied).await;
        assert!(error.contains("permission denied"), "{error}");
    }
    let error = hosts.fails(&["instance", "list"]).await;
    assert!(error.contains("user name is empty"), "{error}");

    // A session ends with the permission that it was opened by.
    let mut session = hosts
        .command(&[
            "instance",
            "exec",
            "theirs",
            "--tenant",
            "shop",
            "--user",
            "eva:pw",
            "--",
            "sh",
            "-c",
            "echo in; busybox cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start agentctl");
    let mut said = [0; 3];
    session
        .stdout
        .as_mut()
        .expect("its output")
        .read_exact(&mut said)
        .await
        .expect("a word");
    hosts
        .agentctl(&["user", "revoke-role", "eva", "shop", "--user", "root:pw"])
        .await;
    let ended = tokio::time::timeout(wait::PATIENCE, session.wait()).await;
    assert_eq!(ended.expect("an end").expect("an exit code").code(), Some(1));
}

fn web(memory: &str) -> String {
    format!(
        "kind: instance
name: web
host: m1
running: true # by hand
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
    async fn start() -> Option<Hosts> {
        if let Err(missing) = Lab::available() {
            notes::skipped(&missing);
            return None;
        }
        let lab = tokio::task::spawn_blocking(|| Lab::start(2))
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

    fn incus(&self, host: usize, args: &[&str]) -> String {
        self.lab.daemons()[host]
            .incus(args)
            .unwrap_or_else(|error| panic!("incus {args:?}: {error:#}"))
    }

    fn query(&self, host: usize, path: &str) -> Value {
        serde_json::from_str(&self.incus(host, &["query", path])).expect("JSON")
    }

    fn state(&self, host: usize, name: &str) -> String {
        let instance = self.query(host, &format!("/1.0/instances/{name}"));
        instance["status"].as_str().unwrap_or_default().to_owned()
    }

    fn memory(&self, name: &str) -> String {
        let instance = self.query(1, &format!("/1.0/instances/{name}"));
        instance["config"]["limits.memory"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Writes a file; its path.
    fn file(&self, name: &str, text: &str) -> String {
        let file = self.cluster.folder().join(name);
        std::fs::write(&file, text).expect("write a file");
        file.to_string_lossy().into_owned()
    }

    async fn apply(&self, document: &str) {
        let file = self.file("document.yaml", document);
        self.agentctl(&["apply", "-f", &file]).await;
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::agentctl());
        command
            .env_clear()
            .env("AGENTCTL_ENDPOINTS", self.cluster.endpoint(2))
            .args(args);
        command
    }

    /// Starts a tunnel and waits for its port.
    async fn tunnel(&self, args: &[&str]) -> (Child, u16) {
        let mut tunnel = self
            .command(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start agentctl");
        let mut said = String::new();
        let stdout = tunnel.stdout.as_mut().expect("its output");
        while !said.ends_with('\n') {
            let byte = tokio::time::timeout(wait::PATIENCE, stdout.read_u8()).await;
            said.push(char::from(byte.expect("a line in time").expect("a line")));
        }
        let port = said.split([':', ' ']).nth(1).and_then(|port| port.parse().ok());
        (tunnel, port.unwrap_or_else(|| panic!("a port in: {said}")))
    }

    /// What it prints; it must succeed.
    async fn agentctl(&self, args: &[&str]) -> String {
        let output = self.run(args, b"").await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "agentctl {args:?} ended with {}:\n{stdout}{stderr}",
            output.status
        );
        stdout
    }

    /// What it says of its failure.
    async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args, b"").await;
        assert_eq!(output.status.code(), Some(1), "agentctl {args:?}: {output:?}");
        text(&output.stderr)
    }

    async fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start agentctl");
        let mut stdin = child.stdin.take().expect("its input");
        let writing = async {
            // A command that ends before it has read all is judged by what it says.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let ended = async { tokio::join!(writing, child.wait_with_output()).1 };
        let ended = tokio::time::timeout(
            wait::PATIENCE.saturating_mul(2).max(Duration::from_secs(90)),
            ended,
        )
        .await;
        ended.expect("an end of agentctl").expect("agentctl's output")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
