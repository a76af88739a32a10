//! One client's watch stream, as a task: waits for its requests and for its watches, and sends the answers.
//!
//! The queue to the client is bounded. While it is full nothing is taken from the watchers, and a watcher that is
//! not read falls back to the store's history: a slow client costs neither memory nor anybody's time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use prost::Message;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use raft_store::auth::Auth;
use raft_store::watch::{WatchOutput, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::{Status, Streaming};

use super::session::{Limits, Session, Sweep, Ticket};
use crate::api::Api;
use crate::api::interceptor::Caller;
use crate::api::shares::{Client, Held};
use crate::api::status::{self, ApiError};
use crate::telemetry::StreamGauge;

/// Answers that wait for a slow client. Few: each may be as large as a batch of history.
const QUEUE: usize = 8;

/// How long a request for progress waits before it looks again whether all watches have caught up.
const PROGRESS_RETRY: Duration = Duration::from_millis(100);

/// Answers below this size are bounded by their number alone.
const SMALL_ANSWER_BYTES: usize = 16 << 10;

/// What is sent, and what it holds until it is taken.
pub(super) type Answer = (Result<WatchResponse, Status>, Option<Held>);

type Answers = mpsc::Sender<Answer>;

/// Starts the task. It ends when the client goes away, or with a status.
pub(super) fn start(
    api: Arc<Api>,
    caller: Caller,
    requests: Streaming<WatchRequest>,
) -> mpsc::Receiver<Answer> {
    let (answers, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(run(api, caller, requests, answers));
    receiver
}

async fn run(api: Arc<Api>, caller: Caller, requests: Streaming<WatchRequest>, answers: Answers) {
    // The last word has a place of its own, however full the queue is.
    let Ok(last_word) = answers.clone().reserve_owned().await else {
        return;
    };
    let gone = answers.clone();
    let status = tokio::select! {
        ended = WatchStream::new(api.clone(), caller.clone(), requests, answers).serve() => match ended {
            Ended::ClientGone => return,
            Ended::With(status) => status,
        },
        error = api.stream_must_end(&caller) => error.into(),
        () = gone.closed() => return,
    };
    last_word.send((Err(status), None));
}

/// Why a stream is over.
enum Ended {
    ClientGone,
    With(Status),
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Ended {
        Ended::With(error.into())
    }
}

/// A watcher, back from waiting.
struct Woken {
    ticket: Ticket,
    watcher: Watcher,
    nudge: Arc<Notify>,
    place: Held,
    why: Why,
}

enum Why {
    /// `None`: the store has stopped.
    Output(Option<WatchOutput>),
    Nudged,
}

struct WatchStream {
    api: Arc<Api>,
    caller: Caller,
    /// Whose watches these are, as far as is known.
    client: Client,
    /// The users and roles that all watches were last checked against.
    checked: Arc<Auth>,
    requests: Streaming<WatchRequest>,
    answers: Answers,
    gauge: StreamGauge,
    session: Session,
    waiting: FuturesUnordered<BoxFuture<'static, Woken>>,
    /// While a request for progress is looked at, watchers that come back stay here until all are: their
    /// progress is compared while none of them delivers.
    parked: Option<Vec<Parked>>,
    progress_asked: bool,
}

struct Parked {
    ticket: Ticket,
    watcher: Watcher,
    nudge: Arc<Notify>,
    /// Among its client's watches, until it ends.
    place: Held,
}

impl WatchStream {
    fn new(
        api: Arc<Api>,
        caller: Caller,
        requests: Streaming<WatchRequest>,
        answers: Answers,
    ) -> WatchStream {
        let limits = Limits {
            watches: api.options.max_watches_per_stream,
            message_bytes: api.options.max_message_bytes(),
        };
        WatchStream {
            gauge: api.metrics.watch_stream(),
            session: Session::new(limits),
            waiting: FuturesUnordered::new(),
            parked: None,
            progress_asked: false,
            checked: api.node.store().auth(),
            client: caller.client(),
            api,
            caller,
            requests,
            answers,
        }
    }

    async fn serve(mut self) -> Ended {
        match self.serve_until_ended().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn serve_until_ended(&mut self) -> Result<std::convert::Infallible, Ended> {
        let between_notices = with_jitter(self.api.options.progress_notify_interval);
        let mut notices = interval_at(Instant::now() + between_notices, between_notices);
        notices.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retries = tokio::time::interval(PROGRESS_RETRY);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A client that says no more may still listen.
        let mut more_requests = true;
        let mut users = self.api.node.store().auth_changes();
        loop {
            tokio::select! {
                changed = users.changed() => match changed {
                    Ok(()) => self.check_permissions().await?,
                    Err(_) => return Err(ApiError::Stopped.into()),
                },
                request = self.requests.message(), if more_requests => match request {
                    Ok(Some(request)) => self.take_request(request).await?,
                    Ok(None) => more_requests = false,
                    Err(status) => return Err(broken(status)),
                },
                Some(woken) = self.waiting.next() => self.take_woken(woken).await?,
                _ = notices.tick() => self.session.tick(),
                _ = retries.tick(), if self.progress_asked && self.parked.is_none() => self.park_all().await?,
            }
        }
    }

    async fn take_request(&mut self, request: WatchRequest) -> Result<(), Ended> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => {
                let revision = self.api.node.store().revision();
                let cancelled = self.session.cancel(request.watch_id, revision);
                self.gauge.set_watchers(self.session.len());
                if let Some(response) = cancelled {
                    self.send(response).await?;
                }
                self.compare_if_all_are_parked().await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                if self.parked.is_none() {
                    self.park_all().await
                } else {
                    Ok(())
                }
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Ended> {
        let revision = self.api.node.store().revision();
        let (key, range_end) = Session::asked_keys(&request);
        let opened_by = match self.api.admit_watch(&self.caller, &key, &range_end).await {
            Ok(opened_by) => opened_by,
            Err(error) => return self.send(Session::denied(error, revision)).await,
        };
        self.client = self.caller.client_as(opened_by.as_ref());
        let Some(place) = self.api.watches.take(&self.client, 1) else {
            return self
                .send(Session::denied(ApiError::TooManyWatches, revision))
                .await;
        };
        let opened = match self.session.create(&request, opened_by, revision) {
            Ok(opened) => opened,
            Err(refused) => return self.send(*refused).await,
        };
        self.gauge.set_watchers(self.session.len());
        let watcher = self.api.node.store().watch_hub().watch(opened.options);
        self.send(Session::created(opened.ticket, watcher.created_revision()))
            .await?;
        if self.parked.is_some() {
            opened.nudge.notify_one();
        }
        self.wait_for(Parked {
            ticket: opened.ticket,
            watcher,
            nudge: opened.nudge,
            place,
        });
        Ok(())
    }

    /// Ends the watches that users or roles no longer allow, if any changed.
    async fn check_permissions(&mut self) -> Result<(), Ended> {
        let store = self.api.node.store();
        let now = store.auth();
        if Arc::ptr_eq(&now, &self.checked) {
            return Ok(());
        }
        self.checked = now;
        let (api, caller) = (&self.api, &self.caller);
        let ended = self.session.revoke(
            |opened_by, key, range_end| api.may_watch(caller, opened_by, key, range_end),
            store.revision(),
        );
        self.gauge.set_watchers(self.session.len());
        for response in ended {
            self.send(response).await?;
        }
        Ok(())
    }

    fn wait_for(&self, parked: Parked) {
        let Parked {
            ticket,
            mut watcher,
            nudge,
            place,
        } = parked;
        self.waiting.push(Box::pin(async move {
            // Receiving may be given up at any point where it waits: nothing is in its hands there.
            let why = tokio::select! {
                biased;
                output = watcher.recv() => Why::Output(output),
                () = nudge.notified() => Why::Nudged,
            };
            Woken {
                ticket,
                watcher,
                nudge,
                place,
                why,
            }
        }));
    }

    async fn take_woken(&mut self, woken: Woken) -> Result<(), Ended> {
        let Woken {
            ticket,
            watcher,
            nudge,
            place,
            why,
        } = woken;
        match why {
            Why::Output(None) => return Err(ApiError::Stopped.into()),
            Why::Output(Some(output)) => {
                // An event is published after the users and roles of its position: nothing forbidden gets out.
                self.check_permissions().await?;
                for response in self.session.deliver(ticket, output) {
                    self.send(response).await?;
                }
            }
            Why::Nudged => {
                if let Some(response) = self.session.notice(ticket, watcher.progress()) {
                    self.send(response).await?;
                }
            }
        }
        if self.session.has(ticket) {
            let parked = Parked {
                ticket,
                watcher,
                nudge,
                place,
            };
            match &mut self.parked {
                Some(all) => all.push(parked),
                None => self.wait_for(parked),
            }
        }
        self.gauge.set_watchers(self.session.len());
        self.compare_if_all_are_parked().await
    }

    /// Calls all watchers back, to compare their progress.
    async fn park_all(&mut self) -> Result<(), Ended> {
        self.parked = Some(Vec::with_capacity(self.session.len()));
        self.session.nudge_all();
        self.compare_if_all_are_parked().await
    }

    async fn compare_if_all_are_parked(&mut self) -> Result<(), Ended> {
        let Some(mut parked) = self.parked.take() else {
            return Ok(());
        };
        parked.retain(|parked| self.session.has(parked.ticket));
        if parked.len() < self.session.len() {
            self.parked = Some(parked);
            return Ok(());
        }
        let progress = parked.iter().map(|one| (one.ticket, one.watcher.progress()));
        let sweep = self.session.sweep(progress, self.api.node.store().revision());
        for parked in parked {
            self.wait_for(parked);
        }
        self.progress_asked = sweep == Sweep::Behind;
        match sweep {
            Sweep::CaughtUp(revision) => self.send(Session::progress(revision)).await,
            Sweep::Behind | Sweep::Never => Ok(()),
        }
    }

    async fn send(&mut self, response: WatchResponse) -> Result<(), Ended> {
        let revision = response
            .header
            .map_or(0, |header: ResponseHeader| header.revision);
        let response = WatchResponse {
            header: self.api.header_at(revision),
            ..response
        };
        let bytes = response.encoded_len();
        let held = match bytes <= SMALL_ANSWER_BYTES {
            true => None,
            false => {
                let held = self.api.bytes.take_some(&self.client, bytes);
                if held.is_none() {
                    // One at a time, then: a client that takes its answers gets on, whatever others leave lying.
                    let empty = self.answers.reserve_many(QUEUE - 1).await;
                    drop(empty.map_err(|_| Ended::ClientGone)?);
                }
                held
            }
        };
        let sent = self.answers.send((Ok(response), held)).await;
        sent.map_err(|_| Ended::ClientGone)
    }
}

/// What the client's own stream failed with: it usually has gone.
fn broken(status: Status) -> Ended {
    Ended::With(status::too_large_message(&status).unwrap_or(status))
}

/// Up to a tenth more, so that streams that began together do not speak together.
fn with_jitter(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
