//! etcd's JSON gateway: every gRPC call as a POST of JSON, on the same port, for clients without gRPC.
//!
//! `methods` knows the paths, `json` turns text into messages and back, `metadata` says which headers a call
//! takes along, `failure` what a client is told. The call itself is the one that a gRPC client makes: it goes
//! through the same services, in this process.
//!
//! What it must not do: connect to anything, know what a call means, or take anything of the connection along.
//! Who a client certificate names counts for gRPC only.

mod codec;
mod failure;
mod json;
mod metadata;
mod methods;
mod splitter;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Method as HttpMethod, Request};
use http_body_util::BodyExt;
use tonic::{Code, Status};

use codec::Transcode;
use failure::Failure;
use methods::{Method, Methods};

/// The prefixes of every path, the second one for clients of etcd 3.3.
const PREFIXES: [&str; 2] = ["/v3", "/v3beta"];

/// Base64 makes four bytes of three; the rest is for names, blanks and escapes.
const JSON_EXPANSION: usize = 2;

/// The body of a single request has to be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of a body that is too long is read only so that its client hears of it.
const DISCARDED_BYTES: usize = 64 << 20;

/// What grpc-gateway tells of the call behind an answer.
const CALL_CONTENT_TYPE: (HeaderName, &str) = (
    HeaderName::from_static("grpc-metadata-content-type"),
    "application/grpc",
);

/// The services as a client in this process calls them.
type Client = tonic::client::Grpc<Router>;

#[derive(Clone, Debug)]
struct Gateway {
    methods: Arc<Methods>,
    calls: Router,
    max_body_bytes: usize,
}

/// The gateway's routes. `calls` serves the gRPC calls; `max_message_bytes` is the limit on each of their messages.
pub(super) fn routes(calls: Router, max_message_bytes: usize) -> Router {
    let gateway = Gateway {
        methods: Arc::new(Methods::new()),
        calls,
        max_body_bytes: max_message_bytes.saturating_mul(JSON_EXPANSION),
    };
    let mut routes = Router::new();
    for prefix in PREFIXES {
        routes = routes
            .route(&format!("{prefix}/"), any(call))
            .route(&format!("{prefix}/{{*method}}"), any(call));
    }
    routes.with_state(gateway)
}

async fn call(State(gateway): State<Gateway>, request: Request<Body>) -> Response {
    match gateway.serve(request).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

impl Gateway {
    async fn serve(&self, request: Request<Body>) -> Result<Response, Failure> {
        let path = request.uri().path();
        let method = PREFIXES
            .iter()
            .filter_map(|prefix| path.strip_prefix(prefix))
            .find_map(|path| self.methods.find(path))
            .ok_or_else(|| Failure::call(Status::not_found("Not Found")))?;
        if request.method() != HttpMethod::POST {
            return Err(Failure::call(Status::unimplemented("Method Not Allowed")));
        }
        let headers = request.headers();
        let metadata = metadata::from_headers(headers);
        let timeout = metadata::timeout(headers)?;
        let serving: BoxFuture<'_, Result<Response, Failure>> = if method.is_streaming() {
            Box::pin(stream::serve(
                self,
                method,
                metadata,
                request.into_body(),
                timeout,
            ))
        } else {
            Box::pin(self.serve_one(method, metadata, request.into_body()))
        };
        match timeout {
            Some(timeout) => tokio::time::timeout(timeout, serving)
                .await
                .unwrap_or_else(|_| Err(Failure::call(deadline_exceeded()))),
            None => serving.await,
        }
    }

    /// One message each way.
    async fn serve_one(
        &self,
        method: &Method,
        metadata: tonic::metadata::MetadataMap,
        body: Body,
    ) -> Result<Response, Failure> {
        let body = self.read(body).await?;
        let message = json::parse(&method.input, &body).map_err(Failure::call)?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = metadata;
        let answer = self
            .client()
            .unary(request, method.path.clone(), Transcode::to(&method.output))
            .await
            .map_err(Failure::call)?;
        let body = json::print(answer.get_ref()).map_err(Failure::call)?;
        let headers = [CALL_CONTENT_TYPE, (CONTENT_TYPE, "application/json")];
        Ok((headers, body).into_response())
    }

    async fn read(&self, body: Body) -> Result<Bytes, Failure> {
        let reading = read_to_the_end(body, self.max_body_bytes);
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(Failure::call(Status::resource_exhausted(format!(
                "the body was cut off, or is longer than {} bytes",
                self.max_body_bytes
            )))),
            Err(_) => Err(Failure::call(Status::new(
                Code::DeadlineExceeded,
                "the body did not arrive in time",
            ))),
        }
    }

    fn client(&self) -> Client {
        // What the services answer is theirs to bound.
        Client::new(self.calls.clone()).max_decoding_message_size(usize::MAX)
    }
}

/// `None`: it was cut off, or is longer than `limit`. What is too long is read on and thrown away, as far as is bearable: a
/// client that still sends when the connection is closed never sees the answer.
async fn read_to_the_end(mut body: Body, limit: usize) -> Option<Bytes> {
    let mut kept = BytesMut::new();
    let mut arrived = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        arrived = arrived.saturating_add(data.len());
        if arrived <= limit {
            kept.extend_from_slice(&data);
        } else if arrived <= limit.saturating_add(DISCARDED_BYTES) {
            kept = BytesMut::new();
        } else {
            return None;
        }
    }
    (arrived <= limit).then(|| kept.freeze())
}

fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}
