//! How clients talk to this member: etcd's services over gRPC, and health, version and metrics over HTTP, all on
//! one port.
//!
//! One file per etcd service. A call passes `interceptor` (who, and may this member serve it), then `validate`
//! (shape), then the [`Node`]; the answer gets its `header`, a failure its place in `status`.
//!
//! What it must not do: decide anything about data (apply does), keep state between calls other than a client's
//! own streams, or be imported by the reconciler. Nothing but `peer` and this module names `tonic::Status`.

mod auth;
mod cluster;
mod gateway;
mod header;
mod health;
mod http;
mod interceptor;
mod kv;
mod lease;
mod maintenance;
mod observe;
mod status;
mod txn_headers;
mod validate;
mod watch;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb::ResponseHeader;
use proto::etcdserverpb::auth_server::AuthServer;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::etcdserverpb::watch_server::WatchServer;
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use proto::replicated::{Refusal, reply};
use tonic::Request;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::node::{Node, RaftView};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use header::Headers;
pub use interceptor::ClientCertificate;
use interceptor::{Caller, Needs};
use status::ApiError;

/// The version of etcd whose behaviour clients find here. Purely numeric: Patroni and kube-apiserver parse it.
pub const ETCD_VERSION: &str = "3.5.21";

/// The version that etcd would call the cluster's: the least that all members speak.
pub const ETCD_CLUSTER_VERSION: &str = "3.5.0";

/// What gRPC framing, headers and the fields around a request may add to its payload, in bytes.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// How the API serves.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The largest request that is replicated.
    pub max_request_bytes: usize,
    /// The most operations in a transaction.
    pub max_txn_ops: usize,
    /// How often an idle watch that asked for it hears how far it is; a tenth is added at random.
    pub progress_notify_interval: Duration,
    /// The most watches on one stream.
    pub max_watches_per_stream: usize,
    /// As configured for the store; 0: none. Only reported.
    pub quota_bytes: u64,
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        ApiOptions {
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            progress_notify_interval: Duration::from_secs(600),
            max_watches_per_stream: 65_536,
            quota_bytes: 0,
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
    pub options: ApiOptions,
    pub metrics: Metrics,
    /// Once cancelled, streams end; the caller closes the listener.
    pub shutdown: Shutdown,
}

impl ApiContext {
    #[must_use]
    pub fn new(node: Node, options: ApiOptions, shutdown: Shutdown) -> ApiContext {
        ApiContext {
            node,
            options,
            metrics: Metrics::new(),
            shutdown,
        }
    }
}

/// Everything a client can reach, for HTTP/1.1 and HTTP/2 alike.
pub fn router(context: ApiContext) -> axum::Router {
    let limit = context.options.max_message_bytes();
    let metrics = context.metrics.clone();
    let api = Arc::new(Api::new(context));
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
        .add_service(HealthServer::new(health::HealthService(api.shutdown.clone())));
    // The observing layer stands outside of the gRPC routes only: HTTP routes are not calls.
    let calls = grpc.into_axum_router().layer(observe::ObserveLayer::new(metrics));
    calls
        .clone()
        .merge(gateway::routes(calls, limit))
        .merge(http::routes(api))
        .fallback(http::not_found)
        .with_state(())
}

/// What all services share.
#[derive(Debug)]
struct Api {
    node: Node,
    options: ApiOptions,
    metrics: Metrics,
    shutdown: Shutdown,
    headers: Headers,
}

impl Api {
    fn new(context: ApiContext) -> Api {
        let headers = Headers::new(&context.node);
        let ApiContext {
            node,
            options,
            metrics,
            shutdown,
        } = context;
        Api {
            node,
            options,
            metrics,
            shutdown,
            headers,
        }
    }

    /// What this member sees of its group now.
    fn view(&self) -> RaftView {
        self.headers.view()
    }

    /// The first thing every call does. The future does not keep the request.
    fn admit<'a, T>(
        &'a self,
        request: &Request<T>,
        needs: Needs,
    ) -> impl Future<Output = Result<Caller, ApiError>> + Send + use<'a, T> {
        let admitted = interceptor::admit(request.metadata(), &self.view(), needs);
        async move { admitted }
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
        let pending = self.metrics.proposal();
        let reply = self
            .node
            .propose_as(caller.author(), op)
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
