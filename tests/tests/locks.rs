//! Locks and elections: the services, `etcdctl` beside them, and what is left when members and clients go.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use etcd_client::{Client, EventType, LockOptions, ProclaimOptions, ResignOptions, WatchOptions};
use tests::cluster::{Cluster, Subject};
use tests::tools::EtcdVersion;
use tests::{notes, wait};

const CONTENDERS: usize = 12;
const ROUNDS: usize = 3;

async fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.endpoints(), None)
        .await
        .expect("connect to all")
}

async fn lease(client: &mut Client, ttl_seconds: i64) -> i64 {
    client
        .lease_grant(ttl_seconds, None)
        .await
        .expect("grant a lease")
        .id()
}

async fn keys(client: &mut Client, prefix: &str) -> Vec<String> {
    let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
    let found = client.get(prefix, Some(options)).await.expect("get a prefix");
    found
        .kvs()
        .iter()
        .map(|kv| kv.key_str().expect("text").to_owned())
        .collect()
}

/// Many take one lock in turn while the leader is killed: never two at once by the store's own order, and all get it.
#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_over_a_leader_kill() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let mut contenders = tokio::task::JoinSet::new();
    for contender in 0..CONTENDERS {
        let (endpoints, taken) = (cluster.endpoints(), taken.clone());
        contenders.spawn(async move {
            let mut client = Client::connect(endpoints, None).await.expect("connect");
            for round in 0..ROUNDS {
                critical_section(&mut client, &format!("{contender}-{round}")).await;
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    wait::until("the lock to have been taken a few times", async || {
        (taken.load(Ordering::Relaxed) >= CONTENDERS / 2).then_some(())
    })
    .await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    wait::until("the others to go on", async || {
        (taken.load(Ordering::Relaxed) >= CONTENDERS * 2).then_some(())
    })
    .await;
    cluster.start(leader);
    while let Some(ended) = contenders.join_next().await {
        ended.expect("every contender gets its turns");
    }
    cluster.ready().await;
    let mut client = connect(&cluster).await;
    check_turns(&mut client).await;
    wait::until("no place to be left in the queue", async || {
        keys(&mut client.clone(), "mutex/").await.is_empty().then_some(())
    })
    .await;
}

/// One turn: takes the lock, writes down that it came and went as long as its lock was there, and unlocks. Tried
/// again with a new lease until it went through.
async fn critical_section(client: &mut Client, name: &str) {
    loop {
        let Ok(granted) = client.lease_grant(60, None).await else {
            continue;
        };
        let locked = client
            .lock("mutex", Some(LockOptions::new().with_lease(granted.id())))
            .await;
        let done = match &locked {
            Ok(locked) => {
                let entered = guarded_put(client, locked.key(), &format!("in {name}")).await;
                entered && guarded_put(client, locked.key(), &format!("out {name}")).await
            }
            Err(_) => false,
        };
        // Takes the key along, wherever the call came to.
        while client.lease_revoke(granted.id()).await.is_err() {
            if client
                .lease_time_to_live(granted.id(), None)
                .await
                .is_ok_and(|left| left.ttl() < 0)
            {
                break;
            }
        }
        if done {
            return;
        }
    }
}

/// Writes to the journal, if the lock is still held: true when it was written.
async fn guarded_put(client: &mut Client, lock: &[u8], text: &str) -> bool {
    use etcd_client::{Compare, CompareOp, Txn, TxnOp};
    let txn = Txn::new()
        .when([Compare::create_revision(lock.to_vec(), CompareOp::Greater, 0)])
        .and_then([TxnOp::put("journal", text, None)]);
    client.txn(txn).await.is_ok_and(|done| done.succeeded())
}

/// In the journal's order nobody comes in between another's coming and going, except after one who came and was lost.
async fn check_turns(client: &mut Client) {
    let options = WatchOptions::new().with_start_revision(1);
    let mut journal = client.watch("journal", Some(options)).await.expect("watch");
    let mut finished: BTreeMap<String, usize> = BTreeMap::new();
    let mut inside: Option<String> = None;
    while finished.len() < CONTENDERS * ROUNDS {
        let next = tokio::time::timeout(wait::PATIENCE, journal.message()).await;
        let message = next
            .expect("the journal in time")
            .expect("a message")
            .expect("more of it");
        for event in message.events() {
            assert_eq!(event.event_type(), EventType::Put);
            let text = event.kv().expect("a key").value_str().expect("text").to_owned();
            match text.split_once(' ') {
                Some(("in", name)) => inside = Some(name.to_owned()),
                Some(("out", name)) => {
                    assert_eq!(inside.as_deref(), Some(name), "left while another was inside");
                    inside = None;
                    *finished.entry(name.to_owned()).or_default() += 1;
                }
                _ => panic!("{text} in the journal"),
            }
        }
    }
}

/// The service, and `etcdctl lock`, which does without it, wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_waits_in_the_same_queue() {
    let Some(etcdctl) = EtcdVersion::V3_5.program("etcdctl") else {
        notes::skipped("no etcdctl 3.5");
        return;
    };
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let mut client = connect(&cluster).await;
    let first = lease(&mut client, 60).await;
    let held = client
        .lock("shared", Some(LockOptions::new().with_lease(first)))
        .await
        .expect("lock");
    assert_eq!(held.key(), format!("shared/{first:x}").as_bytes());

    let marker = cluster.folder().join("etcdctl-has-it");
    let mut other = tokio::process::Command::new(etcdctl)
        .args([
            "--endpoints",
            &cluster.endpoints().join(","),
            "lock",
            "shared",
            "touch",
        ])
        .arg(&marker)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("run etcdctl");
    wait::until("etcdctl to stand in the queue", async || {
        (keys(&mut client.clone(), "shared/").await.len() == 2).then_some(())
    })
    .await;
    assert!(!marker.exists(), "etcdctl took a lock that is held");

    // The third in the queue is a call of ours: it has to wait for etcdctl.
    let third = lease(&mut client, 60).await;
    let got_it = Arc::new(AtomicBool::new(false));
    let waiting = {
        let (mut client, got_it) = (client.clone(), got_it.clone());
        tokio::spawn(async move {
            let locked = client
                .lock("shared", Some(LockOptions::new().with_lease(third)))
                .await;
            got_it.store(true, Ordering::Relaxed);
            locked
        })
    };
    wait::until("our second call to stand in the queue", async || {
        (keys(&mut client.clone(), "shared/").await.len() == 3).then_some(())
    })
    .await;
    assert!(!got_it.load(Ordering::Relaxed));
    client.unlock(held.key()).await.expect("unlock");
    let status = tokio::time::timeout(wait::PATIENCE, other.wait()).await;
    assert!(status.expect("etcdctl in time").expect("an exit").success());
    assert!(marker.exists());
    let locked = tokio::time::timeout(wait::PATIENCE, waiting).await;
    let locked = locked.expect("our turn in time").expect("a task").expect("lock");
    assert_eq!(locked.key(), format!("shared/{third:x}").as_bytes());
}

/// A call that nobody waits for any more leaves the queue; one whose lease is over says so.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_given_up() {
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let mut client = connect(&cluster).await;
    let first = lease(&mut client, 60).await;
    client
        .lock("left", Some(LockOptions::new().with_lease(first)))
        .await
        .expect("lock");
    let wait_for_it = |lease: i64| {
        let mut client = client.clone();
        tokio::spawn(async move {
            client
                .lock("left", Some(LockOptions::new().with_lease(lease)))
                .await
        })
    };
    let in_the_queue = async |count: usize| {
        wait::until(&format!("{count} in the queue"), async || {
            (keys(&mut client.clone(), "left/").await.len() == count).then_some(())
        })
        .await;
    };
    let leaves = wait_for_it(lease(&mut client.clone(), 60).await);
    in_the_queue(2).await;
    leaves.abort();
    in_the_queue(1).await;

    let lost = lease(&mut client.clone(), 60).await;
    let waiting = wait_for_it(lost);
    in_the_queue(2).await;
    client.clone().lease_revoke(lost).await.expect("revoke");
    let told = tokio::time::timeout(wait::PATIENCE, waiting).await;
    let told = told
        .expect("an answer in time")
        .expect("a task")
        .expect_err("no lock");
    assert!(told.to_string().contains("mutex: session is expired"), "{told}");
}

/// Leaders come and go, and an observer sees each.
#[tokio::test(flavor = "multi_thread")]
async fn an_election() {
    for subject in [Some(Subject::agent()), Subject::etcd()].into_iter().flatten() {
        election(&subject).await;
    }
}

async fn election(subject: &Subject) {
    let cluster = Cluster::builder(subject, 3).start().await;
    let mut client = connect(&cluster).await;
    let observing = {
        let mut client = client.clone();
        // etcd begins its answer, headers and all, when there is a leader.
        tokio::spawn(async move { client.observe("who").await })
    };
    let (first, second) = (lease(&mut client, 60).await, lease(&mut client, 60).await);
    let campaign = |value: &'static str, lease: i64| {
        let mut client = client.clone();
        tokio::spawn(async move { client.campaign("who", value, lease).await })
    };
    let elected = campaign("one", first).await.expect("a task").expect("elected");
    let mut observed = observing.await.expect("a task").expect("observe");
    let mut next = async || {
        let next = tokio::time::timeout(wait::PATIENCE, observed.message()).await;
        let answer = next
            .expect("a leader in time")
            .expect("an answer")
            .expect("another");
        let kv = answer.kv().expect("a key");
        kv.value_str().expect("text").to_owned()
    };
    let one = elected.leader().expect("a leader key").clone();
    assert_eq!(one.key(), format!("who/{first:x}").as_bytes());
    assert_eq!(next().await, "one");

    let waiting = campaign("two", second);
    wait::until("the second to stand for election", async || {
        (keys(&mut client.clone(), "who/").await.len() == 2).then_some(())
    })
    .await;
    let mut speaker = client.clone();
    speaker
        .proclaim("one again", Some(ProclaimOptions::new().with_leader(one.clone())))
        .await
        .expect("proclaim");
    assert_eq!(next().await, "one again");
    let leader = speaker.leader("who").await.expect("a leader");
    assert_eq!(leader.kv().expect("a key").value(), b"one again");

    speaker
        .resign(Some(ResignOptions::new().with_leader(one.clone())))
        .await
        .expect("resign");
    let elected = tokio::time::timeout(wait::PATIENCE, waiting).await;
    elected
        .expect("elected in time")
        .expect("a task")
        .expect("elected");
    assert_eq!(next().await, "two");
    let refused = speaker
        .proclaim("too late", Some(ProclaimOptions::new().with_leader(one)))
        .await
        .expect_err("no leader any more");
    assert!(refused.to_string().contains("election: not leader"), "{refused}");

    speaker.lease_revoke(second).await.expect("revoke");
    let nobody = speaker.leader("who").await.expect_err("nobody leads");
    assert!(nobody.to_string().contains("election: no leader"), "{nobody}");
}
