//! A port's routes that come later than the port: until a member knows who it is, it says so to everyone.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tower::ServiceExt;

/// `UNAVAILABLE`: clients and peers try again, or another member.
const GRPC_UNAVAILABLE: &str = "14";
const NOT_YET: &str = "this member is starting and does not know its cluster yet";

/// Cloneable; all clones are opened at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    routes: Arc<OnceLock<Router>>,
}

impl Gate {
    /// From now on the routes answer.
    pub(super) fn open(&self, routes: Router) {
        // Opened once: there is one node.
        let _ = self.routes.set(routes);
    }

    /// What stands at the port.
    pub(super) fn router(&self) -> Router {
        let gate = self.clone();
        Router::new().fallback(move |request| gate.clone().answer(request))
    }

    async fn answer(self, request: Request) -> Response {
        match self.routes.get() {
            Some(routes) => {
                let answered: Result<Response, Infallible> = routes.clone().oneshot(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            None => not_yet(&request),
        }
    }
}

fn not_yet(request: &Request) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let headers = [
            ("content-type", "application/grpc"),
            ("grpc-status", GRPC_UNAVAILABLE),
            ("grpc-message", NOT_YET),
        ];
        (headers, Body::empty()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{NOT_YET}\n")).into_response()
    }
}
