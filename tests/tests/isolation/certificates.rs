//! The same people by client certificate: a name in a certificate opens what the user's password does, and no more.

use tempfile::TempDir;
use tests::agentctl;
use tests::certificates::Authority;
use tests::cluster::{Cluster, Subject};

use crate::{LOCK_OF_B, PEOPLE, found, not_of_a};

const TRIED: [&str; 14] = [
    "kv get /tenants/b/ --prefix",
    "kv get /tenants/a/ --from-key",
    "kv put /tenants/b/desired/instances/web forged",
    "kv put /tenants/a/status/instances/web/m0 forged",
    "kv del /tenants/b/ --prefix",
    "get --tenant b",
    "inventory query",
    "instance stop web --tenant b",
    "instance exec web --tenant b -- sh",
    "backup restore web --tenant b",
    "user list",
    "user grant-role admin root",
    "tenant grant a admin admin",
    "token list",
];

#[tokio::test]
async fn a_certificate_opens_no_more_than_a_password() {
    let folder = TempDir::new().expect("a folder");
    let authority = Authority::new("lab");
    authority.write(folder.path());
    let builder = Cluster::builder(&Subject::agent(), 1).arg("--bcrypt-cost", "4");
    let mut cluster = builder.tls(folder.path()).prepare();
    let url = cluster.member(0).tls_url.clone();
    let host = url.trim_start_matches("https://").split(':').next();
    authority.write_server(folder.path(), host.unwrap_or_default());
    // Whom there is no user of, and one who would be root by the look of it.
    for holder in PEOPLE.into_iter().chain(["nobody", "tenant:b:admin"]) {
        authority.write_client(folder.path(), holder);
    }
    cluster.start(0);
    cluster.ready().await;
    let mut root = found(&mut cluster).await;
    root.put(LOCK_OF_B, b"of another").await.expect("root writes");
    let before = not_of_a(&mut root).await;

    let says = async |holder: &str, line: &str| {
        let mut command = agentctl::command(&url, &line.split(' ').collect::<Vec<_>>());
        command
            .current_dir(folder.path())
            .env("AGENTCTL_CACERT", "ca.pem")
            .env("AGENTCTL_CERT", format!("{holder}.pem"))
            .env("AGENTCTL_KEY", format!("{holder}.key"));
        agentctl::says(&agentctl::run(command, b"").await)
    };
    let own = says("viewer", "kv get /tenants/a/ --prefix").await;
    assert!(!own.contains("error"), "{own}");
    let own = says("admin", "kv put /tenants/a/desired/profiles/web own").await;
    assert_eq!(own, "OK\n");
    let mut let_through = String::new();
    for holder in PEOPLE.into_iter().chain(["nobody", "tenant:b:admin"]) {
        for line in TRIED {
            let said = says(holder, line).await;
            if !said.contains("permission denied") {
                let_through.push_str(&format!("{holder}: {line}: {said}\n"));
            }
        }
    }
    assert!(let_through.is_empty(), "\n{let_through}");
    assert_eq!(not_of_a(&mut root).await, before);
}
