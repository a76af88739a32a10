//! The client port with TLS: who is let in, as whom, and with which certificate.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tests::certificates::Authority;
use tests::cluster::{Cluster, Subject};
use tests::notes;
use tests::tools::EtcdVersion;
use tests::wait;

struct Lab {
    authority: Authority,
    folder: TempDir,
    cluster: Cluster,
}

impl Lab {
    async fn start() -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("lab");
        authority.write(folder.path());
        let builder = Cluster::builder(&Subject::agent(), 1).tls(folder.path());
        let mut cluster = builder.prepare();
        let url = cluster.member(0).tls_url.clone();
        authority.write_server(folder.path(), host(&url));
        authority.write_client(folder.path(), "alice");
        cluster.start(0);
        cluster.ready().await;
        Lab {
            authority,
            folder,
            cluster,
        }
    }

    /// curl, whose own TLS library is another one than the server's.
    fn curl(&self, options: &[&str], path: &str) -> Result<String, String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(options)
            .arg(format!("{}{path}", self.cluster.member(0).tls_url))
            .current_dir(self.folder.path())
            .output()
            .expect("run curl");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

const ALICE: [&str; 6] = ["--cacert", "ca.pem", "--cert", "alice.pem", "--key", "alice.key"];

#[tokio::test]
async fn only_clients_of_the_authority_are_let_in() {
    let lab = Lab::start().await;
    let health = lab.curl(&ALICE, "/health").expect("alice is let in");
    assert_eq!(health, r#"{"health":"true","reason":""}"#);

    let nobody = lab.curl(&["--cacert", "ca.pem"], "/health");
    assert!(nobody.is_err(), "a client without a certificate got {nobody:?}");

    let stranger = TempDir::new().expect("a folder");
    Authority::new("stranger").write_client(stranger.path(), "alice");
    let (pem, key) = (
        stranger.path().join("alice.pem"),
        stranger.path().join("alice.key"),
    );
    let strange = ["--cacert", "ca.pem", "--cert", text(&pem), "--key", text(&key)];
    assert!(
        lab.curl(&strange, "/health").is_err(),
        "another authority's alice was let in"
    );

    let old = [&ALICE[..], &["--tls-max", "1.2"]].concat();
    assert!(lab.curl(&old, "/health").is_err(), "TLS 1.2 was spoken");
}

#[tokio::test]
async fn etcdctl_works_with_certificates() {
    let lab = Lab::start().await;
    for version in [EtcdVersion::V3_4, EtcdVersion::V3_5] {
        let Some(etcdctl) = version.program("etcdctl") else {
            notes::skipped("etcdctl is missing");
            return;
        };
        for args in [&["put", "secured", version.name()][..], &["get", "secured"]] {
            let output = Command::new(&etcdctl)
                .env_clear()
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &lab.cluster.member(0).tls_url])
                .args(["--cacert", "ca.pem", "--cert", "alice.pem", "--key", "alice.key"])
                .args(args)
                .current_dir(lab.folder.path())
                .output()
                .expect("run etcdctl");
            let answer = String::from_utf8_lossy(&output.stdout);
            let trouble = String::from_utf8_lossy(&output.stderr);
            let expected = match args {
                ["get", ..] => format!("secured\n{}\n", version.name()),
                _ => "OK\n".to_owned(),
            };
            assert_eq!(answer, expected, "{args:?} {trouble}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let lab = Lab::start().await;
    lab.curl(&ALICE, "/health").expect("alice is let in");

    // A pair that does not fit together changes nothing.
    let whole = std::fs::read(lab.folder.path().join("server.key")).expect("read a key");
    std::fs::write(lab.folder.path().join("server.key"), "not a key").expect("write a key");
    wait::until("the member to notice", || async {
        // Each new connection is an occasion to look at the files.
        lab.curl(&ALICE, "/health")
            .expect("the former certificate is served on");
        let log = lab.cluster.member(0).log();
        log.contains("the former certificates are served on")
            .then_some(())
    })
    .await;
    std::fs::write(lab.folder.path().join("server.key"), whole).expect("write a key");

    // Another authority for servers and clients: only its clients are let in after that.
    let next = Authority::new("next");
    next.write(lab.folder.path());
    next.write_server(lab.folder.path(), host(&lab.cluster.member(0).tls_url));
    let former = lab.folder.path().join("former");
    std::fs::create_dir(&former).expect("a folder");
    lab.authority.write_client(&former, "bob");
    next.write_client(lab.folder.path(), "alice");
    wait::until("the new certificates", || async {
        lab.curl(&ALICE, "/health").ok()
    })
    .await;
    let bob = [
        "--cacert",
        "ca.pem",
        "--cert",
        "former/bob.pem",
        "--key",
        "former/bob.key",
    ];
    assert!(
        lab.curl(&bob, "/health").is_err(),
        "the former authority's client was let in"
    );
}

#[tokio::test]
async fn what_cannot_be_served_is_named() {
    let folder = TempDir::new().expect("a folder");
    let authority = Authority::new("lab");
    authority.write(folder.path());
    authority.write_server(folder.path(), "127.0.0.1");
    std::fs::write(folder.path().join("server.key"), "").expect("write a file");
    let mut cluster = Cluster::builder(&Subject::agent(), 1)
        .tls(folder.path())
        .prepare();
    cluster.start(0);
    let status = cluster.member_mut(0).wait_exit(wait::PATIENCE).await;
    assert!(!status.expect("it ends").success());
    let log = cluster.member(0).log();
    assert!(
        log.contains("--key-file") && log.contains("no PEM private key in it"),
        "{log}"
    );
    assert!(
        !cluster.member(0).data_dir.exists(),
        "something was made before the certificates were read"
    );
}

fn host(url: &str) -> &str {
    let authority = url.trim_start_matches("https://");
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}
