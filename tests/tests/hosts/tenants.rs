//! Roles, and what of hosts they reach.

use std::process::Stdio;

use tests::wait;
use tokio::io::AsyncReadExt;

use super::start;

/// A tenant's role reaches its own instances and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_reaches_its_own() {
    let Some(hosts) = start().await else { return };
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
