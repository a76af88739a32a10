//! Documents of kind tunnel: a port of a host that leads to an instance of another, whatever becomes of either.

use std::process::{Command, Stdio};

use tests::hosts::Hosts;
use tests::wait::{self, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

use super::{start, web};

const PORT: u16 = 7000;
const TUNNEL: &str = "tunnels/web";

fn tunnel(name: &str, listen: &str) -> String {
    format!(
        "kind: tunnel\nname: {name}\nhost: m0\nspec: {{listen: '{listen}', instance: web, port: {PORT}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_leads_to_an_instance_wherever_it_is() {
    let Some(hosts) = start().await else { return };
    // Named, so that it can be given an address again whenever the instance starts.
    let side = format!("tun{}", std::process::id());
    let nic = format!("  devices: {{eth0: {{type: nic, nictype: p2p, host_name: {side}}}}}\n");
    let web = web("64MiB") + &nic;
    hosts.apply(&web).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    let server = serves(&hosts, &side).await;

    let plan = hosts.file("plan.yaml", &tunnel("web", "127.0.0.1:0"));
    let planned = hosts.agentctl(&["plan", "-f", &plan]).await;
    assert!(planned.contains("listen 127.0.0.1:0 -> web:7000"), "{planned}");
    hosts.apply(&tunnel("web", "127.0.0.1:0")).await;
    let address = listens(&hosts).await;
    let planned = hosts.agentctl(&["plan", "-f", &plan]).await;
    assert!(!planned.contains("listen"), "{planned}");

    bytes_go_there_and_back(&address).await;
    let mut open = connect(&address).await;
    answers(&mut open, b"before").await;
    let address = it_moves_without_cutting(&hosts, &address, &mut open).await;
    a_port_that_is_taken_is_waited_for(&hosts, &address).await;
    the_instance_may_stop_and_start(&hosts, &address, &web, &side).await;
    drop(server);
    it_goes_with_its_document(&hosts, &address).await;
}

/// Gives the instance an address, and starts a server in it that says what it hears.
async fn serves(hosts: &Hosts, side: &str) -> Child {
    let added = Command::new("ip")
        .args(["addr", "add", "10.213.8.1/30", "dev", side])
        .status();
    assert!(
        added.is_ok_and(|status| status.success()),
        "an address for {side}"
    );
    let up = "busybox ip addr add 10.213.8.2/30 dev eth0 && busybox ip link set eth0 up";
    hosts
        .agentctl(&["instance", "exec", "web", "--", "sh", "-c", up])
        .await;
    let server = hosts
        .command(&[
            "instance", "exec", "web", "--", "busybox", "nc", "-ll", "-p", "7000", "-e", "busybox", "cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("start agentctl");
    wait::until("the server to listen", async || {
        let listening = hosts.incus(1, &["exec", "web", "--", "busybox", "netstat", "-ltn"]);
        listening.contains(":7000").then_some(())
    })
    .await;
    server
}

/// Where the host says that it listens.
async fn listens(hosts: &Hosts) -> String {
    let status = hosts.reported(0, TUNNEL, "Ready", None).await;
    let message = status["message"].as_str().unwrap_or_default();
    let (address, leads) = message
        .split_once(" -> ")
        .unwrap_or_else(|| panic!("an address in: {message}"));
    assert_eq!(leads, "web:7000 on m1");
    address.to_owned()
}

async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address)
        .await
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

async fn answers(stream: &mut TcpStream, said: &[u8]) {
    stream.write_all(said).await.expect("write");
    let mut back = vec![0; said.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await;
    read.expect("an answer in time").expect("an answer");
    assert_eq!(back, said);
}

/// More than all the queues on the way hold; the server hears the end and says the rest.
async fn bytes_go_there_and_back(address: &str) {
    let much: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (mut reader, mut writer) = connect(address).await.into_split();
    let said = much.clone();
    let saying = tokio::spawn(async move {
        writer.write_all(&said).await.expect("write");
        writer.shutdown().await.expect("say that it is all");
        writer
    });
    let mut back = Vec::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut back)).await;
    read.expect("an end in time").expect("what was said");
    assert!(back == much, "{} bytes came back", back.len());
    saying.await.expect("say all");
}

/// Another address is for those who come then; the new one.
async fn it_moves_without_cutting(hosts: &Hosts, old: &str, open: &mut TcpStream) -> String {
    let revision = hosts.apply(&tunnel("web", "127.0.0.2:0")).await;
    hosts.reported(0, TUNNEL, "Ready", revision).await;
    let new = listens(hosts).await;
    assert!(new.starts_with("127.0.0.2:"), "{new}");
    assert!(TcpStream::connect(old).await.is_err(), "{old} is closed");
    answers(open, b"after").await;
    answers(&mut connect(&new).await, b"anew").await;
    new
}

async fn a_port_that_is_taken_is_waited_for(hosts: &Hosts, ours: &str) {
    hosts.apply(&tunnel("second", ours)).await;
    let status = hosts.reported(0, "tunnels/second", "Failed", None).await;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("tunnel web listens there"), "{message}");

    let stranger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = stranger.local_addr().expect("its address").to_string();
    let revision = hosts.apply(&tunnel("second", &taken)).await;
    let status = hosts.reported(0, "tunnels/second", "Failed", revision).await;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(&taken) && message.contains("in use"),
        "{message}"
    );
    drop(stranger);
    hosts.reported(0, "tunnels/second", "Ready", revision).await;
    answers(&mut connect(&taken).await, b"at last").await;
}

async fn the_instance_may_stop_and_start(hosts: &Hosts, address: &str, web: &str, side: &str) {
    let mut open = connect(address).await;
    answers(&mut open, b"while it runs").await;
    hosts.apply(&web.replace("running: true", "running: false")).await;
    let ended = tokio::time::timeout(PATIENCE, open.read(&mut [0; 1])).await;
    assert!(
        matches!(ended, Ok(Ok(0) | Err(_))),
        "the instance took its connection along: {ended:?}"
    );
    wait::until("the tunnel to say that its instance is stopped", async || {
        let status = hosts.status(0, TUNNEL).await?;
        status["message"]
            .as_str()?
            .ends_with("which is stopped by its document")
            .then_some(())
    })
    .await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    let refused = connect(address).await.read(&mut [0; 1]).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "nobody is there: {refused:?}");

    hosts.apply(web).await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    let _server = serves(hosts, side).await;
    answers(&mut connect(address).await, b"it is back").await;
}

async fn it_goes_with_its_document(hosts: &Hosts, address: &str) {
    hosts.agentctl(&["delete", "tunnel", "web"]).await;
    hosts.forgotten(0, TUNNEL).await;
    assert!(TcpStream::connect(address).await.is_err(), "{address} is closed");
    // The other one has nothing to do with it.
    hosts.reported(0, "tunnels/second", "Ready", None).await;
}
