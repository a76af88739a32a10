//! One watch stream of one subject, and what came of it.
//!
//! Events of different watches come in any order, and catching up may put several revisions into one response: what
//! must be equal is what each watch is told, in order. That a revision is not split over responses is checked here,
//! of both subjects alike.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tests::client::Client;
use tests::show;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// etcd does not answer a request for progress while a watch catches up: it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(30);
const REQUESTS_IN_FLIGHT: usize = 16;
const RESPONSES_IN_FLIGHT: usize = 4096;

/// In answers that are about no watch, or about all of them.
const NO_WATCH: i64 = -1;

/// What each watch of a stream was told, one line each.
pub(crate) type Told = BTreeMap<i64, Vec<String>>;

pub(crate) struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    responses: mpsc::Receiver<Result<WatchResponse, Status>>,
    told: Told,
    /// Watches that are, with their start revisions.
    live: BTreeMap<i64, i64>,
    /// Watches that a compaction has ended, and that the client has not put away yet.
    compacted: Vec<i64>,
    /// The start revision of the watch that is being created.
    creating: i64,
    answered_creates: usize,
    /// The watch that the last one to be created became, if it was not refused.
    created: Option<i64>,
    /// The next refusal is the fence's, which is none of the steps.
    fencing: bool,
    /// The greatest revision of an answer to a request for progress.
    progress: i64,
    /// The last revision a watch has seen, and whether its response was a piece of one.
    seen: BTreeMap<i64, (i64, bool)>,
    ended: bool,
}

impl WatchStream {
    pub(crate) fn open(client: &Client, token: Option<&str>) -> WatchStream {
        let (requests, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
        let (sender, responses) = mpsc::channel(RESPONSES_IN_FLIGHT);
        let mut call = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            call.metadata_mut().insert("token", token);
        }
        // etcd answers the call itself only with its first response: nothing may wait for that here.
        tokio::spawn(forward(client.clone(), call, sender));
        WatchStream {
            requests,
            responses,
            told: Told::new(),
            live: BTreeMap::new(),
            compacted: Vec::new(),
            creating: 0,
            answered_creates: 0,
            created: None,
            fencing: false,
            progress: 0,
            seen: BTreeMap::new(),
            ended: false,
        }
    }

    /// The start of the watch that begins last.
    pub(crate) fn last_start(&self) -> i64 {
        self.live.values().copied().max().unwrap_or(0)
    }

    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    /// Creates a watch and waits until it is; if its start is `compacted`, until it is canceled for that: what it is told
    /// then is where the store is compacted, which may soon be further on.
    pub(crate) async fn create(&mut self, request: WatchCreateRequest, compacted: bool) {
        self.creating = request.start_revision;
        // What was answered before says nothing about this one.
        self.progress = 0;
        let answers = self.answered_creates + 1;
        self.send(RequestUnion::CreateRequest(request)).await;
        self.receive_until("created", PATIENCE, |stream| stream.answered_creates >= answers)
            .await;
        if compacted {
            let is_told =
                |stream: &WatchStream| stream.created.is_none_or(|id| !stream.live.contains_key(&id));
            self.receive_until("compacted", PATIENCE, is_told).await;
        }
    }

    /// Cancels a watch. An unknown id is not answered: another answer, which comes after it, tells.
    pub(crate) async fn cancel(&mut self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
        self.fence().await;
    }

    /// Waits until every watch has been told all up to this revision.
    pub(crate) async fn sync(&mut self, revision: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.put_compacted_away().await;
            if self.live.is_empty() || self.ended {
                return;
            }
            self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
                .await;
            let done = |stream: &WatchStream| {
                stream.progress >= revision || stream.live.is_empty() || !stream.compacted.is_empty()
            };
            if self.receive(ASK_AGAIN, done).await && self.progress >= revision {
                return;
            }
            if Instant::now() > deadline {
                self.tell(NO_WATCH, format!("never caught up with {revision}"));
                return;
            }
        }
    }

    /// What the last answer to a request for progress said.
    pub(crate) fn progress(&self) -> i64 {
        self.progress
    }

    /// etcd keeps a compacted watch's id until the client cancels it, and answers no request for progress until then.
    async fn put_compacted_away(&mut self) {
        while let Some(watch_id) = self.compacted.pop() {
            self.cancel(watch_id).await;
        }
    }

    /// A watch of an empty range is refused, in the order of the requests.
    async fn fence(&mut self) {
        let request = WatchCreateRequest {
            key: "b".into(),
            range_end: "a".into(),
            ..WatchCreateRequest::default()
        };
        let answers = self.answered_creates + 1;
        self.fencing = true;
        self.send(RequestUnion::CreateRequest(request)).await;
        self.receive_until("the fence", PATIENCE, |stream| stream.answered_creates >= answers)
            .await;
    }

    async fn send(&mut self, union: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(union),
        };
        // A stream that has ended says so itself.
        let _ = self.requests.send(request).await;
    }

    async fn receive_until(&mut self, what: &str, patience: Duration, done: impl Fn(&WatchStream) -> bool) {
        if !self.receive(patience, done).await && !self.ended {
            self.tell(NO_WATCH, format!("no answer: {what}"));
        }
    }

    /// Whether it was done before the time was over.
    async fn receive(&mut self, patience: Duration, done: impl Fn(&WatchStream) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !done(self) {
            if self.ended {
                return false;
            }
            match timeout_at(deadline, self.responses.recv()).await {
                Ok(Some(Ok(response))) => self.take(&response),
                Ok(Some(Err(status))) => {
                    self.ended = true;
                    self.tell(NO_WATCH, format!("ended: {}", show::status(&status)));
                }
                Ok(None) => {
                    self.ended = true;
                    self.tell(NO_WATCH, "ended".to_owned());
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, response: &WatchResponse) {
        let id = response.watch_id;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if id == NO_WATCH && !response.created && !response.canceled {
            self.progress = self.progress.max(revision);
            return;
        }
        if response.created && response.canceled && std::mem::take(&mut self.fencing) {
            self.answered_creates += 1;
            return;
        }
        if response.created {
            self.answered_creates += 1;
            self.created = (!response.canceled).then_some(id);
            if !response.canceled {
                self.live.insert(id, self.creating);
                self.seen.remove(&id);
            }
        }
        if response.canceled {
            self.live.remove(&id);
            if response.compact_revision != 0 {
                self.compacted.push(id);
            }
        }
        if response.events.is_empty() {
            self.tell(id, show::watch(response));
        } else {
            self.take_events(response, revision);
        }
    }

    fn take_events(&mut self, response: &WatchResponse, header_revision: i64) {
        let id = response.watch_id;
        for (nth, event) in response.events.iter().enumerate() {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let (last, in_pieces) = self.seen.get(&id).copied().unwrap_or_default();
            if revision < last || (nth == 0 && revision == last && !in_pieces) {
                self.tell(id, format!("revision {revision} again, after {last}"));
            }
            if revision > header_revision {
                self.tell(
                    id,
                    format!("revision {revision} in a response of {header_revision}"),
                );
            }
            self.seen.insert(id, (revision, response.fragment));
            self.tell(id, show::event(event));
        }
    }

    fn tell(&mut self, id: i64, line: String) {
        self.told.entry(id).or_default().push(line);
    }
}

async fn forward(
    mut client: Client,
    call: Request<ReceiverStream<WatchRequest>>,
    responses: mpsc::Sender<Result<WatchResponse, Status>>,
) {
    let mut stream = match client.watch.watch(call).await {
        Ok(stream) => stream.into_inner(),
        Err(refused) => {
            let _ = responses.send(Err(refused)).await;
            return;
        }
    };
    while let Some(response) = stream.message().await.transpose() {
        let ended = response.is_err();
        if responses.send(response).await.is_err() || ended {
            return;
        }
    }
}
