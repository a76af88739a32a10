//! TLS between members: who may be one, what the refused are told, and certificates that change under load.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::peer::{Dialer, Whom, describe};
use tempfile::TempDir;
use tests::certificates::Authority;
use tests::cluster::{Cluster, Subject};
use tests::tools;
use tests::wait;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

struct Lab {
    authority: Authority,
    folder: TempDir,
}

impl Lab {
    /// An authority, and certificates of it for so many members.
    fn new(members: usize) -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("lab");
        authority.write(folder.path());
        for i in 0..members {
            authority.write_peer(folder.path(), &format!("m{i}"));
        }
        Lab { authority, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn cluster(&self, members: usize) -> Cluster {
        Cluster::builder(&Subject::agent(), members)
            .peer_tls(self.path())
            .prepare()
    }

    /// Three members, of which the last does not run yet.
    async fn two_of_three(&self) -> Cluster {
        let mut cluster = self.cluster(3);
        cluster.start(0);
        cluster.start(1);
        cluster.member_ready(0).await;
        cluster.member_ready(1).await;
        cluster
    }

    /// curl at a URL, with certificates of the folder.
    fn curl(&self, options: &[&str], url: &str) -> Result<String, String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "20"])
            .args(options)
            .arg(url)
            .current_dir(self.path())
            .output()
            .expect("run curl");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

async fn says(cluster: &Cluster, i: usize, words: &str) {
    let what = format!("m{i} to say {words:?}");
    wait::until(&what, async || {
        cluster.member(i).log().contains(words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn members_form_and_grow_with_tls() {
    let lab = Lab::new(4);
    let mut cluster = lab.cluster(3);
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.ready().await;
    cluster.client(0).put("k", b"v").await.expect("a put");
    let i = cluster.grow(0).await;
    let mut client = cluster.client(i);
    let seen = client.get_within("k", wait::PATIENCE).await.expect("a get");
    assert_eq!(seen.kvs.first().map(|kv| kv.value.as_ref()), Some(&b"v"[..]));
    cluster.terminate(1).await;
    cluster.start(1);
    cluster.member_ready(1).await;
}

/// What a member with the wrong certificate says itself: nobody should have to look at the other hosts.
#[tokio::test]
async fn the_refused_member_says_why() {
    let lab = Lab::new(3);
    let mut cluster = lab.two_of_three().await;

    // An authority that the others do not trust; itself it trusts theirs.
    Authority::new("stranger").write_peer(lab.path(), "m2");
    cluster.start(2);
    says(&cluster, 2, "its authority is none that it trusts").await;
    cluster.terminate(2).await;

    lab.authority.write_expired_peer(lab.path(), "m2");
    cluster.start(2);
    says(&cluster, 2, "it has expired, or is not valid yet").await;
    cluster.terminate(2).await;

    // Once it is what it should be, it joins.
    lab.authority.write_peer(lab.path(), "m2");
    cluster.start(2);
    cluster.member_ready(2).await;
}

/// Consul's CVE-2019-9764, where whose certificate was shown did not count.
#[tokio::test]
async fn cve_2019_9764_a_certificate_of_another_member_is_not_started_with() {
    let lab = Lab::new(2);
    let mut cluster = lab.cluster(1);
    for suffix in ["pem", "key"] {
        let from = lab.path().join(format!("peer-m1.{suffix}"));
        std::fs::copy(from, lab.path().join(format!("peer-m0.{suffix}"))).expect("copy a file");
    }
    cluster.start(0);
    let status = cluster.member_mut(0).wait_exit(wait::PATIENCE).await;
    assert!(!status.expect("it ends").success());
    let log = cluster.member(0).log();
    assert!(
        log.contains("--peer-cert-file") && log.contains("DNS name m0.peer.agent.internal"),
        "{log}"
    );
}

/// Consul's CVE-2021-37219, where any certificate of the authority opened the port for Raft, and its CVE-2018-19653, where
/// members spoke plaintext without a word.
#[tokio::test]
async fn cve_2021_37219_a_clients_certificate_is_no_members_and_the_reverse() {
    let lab = Lab::new(1);
    let mut cluster = Cluster::builder(&Subject::agent(), 1)
        .peer_tls(lab.path())
        .tls(lab.path())
        .prepare();
    let (peer_url, tls_url) = (
        cluster.member(0).peer_url.clone(),
        cluster.member(0).tls_url.clone(),
    );
    lab.authority.write_server(lab.path(), host(&tls_url));
    lab.authority.write_client(lab.path(), "alice");
    cluster.start(0);
    cluster.member_ready(0).await;
    let alice = ["--cert", "alice.pem", "--key", "alice.key"];
    let member = ["--cert", "peer-m0.pem", "--key", "peer-m0.key"];

    let health = |options: &[&str]| lab.curl(options, &format!("{tls_url}/health"));
    assert_eq!(
        health(&alice).as_deref(),
        Ok("{\"health\":\"true\",\"reason\":\"\"}")
    );
    let said = health(&member).expect("an answer");
    assert!(said.contains("that of member m0"), "{said}");

    let ask = |options: &[&str], url: &str| {
        let options = [&["--http2-prior-knowledge"], options].concat();
        lab.curl(&options, &format!("{url}/peer.Bootstrap/Describe"))
    };
    let said = ask(&alice, &peer_url).expect("an answer");
    assert!(said.contains("(alice) is no member's"), "{said}");
    // Without one there is no connection.
    let said = ask(&[], &peer_url);
    assert!(said.is_err(), "{said:?}");

    // Plaintext is answered in its own protocol.
    for url in [&peer_url, &tls_url] {
        let plain = url.replace("https://", "http://");
        let said = lab.curl(&[], &plain).expect("an answer");
        assert!(said.contains("this port speaks TLS"), "{said}");
    }
}

#[tokio::test]
async fn cve_2018_19653_a_member_without_tls_is_told_of_it() {
    let lab = Lab::new(1);
    let mut cluster = lab.cluster(1);
    cluster.start(0);
    cluster.member_ready(0).await;
    let url = cluster.member(0).peer_url.replace("https://", "http://");
    let whom = Whom::Named("m0".to_owned());
    let said = describe(&Dialer::default(), &url, &whom, wait::PATIENCE).await;
    let said = said.expect_err("an answer to plaintext");
    assert!(said.contains("this port speaks TLS"), "{said}");
}

/// Connections that begin a handshake and never end it.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_73500_half_open_handshakes_keep_nobody_out() {
    const HALF_OPEN: usize = 5_000;
    let lab = Lab::new(3);
    let mut cluster = lab.cluster(3);
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.ready().await;
    let address: std::net::SocketAddr = cluster.member(0).peer_url["https://".len()..]
        .parse()
        .expect("an address");
    let before = cluster.member(0).resident_mib();
    let first = half_open(address, HALF_OPEN).await;
    let some = cluster.member(0).resident_mib();
    let second = half_open(address, HALF_OPEN).await;
    // A member that starts now needs connections of its own.
    cluster.terminate(1).await;
    cluster.start(1);
    cluster.member_ready(1).await;
    cluster.client(1).put("k", b"v").await.expect("a put");
    let all = cluster.member(0).resident_mib();
    tests::notes::measured(&format!(
        "half-open handshakes: {before} MiB without, {some} MiB with {HALF_OPEN}, {all} MiB with twice as many"
    ));
    // More than are under way at once cost nothing more.
    assert!(all < some + 16, "{before} MiB, {some} MiB, {all} MiB");
    drop((first, second));
}

/// Connections on which a handshake begins, from several addresses, of which none alone may take all.
async fn half_open(to: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for i in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = std::net::Ipv4Addr::new(127, 99, 0, u8::try_from(i % 8 + 1).expect("small"));
        socket.bind((from, 0).into()).expect("bind a socket");
        let mut stream = socket.connect(to).await.expect("a connection");
        // The head of a handshake record, whose rest never comes.
        stream
            .write_all(&[0x16, 3, 1, 2, 0, 1])
            .await
            .expect("a few bytes");
        held.push(stream);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load() {
    let lab = Lab::new(3);
    let mut cluster = lab.cluster(3);
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.ready().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut client = cluster.client(1);
    let load = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let value = done.to_string();
                client.put("load", value.as_bytes()).await.expect("no put fails");
                done += 1;
            }
            done
        }
    });
    // To another authority, step by step: both are trusted, then all have new certificates, then only the new one is
    // trusted.
    let next = Authority::new("next");
    let former = std::fs::read_to_string(lab.path().join("ca.pem")).expect("read a file");
    next.write(lab.path());
    let new = std::fs::read_to_string(lab.path().join("ca.pem")).expect("read a file");
    replace(&lab.path().join("ca.pem"), &format!("{former}{new}"));
    renewed(&cluster, 1).await;
    for i in 0..3 {
        next.write_peer(lab.path(), &format!("m{i}"));
    }
    renewed(&cluster, 2).await;
    replace(&lab.path().join("ca.pem"), &new);
    renewed(&cluster, 3).await;
    // Who comes with the former authority's certificate is no member any more.
    stop.store(true, Ordering::Relaxed);
    let done = load.await.expect("the load");
    assert!(done > 0);
    lab.authority.write_peer(lab.path(), "m0");
    cluster.kill(0);
    cluster.start(0);
    says(&cluster, 0, "none that it trusts").await;
}

/// `agentctl cluster init`, members with what it made for them, and whoever made it as their client.
#[tokio::test]
async fn what_cluster_init_makes_is_a_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .peer_tls(folder.path())
        .tls(folder.path())
        .prepare();
    let tls_url = cluster.member(0).tls_url.clone();
    let agentctl = |arguments: &[&str]| {
        let output = Command::new(tools::agent())
            .arg("ctl")
            .args(arguments)
            .env_clear()
            .env("XDG_CONFIG_HOME", folder.path())
            .output()
            .expect("run agentctl");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said.into_owned()
    };
    // The members here share an address, and the first one's certificate for clients.
    let first = format!("m0={}", host(&tls_url));
    let hosts = [
        "--host",
        &first,
        "--host",
        "m1=b.example.org",
        "--host",
        "m2=c.example.org",
    ];
    agentctl(&[&["cluster", "init", "prod"], &hosts[..]].concat());
    let made = folder.path().join("agentctl/prod");
    let copy = |from: &str, to: &str| {
        std::fs::copy(made.join(from), folder.path().join(to)).expect("copy a file");
    };
    copy("ca.pem", "ca.pem");
    let deliver = |suffix: &str| {
        copy(&format!("hosts/m0/server.{suffix}"), &format!("server.{suffix}"));
        for name in ["m0", "m1", "m2"] {
            copy(
                &format!("hosts/{name}/peer.{suffix}"),
                &format!("peer-{name}.{suffix}"),
            );
        }
    };
    deliver("key");
    deliver("pem");
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.ready().await;
    let admin = |suffix: &str| made.join(format!("admin.{suffix}")).display().to_string();
    let (ca, cert, key) = (
        made.join("ca.pem").display().to_string(),
        admin("pem"),
        admin("key"),
    );
    let as_admin = [
        "--endpoints",
        &tls_url,
        "--cacert",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let said = agentctl(&[&as_admin[..], &["kv", "put", "k", "v"]].concat());
    assert_eq!(said, "OK\n");

    agentctl(&[
        "cert", "renew", "prod", "--host", "m0", "--host", "m1", "--host", "m2",
    ]);
    deliver("key");
    deliver("pem");
    renewed(&cluster, 1).await;
    cluster.terminate(1).await;
    cluster.start(1);
    cluster.member_ready(1).await;
    let said = agentctl(&[&as_admin[..], &["kv", "get", "k"]].concat());
    assert_eq!(said, "k\nv\n");
}

/// Waits until each member has taken up so many changes.
async fn renewed(cluster: &Cluster, times: usize) {
    for member in cluster.members() {
        wait::until("the changed certificates", async || {
            let seen = member.log().matches("peer certificates read again").count();
            (seen >= times).then_some(())
        })
        .await;
    }
}

/// In one step, as `mv` does it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("write a file");
    std::fs::rename(&beside, path).expect("rename a file");
}

fn host(url: &str) -> &str {
    let authority = url.trim_start_matches("https://");
    authority.split_once(':').map_or(authority, |(host, _)| host)
}
