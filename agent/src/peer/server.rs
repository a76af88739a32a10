//! What this member answers its peers.

use std::io;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use openraft::Snapshot;
use proto::peer::forward_server::{Forward, ForwardServer};
use proto::peer::operator_server::OperatorServer;
use proto::peer::raft_server::{Raft as RaftService, RaftServer};
use proto::peer::trust_server::TrustServer as TrustService;
use proto::peer::{
    AppendRequest, AppendResponse, ForwardRequest, ForwardResponse, SnapshotChunk, SnapshotResponse,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use raft_store::convert::vote_to_wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::hosts::{HostServer, Hosts};
use super::trust::TrustServer;
use super::{Addressee, Callers, MAX_MESSAGE_BYTES, wire};
use crate::node::{Node, Raft};
use crate::secrets::KeyFile;
use crate::tls::peer::PeerTls;

/// Requests of one follower that may be under way at the leader.
const FORWARD_IN_FLIGHT: usize = 4096;

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The services of the peer port.
#[must_use]
pub fn routes(node: &Node, hosts: &Hosts, tls: Option<PeerTls>, secrets: Option<KeyFile>) -> Routes {
    let addressee = |callers| Addressee {
        node: node.clone(),
        callers,
    };
    let raft = RaftServer::new(PeerServer { node: node.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let forward = ForwardServer::new(PeerServer { node: node.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let operator = OperatorServer::new(HostServer(hosts.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let trust = TrustService::new(TrustServer {
        node: node.clone(),
        tls,
        secrets,
    });
    Routes::new(InterceptedService::new(raft, addressee(Callers::Teachers)))
        .add_service(InterceptedService::new(forward, addressee(Callers::Members)))
        .add_service(InterceptedService::new(operator, addressee(Callers::Members)))
        .add_service(InterceptedService::new(trust, addressee(Callers::Members)))
}

#[derive(Clone, Debug)]
struct PeerServer {
    node: Node,
}

impl PeerServer {
    fn raft(&self) -> &Raft {
        self.node.raft()
    }
}

#[tonic::async_trait]
impl RaftService for PeerServer {
    type AppendStream = ResponseStream<AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        // A broken or senseless message ends the input: openraft then ends the answers, and the leader starts a
        // new stream from what was acknowledged.
        let requests = request.into_inner().map(|message| {
            let request = wire::append_from_wire(message.ok()?);
            request
                .inspect_err(|error| tracing::error!(%error, "ending a replication stream"))
                .ok()
        });
        let requests = requests
            .take_while(|request| std::future::ready(request.is_some()))
            .filter_map(std::future::ready);
        let answers = self.raft().stream_append(requests).map(|answer| match answer {
            Ok(result) => Ok(wire::append_result_to_wire(&result)),
            Err(fatal) => Err(Status::unavailable(fatal.to_string())),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let request = wire::append_from_wire(request.into_inner()).map_err(invalid)?;
        let prev_log_id = request.prev_log_id;
        let response = self.raft().append_entries(request).await.map_err(unavailable)?;
        Ok(Response::new(wire::heartbeat_to_wire(
            &response,
            prev_log_id.as_ref(),
        )))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let request = wire::vote_request_from_wire(request.get_ref()).map_err(invalid)?;
        let response = self.raft().vote(request).await.map_err(unavailable)?;
        Ok(Response::new(wire::vote_response_to_wire(&response)))
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let request = wire::vote_request_from_wire(request.get_ref()).map_err(invalid)?;
        let response = self.raft().pre_vote(request).await.map_err(unavailable)?;
        Ok(Response::new(wire::vote_response_to_wire(&response)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let header = chunks
            .message()
            .await?
            .and_then(|chunk| chunk.header)
            .ok_or_else(|| Status::invalid_argument("a snapshot must begin with its header"))?;
        let size_bytes = header.size_bytes;
        let (vote, meta) = wire::snapshot_header_from_wire(header).map_err(invalid)?;
        tracing::info!(size_bytes, "receiving a snapshot");

        let mut receiver = self.node.store().receive_snapshot().map_err(disk_failed)?;
        while let Some(chunk) = chunks.message().await? {
            tokio::task::block_in_place(|| receiver.write(&chunk.data)).map_err(disk_failed)?;
        }
        let file = tokio::task::block_in_place(|| receiver.finish()).map_err(disk_failed)?;

        let snapshot = Snapshot { meta, snapshot: file };
        let response = self
            .raft()
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(unavailable)?;
        Ok(Response::new(SnapshotResponse {
            vote: Some(vote_to_wire(&response.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = wire::transfer_from_wire(request.get_ref()).map_err(invalid)?;
        let response = self
            .raft()
            .handle_transfer_leader(request)
            .await
            .map_err(unavailable)?;
        Ok(Response::new(wire::transfer_response_to_wire(&response)))
    }
}

#[tonic::async_trait]
impl Forward for PeerServer {
    type ForwardStream = ResponseStream<ForwardResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(FORWARD_IN_FLIGHT);
        let node = self.node.clone();
        tokio::spawn(async move {
            // Requests are taken in the order they were sent: a proposal reaches Raft before the next one is read.
            while let Ok(Some(message)) = requests.message().await {
                // The place in the answers is reserved first: it bounds what one follower has under way.
                let Ok(place) = answers.clone().reserve_owned().await else {
                    break;
                };
                let Some(request) = message.request else { continue };
                let pending = node.start_forwarded(request).await;
                tokio::spawn(async move {
                    let response = pending.await;
                    place.send(Ok(ForwardResponse {
                        id: message.id,
                        response: Some(response),
                    }));
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn invalid(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn disk_failed(error: io::Error) -> Status {
    tracing::error!(%error, "cannot take the snapshot the leader sends");
    Status::internal(format!("the receiver cannot store the snapshot: {error}"))
}
