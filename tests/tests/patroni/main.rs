//! PostgreSQL kept available by Patroni, which keeps its leader lock and its state with us: members of either
//! kind die, and every row that was acknowledged is there afterwards.
//!
//! Patroni speaks the JSON gateway: version, member list, range, put, deleterange, txn, leases, watch.

mod database;
mod deployment;
mod rows;

use deployment::{Credentials, Deployment};
use etcd_client::{Client, Permission, PermissionType};
use rows::Writer;
use tests::cluster::{Cluster, Subject};
use tests::notes;

/// Rows acknowledged before and after each fault.
const SOME: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "CI asks etcd as well"]
async fn etcd() {
    match Subject::etcd() {
        Some(etcd) => leaders_die(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent() {
    leaders_die(&Subject::agent()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "CI asks etcd as well"]
async fn etcd_with_a_password() {
    match Subject::etcd() {
        Some(etcd) => signs_in(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_with_a_password() {
    signs_in(&Subject::agent()).await;
}

async fn leaders_die(subject: &Subject) {
    if !deployment::is_available() {
        return;
    }
    let mut store = Cluster::builder(subject, 3).start().await;
    let mut patroni = Deployment::start(&store, None);
    let first = patroni.serving(2).await;
    let writer = Writer::start(&patroni).await;
    writer.progress(SOME).await;

    // The database's leader: Patroni and PostgreSQL both.
    patroni.kill(first);
    let second = patroni.primary_other_than(first).await;
    writer.progress(SOME).await;

    // The store's leader: the database must not stop for longer than its own failover takes.
    let leader = store.leader().await;
    store.kill(leader);
    writer.progress(SOME).await;

    patroni.start_node(first);
    store.start(leader);
    store.leader().await;
    let last = patroni.serving(2).await;
    writer.progress(SOME).await;
    let acknowledged = writer.stop().await;
    assert!(!acknowledged.is_empty());
    for node in 0..patroni.len() {
        patroni.holds(node, &acknowledged).await;
    }
    notes::measured(&format!(
        "{} rows acknowledged, primaries n{first}, n{second}, n{last}",
        acknowledged.len()
    ));
}

async fn signs_in(subject: &Subject) {
    if !deployment::is_available() {
        return;
    }
    let store = Cluster::builder(subject, 3).start().await;
    let credentials = enable_auth(&store).await;
    let patroni = Deployment::start(&store, Some(&credentials));
    patroni.serving(2).await;
    let writer = Writer::start(&patroni).await;
    writer.progress(SOME).await;
    let acknowledged = writer.stop().await;
    for node in 0..patroni.len() {
        patroni.holds(node, &acknowledged).await;
    }
}

/// A user who may touch Patroni's own keys only.
async fn enable_auth(store: &Cluster) -> Credentials {
    let credentials = Credentials {
        user: "patroni".to_owned(),
        password: "standby".to_owned(),
    };
    let mut client = Client::connect(store.endpoints(), None).await.expect("connect");
    let range = Permission::new(PermissionType::Readwrite, "/service/").with_prefix();
    client.role_add("database").await.expect("add a role");
    client
        .role_grant_permission("database", range)
        .await
        .expect("grant a permission");
    for (user, password, role) in [
        (
            credentials.user.as_str(),
            credentials.password.as_str(),
            "database",
        ),
        ("root", "secret", "root"),
    ] {
        if role == "root" {
            client.role_add(role).await.expect("add a role");
        }
        client.user_add(user, password, None).await.expect("add a user");
        client.user_grant_role(user, role).await.expect("grant a role");
    }
    client.auth_enable().await.expect("enable auth");
    credentials
}
