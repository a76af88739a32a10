//! One answer to every request of a connection, whatever it asks for: as a gRPC status to gRPC, as text to others.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

/// Why nothing is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Clients and peers try again, or another member.
    NotYet,
    /// Whoever it is, it is nobody for this port.
    Misplaced,
}

impl Refusal {
    /// gRPC's and HTTP's code.
    fn codes(self) -> (&'static str, StatusCode) {
        match self {
            Refusal::NotYet => ("14", StatusCode::SERVICE_UNAVAILABLE),
            Refusal::Misplaced => ("7", StatusCode::FORBIDDEN),
        }
    }
}

/// Routes that answer everything with a reason.
pub(super) fn router(reason: String) -> Router {
    Router::new().fallback(move |request: Request| {
        let answer = answer(&request, Refusal::Misplaced, &reason);
        std::future::ready(answer)
    })
}

/// The answer to one request.
pub(super) fn answer(request: &Request, refusal: Refusal, reason: &str) -> Response {
    let (grpc_code, http_code) = refusal.codes();
    let content_type = request.headers().get(CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    // Reasons are ours, in plain letters; a name in one may hold anything.
    let words: Option<HeaderValue> = reason.parse().ok().filter(|_| !reason.contains('%'));
    if grpc {
        let headers = [
            ("content-type", HeaderValue::from_static("application/grpc")),
            ("grpc-status", HeaderValue::from_static(grpc_code)),
            (
                "grpc-message",
                words.unwrap_or_else(|| HeaderValue::from_static("refused")),
            ),
        ];
        (headers, Body::empty()).into_response()
    } else {
        (http_code, format!("{reason}\n")).into_response()
    }
}
