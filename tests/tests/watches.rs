//! Very many watches: each sees every event once and in order, whatever happens, and one slow reader harms nobody.

use std::time::Instant;

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::{notes, wait};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const WATCHES: usize = 1_000;
const CONNECTIONS: usize = 10;
const PUTS: usize = 1_000;
const KEY: &str = "watched";
/// Ends a watch: its value says so.
const LAST: &[u8] = b"last";
const SLOW_READERS: usize = 12;
const SLOW_VALUE_BYTES: usize = 64 << 10;
const SLOW_PUTS: usize = 600;

/// Ten connections with one stream each, and a hundred watches on every stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watches_on_ten_streams() {
    every_event_once(CONNECTIONS, 1, WATCHES / CONNECTIONS).await;
}

/// Ten connections with a hundred streams each, and one watch on every stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_on_ten_connections() {
    every_event_once(CONNECTIONS, WATCHES / CONNECTIONS, 1).await;
}

/// A thousand puts on one key, with the leader killed amidst them; every watch at a follower sees what the history
/// says, and so does a slow one in the end.
async fn every_event_once(connections: usize, streams: usize, watches: usize) {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let leader = cluster.leader().await;
    let followers: Vec<usize> = (0..cluster.len()).filter(|i| *i != leader).collect();
    let mut readers = JoinSet::new();
    for connection in 0..connections {
        let client = cluster.client(followers[connection % followers.len()]);
        for _ in 0..streams {
            let stream = Stream::open(&client, watches).await;
            readers.spawn(stream.read_to_the_last());
        }
    }
    // Reads nothing before all is over.
    let slow = Stream::open(&cluster.client(followers[0]), 1).await;

    let started = Instant::now();
    let acknowledged = put(&mut cluster, &followers, leader).await;
    let put = started.elapsed();
    let history = history(&cluster.client(followers[0])).await;
    assert!(history.len() >= PUTS, "{} events", history.len());
    assert!(acknowledged.iter().all(|revision| history.contains(revision)));
    let mut seen = 0;
    while let Some(read) = readers.join_next().await {
        for revisions in read.expect("a reader") {
            assert_eq!(revisions, history, "every event once and in order");
            seen += 1;
        }
    }
    assert_eq!(seen, WATCHES);
    assert_eq!(slow.read_to_the_last().await, [history]);
    notes::measured(&format!(
        "{connections} connections, {streams} streams on each, {watches} watches on each: {PUTS} puts in {put:.1?}, \
         all seen after {:.1?}",
        started.elapsed()
    ));
}

/// Puts, and kills the leader half-way. The revisions that were acknowledged.
async fn put(cluster: &mut Cluster, followers: &[usize], leader: usize) -> Vec<i64> {
    let mut client = cluster.client(followers[0]);
    let mut acknowledged = Vec::new();
    for i in 0..PUTS {
        if i == PUTS / 2 {
            cluster.kill(leader);
        }
        // One whose outcome is not known is put again: it may be in the history twice.
        acknowledged.push(put_until_acknowledged(&mut client, b"some").await);
    }
    acknowledged.push(put_until_acknowledged(&mut client, LAST).await);
    acknowledged
}

async fn put_until_acknowledged(client: &mut Client, value: &[u8]) -> i64 {
    wait::until("a put to be acknowledged", async || {
        client.clone().put(KEY, value).await.ok()
    })
    .await
}

/// The revisions of the key's events up to the last, as a watch from the beginning tells them.
async fn history(client: &Client) -> Vec<i64> {
    let stream = Stream::open_from(client, 1, 1).await;
    stream.read_to_the_last().await.remove(0)
}

/// One stream with some watches on one key.
struct Stream {
    responses: Streaming<WatchResponse>,
    /// Keeps the stream open.
    _requests: mpsc::Sender<WatchRequest>,
    /// The revisions that each watch has seen, and whether it has seen the last.
    seen: Vec<(Vec<i64>, bool)>,
}

impl Stream {
    async fn open(client: &Client, watches: usize) -> Stream {
        Stream::open_from(client, watches, 0).await
    }

    async fn open_from(client: &Client, watches: usize, start_revision: i64) -> Stream {
        let (requests, stream) = mpsc::channel(watches);
        for _ in 0..watches {
            let create = WatchCreateRequest {
                key: KEY.into(),
                start_revision,
                ..WatchCreateRequest::default()
            };
            let request = WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(create)),
            };
            requests.send(request).await.expect("a request");
        }
        let responses = client.clone().watch.watch(ReceiverStream::new(stream)).await;
        let mut stream = Stream {
            responses: responses.expect("a stream").into_inner(),
            _requests: requests,
            seen: vec![(Vec::new(), false); watches],
        };
        let mut created = 0;
        while created < watches {
            created += usize::from(stream.next().await.created);
        }
        stream
    }

    async fn read_to_the_last(mut self) -> Vec<Vec<i64>> {
        while !self.seen.iter().all(|(_, over)| *over) {
            self.next().await;
        }
        self.seen.into_iter().map(|(revisions, _)| revisions).collect()
    }

    async fn next(&mut self) -> WatchResponse {
        let response = tokio::time::timeout(wait::PATIENCE, self.responses.message()).await;
        let response = response.expect("in time").expect("no error").expect("a response");
        assert!(!response.canceled, "{response:?}");
        let watch = usize::try_from(response.watch_id).expect("a watch");
        for event in &response.events {
            let kv = event.kv.as_ref().expect("a key");
            self.seen[watch].0.push(kv.mod_revision);
            self.seen[watch].1 |= kv.value == LAST;
        }
        response
    }
}

/// Readers that read less than is written cost the member little more than what is under way to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_do_not_grow_the_member() {
    /// Far below what they are behind, together; above what the log and the store keep in memory themselves.
    const GROWTH_MIB: u64 = 400;
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let client = cluster.client(0);
    let mut streams = Vec::new();
    for _ in 0..SLOW_READERS {
        // Each on a connection of its own, so that they do not wait for one another.
        streams.push(Stream::open(&cluster.client(0), 1).await);
    }
    let before = cluster.member(0).resident_mib();
    let value = vec![b'x'; SLOW_VALUE_BYTES];
    for _ in 0..SLOW_PUTS {
        put_until_acknowledged(&mut client.clone(), &value).await;
    }
    put_until_acknowledged(&mut client.clone(), LAST).await;
    // What waited at first is read, and makes room for what is read from history.
    for stream in &mut streams {
        while stream.seen[0].0.len() < SLOW_PUTS / 4 {
            stream.next().await;
        }
    }
    let grown = cluster.member(0).resident_mib().saturating_sub(before);
    let written = (SLOW_PUTS * SLOW_VALUE_BYTES) >> 20;
    notes::measured(&format!(
        "{SLOW_READERS} slow readers, {written} MiB written: the member grew by {grown} MiB"
    ));
    assert!(grown < GROWTH_MIB, "the member grew by {grown} MiB");
    // And they get everything in the end.
    for stream in streams {
        let seen = stream.read_to_the_last().await.remove(0);
        assert_eq!(seen.len(), SLOW_PUTS + 1);
        assert!(seen.is_sorted_by(|a, b| a < b));
    }
}
