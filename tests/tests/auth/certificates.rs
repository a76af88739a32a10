//! Users by their client certificates.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tests::certificates::Authority;
use tests::notes;
use tests::tools::EtcdVersion;

use crate::{ANN_PASSWORD, Guarded, members};

/// What etcdctl says as the holder of a certificate, with more flags.
fn etcdctl(folder: &Path, guarded: &Guarded, holder: &str, arguments: &[&str]) -> Option<String> {
    let etcdctl = EtcdVersion::V3_5.program("etcdctl")?;
    let output = Command::new(etcdctl)
        .env_clear()
        .args(["--endpoints", &guarded.cluster.member(0).tls_url])
        .args(["--cacert", "ca.pem"])
        .args([
            "--cert",
            &format!("{holder}.pem"),
            "--key",
            &format!("{holder}.key"),
        ])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("run etcdctl");
    Some((String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)).into_owned())
}

#[tokio::test]
async fn cve_2018_16886_a_common_name_is_a_user_and_not_through_the_gateway() {
    let folder = TempDir::new().expect("a folder");
    let authority = Authority::new("lab");
    authority.write(folder.path());
    let mut cluster = members(1).tls(folder.path()).prepare();
    let url = cluster.member(0).tls_url.clone();
    let host = url
        .trim_start_matches("https://")
        .split(':')
        .next()
        .unwrap_or_default();
    authority.write_server(folder.path(), host);
    for holder in ["ann", "bob", "mallory"] {
        authority.write_client(folder.path(), holder);
    }
    cluster.start(0);
    cluster.ready().await;
    let mut guarded = Guarded::guard(cluster).await;
    crate::add_user(&mut guarded.root, "bob", "bob").await;

    let Some(said) = etcdctl(folder.path(), &guarded, "ann", &["put", "w", "1"]) else {
        notes::skipped("etcdctl is missing");
        return;
    };
    assert_eq!(said, "OK\n");
    let says = |holder: &str, arguments: &[&str]| {
        etcdctl(folder.path(), &guarded, holder, arguments).expect("etcdctl is there")
    };
    let denied = says("ann", &["put", "secret", "1"]);
    assert!(denied.contains("etcdserver: permission denied"), "{denied}");
    // A name that no user has.
    for arguments in [
        ["get", "r"].as_slice(),
        &["put", "w", "1"],
        &["member", "list"],
        &["lease", "list"],
    ] {
        let said = says("mallory", arguments);
        assert!(
            said.contains("etcdserver: permission denied"),
            "{arguments:?}: {said}"
        );
    }
    // A token counts more than a certificate, whichever may do more.
    let ann = format!("ann:{ANN_PASSWORD}");
    assert_eq!(says("bob", &["--user", &ann, "put", "w", "1"]), "OK\n");
    let said = says("ann", &["--user", "bob:bob", "put", "w", "1"]);
    assert!(said.contains("etcdserver: permission denied"), "{said}");

    // The gateway hands no certificate on.
    let body = r#"{"key":"cg=="}"#;
    let curl = |more: &[&str]| {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--cacert",
                "ca.pem",
            ])
            .args(["--cert", "ann.pem", "--key", "ann.key", "--data", body])
            .args(more)
            .arg(format!("{url}/v3/kv/range"))
            .current_dir(folder.path())
            .output()
            .expect("run curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = curl(&[]);
    assert!(said.contains("etcdserver: user name is empty"), "{said}");
    for scheme in ["", "Bearer "] {
        let said = curl(&[
            "--header",
            &format!("Authorization: {scheme}{}", guarded.ann.token()),
        ]);
        assert!(said.contains("\"revision\""), "{said}");
    }
}
