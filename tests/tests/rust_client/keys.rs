//! Keys, transactions, watches and leases.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions, LeaseGrantOptions,
    LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType,
    WatchOptions, WatchStream,
};
use tests::cluster::Cluster;

use crate::message;

pub(crate) async fn check(cluster: &Cluster) {
    let mut client = Client::connect(cluster.endpoints(), None)
        .await
        .expect("connect to all three");
    keys(&mut client).await;
    ranges(&mut client).await;
    transactions(&mut client).await;
    compares(&mut client).await;
    watches(&mut client).await;
    one_stream(&mut client).await;
    leases(&mut client).await;
    compaction(&mut client).await;
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
    let left = client
        .lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await
        .expect("time to live");
    assert_eq!(
        (left.granted_ttl(), left.keys()),
        (600, [b"leased".to_vec()].as_slice())
    );
    let chosen = LeaseGrantOptions::new().with_id(4711);
    assert_eq!(
        client.lease_grant(300, Some(chosen)).await.expect("grant").id(),
        4711
    );
    client.lease_revoke(lease).await.expect("revoke");
    assert!(
        client.get("leased", None).await.expect("get").kvs().is_empty(),
        "gone with its lease"
    );
}

async fn ranges(client: &mut Client) {
    for (key, value) in [("r/a", "3"), ("r/b", "1"), ("r/c", "2")] {
        client.put(key, value, None).await.expect("put");
    }
    let from = client.get("r/c", Some(GetOptions::new().with_from_key())).await;
    assert_eq!(from.expect("get").kvs()[0].key(), b"r/c");
    let range = GetOptions::new().with_range("r/c").with_count_only();
    let counted = client.get("r/a", Some(range)).await.expect("get");
    assert_eq!((counted.count(), counted.kvs().len()), (2, 0));
    let by_value = GetOptions::new()
        .with_prefix()
        .with_keys_only()
        .with_sort(SortTarget::Value, SortOrder::Ascend)
        .with_serializable();
    let sorted = client.get("r/", Some(by_value)).await.expect("get");
    let keys: Vec<&[u8]> = sorted.kvs().iter().map(etcd_client::KeyValue::key).collect();
    assert_eq!(keys, [b"r/b", b"r/c", b"r/a"]);
    assert!(sorted.kvs().iter().all(|kv| kv.value().is_empty()));
    let created = sorted.kvs()[2].create_revision();
    let old = GetOptions::new().with_prefix().with_revision(created);
    let old = client.get("r/", Some(old)).await.expect("get");
    assert_eq!(old.count(), 1, "as of the first put");
    let everything = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await
        .expect("get");
    assert!(everything.count() >= 3);
    let deleted = client
        .delete(
            "r/a",
            Some(DeleteOptions::new().with_range("r/c").with_prev_key()),
        )
        .await
        .expect("delete");
    assert_eq!(deleted.deleted(), 2);
    assert_eq!(deleted.prev_kvs()[0].value(), b"3");
    let refused = client.put("", "1", None).await.expect_err("a key is needed");
    assert_eq!(message(&refused), "etcdserver: key is not provided");
}

async fn compares(client: &mut Client) {
    client.put("c/a", "1", None).await.expect("put");
    let all = Txn::new()
        .when([
            Compare::value("c/a", CompareOp::Equal, "1"),
            Compare::version("c/a", CompareOp::Greater, 0),
            Compare::mod_revision("c/a", CompareOp::NotEqual, 1),
            Compare::lease("c/a", CompareOp::Less, 1),
            Compare::create_revision("c/", CompareOp::Greater, 0).with_prefix(),
        ])
        .and_then([
            TxnOp::put("c/b", "2", Some(PutOptions::new().with_prev_key())),
            TxnOp::delete("c/a", None),
            TxnOp::txn(Txn::new().and_then([TxnOp::get("c/", Some(GetOptions::new().with_prefix()))])),
        ]);
    let answer = client.txn(all).await.expect("txn");
    assert!(answer.succeeded());
    let parts = answer.op_responses();
    assert!(matches!(&parts[0], TxnOpResponse::Put(put) if put.prev_key().is_none()));
    assert!(matches!(&parts[1], TxnOpResponse::Delete(delete) if delete.deleted() == 1));
    let TxnOpResponse::Txn(nested) = &parts[2] else {
        panic!("no nested answer in {answer:?}");
    };
    assert!(matches!(&nested.op_responses()[0], TxnOpResponse::Get(get) if get.count() == 1));
}

/// Several watches on one stream, told apart by their ids.
async fn one_stream(client: &mut Client) {
    let chosen = WatchOptions::new().with_watch_id(7).with_prefix();
    let mut stream = client.watch("s/", Some(chosen)).await.expect("watch");
    assert_eq!(created(&mut stream).await, 7);
    let deletes = WatchOptions::new()
        .with_watch_id(8)
        .with_filters([WatchFilterType::NoPut])
        .with_prev_key();
    stream.watch("s/a", Some(deletes)).await.expect("watch on");
    assert_eq!(created(&mut stream).await, 8);
    client.put("s/a", "1", None).await.expect("put");
    let last = client.delete("s/a", None).await.expect("delete");
    let last = last.header().expect("a header").revision();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let response = next(&mut stream).await;
        for event in response.events() {
            seen.push((response.watch_id(), event.event_type()));
        }
    }
    seen.sort_by_key(|(id, kind)| (*id, *kind == EventType::Delete));
    let put = (7, EventType::Put);
    assert_eq!(seen, [put, (7, EventType::Delete), (8, EventType::Delete)]);

    stream.request_progress().await.expect("ask for progress");
    let progress = next(&mut stream).await;
    assert!(progress.events().is_empty());
    assert!(progress.header().expect("a header").revision() >= last);
    stream.cancel(8).await.expect("cancel");
    let cancelled = next(&mut stream).await;
    assert!(cancelled.canceled() && cancelled.watch_id() == 8);
}

async fn created(stream: &mut WatchStream) -> i64 {
    let response = next(stream).await;
    assert!(response.created());
    response.watch_id()
}

async fn next(stream: &mut WatchStream) -> etcd_client::WatchResponse {
    let response = stream.message().await.expect("a response");
    response.expect("the stream goes on")
}

async fn compaction(client: &mut Client) {
    client.put("old", "1", None).await.expect("put");
    let now = client.put("old", "2", None).await.expect("put");
    let now = now.header().expect("a header").revision();
    let physical = etcd_client::CompactionOptions::new().with_physical();
    client.compact(now, Some(physical)).await.expect("compact");
    let before = GetOptions::new().with_revision(now - 1);
    let refused = client.get("old", Some(before)).await.expect_err("it is gone");
    assert_eq!(
        message(&refused),
        "etcdserver: mvcc: required revision has been compacted"
    );
    let from = WatchOptions::new().with_start_revision(now - 1);
    let mut stream = client.watch("old", Some(from)).await.expect("watch");
    let cancelled = loop {
        let response = next(&mut stream).await;
        if !response.created() {
            break response;
        }
    };
    assert!(cancelled.canceled());
    assert_eq!(cancelled.compact_revision(), now);
}
