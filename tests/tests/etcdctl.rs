//! The stock `etcdctl`, of both releases, has the same conversation with the agent as with etcd 3.5.

use tests::cluster::{Cluster, Subject};
use tests::etcdctl::Etcdctl;
use tests::notes;
use tests::tools::EtcdVersion;

const SCRIPT: &str = include_str!("../golden/etcdctl.script");

#[tokio::test]
async fn etcd_with_3_4() {
    check_etcd(EtcdVersion::V3_4, 1).await;
}

#[tokio::test]
async fn etcd_with_3_5() {
    check_etcd(EtcdVersion::V3_5, 2).await;
}

#[tokio::test]
async fn agent_member_0_with_3_4() {
    check(&Subject::agent(), EtcdVersion::V3_4, 0).await;
}

#[tokio::test]
async fn agent_member_1_with_3_4() {
    check(&Subject::agent(), EtcdVersion::V3_4, 1).await;
}

#[tokio::test]
async fn agent_member_2_with_3_4() {
    check(&Subject::agent(), EtcdVersion::V3_4, 2).await;
}

#[tokio::test]
async fn agent_member_0_with_3_5() {
    check(&Subject::agent(), EtcdVersion::V3_5, 0).await;
}

#[tokio::test]
async fn agent_member_1_with_3_5() {
    check(&Subject::agent(), EtcdVersion::V3_5, 1).await;
}

#[tokio::test]
async fn agent_member_2_with_3_5() {
    check(&Subject::agent(), EtcdVersion::V3_5, 2).await;
}

async fn check_etcd(client: EtcdVersion, member: usize) {
    match Subject::etcd() {
        Some(etcd) => check(&etcd, client, member).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

async fn check(subject: &Subject, client: EtcdVersion, member: usize) {
    if client.program("etcdctl").is_none() {
        notes::skipped(&format!("no etcdctl {}", client.name()));
        return;
    }
    let cluster = Cluster::builder(subject, 3).start().await;
    let mut etcdctl = Etcdctl::new(client, &cluster, member).await.expect("etcdctl");
    let transcript = etcdctl.run(SCRIPT).await;
    let golden = format!("etcdctl-{}.txt", client.name());
    transcript.check(
        &format!("{} m{member}", subject.name()),
        &golden,
        subject.is_etcd(),
    );
}
