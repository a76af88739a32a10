//! Listed, entered, switched, brought back, and reached by a tunnel: from a host that does not have it.

use std::process::Stdio;

use serde_json::Value;
use tests::agentctl::text;
use tests::hosts::Hosts;
use tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{start, web};

const WEB_KEY: &str = "/tenants/default/desired/instances/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_host_reaches_any_instance() {
    let Some(hosts) = start().await else { return };
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
    assert_eq!(hosts.memory(1, "web"), "96MiB");
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
    assert_eq!(hosts.memory(1, "web"), "64MiB");
    let document = hosts
        .agentctl(&["kv", "get", "--print-value-only", WEB_KEY])
        .await;
    assert!(document.contains("64MiB"), "{document}");
    // Incus stops it for each, and the host, whose document says that it runs, lets it.
    for _ in 0..5 {
        hosts.agentctl(&["instance", "restore", "web", "s0"]).await;
        assert_eq!(hosts.state(1, "web"), "Running");
    }
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
