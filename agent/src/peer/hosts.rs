//! What members do for people on each other's hosts: the way from the member that was asked to the one whose host is
//! meant.
//!
//! [`Hosts`] takes a task to a host, this one or another; [`HostServer`] answers the other members. Whoever asks has
//! been authorised by the member that was asked: members trust each other. Nothing is tried twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use proto::agent::v1::attach_request::Request as AttachWhat;
use proto::agent::v1::{AttachRequest, AttachResponse, AttachStart};
use proto::peer::export_chunk::Chunk;
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use proto::peer::operator_client::OperatorClient;
use proto::peer::operator_server::Operator as OperatorService;
use proto::peer::{BackupFile, ExportChunk, ExportRequest, HostOutcome, HostTask};
use raft_store::wal::Identity;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::backups::BackupChunks;
use super::{MAX_MESSAGE_BYTES, PeerTimeouts, Stamp, Whom, reason};
use crate::node::Node;
use crate::operator::{Answers, Failure, Operator, OperatorError, Requests, SESSION_QUEUE, patience};

/// A host that is there answers a connection within this time.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A connection on which a session is silent is asked this often whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What the way there and back may add to what a task takes.
const MARGIN: Duration = Duration::from_secs(5);

/// Pieces of an instance on their way out of this process.
const EXPORT_QUEUE: usize = 4;

/// An export, as a stream of messages.
type ExportAnswers = std::pin::Pin<Box<dyn futures::Stream<Item = Result<ExportChunk, Status>> + Send>>;

/// The answers of a session, as a stream of messages.
pub type AttachAnswers =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<AttachResponse, Status>> + Send>>;

/// Every host of the cluster, through this member.
#[derive(Clone, Debug)]
pub struct Hosts {
    pub(super) node: Node,
    operator: Arc<Operator>,
    /// By member and URL: a member that moves gets a new connection.
    channels: Arc<Mutex<BTreeMap<u64, (String, Channel)>>>,
}

pub(super) type Peer = OperatorClient<InterceptedService<Channel, Stamp>>;

impl Hosts {
    #[must_use]
    pub fn new(node: Node, operator: Arc<Operator>) -> Hosts {
        Hosts {
            node,
            operator,
            channels: Arc::default(),
        }
    }

    /// The hosts' names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .node
            .members()
            .into_iter()
            .map(|member| member.name)
            .collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }

    /// Does one thing on a host.
    ///
    /// # Errors
    /// What the host says; or that it does not answer.
    pub async fn perform(&self, host: &str, task: Task) -> Result<Outcome, OperatorError> {
        if host == self.node.name() {
            return self.perform_here(task).await;
        }
        let mut peer = self.peer(host)?;
        let limit = patience(&task).saturating_add(MARGIN);
        let mut request = Request::new(HostTask { task: Some(task) });
        // The other side gives up, too.
        request.set_timeout(limit);
        let answer = tokio::time::timeout(limit, peer.perform(request)).await;
        let answer = answer.map_err(|_| {
            OperatorError::new(Failure::TimedOut, format!("host {host} does not answer in time"))
        })?;
        let outcome = answer
            .map_err(|status| failed(host, &status))?
            .into_inner()
            .outcome;
        outcome.ok_or_else(|| too_old(host))
    }

    async fn perform_here(&self, task: Task) -> Result<Outcome, OperatorError> {
        match task {
            Task::FetchBackup(request) => self.fetch_backup(request).await.map(Outcome::BackupFetched),
            task => self.operator.perform(task).await,
        }
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Opens a session on a host and carries it to its end.
    ///
    /// # Errors
    /// As for [`Hosts::perform`].
    pub async fn attach(
        &self,
        host: &str,
        start: AttachStart,
        requests: Requests,
        answers: Answers,
    ) -> Result<(), OperatorError> {
        if host == self.node.name() {
            return self.operator.attach(start, requests, answers).await;
        }
        let mut peer = self.peer(host)?;
        let first = futures::stream::iter([AttachWhat::Start(start)]);
        let all = first.chain(ReceiverStream::new(requests));
        let all = all.map(|request| AttachRequest {
            request: Some(request),
        });
        let opened = peer.attach(all).await.map_err(|status| failed(host, &status))?;
        let mut stream = opened.into_inner();
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(|status| failed(host, &status))?,
                () = answers.closed() => return Ok(()),
            };
            let Some(message) = message else { return Ok(()) };
            if let Some(answer) = message.response
                && answers.send(answer).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// Asks another host for an instance that moves here.
    ///
    /// # Errors
    /// As for [`Hosts::perform`].
    pub async fn export(&self, host: &str, request: ExportRequest) -> Result<ExportChunks, OperatorError> {
        let mut peer = self.peer(host)?;
        let opened = peer
            .export(request)
            .await
            .map_err(|status| failed(host, &status))?;
        Ok(ExportChunks {
            host: host.to_owned(),
            stream: opened.into_inner(),
        })
    }

    pub(super) fn peer(&self, host: &str) -> Result<Peer, OperatorError> {
        let members = self.node.members();
        let Some(member) = members.iter().find(|member| member.name == host) else {
            let names = self.names().join(", ");
            return Err(OperatorError::new(
                Failure::NotFound,
                format!("there is no host {host}; there are {names}"),
            ));
        };
        let unreachable = |reason: String| OperatorError::new(Failure::Unreachable, reason);
        let Some(url) = member.peer_ur_ls.first() else {
            return Err(unreachable(format!("host {host} has no peer URL")));
        };
        let mut channels = self.channels.lock();
        let known = channels.get(&member.id).filter(|(known, _)| known == url);
        let channel = match known {
            Some((_, channel)) => channel.clone(),
            None => {
                let timeouts = PeerTimeouts {
                    connect: CONNECT_LIMIT,
                    keep_alive: KEEP_ALIVE,
                };
                let whom = Whom::Named(host.to_owned());
                let made = self
                    .node
                    .dialer()
                    .channel(url, &whom, timeouts)
                    .map_err(|error| unreachable(format!("host {host}: {error}")))?;
                channels.insert(member.id, (url.clone(), made.clone()));
                made
            }
        };
        channels.retain(|id, _| members.iter().any(|member| member.id == *id));
        let own = Identity {
            cluster_id: self.node.cluster_id(),
            member_id: self.node.member_id(),
        };
        Ok(
            OperatorClient::with_interceptor(channel, Stamp::new(own, member.id))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }
}

/// An instance on its way from another host. The connection is asked whether it is still there, so that a host that is
/// lost ends it.
#[derive(Debug)]
pub struct ExportChunks {
    host: String,
    stream: Streaming<ExportChunk>,
}

impl ExportChunks {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// What the host says; or that it does not answer any more.
    pub async fn next(&mut self) -> Result<Option<Chunk>, OperatorError> {
        let message = self.stream.message().await;
        let message = message.map_err(|status| failed(&self.host, &status))?;
        Ok(message.and_then(|message| message.chunk))
    }
}

/// What the other members are answered.
#[derive(Clone, Debug)]
pub(super) struct HostServer(pub(super) Hosts);

#[tonic::async_trait]
impl OperatorService for HostServer {
    type AttachStream = AttachAnswers;
    type ExportStream = ExportAnswers;
    type FetchBackupStream = BackupChunks;

    async fn fetch_backup(&self, request: Request<BackupFile>) -> Result<Response<BackupChunks>, Status> {
        self.send_backup(request).await
    }

    async fn perform(&self, request: Request<HostTask>) -> Result<Response<HostOutcome>, Status> {
        let task = request.into_inner().task;
        let task = task.ok_or_else(|| Status::unimplemented("this agent is too old for that"))?;
        let outcome = self.0.perform_here(task).await?;
        Ok(Response::new(HostOutcome {
            outcome: Some(outcome),
        }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let start = attach_start(&mut requests).await?;
        let operator = self.0.operator.clone();
        let session = move |requests, answers| async move { operator.attach(start, requests, answers).await };
        Ok(Response::new(serve_session(requests, session)))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let request = request.into_inner();
        let operator = self.0.operator.clone();
        let (chunks, mut exported) = mpsc::channel(EXPORT_QUEUE);
        let (to_caller, stream) = mpsc::channel(EXPORT_QUEUE);
        // Lives as long as the call: ends with the export, or when nobody reads it any more.
        tokio::spawn(async move {
            let answers = to_caller.clone();
            let export = async move { operator.export(&request, chunks).await };
            let pump = async move {
                while let Some(chunk) = exported.recv().await {
                    if answers
                        .send(Ok(ExportChunk { chunk: Some(chunk) }))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            };
            let (ended, ()) = tokio::join!(export, pump);
            if let Err(error) = ended {
                // A caller that is gone need not know.
                let _ = to_caller.send(Err(error.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

/// The first message of a session.
///
/// # Errors
/// When it is another, or none.
pub(crate) async fn attach_start(requests: &mut Streaming<AttachRequest>) -> Result<AttachStart, Status> {
    match requests.message().await?.and_then(|message| message.request) {
        Some(AttachWhat::Start(start)) => Ok(start),
        _ => Err(Status::invalid_argument("a session begins with its start")),
    }
}

/// Runs a session between the streams of a call, until either side ends it.
pub(crate) fn serve_session<F>(
    mut requests: Streaming<AttachRequest>,
    session: impl FnOnce(Requests, Answers) -> F,
) -> AttachAnswers
where
    F: Future<Output = Result<(), OperatorError>> + Send + 'static,
{
    let (to_session, session_requests) = mpsc::channel(SESSION_QUEUE);
    let (session_answers, mut from_session) = mpsc::channel(SESSION_QUEUE);
    let (to_caller, stream) = mpsc::channel(SESSION_QUEUE);
    let session = session(session_requests, session_answers);
    let pump_in = async move {
        while let Ok(message) = requests.message().await {
            let Some(message) = message else {
                // It has said all it has to say, and listens on.
                return std::future::pending::<()>().await;
            };
            if let Some(request) = message.request
                && to_session.send(request).await.is_err()
            {
                return std::future::pending::<()>().await;
            }
        }
    };
    let answers = to_caller.clone();
    let pump_out = async move {
        while let Some(answer) = from_session.recv().await {
            let message = AttachResponse {
                response: Some(answer),
            };
            if answers.send(Ok(message)).await.is_err() {
                return;
            }
        }
    };
    // Lives as long as the call: ends with the session, or when either stream of the caller breaks.
    tokio::spawn(async move {
        let whole = async { tokio::join!(session, pump_out).0 };
        tokio::select! {
            ended = whole => {
                if let Err(error) = ended {
                    // A caller that is gone need not know.
                    let _ = to_caller.send(Err(error.into())).await;
                }
            }
            () = pump_in => {}
            () = to_caller.closed() => {}
        }
    });
    ReceiverStream::new(stream).boxed()
}

/// What a host's refusal was, out of what came over the wire.
pub(super) fn failed(host: &str, status: &Status) -> OperatorError {
    let failure = match status.code() {
        Code::InvalidArgument => Failure::Invalid,
        Code::NotFound => Failure::NotFound,
        Code::FailedPrecondition => Failure::Refused,
        Code::Unimplemented if status.message().is_empty() => return too_old(host),
        Code::Unimplemented => Failure::Unsupported,
        Code::ResourceExhausted => Failure::Busy,
        Code::DeadlineExceeded => Failure::TimedOut,
        Code::Aborted => Failure::Unreachable,
        _ => {
            return OperatorError::new(
                Failure::Unreachable,
                format!("host {host} does not answer: {}", reason(status)),
            );
        }
    };
    OperatorError::new(failure, status.message())
}

fn too_old(host: &str) -> OperatorError {
    OperatorError::new(
        Failure::Unsupported,
        format!("the agent on {host} is too old for that: upgrade it"),
    )
}
