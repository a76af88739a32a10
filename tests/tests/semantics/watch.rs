//! Watches. A step does something, and says how many responses must follow it.

use std::time::Duration;

use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::{notes, show};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::ask::{delete_to, put};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS_IN_FLIGHT: usize = 16;
const RESPONSES_KEPT: usize = 256;

/// What a step does.
#[derive(Clone, Debug)]
enum Do {
    Create(WatchCreateRequest),
    Cancel(i64),
    Progress,
    Put(&'static str, &'static str),
    PutOnLease(&'static str, i64),
    Delete(&'static str, &'static str),
    Grant(i64, i64),
    Revoke(i64),
    Compact(i64),
}

/// What the step shows, what it does, how many responses it must bring.
type Step = (&'static str, Do, usize);

mod etcd {
    use super::*;

    async fn check_etcd(golden: &str, steps: Vec<Step>) {
        match Subject::etcd() {
            Some(etcd) => check(&etcd, golden, steps).await,
            None => notes::skipped("no etcd 3.5"),
        }
    }

    #[tokio::test]
    async fn creating() {
        check_etcd("watch-creating", super::creating()).await;
    }

    #[tokio::test]
    async fn events() {
        check_etcd("watch-events", super::events()).await;
    }

    #[tokio::test]
    async fn history() {
        check_etcd("watch-history", super::history()).await;
    }
}

mod agent {
    use super::*;

    #[tokio::test]
    async fn creating() {
        check(&Subject::agent(), "watch-creating", super::creating()).await;
    }

    #[tokio::test]
    async fn events() {
        check(&Subject::agent(), "watch-events", super::events()).await;
    }

    #[tokio::test]
    async fn history() {
        check(&Subject::agent(), "watch-history", super::history()).await;
    }
}

fn watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

fn from(revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest {
        start_revision: revision,
        ..request
    }
}

fn creating() -> Vec<Step> {
    use Do::{Cancel, Create, Delete, Progress, Put};
    vec![
        ("the first chosen id is 0", Create(watch("a", "")), 1),
        ("the next is 1", Create(watch("b", "c")), 1),
        (
            "an id of the client's",
            Create(WatchCreateRequest {
                watch_id: 7,
                ..watch("c", "")
            }),
            1,
        ),
        (
            "an id that is taken",
            Create(WatchCreateRequest {
                watch_id: 7,
                ..watch("d", "")
            }),
            1,
        ),
        ("the end before the key", Create(watch("b", "a")), 1),
        ("the end at the key", Create(watch("b", "b")), 1),
        ("an empty key: the least key", Create(watch("", "")), 1),
        ("progress, when all are caught up", Progress, 1),
        ("one watcher sees a", Put("a", "1"), 1),
        ("canceled", Cancel(0), 1),
        ("and silent", Put("a", "2"), 0),
        ("canceled again: no answer", Cancel(0), 0),
        ("an unknown id: no answer", Cancel(99), 0),
        ("progress", Progress, 1),
        ("the others go on", Put("b", "1"), 1),
        ("the client's too", Put("c", "1"), 1),
        ("a delete of two keys, two watchers", Delete("b", "d"), 2),
        ("a future start", Create(from(20, watch("z", ""))), 1),
        ("nothing before it", Put("z", "1"), 0),
        ("a start at -1", Create(from(-1, watch("n", ""))), 1),
        (
            "a start below that: created, then canceled",
            Create(from(-2, watch("n", ""))),
            2,
        ),
    ]
}

fn events() -> Vec<Step> {
    use Do::{Create, Delete, Grant, Put, PutOnLease, Revoke};
    let filtered = |filter: FilterType| WatchCreateRequest {
        filters: vec![filter.into()],
        ..watch("f", "g")
    };
    vec![
        (
            "all of the keys under a",
            Create(WatchCreateRequest {
                prev_kv: true,
                ..watch("a", "b")
            }),
            1,
        ),
        ("created: none before", Put("a", "1"), 1),
        ("changed: the one before", Put("a", "2"), 1),
        ("another key", Put("a2", "1"), 1),
        ("both deleted, in one response", Delete("a", "b"), 1),
        ("a delete of nothing: no event", Delete("a", "b"), 0),
        ("back again", Put("a", "3"), 1),
        ("a key beside the range", Put("b", "1"), 0),
        ("a lease", Grant(50, 600), 0),
        ("a key on it", PutOnLease("a5", 50), 1),
        ("another", PutOnLease("a4", 50), 1),
        ("a revoke deletes them in one revision, by key", Revoke(50), 1),
        ("a lease of two seconds", Grant(51, 2), 0),
        ("a key on it, created and gone by itself", PutOnLease("a6", 51), 2),
        ("without puts", Create(filtered(FilterType::Noput)), 1),
        ("without deletes", Create(filtered(FilterType::Nodelete)), 1),
        ("only the second sees a put", Put("f", "1"), 1),
        ("only the first sees a delete", Delete("f", ""), 1),
    ]
}

fn history() -> Vec<Step> {
    use Do::{Compact, Create, Delete, Put};
    let before = |request: WatchCreateRequest| WatchCreateRequest {
        prev_kv: true,
        ..request
    };
    vec![
        ("2", Put("a", "1"), 0),
        ("3", Put("a", "2"), 0),
        ("4", Put("b", "1"), 0),
        ("5", Delete("a", "c"), 0),
        ("6", Put("a", "3"), 0),
        ("7", Put("b", "2"), 0),
        (
            "everything from the beginning",
            Create(from(1, before(watch("a", "c")))),
            2,
        ),
        ("from the middle of it", Create(from(5, watch("a", ""))), 2),
        ("new events follow", Put("a", "4"), 2),
        ("compacted up to 5", Compact(5), 0),
        (
            "a start below: created, then canceled",
            Create(from(4, watch("a", ""))),
            2,
        ),
        (
            "a start at the compacted revision sees its delete",
            Create(from(5, before(watch("a", "c")))),
            2,
        ),
        ("a start at -1 too", Create(from(-1, watch("a", ""))), 2),
        ("compacted up to 8", Compact(8), 0),
        ("a start at it", Create(from(8, before(watch("a", "c")))), 2),
        ("the next event has its value before", Put("a", "5"), 4),
    ]
}

async fn check(subject: &Subject, golden: &str, steps: Vec<Step>) {
    let cluster = Cluster::builder(subject, 3).start().await;
    let mut session = Session::start(cluster.client(cluster.follower().await));
    let mut transcript = Transcript::default();
    for (rule, action, responses) in steps {
        let refused = session.act(action).await;
        let mut answer: Vec<String> = session.receive(responses).await;
        answer.extend(refused);
        transcript.push(rule, &answer.join("\n"));
    }
    // Whatever is left comes before the answer to this, or never.
    session.act(Do::Put("last", "")).await;
    transcript.push("what nobody expected", &session.unexpected().await);
    transcript.check(
        subject.name(),
        &format!("semantics/{golden}.txt"),
        subject.is_etcd(),
    );
}

/// A watch stream, and a client beside it.
struct Session {
    client: Client,
    requests: mpsc::Sender<WatchRequest>,
    responses: mpsc::Receiver<Result<WatchResponse, Status>>,
}

impl Session {
    fn start(client: Client) -> Session {
        let (requests, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
        let (sender, responses) = mpsc::channel(RESPONSES_KEPT);
        // etcd answers the call itself only with its first response: nothing may wait for that here.
        tokio::spawn(forward(client.clone(), receiver, sender));
        Session {
            client,
            requests,
            responses,
        }
    }

    /// What the server refused, if it did.
    async fn act(&mut self, action: Do) -> Option<String> {
        let lease_put = |key: &str, lease| PutRequest {
            lease,
            ..put(key, "leased")
        };
        let done = match action {
            Do::Create(create) => return self.request(RequestUnion::CreateRequest(create)).await,
            Do::Cancel(watch_id) => {
                return self
                    .request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
                    .await;
            }
            Do::Progress => {
                return self
                    .request(RequestUnion::ProgressRequest(WatchProgressRequest {}))
                    .await;
            }
            Do::Put(key, value) => self.client.kv.put(put(key, value)).await.map(|_| ()),
            Do::PutOnLease(key, lease) => self.client.kv.put(lease_put(key, lease)).await.map(|_| ()),
            Do::Delete(key, end) => self.client.kv.delete_range(delete_to(key, end)).await.map(|_| ()),
            Do::Grant(id, ttl) => self
                .client
                .lease
                .lease_grant(LeaseGrantRequest { id, ttl })
                .await
                .map(|_| ()),
            Do::Revoke(id) => self
                .client
                .lease
                .lease_revoke(LeaseRevokeRequest { id })
                .await
                .map(|_| ()),
            Do::Compact(revision) => {
                let compact = CompactionRequest {
                    revision,
                    physical: true,
                };
                self.client.kv.compact(compact).await.map(|_| ())
            }
        };
        done.err().map(|refused| show::status(&refused))
    }

    async fn request(&mut self, union: RequestUnion) -> Option<String> {
        let request = WatchRequest {
            request_union: Some(union),
        };
        self.requests
            .send(request)
            .await
            .err()
            .map(|error| error.to_string())
    }

    /// So many responses: a watcher's own in their order, the watchers among themselves in order of their ids.
    async fn receive(&mut self, count: usize) -> Vec<String> {
        let mut received = Vec::new();
        for _ in 0..count {
            match tokio::time::timeout(RESPONSE_TIMEOUT, self.responses.recv()).await {
                Ok(Some(Ok(response))) => received.push((response.watch_id, show::watch(&response))),
                Ok(Some(Err(status))) => received.push((i64::MAX, show::status(&status))),
                Ok(None) => received.push((i64::MAX, "the stream ended".to_owned())),
                Err(_) => received.push((i64::MAX, "no response".to_owned())),
            }
        }
        received.sort_by_key(|(watch_id, _)| *watch_id);
        received.into_iter().map(|(_, text)| text).collect()
    }

    /// What is there besides the answer to one more watcher of a key just written.
    async fn unexpected(&mut self) -> String {
        let mut text = Vec::new();
        self.request(RequestUnion::CreateRequest(WatchCreateRequest {
            watch_id: 500,
            ..watch("last", "")
        }))
        .await;
        loop {
            match tokio::time::timeout(RESPONSE_TIMEOUT, self.responses.recv()).await {
                Ok(Some(Ok(response))) if response.watch_id == 500 => return text.join("\n"),
                Ok(Some(Ok(response))) => text.push(show::watch(&response)),
                other => return format!("{} {other:?}", text.join("\n")),
            }
        }
    }
}

async fn forward(
    mut client: Client,
    requests: mpsc::Receiver<WatchRequest>,
    responses: mpsc::Sender<Result<WatchResponse, Status>>,
) {
    let mut stream = match client.watch.watch(ReceiverStream::new(requests)).await {
        Ok(stream) => stream.into_inner(),
        Err(refused) => {
            let _ = responses.send(Err(refused)).await;
            return;
        }
    };
    while let Some(response) = stream.message().await.transpose() {
        if responses.send(response).await.is_err() {
            return;
        }
    }
}
