//! The `etcd-client` crate, as a program in Rust would use it, on etcd and on the agent.

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    WatchOptions,
};
use tests::cluster::{Cluster, Subject};
use tests::notes;

#[tokio::test]
async fn etcd() {
    match Subject::etcd() {
        Some(etcd) => check(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test]
async fn agent() {
    check(&Subject::agent()).await;
}

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 3).start().await;
    let mut client = Client::connect(cluster.endpoints(), None)
        .await
        .expect("connect to all three");
    keys(&mut client).await;
    transactions(&mut client).await;
    watches(&mut client).await;
    leases(&mut client).await;
    members(&mut client).await;
}

async fn keys(client: &mut Client) {
    for i in 0..10 {
        client
            .put(format!("key/{i}"), format!("value {i}"), None)
            .await
            .expect("put");
    }
    let answer = client.get("key/3", None).await.expect("get");
    assert_eq!(answer.kvs()[0].value_str().expect("text"), "value 3");
    let sorted = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Key, SortOrder::Descend)
        .with_limit(3);
    let answer = client.get("key/", Some(sorted)).await.expect("get a prefix");
    let keys: Vec<&str> = answer
        .kvs()
        .iter()
        .map(|kv| kv.key_str().expect("text"))
        .collect();
    assert_eq!(keys, ["key/9", "key/8", "key/7"]);
    assert!(answer.more());
    assert_eq!(answer.count(), 10);
    let before = client
        .put("key/3", "new", Some(PutOptions::new().with_prev_key()))
        .await
        .expect("put");
    assert_eq!(
        before
            .prev_key()
            .expect("the value before")
            .value_str()
            .expect("text"),
        "value 3"
    );
    let deleted = client.delete("key/3", None).await.expect("delete");
    assert_eq!(deleted.deleted(), 1);
    assert!(client.get("key/3", None).await.expect("get").kvs().is_empty());
}

async fn transactions(client: &mut Client) {
    let create = |value: &str| {
        Txn::new()
            .when([Compare::create_revision("once", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("once", value, None)])
            .or_else([TxnOp::get("once", None)])
    };
    assert!(client.txn(create("first")).await.expect("txn").succeeded());
    let second = client.txn(create("second")).await.expect("txn");
    assert!(!second.succeeded(), "a key is created once");
    assert_eq!(
        client.get("once", None).await.expect("get").kvs()[0].value(),
        b"first"
    );
}

async fn watches(client: &mut Client) {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("watched/", Some(options)).await.expect("watch");
    client.put("watched/a", "1", None).await.expect("put");
    client.delete("watched/a", None).await.expect("delete");
    let mut events = Vec::new();
    let mut watch_id = -1;
    while events.len() < 2 {
        let response = stream
            .message()
            .await
            .expect("a response")
            .expect("the stream goes on");
        watch_id = response.watch_id();
        events.extend(response.events().iter().map(|event| {
            let before = event.prev_kv().map(|kv| kv.value().to_vec());
            (event.event_type(), event.kv().map(|kv| kv.key().to_vec()), before)
        }));
    }
    let key = Some(b"watched/a".to_vec());
    assert_eq!(events[0], (EventType::Put, key.clone(), None));
    assert_eq!(events[1], (EventType::Delete, key, Some(b"1".to_vec())));
    stream.cancel(watch_id).await.expect("cancel");
}

async fn leases(client: &mut Client) {
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    client
        .put("leased", "1", Some(PutOptions::new().with_lease(lease)))
        .await
        .expect("put");
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await.expect("keep alive");
    keeper.keep_alive().await.expect("ask");
    assert_eq!(
        answers
            .message()
            .await
            .expect("an answer")
            .expect("the stream goes on")
            .ttl(),
        600
    );
    let ids: Vec<i64> = client
        .leases()
        .await
        .expect("leases")
        .leases()
        .iter()
        .map(etcd_client::LeaseStatus::id)
        .collect();
    assert!(ids.contains(&lease));
    client.lease_revoke(lease).await.expect("revoke");
    assert!(
        client.get("leased", None).await.expect("get").kvs().is_empty(),
        "gone with its lease"
    );
}

async fn members(client: &mut Client) {
    let status = client.status().await.expect("status");
    let members = client.member_list().await.expect("members");
    assert_eq!(members.members().len(), 3);
    assert!(
        members
            .members()
            .iter()
            .any(|member| member.id() == status.leader())
    );
}
