//! Runs a sequence on one subject and keeps what it said, in a form that both subjects can say alike.
//!
//! Ids of members and clusters and terms are not kept. Everything is asked in order, each answer awaited, except for
//! neighbours that only read. The members of a cluster take turns: no answer may depend on which one is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest, ResponseHeader,
};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::show;
use tonic::{Request, Status};

use crate::auth::Tokens;
use crate::op::{Op, Place, Put};
use crate::stream::{Told, WatchStream};
use crate::wire::bytes;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A lease below this, in seconds, could run out within the sequence.
const SHORT_TTL: i64 = 60;
/// Ids that are asked for are small; a greater one was chosen by the server.
const GREATEST_ASKED_LEASE: i64 = 1 << 16;
/// A member that is behind is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Put where watches wait for a revision to come.
const MARKER: &str = "~";

/// What a step was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// What time has a part in: the seconds that a lease has left.
    pub(crate) seconds: Option<i64>,
}

/// Everything a subject said to a sequence.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// One for each step.
    pub(crate) answers: Vec<Answer>,
    /// By the number of the stream and the user it was opened by.
    pub(crate) streams: BTreeMap<(usize, String), Told>,
    /// Where the store was afterwards.
    pub(crate) place: Place,
}

/// A subject, and where it is.
pub(crate) struct Runner {
    clients: Vec<Client>,
    place: Place,
    turn: usize,
    /// Who took the last step that may have written: what reads its own state only is asked of it.
    writer: usize,
    streams: BTreeMap<(usize, String), WatchStream>,
    tokens: Tokens,
}

/// An answer, and the revision in its header.
type Said = Result<(Answer, i64), Status>;

impl Runner {
    pub(crate) fn new(cluster: &Cluster) -> Runner {
        Runner {
            clients: (0..cluster.len()).map(|i| cluster.client(i)).collect(),
            place: Place {
                revision: 1,
                compacted: 0,
            },
            turn: 0,
            writer: 0,
            streams: BTreeMap::new(),
            tokens: Tokens::default(),
        }
    }

    /// Runs a sequence, and then makes the store as empty as it was before.
    pub(crate) async fn run(&mut self, ops: &[Op]) -> Run {
        let mut answers = Vec::with_capacity(ops.len());
        let mut rest = ops;
        while let Some(op) = rest.first() {
            let reads = rest.iter().take_while(|op| op.only_reads()).count();
            let taken = if reads > 1 {
                let (together, _) = rest.split_at(reads);
                answers.extend(self.read_all(together).await);
                reads
            } else {
                answers.push(self.step(op).await);
                1
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        self.sync_streams().await;
        let streams = std::mem::take(&mut self.streams)
            .into_iter()
            .map(|(which, stream)| (which, stream.told().clone()))
            .collect();
        self.clean().await;
        Run {
            answers,
            streams,
            place: self.place,
        }
    }

    async fn read_all(&mut self, ops: &[Op]) -> Vec<Answer> {
        let turns: Vec<usize> = ops.iter().map(|_| self.next_turn()).collect();
        let runner = &*self;
        join_all(ops.iter().zip(turns).map(|(op, turn)| async move {
            let said = bounded(runner.ask(op, "", turn)).await;
            answer(said).0
        }))
        .await
    }

    /// The member that is asked next. Who may do what changes a moment later at other members, in etcd too: a sequence
    /// with users stays at one.
    fn next_turn(&mut self) -> usize {
        if !self.tokens.touched() {
            self.turn += 1;
        }
        self.turn
    }

    async fn step(&mut self, op: &Op) -> Answer {
        self.next_turn();
        let (user, asked) = match op {
            Op::As(as_user) => (as_user.user.as_str(), as_user.ask.as_ref()),
            op => ("", op),
        };
        match asked {
            Op::Watch(_) | Op::Cancel(_) | Op::Progress(_) => return self.step_of_stream(asked, user).await,
            Op::Compact(_) | Op::Auth(_) => self.sync_streams().await,
            _ => {}
        }
        if let Op::Auth(auth) = asked {
            let client = self.member(self.turn).clone();
            let (answer, revision) = answer(bounded(self.tokens.ask(client, user, auth)).await);
            self.wrote(revision);
            return answer;
        }
        if let Op::KeepAlive(_) = asked {
            // The revision in its header is the one of the member that is asked.
            self.catch_up(self.member(self.turn).clone()).await;
        }
        let before = self.place;
        let (answer, revision) = answer(bounded(self.ask(asked, user, self.turn)).await);
        if !asked.only_reads() && !asked.reads_own_state() {
            self.wrote(revision);
        }
        self.place.revision = before.revision.max(revision);
        if let (Op::Compact(compact), true) = (asked, revision > 0) {
            self.place.compacted = compact.revision.at(before);
        }
        answer
    }

    /// Remembers whom to ask for its own state. A member that refused, with no revision then, may be behind.
    fn wrote(&mut self, revision: i64) {
        if revision > 0 {
            self.writer = self.turn % self.clients.len();
        }
    }

    /// What a watch is told is compared when the sequence is over.
    async fn step_of_stream(&mut self, op: &Op, user: &str) -> Answer {
        let number = match op {
            Op::Watch(watch) => watch.stream,
            Op::Cancel(cancel) => cancel.stream,
            Op::Progress(progress) => progress.stream,
            _ => unreachable!("{op:?} is no step of a stream"),
        };
        let key = (number, user.to_owned());
        let member = if self.tokens.touched() { self.turn } else { number };
        let client = self.member(member).clone();
        if !self.streams.contains_key(&key) {
            let opened = WatchStream::open(&client, self.tokens.of(user));
            self.streams.insert(key.clone(), opened);
        }
        // A watch begins where its own member is, which may be behind the one that took the last write.
        self.catch_up(client).await;
        if !matches!(op, Op::Watch(_)) {
            self.sync_stream(&key).await;
        }
        let place = self.place;
        let Some(stream) = self.streams.get_mut(&key) else {
            return Answer::default();
        };
        match op {
            Op::Watch(watch) => {
                let request = watch.request(place);
                let compacted = request.start_revision != 0 && request.start_revision < place.compacted;
                stream.create(request, compacted).await;
                if compacted {
                    self.sync_stream(&key).await;
                }
            }
            Op::Cancel(cancel) => stream.cancel(cancel.watch_id).await,
            _ => {
                return Answer {
                    text: format!("progress={}", stream.progress()),
                    seconds: None,
                };
            }
        }
        Answer::default()
    }

    async fn sync_streams(&mut self) {
        let keys: Vec<_> = self.streams.keys().cloned().collect();
        for key in keys {
            self.sync_stream(&key).await;
        }
    }

    /// Waits until a stream's watches have been told everything. One that begins in the future answers nothing
    /// before the store is there.
    async fn sync_stream(&mut self, key: &(usize, String)) {
        let start = self.streams.get(key).map_or(0, WatchStream::last_start);
        while self.place.revision < start {
            let marker = Op::Put(Put {
                key: MARKER.to_owned(),
                ..Put::default()
            });
            let user = self.tokens.administrator();
            let (answer, revision) = answer(bounded(self.ask(&marker, &user, self.turn)).await);
            if revision <= self.place.revision {
                // Refused: the watch stays where it is, which its lines will show.
                eprintln!("no marker: {}", answer.text);
                return;
            }
            self.place.revision = revision;
            self.writer = self.turn % self.clients.len();
        }
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sync(self.place.revision).await;
        }
    }

    /// Waits until this member has applied what any other has answered.
    async fn catch_up(&self, mut client: Client) {
        let read = RangeRequest {
            key: bytes(MARKER),
            count_only: true,
            ..RangeRequest::default()
        };
        let user = self.tokens.administrator();
        // Where auth refuses it, every answer does.
        let _ = bounded(async { client.kv.range(self.request(&user, read)).await }).await;
    }

    /// Takes away what a sequence left, so that every one begins alike: with an empty store that is compacted.
    pub(crate) async fn clean(&mut self) {
        let client = self.member(0).clone();
        self.tokens.clean(client.clone()).await;
        let mut client = client;
        let everything = DeleteRangeRequest {
            key: bytes("\0"),
            range_end: bytes("\0"),
            prev_kv: false,
        };
        if let Ok(deleted) = client.kv.delete_range(everything).await {
            self.place.revision = revision(deleted.get_ref().header.as_ref());
        }
        if let Ok(leases) = client.lease.lease_leases(LeaseLeasesRequest {}).await {
            for lease in &leases.get_ref().leases {
                let _ = client
                    .lease
                    .lease_revoke(LeaseRevokeRequest { id: lease.id })
                    .await;
            }
        }
        // Refused where it is compacted there already.
        let everything = CompactionRequest {
            revision: self.place.revision,
            physical: true,
        };
        let _ = client.kv.compact(everything).await;
        self.place.compacted = self.place.revision;
        self.writer = 0;
        for client in &self.clients {
            self.until_clean(client.clone()).await;
        }
    }

    /// Waits until this member knows that there are no users any more.
    async fn until_clean(&self, mut client: Client) {
        let until = Instant::now() + PATIENCE;
        let read = || RangeRequest {
            key: bytes(MARKER),
            ..RangeRequest::default()
        };
        while bounded(async { client.kv.range(read()).await }).await.is_err() && Instant::now() < until {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn member(&self, turn: usize) -> &Client {
        &self.clients[turn % self.clients.len()]
    }

    fn request<T>(&self, user: &str, message: T) -> Request<T> {
        self.tokens.request(user, message)
    }

    async fn ask(&self, op: &Op, user: &str, turn: usize) -> Said {
        let turn = if op.reads_own_state() { self.writer } else { turn };
        let mut client = self.member(turn).clone();
        let place = self.place;
        match op {
            Op::As(as_user) => Box::pin(self.ask(&as_user.ask, &as_user.user, turn)).await,
            Op::Range(range) => {
                let request = self.request(user, range.request(place));
                let said = client.kv.range(request).await?.into_inner();
                Ok(said_text(show::range(&said), said.header.as_ref()))
            }
            Op::Put(put) => {
                let said = client
                    .kv
                    .put(self.request(user, put.request()))
                    .await?
                    .into_inner();
                let text = show::previous(said.prev_kv.as_slice());
                Ok(said_header(&text, said.header.as_ref()))
            }
            Op::Delete(delete) => {
                let request = self.request(user, delete.request());
                let said = client.kv.delete_range(request).await?.into_inner();
                let text = format!("deleted={}{}", said.deleted, show::previous(&said.prev_kvs));
                Ok(said_header(&text, said.header.as_ref()))
            }
            Op::Txn(txn) => {
                let request = self.request(user, txn.request(place));
                let said = client.kv.txn(request).await?.into_inner();
                Ok(said_text(show::txn(&said), said.header.as_ref()))
            }
            Op::Compact(compact) => {
                let request = self.request(user, compact.request(place));
                let said = client.kv.compact(request).await?.into_inner();
                Ok(said_header("", said.header.as_ref()))
            }
            lease => self.ask_lease(client, lease, user).await,
        }
    }

    async fn ask_lease(&self, mut client: Client, op: &Op, user: &str) -> Said {
        match op {
            Op::Grant(grant) => {
                let request = LeaseGrantRequest {
                    id: grant.id,
                    ttl: grant.ttl,
                };
                let said = client
                    .lease
                    .lease_grant(self.request(user, request))
                    .await?
                    .into_inner();
                if grant.ttl < SHORT_TTL {
                    let revoke = LeaseRevokeRequest { id: said.id };
                    client.lease.lease_revoke(self.request(user, revoke)).await?;
                }
                let text = format!("id={} ttl={} {}", lease_name(said.id), said.ttl, said.error);
                Ok(said_header(&text, said.header.as_ref()))
            }
            Op::Revoke(lease) => {
                let request = LeaseRevokeRequest { id: lease.id };
                let said = client
                    .lease
                    .lease_revoke(self.request(user, request))
                    .await?
                    .into_inner();
                Ok(said_header("", said.header.as_ref()))
            }
            Op::KeepAlive(lease) => {
                let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease.id }]);
                let request = self.request(user, requests);
                let mut answers = client.lease.lease_keep_alive(request).await?.into_inner();
                let said = answers
                    .message()
                    .await?
                    .ok_or_else(|| Status::unknown("the stream ended"))?;
                let text = format!("id={} ttl={}", said.id, said.ttl);
                Ok(said_header(&text, said.header.as_ref()))
            }
            Op::TimeToLive(lease) => {
                let request = LeaseTimeToLiveRequest {
                    id: lease.id,
                    keys: lease.keys,
                };
                let said = client.lease.lease_time_to_live(self.request(user, request));
                let mut said = said.await?.into_inner();
                said.keys.sort();
                let keys: Vec<String> = said.keys.iter().map(|key| show::bytes(key)).collect();
                let text = format!("id={} granted={} keys={keys:?}", said.id, said.granted_ttl);
                let (mut answer, revision) = said_header(&text, said.header.as_ref());
                answer.seconds = Some(said.ttl);
                Ok((answer, revision))
            }
            Op::Leases => {
                client = self.member(self.writer).clone();
                let said = client
                    .lease
                    .lease_leases(self.request(user, LeaseLeasesRequest {}));
                let said = said.await?.into_inner();
                let mut ids: Vec<String> = said.leases.iter().map(|lease| lease_name(lease.id)).collect();
                ids.sort_unstable();
                Ok(said_header(&format!("leases={ids:?}"), said.header.as_ref()))
            }
            other => unreachable!("{other:?} is no unary request"),
        }
    }
}

fn answer(said: Said) -> (Answer, i64) {
    said.unwrap_or_else(|refused| {
        let text = show::status(&refused);
        (Answer { text, seconds: None }, 0)
    })
}

/// An answer whose text has the header already.
fn said_text(text: String, header: Option<&ResponseHeader>) -> (Answer, i64) {
    (Answer { text, seconds: None }, revision(header))
}

pub(crate) fn said_header(text: &str, header: Option<&ResponseHeader>) -> (Answer, i64) {
    said_text(
        format!("{} {text}", show::header(header)).trim_end().to_owned(),
        header,
    )
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn lease_name(id: i64) -> String {
    if id > GREATEST_ASKED_LEASE {
        "chosen".to_owned()
    } else {
        id.to_string()
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {PATIENCE:?}"
        ))),
    }
}
