//! Counts every gRPC call, and gives an oversized message the code that gRPC's own servers give.
//!
//! It must not touch what a call says: only its name, and how it ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status;
use crate::telemetry::{CallKind, Metrics, StartedCall};

#[derive(Clone, Debug)]
pub(super) struct ObserveLayer {
    metrics: Metrics,
}

impl ObserveLayer {
    pub(super) fn new(metrics: Metrics) -> ObserveLayer {
        ObserveLayer { metrics }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.metrics.call_started(request.uri().path());
        let metrics = self.metrics.clone();
        let counted = request.map(|body| {
            let metrics = metrics.clone();
            counting(body, move |bytes| metrics.received(bytes))
        });
        let answering = self.inner.call(counted);
        Box::pin(async move {
            let response = answering.await?;
            let response = match call {
                Some(call) => observed(response, call),
                None => response,
            };
            Ok(response.map(|body| counting(body, move |bytes| metrics.sent(bytes))))
        })
    }
}

/// The same body, while `count` hears how long each piece is.
fn counting(body: Body, count: impl Fn(usize) + Send + 'static) -> Body {
    Body::new(body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            count(data.len());
        }
        frame
    }))
}

/// A failure stands in the head of the response; otherwise the end of a stream is still to come, and a single
/// answer that has been made is a success.
fn observed(response: Response<Body>, call: StartedCall) -> Response<Body> {
    if let Some(failure) = response.extensions().get::<Status>() {
        if let Some(renamed) = status::too_large_message(failure) {
            call.ended(name_of(renamed.code()));
            return renamed.into_http();
        }
        call.ended(name_of(failure.code()));
        return response;
    }
    match call.kind() {
        CallKind::Unary => {
            call.ended(name_of(Code::Ok));
            response
        }
        CallKind::Streaming => response.map(|body| {
            Body::new(ObservedBody {
                inner: body,
                call: Some(call),
            })
        }),
    }
}

/// A streamed answer, until its trailers say how it ended. Dropped before: the client went away.
struct ObservedBody {
    inner: Body,
    call: Option<StartedCall>,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
            && let Some(call) = self.call.take()
        {
            call.ended(name_of(code_in(trailers)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.ended(name_of(Code::Cancelled));
        }
    }
}

fn code_in(trailers: &HeaderMap) -> Code {
    trailers
        .get("grpc-status")
        .map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// The outcome's name, as in the metrics of gRPC's own servers.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
