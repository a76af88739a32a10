//! How members talk to each other: Raft's RPCs, the forwarding of proposals and what people ask of hosts, over gRPC.
//!
//! [`client`] is what this member says (openraft's network), [`server`] what it answers, [`wire`] the
//! translation between openraft's types and the messages; [`hosts`] is what people ask of other hosts. Every call names the cluster and the member it is
//! meant for; a member of another cluster, or one that took over an address, is refused by name.

pub mod client;
pub mod describe;
mod hosts;
pub mod server;
mod wire;

pub use describe::describe;
pub use hosts::{AttachAnswers, ExportChunks, Hosts};
pub(crate) use hosts::{attach_start, serve_session};

use proto::peer::forward_client::ForwardClient;
use raft_store::Store;
use raft_store::wal::Identity;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// One message between peers: a batch of entries of a few MiB, or one entry of the largest request.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

const CLUSTER_HEADER: &str = "agent-cluster-id";
const TARGET_HEADER: &str = "agent-target-member-id";
const SENDER_HEADER: &str = "agent-sender-member-id";

/// Stamps every call to a peer with the cluster and the member it is meant for, and with the one it is from.
#[derive(Clone, Debug)]
pub struct Stamp {
    cluster_id: MetadataValue<Ascii>,
    sender: MetadataValue<Ascii>,
    target: MetadataValue<Ascii>,
}

impl Stamp {
    #[must_use]
    pub fn new(sender: Identity, target: u64) -> Self {
        Stamp {
            cluster_id: hex(sender.cluster_id),
            sender: hex(sender.member_id),
            target: hex(target),
        }
    }
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_HEADER, self.cluster_id.clone());
        metadata.insert(SENDER_HEADER, self.sender.clone());
        metadata.insert(TARGET_HEADER, self.target.clone());
        Ok(request)
    }
}

/// Refuses calls that are meant for another cluster or member, and those of a member that was removed.
#[derive(Clone, Debug)]
pub struct Addressee {
    pub cluster_id: u64,
    pub member_id: u64,
    pub store: Store,
}

impl Interceptor for Addressee {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        check(request.metadata(), CLUSTER_HEADER, self.cluster_id, "cluster")?;
        check(request.metadata(), TARGET_HEADER, self.member_id, "member")?;
        let sender = named(request.metadata(), SENDER_HEADER);
        if u64::from_str_radix(sender, 16).is_ok_and(|sender| self.store.is_removed(sender)) {
            return Err(Status::failed_precondition(
                "the member has been permanently removed from the cluster",
            ));
        }
        Ok(request)
    }
}

fn check(metadata: &MetadataMap, header: &'static str, own: u64, what: &str) -> Result<(), Status> {
    let named = named(metadata, header);
    if named == format!("{own:x}") {
        Ok(())
    } else {
        Err(Status::failed_precondition(format!(
            "this is {what} {own:x}, the call is for {named}"
        )))
    }
}

fn named<'a>(metadata: &'a MetadataMap, header: &'static str) -> &'a str {
    let value = metadata.get(header).and_then(|value| value.to_str().ok());
    value.unwrap_or("none")
}

fn hex(number: u64) -> MetadataValue<Ascii> {
    MetadataValue::try_from(format!("{number:x}")).unwrap_or_else(|_| MetadataValue::from_static("0"))
}

/// A channel to a peer, connected when first used and again whenever it breaks.
///
/// # Errors
/// When the URL is none.
pub fn channel(url: &str, timeouts: PeerTimeouts) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(timeouts.connect)
        .http2_keep_alive_interval(timeouts.keep_alive)
        .keep_alive_timeout(timeouts.keep_alive)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_lazy())
}

/// How long a peer may stay silent.
#[derive(Clone, Copy, Debug)]
pub struct PeerTimeouts {
    pub connect: std::time::Duration,
    /// Between HTTP/2 pings, and for the answer to one.
    pub keep_alive: std::time::Duration,
}

/// A client of a peer's forwarding service.
pub type ForwardPeer = ForwardClient<InterceptedService<Channel, Stamp>>;

/// A client of `target`'s forwarding service.
#[must_use]
pub fn forward_client(channel: Channel, stamp: Stamp) -> ForwardPeer {
    ForwardClient::with_interceptor(channel, stamp)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
