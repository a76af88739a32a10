//! Members die, and nothing that was acknowledged is lost.
//!
//! Every scenario runs on a real etcd too: what etcd survives, the agent must.

use std::time::Duration;

use tests::cluster::{Cluster, Subject};
use tests::load::{History, Load};
use tests::{notes, wait};

const WRITERS: usize = 4;
/// Acknowledged writes before and after each fault: enough for several batches of the log.
const SOME: u64 = 200;

/// Names a scenario once for each subject.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                match tests::cluster::Subject::etcd() {
                    Some(subject) => super::$scenario(subject).await,
                    None => tests::notes::skipped("no etcd 3.5"),
                }
            })*
        }
        mod agent {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario(tests::cluster::Subject::agent()).await;
            })*
        }
    };
}

on_both!(
    leader_killed_under_load,
    follower_killed_under_load,
    all_killed_at_once,
    lagging_member_catches_up_by_snapshot,
    every_member_takes_writes_and_reads,
    terminated_leader_hands_over,
    minority_says_so_and_still_reads_locally,
);

async fn leader_killed_under_load(subject: Subject) {
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    load.progress(SOME).await;
    cluster.start(leader);
    cluster.ready().await;
    load.progress(SOME).await;
    let history = load.stop().await;
    check(&mut cluster, &history, "kill -9 of the leader").await;
}

async fn follower_killed_under_load(subject: Subject) {
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let follower = cluster.follower().await;
    cluster.kill(follower);
    load.progress(SOME).await;
    cluster.start(follower);
    cluster.ready().await;
    let history = load.stop().await;
    check(&mut cluster, &history, "kill -9 of a follower").await;
}

async fn all_killed_at_once(subject: Subject) {
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    cluster.kill_all();
    let history = load.stop().await;
    for i in 0..cluster.len() {
        cluster.start(i);
    }
    cluster.ready().await;
    check(&mut cluster, &history, "kill -9 of all three").await;

    // And once more without any load: a restart must leave everything as it was.
    let before = cluster
        .client(0)
        .get_prefix("", false)
        .await
        .expect("read everything");
    cluster.kill_all();
    for i in 0..cluster.len() {
        cluster.start(i);
    }
    cluster.ready().await;
    for i in 0..cluster.len() {
        let after = cluster
            .client(i)
            .get_prefix("", false)
            .await
            .expect("read everything");
        assert_eq!(after.kvs, before.kvs, "contents of m{i} after a restart");
        let revision =
            |range: &proto::etcdserverpb::RangeResponse| range.header.map(|header| header.revision);
        assert_eq!(
            revision(&after),
            revision(&before),
            "revision of m{i} after a restart"
        );
    }
}

async fn lagging_member_catches_up_by_snapshot(subject: Subject) {
    let mut builder = Cluster::builder(&subject, 3).arg("--snapshot-count", "100");
    if subject.is_etcd() {
        builder = builder.arg("--experimental-snapshot-catchup-entries", "10");
    }
    let mut cluster = builder.start().await;
    let lagging = cluster.follower().await;
    cluster.kill(lagging);
    let logged_before = cluster.member(lagging).log().len();
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(1_000).await;
    cluster.start(lagging);
    cluster.ready().await;
    load.progress(SOME).await;
    let history = load.stop().await;
    check(&mut cluster, &history, "catching up by snapshot").await;
    let log = cluster.member(lagging).log();
    let since = log.get(logged_before..).unwrap_or_default();
    assert!(
        since.contains("snapshot"),
        "the log entries were purged, so a snapshot must have come"
    );
}

async fn every_member_takes_writes_and_reads(subject: Subject) {
    let cluster = Cluster::builder(&subject, 3).start().await;
    for writer in 0..cluster.len() {
        let value = format!("by m{writer}");
        let revision = cluster
            .client(writer)
            .put("shared", value.as_bytes())
            .await
            .expect("put");
        for reader in 0..cluster.len() {
            let answer = cluster
                .client(reader)
                .get_within("shared", wait::PATIENCE)
                .await
                .expect("get");
            let kv = answer.kvs.first().expect("the key just written");
            assert_eq!(kv.value, value, "m{writer} wrote, m{reader} read");
            assert_eq!(kv.mod_revision, revision);
        }
    }
}

async fn terminated_leader_hands_over(subject: Subject) {
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let leader = cluster.leader().await;
    let status = cluster.terminate(leader).await;
    load.progress(SOME).await;
    cluster.start(leader);
    cluster.ready().await;
    let history = load.stop().await;
    check(&mut cluster, &history, "SIGTERM of the leader").await;
    if !subject.is_etcd() {
        assert!(
            status.success(),
            "a member that was asked to stop ended with {status}"
        );
    }
}

async fn minority_says_so_and_still_reads_locally(subject: Subject) {
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let mut client = cluster.client(0);
    client.put("kept", b"yes").await.expect("put");
    cluster
        .client(0)
        .get_within("kept", wait::PATIENCE)
        .await
        .expect("get");
    cluster.kill(1);
    cluster.kill(2);

    let local = client
        .get_prefix("kept", true)
        .await
        .expect("a serializable read needs nobody else");
    assert_eq!(local.kvs.len(), 1);
    let refused = client
        .put_within("lost", b"no", wait::PATIENCE)
        .await
        .expect_err("there is no quorum");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let known = ["etcdserver: request timed out", "etcdserver: leader changed"];
    assert!(
        known.iter().any(|text| refused.message().starts_with(text)),
        "{refused}"
    );

    // Who asks for a leader is told at once that there is none.
    let no_leader = wait::until("the member to notice that the leader is gone", async || {
        let mut request = tonic::Request::new(range_of("kept"));
        request
            .metadata_mut()
            .insert("hasleader", "true".parse().expect("ascii"));
        let refused = cluster.client(0).kv.range(request).await.err()?;
        (refused.message() == "etcdserver: no leader").then_some(refused)
    });
    assert_eq!(no_leader.await.code(), tonic::Code::Unavailable);

    cluster.start(1);
    cluster.ready().await;
    client
        .put("kept", b"again")
        .await
        .expect("two of three are a quorum");
}

fn range_of(key: &str) -> proto::etcdserverpb::RangeRequest {
    proto::etcdserverpb::RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

/// What must hold after every fault: all members have all acknowledged writes, in one order, and one hash.
async fn check(cluster: &mut Cluster, history: &History, what: &str) {
    history.check_order();
    for i in 0..cluster.len() {
        history.check_readable(&mut cluster.client(i)).await;
    }
    same_hash(cluster).await;
    let gap = history.longest_gap();
    notes::measured(&format!(
        "{}: {what}: {} writes acknowledged, {} errors, longest gap {} ms",
        cluster.subject().name(),
        history.acknowledged.len(),
        history.errors.len(),
        gap.as_millis()
    ));
    assert!(gap < Duration::from_secs(30), "no write for {gap:?}");
}

async fn same_hash(cluster: &Cluster) {
    let revision = cluster
        .client(0)
        .get_within("", wait::PATIENCE)
        .await
        .expect("read");
    let revision = revision.header.map_or(0, |header| header.revision);
    let mut hashes = Vec::new();
    for i in 0..cluster.len() {
        let hash = wait::until("the member to have applied the revision", async || {
            cluster.client(i).hash_kv(revision).await.ok()
        });
        hashes.push(hash.await.hash);
    }
    assert!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "hashes at revision {revision}: {hashes:?}"
    );
}
