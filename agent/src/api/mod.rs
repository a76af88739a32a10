//! How clients talk to this member: etcd's services over gRPC, and health, version and metrics over HTTP, all on
//! one port.
//!
//! One file per etcd service, and `hosts` and `trust` for those that are ours. A call passes `interceptor` (who, and may this member serve it), then `validate`
//! (shape), then the [`Node`]; the answer gets its `header`, a failure its place in `status`.
//!
//! What it must not do: decide anything about data (apply does), keep state between calls other than a client's
//! own streams, or be imported by the reconciler. Nothing but `peer` and this module names `tonic::Status`.

mod arrival;
mod auth;
mod backups;
mod certificates;
mod cluster;
mod election;
mod gateway;
mod header;
mod health;
mod hosts;
mod http;
mod interceptor;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod observe;
mod passwords;
mod plans;
mod queue;
mod sealing;
mod shares;
mod status;
mod tokens;
mod trust;
mod txn_headers;
mod validate;
mod watch;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::v1::hosts_server::HostsServer;
use proto::agent::v1::trust_server::TrustServer;
use proto::etcdserverpb::auth_server::AuthServer;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::etcdserverpb::watch_server::WatchServer;
use proto::etcdserverpb::{RangeRequest, ResponseHeader};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use proto::replicated::{Refusal, Reply, reply};
use proto::v3electionpb::election_server::ElectionServer;
use proto::v3lockpb::lock_server::LockServer;
use raft_store::{ReadError, Store};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::node::{Node, RaftView};
use crate::peer::Hosts;
use crate::secrets::KeyFile;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::tls::own::OwnTls;
use header::Headers;
use interceptor::Caller;
use passwords::Passwords;
use sealing::Sealing;
use shares::{Client, Held, Shares};
use status::ApiError;
use tokens::Tokens;

pub use interceptor::{ClientCertificate, LocalRoot};
pub use shares::ClientAddress;
pub use tokens::{JwtOptions, JwtOptionsError, TokenOptions};

/// The version of etcd whose behaviour clients find here. Purely numeric: Patroni and kube-apiserver parse it.
pub const ETCD_VERSION: &str = "3.5.21";

/// The version that etcd would call the cluster's: the least that all members speak.
pub const ETCD_CLUSTER_VERSION: &str = "3.5.0";

/// What gRPC framing, headers and the fields around a request may add to its payload, in bytes.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Reads of very many keys or bytes at once.
const LARGE_READS: usize = 16;

/// All clients together may have so many times what one may have.
const SHARES: usize = 4;

/// Proposals and answers below these sizes are bounded by their number alone.
const SMALL_PROPOSAL_BYTES: usize = 4 << 10;
const SMALL_ANSWER_BYTES: usize = 64 << 10;

/// How the API serves.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The largest request that is replicated.
    pub max_request_bytes: usize,
    /// The most operations in a transaction.
    pub max_txn_ops: usize,
    /// How often an idle watch that asked for it hears how far it is; a tenth is added at random.
    pub progress_notify_interval: Duration,
    /// The most watches on one stream, and of one client.
    pub max_watches_per_stream: usize,
    pub max_client_watches: usize,
    /// What one client may have under way, in bytes: requests that have arrived in part or are proposed, and answers
    /// that have not been sent.
    pub max_client_bytes: usize,
    /// Beyond which this member grants none.
    pub max_leases: usize,
    /// As configured for the node; 0: none. Only reported.
    pub quota_bytes: u64,
    /// What clients that have logged in show instead of their password.
    pub tokens: TokenOptions,
    /// What secrets are sealed with; `None`: none is taken.
    pub secrets: Option<KeyFile>,
    /// How much work bcrypt makes of a password: 2 to the power of this.
    pub bcrypt_cost: u32,
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        ApiOptions {
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            progress_notify_interval: Duration::from_secs(600),
            max_watches_per_stream: 65_536,
            max_client_watches: 262_144,
            max_client_bytes: 256 << 20,
            max_leases: 1_000_000,
            quota_bytes: 0,
            tokens: TokenOptions::Simple {
                ttl: Duration::from_secs(300),
            },
            secrets: None,
            bcrypt_cost: 10,
        }
    }
}

impl ApiOptions {
    /// The largest message a client may send; what watch answers are split at, too.
    fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }
}

/// What the API serves from.
#[derive(Clone, Debug)]
pub struct ApiContext {
    pub node: Node,
    pub hosts: Hosts,
    /// This member's certificates; `None`: members speak plaintext.
    pub tls: Option<OwnTls>,
    pub options: ApiOptions,
    pub metrics: Metrics,
    /// Once cancelled, streams end; the caller closes the listener.
    pub shutdown: Shutdown,
}

impl ApiContext {
    #[must_use]
    pub fn new(
        node: Node,
        hosts: Hosts,
        tls: Option<OwnTls>,
        options: ApiOptions,
        metrics: Metrics,
        shutdown: Shutdown,
    ) -> ApiContext {
        ApiContext {
            node,
            hosts,
            tls,
            options,
            metrics,
            shutdown,
        }
    }
}

/// Everything a client can reach, for HTTP/1.1 and HTTP/2 alike.
pub fn router(context: ApiContext) -> axum::Router {
    let limit = context.options.max_message_bytes();
    let metrics = context.metrics.clone();
    let api = Arc::new(Api::new(context));
    let bytes = api.bytes.clone();
    let grpc = Routes::default()
        .add_service(KvServer::new(kv::KvService(api.clone())).max_decoding_message_size(limit))
        .add_service(WatchServer::new(watch::WatchService(api.clone())).max_decoding_message_size(limit))
        .add_service(LeaseServer::new(lease::LeaseService(api.clone())).max_decoding_message_size(limit))
        .add_service(
            ClusterServer::new(cluster::ClusterService(api.clone())).max_decoding_message_size(limit),
        )
        .add_service(
            MaintenanceServer::new(maintenance::MaintenanceService(api.clone()))
                .max_decoding_message_size(limit),
        )
        .add_service(AuthServer::new(auth::AuthService(api.clone())).max_decoding_message_size(limit))
        .add_service(LockServer::new(lock::LockService(api.clone())).max_decoding_message_size(limit))
        .add_service(
            ElectionServer::new(election::ElectionService(api.clone())).max_decoding_message_size(limit),
        )
        .add_service(TrustServer::new(trust::TrustService(api.clone())).max_decoding_message_size(limit))
        .add_service(HostsServer::new(hosts::HostsService(api.clone())).max_decoding_message_size(limit))
        .add_service(HealthServer::new(health::HealthService(api.shutdown.clone())));
    // The observing layer stands outside of the gRPC routes only: HTTP routes are not calls.
    let calls = grpc
        .into_axum_router()
        .layer(arrival::ArrivalLayer::new(bytes.clone()))
        .layer(observe::ObserveLayer::new(metrics));
    calls
        .clone()
        .merge(gateway::routes(calls, limit, bytes))
        .merge(http::routes(api))
        .fallback(http::not_found)
        .with_state(())
}

/// What all services share.
#[derive(Debug)]
struct Api {
    node: Node,
    hosts: Hosts,
    tls: Option<OwnTls>,
    options: ApiOptions,
    metrics: Metrics,
    shutdown: Shutdown,
    headers: Headers,
    tokens: Tokens,
    passwords: Passwords,
    sealing: Sealing,
    /// Places for reads that take long and answer much.
    large_reads: Semaphore,
    /// A place for each call that waits for a lock or an election.
    waiters: Semaphore,
    /// Under way, of requests and answers.
    bytes: Shares,
    watches: Shares,
}

impl Api {
    fn new(context: ApiContext) -> Api {
        let headers = Headers::new(&context.node);
        let ApiContext {
            node,
            hosts,
            tls,
            options,
            metrics,
            shutdown,
        } = context;
        // A single request always fits.
        let client_bytes = options.max_client_bytes.max(options.max_message_bytes());
        Api {
            node,
            hosts,
            tls,
            metrics,
            shutdown,
            headers,
            tokens: Tokens::new(&options.tokens),
            passwords: Passwords::new(options.bcrypt_cost),
            sealing: Sealing::new(options.secrets.clone()),
            bytes: Shares::new(client_bytes.saturating_mul(SHARES), client_bytes),
            watches: Shares::new(
                options.max_client_watches.saturating_mul(SHARES),
                options.max_client_watches,
            ),
            options,
            large_reads: Semaphore::new(LARGE_READS),
            waiters: Semaphore::new(queue::WAITERS),
        }
    }

    /// What this member sees of its group now.
    fn view(&self) -> RaftView {
        self.headers.view()
    }

    /// Completes once this member has all that was committed when it was asked, for a call that only voters serve. A
    /// member that has just started learns from this that it is none yet: what was asked before that is refused too.
    async fn read_index(&self) -> Result<(), ApiError> {
        self.node.read_index().await?;
        if self.view().is_learner {
            return Err(ApiError::NotSupportedForLearner);
        }
        Ok(())
    }

    /// A header at the store's revision now.
    fn header_now(&self) -> Option<ResponseHeader> {
        self.header_at(self.node.store().revision())
    }

    fn header_at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(self.headers.at(revision))
    }

    /// Replicates `op` on behalf of `caller` and returns apply's answer and the header it belongs to.
    async fn propose(&self, caller: &Caller, op: Op) -> Result<(Option<ResponseHeader>, Outcome), ApiError> {
        let op = self.sealing.sealed(op)?;
        self.node.check_room(&op)?;
        let _held = self.hold_proposal(caller, &op)?;
        let pending = self.metrics.proposal();
        let reply = self
            .replicate(caller, op)
            .await
            .inspect_err(|_| pending.failed())?;
        match reply.result {
            Some(reply::Result::Refused(refusal)) => {
                Err(Refusal::try_from(refusal).unwrap_or(Refusal::Unspecified).into())
            }
            Some(outcome) => Ok((self.header_at(reply.revision), outcome)),
            None => Err(ApiError::UnexpectedReply),
        }
    }

    /// What a proposal is made of stays in memory until it is answered.
    fn hold_proposal(&self, caller: &Caller, op: &Op) -> Result<Option<Held>, ApiError> {
        let bytes = op.encoded_len();
        if bytes <= SMALL_PROPOSAL_BYTES {
            return Ok(None);
        }
        let held = self.bytes.take(&caller.client(), bytes);
        held.map(Some).ok_or(ApiError::TooManyRequests)
    }

    /// A proposal that was overtaken by a change of users or roles is checked and made again: it had no effect.
    async fn replicate(&self, caller: &Caller, op: Op) -> Result<Reply, ApiError> {
        const ATTEMPTS: usize = 5;
        let mut author = caller.author().clone();
        let again = (!author.user().is_empty()).then(|| op.clone());
        let mut reply = self.node.propose_as(&author, op).await?;
        for _ in 1..ATTEMPTS {
            let overtaken = Some(reply::Result::Refused(Refusal::AuthOldRevision.into()));
            let (Some(op), true) = (&again, reply.result == overtaken) else {
                break;
            };
            let now = self.author_again(caller).await?;
            if now == author {
                break;
            }
            author = now;
            reply = self.node.propose_as(&author, op.clone()).await?;
        }
        Ok(reply)
    }

    /// Reads `ranges` from the local store, for `client`, whose answer counts as its own until it has taken it. Where that
    /// takes long, it holds up nothing else on this thread, and few do so at once.
    async fn read<T>(
        &self,
        client: &Client,
        ranges: &[&RangeRequest],
        read: impl FnOnce(&Store) -> Result<T, ReadError>,
    ) -> Result<(T, Option<Held>), ApiError> {
        let store = self.node.store();
        let deadline = Instant::now() + self.node.timeouts().request;
        let quick: Option<u64> = ranges.iter().map(|range| store.quick_bytes(range)).sum();
        let hold = async |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if bytes <= SMALL_ANSWER_BYTES {
                return Ok(None);
            }
            // A single answer may be larger than any share: then it is the client's only one.
            let held = self
                .bytes
                .take_until(deadline, client, bytes.min(self.bytes.each()));
            held.await.map(Some).ok_or(ApiError::TooManyRequests)
        };
        if let Some(bytes) = quick {
            let held = hold(bytes).await?;
            return Ok((read(store)?, held));
        }
        let bytes =
            tokio::task::block_in_place(|| ranges.iter().map(|range| store.answer_bytes(range)).sum());
        let held = hold(bytes).await?;
        let place = tokio::time::timeout_at(deadline, self.large_reads.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(ApiError::TooManyRequests);
        };
        Ok((tokio::task::block_in_place(|| read(store))?, held))
    }

    /// Completes when a stream must end although its client goes on, and says why.
    async fn stream_must_end(&self, caller: &Caller) -> ApiError {
        if caller.requires_leader {
            let patience = self.node.timeouts().election.saturating_mul(3);
            tokio::select! {
                () = interceptor::leader_lost(self.node.raft_view(), patience) => ApiError::NoLeader,
                () = self.shutdown.cancelled() => ApiError::Stopped,
            }
        } else {
            self.shutdown.cancelled().await;
            ApiError::Stopped
        }
    }
}
