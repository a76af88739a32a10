//! Leases in numbers, and what is left of them when the leader changes.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, MoveLeaderRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use tests::client::{Client, prefix_end};
use tests::cluster::{Cluster, Subject};
use tests::load::Load;
use tests::{notes, wait};
use tokio::task::JoinSet;

/// Leases, with one key each.
const LEASES: usize = 100_000;
/// As many are granted first, to learn how fast this machine is today.
const TRIAL: usize = 2_000;
/// From the first grant to the second in which all of them end, at the least.
const LEAST_UNTIL_THE_END: Duration = Duration::from_secs(20);
/// As raised by the server.
const LEAST_TTL: Duration = Duration::from_secs(2);
const GRANTERS: usize = 256;
const CONNECTIONS: usize = 4;
const PUTS_IN_A_TXN: usize = 100;
const LONG_TTL: i64 = 600;

/// A hundred thousand leases end in the same second: their keys go with them, none before its time, and other
/// clients' puts go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_end_at_once() {
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let trial = Instant::now();
    grant(&cluster, LEASES + 1..=LEASES + TRIAL, trial + LEAST_TTL).await;
    // Twice what granting them all should take, and the puts take less.
    let until_the_end =
        LEAST_UNTIL_THE_END + trial.elapsed() * u32::try_from(2 * LEASES / TRIAL).expect("a factor");
    let started = Instant::now();
    let end = started + until_the_end;
    grant(&cluster, 1..=LEASES, end).await;
    let granted = started.elapsed();
    put_all(&cluster).await;
    let put = started.elapsed();

    let load = Load::start("load", &cluster.endpoints(), 2);
    let mut client = cluster.client(cluster.follower().await);
    let left = count(&mut client).await;
    if started.elapsed() + LEAST_TTL < until_the_end {
        assert_eq!(left, LEASES, "none ends before its time");
    }
    tokio::time::sleep_until(end.into()).await;
    wait::until("every key to go with its lease", async || {
        (count(&mut client.clone()).await == 0).then_some(())
    })
    .await;
    let gone = end.elapsed();
    let leases = client.lease.lease_leases(LeaseLeasesRequest {}).await;
    assert_eq!(leases.expect("leases").into_inner().leases, []);
    load.progress(20).await;
    let history = load.stop().await;
    assert_eq!(history.errors, Vec::<String>::new(), "every put is answered");
    history.check_readable(&mut client).await;
    notes::measured(&format!(
        "{LEASES} leases granted in {granted:.1?}, their keys put {put:.1?} after the start; all gone {gone:.1?} \
         after they ended, of {} puts meanwhile the longest gap was {} ms",
        history.acknowledged.len(),
        history.longest_gap().as_millis()
    ));
}

/// Every lease has what is left of the time until `end`, in whole seconds.
async fn grant(cluster: &Cluster, ids: RangeInclusive<usize>, end: Instant) {
    let clients: Vec<Client> = (0..CONNECTIONS)
        .map(|i| cluster.client(i % cluster.len()))
        .collect();
    let mut granters = JoinSet::new();
    for granter in 0..GRANTERS {
        // Its clones share a connection.
        let mut client = clients[granter % CONNECTIONS].clone();
        let ids = ids.clone();
        granters.spawn(async move {
            for id in ids.skip(granter).step_by(GRANTERS) {
                let left = end.saturating_duration_since(Instant::now());
                let grant = LeaseGrantRequest {
                    id: id.try_into().expect("an id"),
                    ttl: left.as_secs().try_into().expect("a TTL"),
                };
                client.lease.lease_grant(grant).await.expect("a grant");
            }
        });
    }
    granters.join_all().await;
}

async fn put_all(cluster: &Cluster) {
    let mut putters = JoinSet::new();
    let ids: Vec<usize> = (1..=LEASES).collect();
    for (i, some) in ids.chunks(LEASES / CONNECTIONS).enumerate() {
        let mut client = cluster.client(i % cluster.len());
        let some = some.to_vec();
        putters.spawn(async move {
            for ids in some.chunks(PUTS_IN_A_TXN) {
                let txn = TxnRequest {
                    success: ids.iter().map(|id| put_on_lease(*id)).collect(),
                    ..TxnRequest::default()
                };
                client.kv.txn(txn).await.expect("puts");
            }
        });
    }
    putters.join_all().await;
}

fn put_on_lease(id: usize) -> RequestOp {
    let put = PutRequest {
        key: format!("leased/{id}").into(),
        lease: id.try_into().expect("an id"),
        ..PutRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestPut(put)),
    }
}

async fn count(client: &mut Client) -> usize {
    let range = RangeRequest {
        key: "leased/".into(),
        range_end: prefix_end(b"leased/").into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let answer = client.kv.range(range).await.expect("a count").into_inner();
    answer.count.try_into().expect("a count")
}

/// What happens to the leader.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Killed,
    Terminated,
    Moved,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_survives_a_killed_leader() {
    what_is_left_survives(Fate::Killed, "1").await;
}

/// Without a checkpoint in time: leaving, the leader makes one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_survives_a_terminated_leader() {
    what_is_left_survives(Fate::Terminated, "300").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_survives_a_moved_leadership() {
    what_is_left_survives(Fate::Moved, "300").await;
}

async fn what_is_left_survives(fate: Fate, checkpoint_seconds: &str) {
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .arg("--lease-checkpoint-interval", checkpoint_seconds)
        .start()
        .await;
    let leader = cluster.leader().await;
    let mut client = cluster.client(cluster.follower().await);
    for id in [1, 2] {
        let grant = LeaseGrantRequest { id, ttl: LONG_TTL };
        client.lease.lease_grant(grant).await.expect("a grant");
    }
    wait::until("some of the TTL to pass", async || {
        (time_to_live(&client, 1).await? <= LONG_TTL - 6).then_some(())
    })
    .await;
    // What is written down of this one is less than it has from now on.
    assert_eq!(keep_alive(&client, 2).await, LONG_TTL);
    match fate {
        Fate::Killed => cluster.kill(leader),
        Fate::Terminated => assert!(cluster.terminate(leader).await.success()),
        Fate::Moved => {
            let mut former = cluster.client(leader);
            let status = client.status().await.expect("a status");
            let target_id = status.header.map_or(0, |header| header.member_id);
            former
                .maintenance
                .move_leader(MoveLeaderRequest { target_id })
                .await
                .expect("moved");
        }
    }
    let (old, renewed) = wait::until("the new leader to know the leases", async || {
        Some((time_to_live(&client, 1).await?, time_to_live(&client, 2).await?))
    })
    .await;
    assert!(
        (1..=LONG_TTL - 2).contains(&old),
        "{fate:?}: {old} s left: the TTL has not started anew"
    );
    assert!(
        renewed >= old + 3,
        "{fate:?}: {renewed} s left of the renewed one, {old} of the other"
    );
    assert_eq!(keep_alive(&client, 1).await, LONG_TTL);
}

async fn time_to_live(client: &Client, id: i64) -> Option<i64> {
    let ask = LeaseTimeToLiveRequest { id, keys: false };
    let answer = client.clone().lease.lease_time_to_live(ask).await.ok()?;
    Some(answer.into_inner().ttl)
}

async fn keep_alive(client: &Client, id: i64) -> i64 {
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let answers = client.clone().lease.lease_keep_alive(requests).await;
    let answer = answers.expect("a stream").into_inner().message().await;
    answer.expect("an answer").expect("one").ttl
}
