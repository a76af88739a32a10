//! A port's routes that come later than the port: until a member knows who it is, it says so to everyone.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::ServiceExt;

use super::refusal::{self, Refusal};

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
            None => refusal::answer(&request, Refusal::NotYet, NOT_YET),
        }
    }
}
