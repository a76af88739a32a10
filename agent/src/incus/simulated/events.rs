//! The simulated daemon's `/1.0/events`: lifecycle events over a websocket, nothing replayed.

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Daemon;
use super::api::{Params, error};
use super::change::Happened;
use super::world::NO_TIME;

/// A listener that is further behind is cut off, and looks at everything when it is back.
pub(super) const BACKLOG: usize = 256;

/// An event on its way to the listeners.
#[derive(Clone, Debug)]
pub(super) struct Told {
    project: String,
    message: Value,
}

impl Told {
    pub(super) fn new(happened: Happened) -> Self {
        let Happened {
            action,
            source,
            name,
            project,
        } = happened;
        let metadata = json!({"action": action, "source": source, "name": name, "project": project,
            "context": {}, "requestor": {"username": "root", "protocol": "unix", "address": "@"}});
        let message = json!({"type": "lifecycle", "timestamp": NO_TIME, "metadata": metadata,
            "location": "none", "project": project});
        Self { project, message }
    }
}

/// Upgrades the connection and tells it what happens from now on.
pub(super) async fn listen(
    State(daemon): State<Daemon>,
    Query(params): Query<Params>,
    mut request: Request,
) -> Response {
    let Some(accept) = accept_key(request.headers()) else {
        return error(400, "not a websocket handshake");
    };
    let project = if params.all_projects() {
        None
    } else {
        Some(params.project().to_owned())
    };
    // Subscribed before the answer: an event after the handshake is not missed.
    let events = daemon.events.subscribe();
    let upgrade = hyper::upgrade::on(&mut request);
    let stopped = daemon.stopped.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let websocket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        stopped
            .run_until_cancelled(tell(websocket, events, project))
            .await;
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

fn accept_key(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    upgrade
        .eq_ignore_ascii_case("websocket")
        .then(|| derive_accept_key(key.as_bytes()))
}

/// Ends when either side closes or the listener is too slow.
async fn tell(
    websocket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut events: broadcast::Receiver<Told>,
    project: Option<String>,
) {
    let (mut sink, mut source) = websocket.split();
    loop {
        tokio::select! {
            told = events.recv() => match told {
                Ok(told) => {
                    let wanted = project.as_deref().is_none_or(|project| project == told.project);
                    if wanted && sink.send(Message::text(told.message.to_string())).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            // Reading also answers pings; a listener has nothing else to say.
            message = source.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}
