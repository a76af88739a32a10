//! Locks and elections, which the server keeps.

use std::time::Duration;

use etcd_client::{CampaignResponse, Client, GetOptions, LockOptions, ProclaimOptions, ResignOptions};
use tests::cluster::Cluster;

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn check(cluster: &Cluster) {
    let mut client = Client::connect([cluster.endpoint(0)], None)
        .await
        .expect("connect");
    // The rivals ask another member.
    let mut other = Client::connect([cluster.endpoint(1)], None)
        .await
        .expect("connect");
    locks(&mut client, &mut other).await;
    elections(&mut client, &mut other).await;
}

async fn locks(client: &mut Client, other: &mut Client) {
    let leases = [lease(client).await, lease(other).await];
    let first = client
        .lock("mutex", Some(LockOptions::new().with_lease(leases[0])))
        .await
        .expect("lock");
    assert!(first.key().starts_with(b"mutex/"));
    let mut waiting = {
        let mut other = other.clone();
        let options = LockOptions::new().with_lease(leases[1]);
        tokio::spawn(async move { other.lock("mutex", Some(options)).await })
    };
    // The second is in the queue once its key is there.
    let queued = GetOptions::new().with_prefix().with_count_only();
    tests::wait::until("the second to queue", async || {
        let count = client
            .clone()
            .get("mutex/", Some(queued.clone()))
            .await
            .ok()?
            .count();
        (count == 2).then_some(())
    })
    .await;
    assert!(!waiting.is_finished(), "two hold one lock");
    client.unlock(first.key()).await.expect("unlock");
    let second = answer(&mut waiting).await.expect("lock");
    assert_ne!(first.key(), second.key());

    // Whoever loses its lease loses the lock.
    let mut third = {
        let mut client = client.clone();
        let options = LockOptions::new().with_lease(leases[0]);
        tokio::spawn(async move { client.lock("mutex", Some(options)).await })
    };
    other.lease_revoke(leases[1]).await.expect("revoke");
    let third = answer(&mut third).await.expect("lock");
    client.unlock(third.key()).await.expect("unlock");
    let left = client.get("mutex/", Some(GetOptions::new().with_prefix())).await;
    assert_eq!(left.expect("get").count(), 0);
    // Without a lease of the caller's there is one of the server's.
    let own = client.lock("brief", None).await.expect("lock");
    client.unlock(own.key()).await.expect("unlock");
}

async fn elections(client: &mut Client, other: &mut Client) {
    let leases = [lease(client).await, lease(other).await];
    let nobody = client.leader("post").await.expect_err("nobody leads");
    assert!(nobody.to_string().contains("election: no leader"), "{nobody}");
    let first = client.campaign("post", "one", leases[0]).await.expect("campaign");
    let first = leader_of(&first);
    let leads = other.leader("post").await.expect("leader");
    assert_eq!(leads.kv().expect("a leader").value(), b"one");
    assert_eq!(leads.kv().expect("a leader").key(), first.key());
    // Once somebody leads: etcd does not begin its answer to an observer before.
    let mut observed = other.observe("post").await.expect("observe");
    assert_eq!(value(&mut observed).await, b"one");

    let mut waiting = {
        let mut other = other.clone();
        let lease = leases[1];
        tokio::spawn(async move { other.campaign("post", "two", lease).await })
    };
    let still = ProclaimOptions::new().with_leader(first.clone());
    client.proclaim("still one", Some(still)).await.expect("proclaim");
    assert_eq!(value(&mut observed).await, b"still one");
    assert!(!waiting.is_finished(), "two lead");
    client
        .resign(Some(ResignOptions::new().with_leader(first.clone())))
        .await
        .expect("resign");
    let second = answer(&mut waiting).await.expect("campaign");
    assert_eq!(value(&mut observed).await, b"two");
    assert_ne!(leader_of(&second).key(), first.key());
    let late = ProclaimOptions::new().with_leader(first);
    let refused = client
        .proclaim("late", Some(late))
        .await
        .expect_err("it has resigned");
    assert!(
        refused.to_string().contains("election: session expired")
            || refused.to_string().contains("election: not leader"),
        "{refused}"
    );
}

async fn lease(client: &mut Client) -> i64 {
    client.lease_grant(60, None).await.expect("grant").id()
}

fn leader_of(answer: &CampaignResponse) -> etcd_client::LeaderKey {
    answer.leader().expect("a leader's key").clone()
}

async fn value(observed: &mut etcd_client::ObserveStream) -> Vec<u8> {
    let next = tokio::time::timeout(PATIENCE, observed.message())
        .await
        .expect("news of the leader");
    let leader = next.expect("an answer").expect("the stream goes on");
    leader.kv().expect("a leader").value().to_vec()
}

async fn answer<T>(task: &mut tokio::task::JoinHandle<T>) -> T {
    let done = tokio::time::timeout(PATIENCE, task).await;
    done.expect("an answer in time").expect("the task's end")
}
