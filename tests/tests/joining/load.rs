//! Clients that put and watch without pause over TLS, on connections that they keep and on new ones, and take no
//! failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tests::client::Client;
use tests::wait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Identity;
use crate::site::Site;

const KEY: &str = "load";

/// Runs until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    putters: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
}

/// What has been done so far.
#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    connections: AtomicU64,
    watches: AtomicU64,
}

/// What was done without a failure.
pub(crate) struct Done {
    puts: u64,
    fresh_connections: u64,
    fresh_watches: u64,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Done {
            puts,
            fresh_connections,
            fresh_watches,
        } = self;
        write!(
            f,
            "{puts} puts, {fresh_connections} of them on connections of their own, and {fresh_watches} watches begun on \
             others"
        )
    }
}

impl Load {
    /// At every host: one client that keeps its connection, one that puts over a new one each time, one that begins a
    /// watch over a new one each time, and one watch that lasts.
    pub(crate) fn start(site: &Site, identity: &Identity) -> Load {
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let (mut putters, mut watchers) = (Vec::new(), Vec::new());
        for host in &site.hosts {
            let url = host.client_url.clone();
            let kept = keep_putting(identity.client(&url), stop.clone(), counts.clone());
            putters.push(tokio::spawn(kept));
            let fresh = put_anew(identity.clone(), url.clone(), stop.clone(), counts.clone());
            putters.push(tokio::spawn(fresh));
            let fresh = watch_anew(identity.clone(), url.clone(), stop.clone(), counts.clone());
            watchers.push(tokio::spawn(fresh));
            watchers.push(tokio::spawn(keep_watching(
                identity.client(&url),
                stop.clone(),
                counts.clone(),
            )));
        }
        Load {
            stop,
            counts,
            putters,
            watchers,
        }
    }

    /// Waits until so many more were put over connections of their own.
    pub(crate) async fn progress(&self, more: u64) {
        let before = self.counts.connections.load(Ordering::Relaxed);
        wait::until("the load to go on", async || {
            let now = self.counts.connections.load(Ordering::Relaxed);
            let is_over = self
                .putters
                .iter()
                .chain(&self.watchers)
                .any(JoinHandle::is_finished);
            assert!(!is_over, "a request has failed");
            (now >= before + more).then_some(())
        })
        .await;
    }

    /// Stops, and fails where anything has failed, or a watch has missed an event.
    pub(crate) async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        for putter in self.putters {
            putter.await.expect("no put fails");
        }
        for watcher in self.watchers {
            watcher.await.expect("no watch fails");
        }
        Done {
            puts: self.counts.puts.load(Ordering::Relaxed),
            fresh_connections: self.counts.connections.load(Ordering::Relaxed),
            fresh_watches: self.counts.watches.load(Ordering::Relaxed),
        }
    }
}

async fn keep_putting(mut client: Client, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    while !stop.load(Ordering::Relaxed) {
        client
            .put(KEY, b"kept")
            .await
            .expect("a put on a kept connection");
        counts.puts.fetch_add(1, Ordering::Relaxed);
    }
}

async fn put_anew(identity: Identity, url: String, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = identity.client(&url);
        client
            .put(KEY, b"fresh")
            .await
            .expect("a put on a new connection");
        counts.puts.fetch_add(1, Ordering::Relaxed);
        counts.connections.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sees every revision of the key once and in order, to the end.
async fn keep_watching(client: Client, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    let mut reader = client.clone();
    let (_requests, mut answers) = watch(client, 1).await;
    let (mut version, mut last) = (0, i64::MAX);
    while version < last {
        let answer = answers.message().await.expect("a watch that lasts");
        for event in answer.expect("a watch that lasts").events {
            let kv = event.kv.expect("an event's key");
            assert_eq!(kv.version, version + 1, "an event is missing");
            version = kv.version;
        }
        if stop.load(Ordering::Relaxed) && last == i64::MAX && counts.puts.load(Ordering::Relaxed) > 0 {
            let read = reader.get_within(KEY, wait::PATIENCE).await.expect("a get");
            last = read.kvs.first().map_or(0, |kv| kv.version);
        }
    }
}

async fn watch_anew(identity: Identity, url: String, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    while !stop.load(Ordering::Relaxed) {
        // What is there already comes as an event.
        let (_requests, mut answers) = watch(identity.client(&url), 1).await;
        let answer = answers.message().await.expect("an event on a new connection");
        assert!(!answer.expect("an event").events.is_empty());
        counts.watches.fetch_add(1, Ordering::Relaxed);
    }
}

/// A watch that is created.
async fn watch(
    mut client: Client,
    start_revision: i64,
) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (requests, queue) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: KEY.into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    requests.send(create).await.expect("a queue");
    let stream = client.watch.watch(ReceiverStream::new(queue)).await;
    let mut stream = stream.expect("a watch").into_inner();
    let created = stream.message().await.expect("a watch").expect("a watch");
    assert!(created.created, "{created:?}");
    (requests, stream)
}
