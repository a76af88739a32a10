//! The requests that kube-apiserver makes, in its shapes, and the answers that it builds on.

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use tests::client::{Client, prefix_end};
use tests::cluster::{Cluster, Subject};
use tests::wait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const PODS: &str = "/registry/pods/";
/// As kube-apiserver names it: under no resource's prefix.
const COMPACTED: &str = "compact_rev_key";

tests::on_both!(check);

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 3).start().await;
    // Two apiservers, at two members.
    let follower = cluster.follower().await;
    let (mut api, mut other) = (cluster.client(follower), cluster.client(cluster.leader().await));
    supported_version(&mut api).await;
    one_of_two_creates(&mut api, &mut other).await;
    updates_meet(&mut api, &mut other).await;
    pages_are_of_one_revision(&mut api, &mut other).await;
    list_then_watch(&mut api, &mut other).await;
    events_expire(&mut api).await;
    one_of_two_compacts(&mut api, &mut other).await;
}

/// It asks for progress of watches only of releases in which that works.
async fn supported_version(api: &mut Client) {
    let version = api.status().await.expect("status").version;
    let parts: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    assert!(parts.as_slice() >= [3, 5, 13].as_slice(), "{version}");
    let health = api
        .kv
        .range(get("/registry/health"))
        .await
        .expect("read the health key");
    assert!(health.into_inner().kvs.is_empty());
}

async fn one_of_two_creates(api: &mut Client, other: &mut Client) {
    let create =
        |value: &str| when_modified_at("/registry/pods/a", 0, put("/registry/pods/a", value, 0), None);
    let (first, second) = tokio::join!(api.kv.txn(create("one")), other.kv.txn(create("other")));
    let (first, second) = (
        first.expect("txn").into_inner(),
        second.expect("txn").into_inner(),
    );
    assert_ne!(first.succeeded, second.succeeded, "exactly one creates");
    let won = if first.succeeded { &first } else { &second };
    let kv = read(api, "/registry/pods/a").await.expect("the pod");
    assert_eq!((kv.mod_revision, kv.version), (revision(won), 1));
}

async fn updates_meet(api: &mut Client, other: &mut Client) {
    let key = "/registry/pods/a";
    let seen = read(api, key).await.expect("the pod");
    let update = when_modified_at(key, seen.mod_revision, put(key, "updated", 0), Some(get(key)));
    let updated = api.kv.txn(update).await.expect("txn").into_inner();
    assert!(updated.succeeded);

    // The other still has the revision before: it is told what is there now, in the same answer.
    let late = when_modified_at(key, seen.mod_revision, put(key, "late", 0), Some(get(key)));
    let late = other.kv.txn(late).await.expect("txn").into_inner();
    assert!(!late.succeeded);
    let current = found(&late).expect("the pod as it is");
    assert_eq!(current.mod_revision, revision(&updated));
    assert_eq!(current.value, "updated");

    let delete = |at| {
        let delete = DeleteRangeRequest {
            key: key.into(),
            ..Default::default()
        };
        when_modified_at(key, at, Request::RequestDeleteRange(delete), Some(get(key)))
    };
    let stale = other
        .kv
        .txn(delete(seen.mod_revision))
        .await
        .expect("txn")
        .into_inner();
    assert!(!stale.succeeded && found(&stale).is_some());
    let deleted = other
        .kv
        .txn(delete(current.mod_revision))
        .await
        .expect("txn")
        .into_inner();
    assert!(deleted.succeeded);
    assert!(read(api, key).await.is_none());
    let again = other
        .kv
        .txn(delete(current.mod_revision))
        .await
        .expect("txn")
        .into_inner();
    assert!(
        !again.succeeded && found(&again).is_none(),
        "nothing is there to be found"
    );
}

async fn pages_are_of_one_revision(api: &mut Client, other: &mut Client) {
    for i in 0..25 {
        let key = format!("/registry/pods/p{i:02}");
        let create = when_modified_at(&key, 0, put(&key, &i.to_string(), 0), None);
        assert!(api.kv.txn(create).await.expect("txn").into_inner().succeeded);
    }
    let count = RangeRequest {
        count_only: true,
        ..list(PODS, 0, 0)
    };
    let count = api.kv.range(count).await.expect("count").into_inner();
    assert_eq!((count.count, count.kvs.len()), (25, 0));

    let first = api.kv.range(list(PODS, 10, 0)).await.expect("list").into_inner();
    assert!(first.more);
    assert_eq!((first.count, first.kvs.len()), (25, 10));
    let at = first.header.expect("a header").revision;
    let mut keys: Vec<_> = first.kvs.iter().map(|kv| kv.key.clone()).collect();
    // Between two pages the world changes; the list does not.
    other.put("/registry/pods/p00a", b"new").await.expect("put");
    let gone = DeleteRangeRequest {
        key: "/registry/pods/p20".into(),
        ..Default::default()
    };
    other.kv.delete_range(gone).await.expect("delete");
    loop {
        let mut from = keys.last().expect("a key").to_vec();
        from.push(0);
        let page = RangeRequest {
            key: from.into(),
            ..list(PODS, 10, at)
        };
        let page = api.kv.range(page).await.expect("list").into_inner();
        keys.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        if !page.more {
            break;
        }
    }
    let expected: Vec<String> = (0..25).map(|i| format!("/registry/pods/p{i:02}")).collect();
    assert_eq!(keys, expected);
}

/// A cache is filled by a list, kept by a watch from the next revision on, and told how fresh it is.
async fn list_then_watch(api: &mut Client, other: &mut Client) {
    let listed = api.kv.range(list(PODS, 500, 0)).await.expect("list").into_inner();
    let at = listed.header.expect("a header").revision;
    let (ask, mut responses) = watch(api, at + 1).await;
    let created = next(&mut responses).await;
    assert!(created.created && created.events.is_empty());

    let key = "/registry/pods/p01";
    let before = read(other, key).await.expect("the pod");
    let update = when_modified_at(key, before.mod_revision, put(key, "changed", 0), Some(get(key)));
    let updated = revision(&other.kv.txn(update).await.expect("txn").into_inner());
    let delete = DeleteRangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let delete = when_modified_at(key, updated, Request::RequestDeleteRange(delete), Some(get(key)));
    let deleted = revision(&other.kv.txn(delete).await.expect("txn").into_inner());
    other
        .put("/registry/services/s", b"not watched")
        .await
        .expect("put");

    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(next(&mut responses).await.events);
    }
    let (change, end) = (&events[0], &events[1]);
    let kv = change.kv.as_ref().expect("the pod");
    assert_eq!(
        (kv.mod_revision, kv.create_revision),
        (updated, before.create_revision)
    );
    assert_eq!(change.prev_kv.as_ref().expect("the pod before"), &before);
    assert_eq!(end.r#type(), EventType::Delete);
    assert_eq!(end.kv.as_ref().expect("its key").mod_revision, deleted);
    assert_eq!(end.prev_kv.as_ref().expect("the pod before").value, "changed");

    // A consistent read from the cache: it waits until the watch has come as far as the store.
    let now = api
        .kv
        .range(get("/registry/health"))
        .await
        .expect("read")
        .into_inner();
    let now = now.header.expect("a header").revision;
    assert!(now > deleted);
    wait::until("the watch to come as far as the store", async || {
        let progress = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        ask.send(progress).await.ok()
    })
    .await;
    let progress = next(&mut responses).await;
    assert!(progress.events.is_empty());
    assert!(progress.header.expect("a header").revision >= now);
}

/// Kubernetes' events are on a lease that many of them share.
async fn events_expire(api: &mut Client) {
    let lease = api
        .lease
        .lease_grant(LeaseGrantRequest { ttl: 3600, id: 0 })
        .await;
    let lease = lease.expect("grant").into_inner().id;
    for i in 0..3 {
        let key = format!("/registry/events/e{i}");
        let create = when_modified_at(&key, 0, put(&key, "happened", lease), None);
        assert!(api.kv.txn(create).await.expect("txn").into_inner().succeeded);
    }
    let kv = read(api, "/registry/events/e1").await.expect("the event");
    assert_eq!(kv.lease, lease);
    let revoke = proto::etcdserverpb::LeaseRevokeRequest { id: lease };
    api.lease.lease_revoke(revoke).await.expect("revoke");
    let left = api
        .kv
        .range(list("/registry/events/", 500, 0))
        .await
        .expect("list");
    assert_eq!(left.into_inner().count, 0);
}

/// Every apiserver tries every five minutes; the key's version tells who is late.
async fn one_of_two_compacts(api: &mut Client, other: &mut Client) {
    let old = api.kv.range(list(PODS, 1, 0)).await.expect("list").into_inner();
    let old = old.header.expect("a header").revision;
    let claim = |version: i64| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: COMPACTED.into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![op(put(COMPACTED, &old.to_string(), 0))],
        failure: vec![op(Request::RequestRange(get(COMPACTED)))],
    };
    let (first, second) = tokio::join!(api.kv.txn(claim(0)), other.kv.txn(claim(0)));
    let (first, second) = (
        first.expect("txn").into_inner(),
        second.expect("txn").into_inner(),
    );
    assert_ne!(first.succeeded, second.succeeded, "exactly one compacts");
    let late = if first.succeeded { &second } else { &first };
    assert_eq!(found(late).expect("the other's mark").version, 1);
    let compact = CompactionRequest {
        revision: old,
        physical: false,
    };
    api.kv.compact(compact).await.expect("compact");

    // Whoever lists or watches from before has to begin anew.
    let page = other
        .kv
        .range(list(PODS, 10, old - 1))
        .await
        .expect_err("it is gone");
    assert_eq!(page.code(), Code::OutOfRange);
    assert_eq!(
        page.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
    let (_ask, mut responses) = watch(other, old - 1).await;
    let cancelled = loop {
        let response = next(&mut responses).await;
        if !response.created {
            break response;
        }
    };
    assert!(cancelled.canceled);
    assert_eq!(cancelled.compact_revision, old);
    // And whoever begins at that revision has not.
    assert!(other.kv.range(list(PODS, 10, old)).await.is_ok());
}

async fn watch(api: &mut Client, from: i64) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let create = WatchCreateRequest {
        key: PODS.into(),
        range_end: prefix_end(PODS.as_bytes()).into(),
        start_revision: from,
        progress_notify: true,
        prev_kv: true,
        ..Default::default()
    };
    let (ask, requests) = mpsc::channel(4);
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    ask.send(create).await.expect("room for a request");
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    // Its streams end when the member loses its leader.
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("ascii"));
    let responses = api.watch.watch(request).await.expect("watch").into_inner();
    (ask, responses)
}

async fn next(responses: &mut Streaming<WatchResponse>) -> WatchResponse {
    let next = tokio::time::timeout(wait::PATIENCE, responses.message()).await;
    next.expect("a response in time")
        .expect("a response")
        .expect("the stream goes on")
}

async fn read(api: &mut Client, key: &str) -> Option<proto::mvccpb::KeyValue> {
    api.kv.range(get(key)).await.expect("read").into_inner().kvs.pop()
}

fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn list(prefix: &str, limit: i64, revision: i64) -> RangeRequest {
    RangeRequest {
        range_end: prefix_end(prefix.as_bytes()).into(),
        limit,
        revision,
        ..get(prefix)
    }
}

fn put(key: &str, value: &str, lease: i64) -> Request {
    Request::RequestPut(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..Default::default()
    })
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// The one shape of its writes: only as long as the key is as it was read.
fn when_modified_at(key: &str, revision: i64, then: Request, otherwise: Option<RangeRequest>) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        }],
        success: vec![op(then)],
        failure: otherwise.map(Request::RequestRange).map(op).into_iter().collect(),
    }
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().expect("a header").revision
}

/// What the failed branch read.
fn found(answer: &TxnResponse) -> Option<proto::mvccpb::KeyValue> {
    match &answer.responses.first()?.response {
        Some(Response::ResponseRange(range)) => range.kvs.first().cloned(),
        other => panic!("no range in the answer: {other:?}"),
    }
}
