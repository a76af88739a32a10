//! The plain HTTP routes: probes, version and metrics; and what all other paths answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use tonic::Status;

use super::{Api, ETCD_CLUSTER_VERSION, ETCD_VERSION, health};
use crate::telemetry::{Metrics, NodeSample};

pub(super) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", any(health::health))
        .route("/livez", any(health::livez))
        .route("/livez/{check}", any(health::livez_check))
        .route("/readyz", any(health::readyz))
        .route("/readyz/{check}", any(health::readyz_check))
        .route("/version", any(version))
        .route_layer(middleware::from_fn(only_get))
        .route("/metrics", any(metrics))
        .with_state(api)
}

/// As etcd's pages: not even HEAD.
async fn only_get(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(ALLOW, "GET")],
        "Method Not Allowed\n",
    )
        .into_response()
}

async fn version() -> Response {
    let body = serde_json::json!({ "etcdserver": ETCD_VERSION, "etcdcluster": ETCD_CLUSTER_VERSION });
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let text = api.metrics.encode(&sample(&api));
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response()
}

/// What the node and the store know at the time of a scrape.
fn sample(api: &Api) -> NodeSample {
    let view = api.view();
    let store = api.node.store();
    let (db_bytes, db_in_use_bytes) = store.size_bytes();
    NodeSample {
        member_id: api.node.member_id(),
        view,
        revision: store.revision(),
        compacted_revision: store.compacted_revision(),
        leases: store.lease_count() as u64,
        db_bytes,
        db_in_use_bytes,
        quota_bytes: api.options.quota_bytes,
        etcd_version: ETCD_VERSION,
        etcd_cluster_version: ETCD_CLUSTER_VERSION,
    }
}

/// For a gRPC client a method that is not there, for everyone else a page that is not there.
pub(super) async fn not_found(headers: HeaderMap) -> Response {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
        .unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        Status::unimplemented("unknown service").into_http::<axum::body::Body>()
    } else {
        page_not_found()
    }
}

/// What etcd says of a page that is not there.
pub(super) fn page_not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
