//! How members talk to each other: Raft's RPCs, the forwarding of proposals and what people ask of hosts, over gRPC.
//!
//! [`client`] is what this member says (openraft's network), [`server`] what it answers, [`wire`] the
//! translation between openraft's types and the messages; [`hosts`] is what people ask of other hosts, [`whereabouts`]
//! which host that is. Every call names
//! the cluster and the member it is meant for; a member of another cluster, or one that took over an address, is
//! refused by name. [`dialer`] opens the connections; with TLS, [`admission`] says whose certificate opens what, [`trust`]
//! renews certificates, and [`joining`] is how a host without one gets its first.

mod admission;
mod backups;
pub mod client;
pub mod describe;
mod dialer;
mod hosts;
mod joining;
pub mod server;
mod trust;
mod whereabouts;
mod wire;

pub use admission::PeerCertificate;
pub use describe::describe;
pub use dialer::{DialError, Dialer, PeerTimeouts, Whom};
pub use hosts::{AttachAnswers, ExportChunks, Hosts};
pub(crate) use hosts::{attach_start, serve_session};
pub use joining::{JoinError, JoinOptions, JoinServer, JoinerAddress, join};
pub(crate) use trust::certify;

use admission::Roll;
use dialer::reason;
use proto::peer::forward_client::ForwardClient;
use raft_store::wal::Identity;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::node::Node;

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

/// What a service may be asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callers {
    /// Members of the current membership.
    Members,
    /// Those, and who must be believed by one that may not know the current membership: Raft's own RPCs.
    Teachers,
}

/// Refuses calls that are meant for another cluster or member, those of a member that was removed, and, where the
/// connection is TLS, those whose certificate is not that of the member they are from.
#[derive(Clone, Debug)]
struct Addressee {
    node: Node,
    callers: Callers,
}

impl Interceptor for Addressee {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let node = &self.node;
        check(request.metadata(), CLUSTER_HEADER, node.cluster_id(), "cluster")?;
        check(request.metadata(), TARGET_HEADER, node.member_id(), "member")?;
        let sender = u64::from_str_radix(named(request.metadata(), SENDER_HEADER), 16).unwrap_or(0);
        if node.store().is_removed(sender) {
            return Err(Status::failed_precondition(
                "the member has been permanently removed from the cluster",
            ));
        }
        if let Some(certificate) = request.extensions().get::<PeerCertificate>() {
            let roll = Roll::of(node.store());
            let admitted = match self.callers {
                Callers::Members => roll.is(sender, &certificate.member),
                Callers::Teachers => roll.may_teach(sender, &certificate.member, node.knows_a_leader()),
            };
            admitted.map_err(|reason| Status::permission_denied(reason.to_string()))?;
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

/// A client of a peer's forwarding service.
pub type ForwardPeer = ForwardClient<InterceptedService<Channel, Stamp>>;

/// A client of `target`'s forwarding service.
#[must_use]
pub fn forward_client(channel: Channel, stamp: Stamp) -> ForwardPeer {
    ForwardClient::with_interceptor(channel, stamp)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
