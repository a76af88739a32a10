//! openraft's network: what this member says to the others.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use proto::peer::raft_client::RaftClient;
use proto::peer::{SnapshotChunk, SnapshotHeader};
use raft_store::wal::Identity;
use raft_store::{Node, NodeId, SnapshotFile, Store, TypeConfig, Vote};
use tokio::io::AsyncReadExt;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Dialer, MAX_MESSAGE_BYTES, PeerTimeouts, Stamp, Whom, reason, wire};

const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// After each stream that a peer did not open. Short: openraft cannot end a replication meanwhile, and a member that
/// comes back is to be caught up at once.
const STREAM_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];
const LONGEST_STREAM_PAUSE: Duration = Duration::from_millis(100);

/// By member and its URLs: a member that moves gets a new connection.
type KeptPeers = BTreeMap<(NodeId, Vec<String>), Peer>;
type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;
type Peer = RaftClient<InterceptedService<Channel, Stamp>>;

/// Makes a client for each peer and each use, so that a heartbeat's connection never carries a snapshot.
#[derive(Clone, Debug)]
pub struct PeerNetwork {
    identity: Identity,
    dialer: Dialer,
    /// Who is who by it.
    store: Store,
    timeouts: PeerTimeouts,
    kept: Arc<Mutex<KeptPeers>>,
    addresses: PeerAddresses,
}

impl PeerNetwork {
    #[must_use]
    pub fn new(identity: Identity, dialer: Dialer, store: Store, timeouts: PeerTimeouts) -> Self {
        PeerNetwork {
            identity,
            dialer,
            store,
            timeouts,
            kept: Arc::default(),
            addresses: PeerAddresses::default(),
        }
    }

    /// Shared with all clients, those that exist already too.
    #[must_use]
    pub fn addresses(&self) -> PeerAddresses {
        self.addresses.clone()
    }

    fn connect(&self, target: NodeId, node: &Node) -> Result<Peer, Status> {
        let url = node
            .peer_urls
            .first()
            .ok_or_else(|| Status::unavailable(format!("member {target:x} has no peer URL")))?;
        let whom = if node.name.is_empty() {
            Whom::Member(target, self.store.clone())
        } else {
            Whom::Named(node.name.clone())
        };
        let channel = self
            .dialer
            .channel(url, &whom, self.timeouts)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(
            RaftClient::with_interceptor(channel, Stamp::new(self.identity, target))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    fn client(&self, target: NodeId, node: &Node, path: Path) -> PeerClient {
        self.client_over(self.connect(target, node), target, node, path)
    }

    fn client_over(&self, peer: Result<Peer, Status>, target: NodeId, node: &Node, path: Path) -> PeerClient {
        PeerClient {
            network: self.clone(),
            target,
            urls: node.peer_urls.clone(),
            peer,
            path,
            name: if node.name.is_empty() {
                format!("{target:x}")
            } else {
                node.name.clone()
            },
            answers: true,
            streams_refused: 0,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    /// openraft makes a new client for every election: the connection for votes is kept between them, so that an
    /// election does not wait for a handshake.
    async fn new_client(&mut self, target: NodeId, node: &Node) -> PeerClient {
        let key = (target, node.peer_urls.clone());
        let kept = self.kept.lock().get(&key).cloned();
        if let Some(peer) = kept {
            return self.client_over(Ok(peer), target, node, Path::Replication);
        }
        let client = self.client(target, node, Path::Replication);
        if let Ok(peer) = &client.peer {
            let mut kept = self.kept.lock();
            kept.retain(|(id, _), _| *id != target);
            kept.insert(key, peer.clone());
        }
        client
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Node) -> PeerClient {
        self.client(target, node, Path::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Node) -> PeerClient {
        self.client(target, node, Path::Replication)
    }
}

/// How appends travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// One stream, many requests under way.
    Replication,
    /// One call each.
    Heartbeat,
}

/// What is asked of a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ballot {
    Real,
    /// Whether it would vote, without its being bound.
    Trial,
}

/// Where the members are by the latest membership. openraft keeps a member's client when its URLs change.
#[derive(Clone, Debug, Default)]
pub struct PeerAddresses(Arc<Mutex<BTreeMap<NodeId, Vec<String>>>>);

impl PeerAddresses {
    /// Takes up a membership.
    pub fn set<'a>(&self, members: impl Iterator<Item = (&'a NodeId, &'a Node)>) {
        let addresses = members.map(|(id, node)| (*id, node.peer_urls.clone())).collect();
        let mut known = self.0.lock();
        if *known != addresses {
            *known = addresses;
        }
    }

    /// The URLs of a member, if they are others than these.
    fn moved(&self, id: NodeId, from: &[String]) -> Option<Vec<String>> {
        self.0.lock().get(&id).filter(|urls| *urls != from).cloned()
    }
}

/// One peer, for one use.
#[derive(Debug)]
pub struct PeerClient {
    network: PeerNetwork,
    target: NodeId,
    /// The member's, when the connection was made.
    urls: Vec<String>,
    /// An error where the peer's URL is none: every call answers it.
    peer: Result<Peer, Status>,
    path: Path,
    name: String,
    /// Whether the last heartbeat was answered: a change is worth a line, every failure is not.
    answers: bool,
    /// Streams in a row that could not be opened.
    streams_refused: usize,
}

impl PeerClient {
    fn note_heartbeat(&mut self, failure: Option<&Status>) {
        match failure {
            Some(status) if self.answers => {
                tracing::warn!(
                    peer = self.name,
                    reason = reason(status),
                    "a member does not answer"
                );
            }
            None if !self.answers => tracing::info!(peer = self.name, "a member answers again"),
            _ => {}
        }
        self.answers = failure.is_none();
    }

    /// The connection; another one when the member has moved since this was made.
    fn peer(&mut self) -> Result<Peer, RPCError<TypeConfig>> {
        if let Some(urls) = self.network.addresses.moved(self.target, &self.urls) {
            let node = Node {
                peer_urls: urls,
                ..Node::default()
            };
            self.peer = self.network.connect(self.target, &node);
            self.urls = node.peer_urls;
        }
        self.peer.clone().map_err(|status| rpc_error(&status))
    }

    /// Opens a stream of appends. openraft backs off before a request of a stream that it has; for a stream that it
    /// did not get it asks again at once, and a lost member would cost the leader a whole processor. So this waits.
    async fn open_stream(
        &mut self,
        requests: impl Stream<Item = proto::peer::AppendRequest> + Send + 'static,
    ) -> Result<tonic::Streaming<proto::peer::AppendResponse>, RPCError<TypeConfig>> {
        let opened = match self.peer() {
            Ok(mut peer) => peer.append(requests).await.map_err(|status| rpc_error(&status)),
            Err(error) => Err(error),
        };
        match opened {
            Ok(answers) => {
                self.streams_refused = 0;
                Ok(answers.into_inner())
            }
            Err(error) => {
                let pause = STREAM_PAUSES
                    .get(self.streams_refused)
                    .unwrap_or(&LONGEST_STREAM_PAUSE);
                self.streams_refused += 1;
                tokio::time::sleep(*pause).await;
                Err(error)
            }
        }
    }

    async fn ask_for_vote(
        &mut self,
        ballot: Ballot,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = within(option, wire::vote_request_to_wire(rpc));
        let mut peer = self.peer()?;
        let answer = match ballot {
            Ballot::Real => peer.vote(request).await,
            Ballot::Trial => peer.pre_vote(request).await,
        };
        let response = answer.map_err(|status| rpc_error(&status))?;
        wire::vote_response_from_wire(&response.into_inner()).map_err(network_error)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = within(&option, wire::append_to_wire(&rpc));
        let answer = self.peer()?.heartbeat(request).await;
        self.note_heartbeat(answer.as_ref().err());
        let response = answer.map_err(|status| rpc_error(&status))?;
        match wire::append_result_from_wire(response.into_inner()).map_err(network_error)? {
            Ok(_) => Ok(AppendEntriesResponse::Success),
            Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendAnswer>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.path == Path::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let requests = input.map(|request| wire::append_to_wire(&request));
            let answers = self.open_stream(requests).await?.map(|answer| {
                let answer = answer.map_err(|status| rpc_error(&status))?;
                wire::append_result_from_wire(answer).map_err(network_error)
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(Ballot::Real, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(Ballot::Trial, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut peer = self.peer()?;
        let file = snapshot.snapshot;
        let header = wire::snapshot_header_to_wire(&vote, &snapshot.meta, file.size_bytes());
        let send = peer.snapshot(snapshot_chunks(header, file));
        let response = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            response = send => response.map_err(|status| StreamingError::from(rpc_error(&status)))?,
        };
        let vote = wire::required_vote(response.into_inner().vote.as_ref()).map_err(network_error)?;
        Ok(SnapshotResponse { vote })
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = within(&option, wire::transfer_to_wire(&req));
        let response = self
            .peer()?
            .transfer_leader(request)
            .await
            .map_err(|status| rpc_error(&status))?;
        match response.into_inner().refused {
            None => Ok(Ok(())),
            // What a refusal looks like in openraft is private to it; unreachable makes it try again later.
            Some(reason) => Err(RPCError::Unreachable(Unreachable::from_string(reason))),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        // Short, so that a member that comes back is caught up at once; capped, so that a lost one costs nothing.
        let delays = [20, 50, 100, 200].into_iter().chain(std::iter::repeat(500));
        Some(Backoff::new(delays.map(Duration::from_millis)))
    }
}

/// The file in chunks, read as the peer takes them. A read error ends the stream early: the peer finds the
/// snapshot incomplete and refuses it.
fn snapshot_chunks(
    header: SnapshotHeader,
    file: SnapshotFile,
) -> impl Stream<Item = SnapshotChunk> + Send + 'static {
    let first = futures::stream::iter([SnapshotChunk {
        header: Some(header),
        data: Bytes::new(),
    }]);
    let rest = futures::stream::unfold(None, move |open| {
        let file = file.clone();
        async move {
            let mut reader = match open {
                Some(reader) => reader,
                None => tokio::fs::File::open(file.path()).await.ok()?,
            };
            let mut chunk = vec![0; SNAPSHOT_CHUNK_BYTES];
            let read = match reader.read(&mut chunk).await {
                Ok(0) => return None,
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(path = %file.path().display(), %error, "cannot read the snapshot to send");
                    return None;
                }
            };
            chunk.truncate(read);
            Some((
                SnapshotChunk {
                    header: None,
                    data: chunk.into(),
                },
                Some(reader),
            ))
        }
    });
    first.chain(rest)
}

/// A call that the peer drops, too, when openraft has given up on it.
fn within<T>(option: &RPCOption, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(option.hard_ttl());
    request
}

fn rpc_error(status: &Status) -> RPCError<TypeConfig> {
    match status.code() {
        // openraft backs off from the unreachable, and retries other network errors at once.
        Code::Unavailable | Code::FailedPrecondition | Code::PermissionDenied | Code::Unimplemented => {
            RPCError::Unreachable(Unreachable::new(status))
        }
        _ => RPCError::Network(NetworkError::new(status)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn network_error(error: wire::WireError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member that is lost for an hour must not cost the leader a processor meanwhile.
    #[tokio::test(start_paused = true)]
    async fn streams_that_are_refused_are_not_asked_for_at_once_again() {
        let folder = tempfile::tempdir().unwrap();
        let (_state_machine, store) = raft_store::StateMachine::open(raft_store::StoreOptions {
            dir: folder.path().to_owned(),
            cache_bytes: 1 << 20,
            watch_buffer_events: 1,
        })
        .unwrap();
        let mut network = PeerNetwork::new(
            Identity {
                cluster_id: 1,
                member_id: 1,
            },
            Dialer::default(),
            store,
            PeerTimeouts {
                connect: Duration::from_secs(1),
                keep_alive: Duration::from_secs(1),
            },
        );
        // Without a URL it is refused without a connection.
        let mut client = network.new_client(2, &Node::default()).await;
        let started = tokio::time::Instant::now();
        for _ in 0..12 {
            let option = RPCOption::new(Duration::from_secs(1));
            let refused = client.stream_append(futures::stream::pending(), option).await;
            assert!(matches!(refused, Err(RPCError::Unreachable(_))));
        }
        assert!(started.elapsed() >= Duration::from_secs(1));
    }
}
