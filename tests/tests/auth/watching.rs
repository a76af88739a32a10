//! Streams and waits that outlive a permission end with it.

use std::time::Duration;

use proto::authpb::permission::Type::Readwrite;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::*;
use proto::v3electionpb::{CampaignRequest, LeaderRequest};
use proto::v3lockpb::LockRequest;
use tests::client::Client;
use tests::wait;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};

use crate::{Guarded, change_password, delete_user, enable, grant, members, put, range, refused, revoke};

pub(crate) const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

/// A watch that its client leaves open.
pub(crate) async fn watch(client: &Client, key: &str, range_end: &str) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let stream = client.watch.clone().watch(requests).await;
    stream.expect("a stream").into_inner()
}

pub(crate) async fn next<T>(answers: &mut Streaming<T>) -> Result<T, Status> {
    let answer = tokio::time::timeout(Duration::from_secs(20), answers.message()).await;
    Ok(answer.expect("in time")?.expect("not the end"))
}

#[tokio::test]
async fn a_watch_ends_with_its_permission() {
    type Change = for<'a> fn(&'a mut Client) -> futures::future::BoxFuture<'a, ()>;
    let gone = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    let changes: [(&str, Change, &str); 3] = [
        (
            "the permission is revoked",
            |root| Box::pin(revoke(root, "r", "")),
            DENIED,
        ),
        (
            "the password is another",
            |root| Box::pin(change_password(root, "ann", "other")),
            gone,
        ),
        (
            "the user is deleted",
            |root| Box::pin(delete_user(root, "ann")),
            DENIED,
        ),
    ];
    for (what, change, reason) in changes {
        let Guarded {
            cluster: _cluster,
            mut root,
            ann,
        } = Guarded::start(members(1)).await;
        let mut answers = watch(&ann, "r", "").await;
        assert!(next(&mut answers).await.expect("an answer").created);
        root.kv.put(put("r")).await.expect("a put");
        assert_eq!(next(&mut answers).await.expect("an event").events.len(), 1);
        // What is none of its business does not end it.
        crate::add_user(&mut root, "bob", "bob").await;
        root.kv.put(put("r")).await.expect("a put");
        assert_eq!(next(&mut answers).await.expect("an event").events.len(), 1);
        change(&mut root).await;
        root.kv.put(put("r")).await.expect("a put");
        let ended = next(&mut answers).await.expect("the end");
        assert_eq!(
            (
                ended.watch_id,
                ended.canceled,
                ended.cancel_reason.as_str(),
                ended.events.len()
            ),
            (0, true, reason, 0),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_watch_of_nobodys_ends_when_auth_begins() {
    let cluster = members(1).start().await;
    let mut nobody = cluster.client(0);
    let mut answers = watch(&nobody, "r", "").await;
    assert!(next(&mut answers).await.expect("an answer").created);
    enable(&mut nobody).await;
    let ended = next(&mut answers).await.expect("the end");
    assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
    assert_eq!(
        ended.cancel_reason,
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    );
}

/// Root's lock, which ann waits for; and then may not any more.
#[tokio::test]
async fn waiting_for_a_lock_ends_with_the_permission() {
    let Guarded {
        cluster,
        mut root,
        ann,
    } = Guarded::start(members(1)).await;
    grant(&mut root, Readwrite, "lock/", "lock0").await;
    let lock = |lease| LockRequest {
        name: "lock".into(),
        lease,
    };
    root.lock.lock(lock(7)).await.expect("root's lock");
    let mut waiting = ann.clone();
    let waits = tokio::spawn(async move { waiting.lock.lock(lock(0)).await.map(drop) });
    wait::until("ann to wait in the queue", async || {
        let queue = RangeRequest {
            range_end: "lock0".into(),
            ..range("lock/")
        };
        let found = cluster.client(0).kv.range(queue).await.ok()?;
        (found.get_ref().count == 2).then_some(())
    })
    .await;
    revoke(&mut root, "lock/", "lock0").await;
    let answer = tokio::time::timeout(wait::PATIENCE, waits).await;
    let answer = answer.expect("the wait ends").expect("no panic");
    refused(answer, Code::Unknown, "etcdserver: permission denied");
}

#[tokio::test]
async fn observing_an_election_needs_and_ends_with_the_permission() {
    let Guarded {
        cluster: _cluster,
        mut root,
        mut ann,
    } = Guarded::start(members(1)).await;
    let election = || LeaderRequest {
        name: "election".into(),
    };
    let campaign = CampaignRequest {
        name: "election".into(),
        lease: 7,
        value: "root leads".into(),
    };
    root.election.campaign(campaign).await.expect("root leads");
    let mut denied = ann
        .election
        .observe(election())
        .await
        .expect("a stream")
        .into_inner();
    refused(
        next(&mut denied).await,
        Code::Unknown,
        "etcdserver: permission denied",
    );

    grant(
        &mut root,
        proto::authpb::permission::Type::Read,
        "election/",
        "election0",
    )
    .await;
    let mut observed = ann
        .election
        .observe(election())
        .await
        .expect("a stream")
        .into_inner();
    let leader = next(&mut observed)
        .await
        .expect("the leader")
        .kv
        .expect("its key");
    assert_eq!(leader.value.as_ref(), b"root leads");
    revoke(&mut root, "election/", "election0").await;
    refused(
        next(&mut observed).await,
        Code::Unknown,
        "etcdserver: permission denied",
    );
}
