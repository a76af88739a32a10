//! etcd's JSON gateway: every gRPC call as a POST of JSON, on the same port, for clients without gRPC.
//!
//! `methods` knows the paths, `json` turns text into messages and back, `metadata` says which headers a call
//! takes along, `failure` what a client is told. The call itself is the one that a gRPC client makes: it goes
//! through the same services, in this process.
//!
//! What it must not do: connect to anything, know what a call means, or take anything of the connection along but the address
//! that it comes from. Who a client certificate names counts for gRPC only.

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
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Method as HttpMethod, Request};
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::arrival;
use super::shares::{Client, ClientAddress, Held, Shares};
use super::status::ApiError;

use codec::Transcode;
use failure::Failure;
use methods::{Method, Methods};

/// The prefixes of every path, the second one for clients of etcd 3.3.
const PREFIXES: [&str; 2] = ["/v3", "/v3beta"];

/// Base64 makes four bytes of three; the rest is for names, blanks and escapes.
const JSON_EXPANSION: usize = 2;

/// The body of a single request has to be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bodies, of requests and of answers, that do not count as their client's.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// How long an answer waits for others of its client to be taken.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How much of a body that is too long is read only so that its client hears of it.
const DISCARDED_BYTES: usize = 64 << 20;

/// What grpc-gateway tells of the call behind an answer.
const CALL_CONTENT_TYPE: (HeaderName, &str) = (
    HeaderName::from_static("grpc-metadata-content-type"),
    "application/grpc",
);

/// The services as a client in this process calls them.
type Calls = tonic::client::Grpc<Router>;

/// What a call takes along.
struct Origin {
    metadata: MetadataMap,
    address: Option<ClientAddress>,
    client: Client,
}

impl Origin {
    fn request<T>(self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata;
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        request
    }
}

#[derive(Clone, Debug)]
struct Gateway {
    methods: Arc<Methods>,
    calls: Router,
    max_body_bytes: usize,
    bytes: Shares,
}

/// The gateway's routes. `calls` serves the gRPC calls; `max_message_bytes` is the limit on each of their messages, `bytes`
/// what clients may have under way.
pub(super) fn routes(calls: Router, max_message_bytes: usize, bytes: Shares) -> Router {
    let gateway = Gateway {
        methods: Arc::new(Methods::new()),
        calls,
        max_body_bytes: max_message_bytes.saturating_mul(JSON_EXPANSION),
        bytes,
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
        let origin = Origin {
            metadata: metadata::from_headers(headers),
            address: request.extensions().get().copied(),
            client: Client::of_connection(request.extensions()),
        };
        let timeout = metadata::timeout(headers)?;
        let serving: BoxFuture<'_, Result<Response, Failure>> = if method.is_streaming() {
            Box::pin(stream::serve(self, method, origin, request.into_body(), timeout))
        } else {
            Box::pin(self.serve_one(method, origin, request.into_body()))
        };
        match timeout {
            Some(timeout) => tokio::time::timeout(timeout, serving)
                .await
                .unwrap_or_else(|_| Err(Failure::call(deadline_exceeded()))),
            None => serving.await,
        }
    }

    /// One message each way.
    async fn serve_one(&self, method: &Method, origin: Origin, body: Body) -> Result<Response, Failure> {
        let message = self.read(&method.input, &origin, body).await?;
        let client = origin.client.clone();
        let request = origin.request(message);
        let answer = self
            .calls()
            .unary(request, method.path.clone(), Transcode::to(&method.output))
            .await
            .map_err(Failure::call)?;
        let body = json::print(answer.get_ref()).map_err(Failure::call)?;
        let held = self.hold(ANSWER_PATIENCE, &client, body.len().min(self.bytes.each()));
        let held = held.await?;
        let headers = [CALL_CONTENT_TYPE, (CONTENT_TYPE, "application/json")];
        let mut response = (headers, body).into_response();
        if let Some(held) = held {
            response.extensions_mut().insert(Arc::new(held));
        }
        Ok(arrival::leaving(response))
    }

    /// What is small is bounded by the number of calls alone.
    async fn hold(&self, patience: Duration, client: &Client, bytes: usize) -> Result<Option<Held>, Failure> {
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let held = self.bytes.take_until(Instant::now() + patience, client, bytes);
        held.await
            .map(Some)
            .ok_or_else(|| Failure::call(ApiError::TooManyRequests.into()))
    }

    /// The message in a body.
    async fn read(
        &self,
        kind: &MessageDescriptor,
        origin: &Origin,
        body: Body,
    ) -> Result<DynamicMessage, Failure> {
        let longest = body
            .size_hint()
            .upper()
            .and_then(|bytes| usize::try_from(bytes).ok());
        let longest = longest.unwrap_or(usize::MAX).min(self.max_body_bytes);
        let _held = self.hold(Duration::ZERO, &origin.client, longest).await?;
        let reading = read_to_the_end(body, self.max_body_bytes);
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Some(body)) => json::parse(kind, &body).map_err(Failure::call),
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

    fn calls(&self) -> Calls {
        // What the services answer is theirs to bound.
        Calls::new(self.calls.clone()).max_decoding_message_size(usize::MAX)
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
