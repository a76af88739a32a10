//! Incus' lifecycle events, over a websocket on the unix socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{IncusError, Kind, path};

const URL: &str = "ws://incus/1.0/events?type=lifecycle&all-projects=true";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Something happened to an object. Of kinds this client does not handle nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Empty for a project, which is in none.
    pub project: String,
    pub kind: Kind,
    pub name: String,
    /// Incus' word, like `instance-started`.
    pub action: String,
}

/// Events as they come. Ends when the daemon stops; after an error it has ended.
pub struct EventStream {
    socket: PathBuf,
    /// `None` once it has ended.
    websocket: Option<WebSocketStream<UnixStream>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) async fn connect(socket: &Path) -> Result<Self, IncusError> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LIMIT_BYTES))
            .max_frame_size(Some(MESSAGE_LIMIT_BYTES));
        let handshake = async {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|error| unreachable(socket, error))?;
            tokio_tungstenite::client_async_with_config(URL, stream, Some(config))
                .await
                .map_err(|error| unreachable(socket, error))
        };
        let (websocket, _) = tokio::time::timeout(CONNECT_LIMIT, handshake)
            .await
            .map_err(|_| IncusError::Timeout {
                limit_seconds: CONNECT_LIMIT.as_secs(),
            })??;
        Ok(Self {
            socket: socket.to_owned(),
            websocket: Some(websocket),
        })
    }
}

impl Stream for EventStream {
    type Item = Result<Event, IncusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(websocket) = &mut this.websocket else {
                return Poll::Ready(None);
            };
            let item = match ready!(Pin::new(websocket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => match parse(text.as_bytes()) {
                    Ok(None) => continue,
                    Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                    Err(error) => Some(Err(error)),
                },
                // Pings are answered by the websocket itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {
                    continue;
                }
                Some(Ok(Message::Close(_))) | None => None,
                Some(Err(error)) => Some(Err(unreachable(&this.socket, error))),
            };
            this.websocket = None;
            return Poll::Ready(item);
        }
    }
}

fn unreachable(socket: &Path, error: impl std::error::Error + Send + Sync + 'static) -> IncusError {
    IncusError::Unreachable {
        socket: socket.to_owned(),
        source: error.into(),
    }
}

/// `None` for what is no lifecycle event of a kind we handle.
fn parse(message: &[u8]) -> Result<Option<Event>, IncusError> {
    let event: Value =
        serde_json::from_slice(message).map_err(|error| IncusError::bad_answer(error.to_string()))?;
    if event.get("type").and_then(Value::as_str) != Some("lifecycle") {
        return Ok(None);
    }
    let metadata = event.get("metadata");
    let text = |field: &str| {
        metadata
            .and_then(|metadata| metadata.get(field))
            .and_then(Value::as_str)
    };
    let (Some(action), Some(source)) = (text("action"), text("source")) else {
        return Err(IncusError::bad_answer(
            "a lifecycle event without action or source",
        ));
    };
    let (path, query) = source.split_once('?').unwrap_or((source, ""));
    if path == "/1.0" {
        return Ok(Some(Event {
            project: String::new(),
            kind: Kind::Server,
            name: String::new(),
            action: action.to_owned(),
        }));
    }
    let mut segments = path.trim_start_matches('/').split('/');
    let (Some("1.0"), Some(kinds), Some(name)) = (segments.next(), segments.next(), segments.next()) else {
        return Ok(None);
    };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.plural() == kinds) else {
        return Ok(None);
    };
    let Some(name) = path::decode(name).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let project = match kind {
        Kind::Server | Kind::StoragePool | Kind::Project => String::new(),
        // The source names the project unless it is the default one.
        _ => query
            .split('&')
            .find_map(|pair| pair.strip_prefix("project="))
            .map_or_else(|| Some("default".to_owned()), path::decode)
            .ok_or_else(|| IncusError::bad_answer("a lifecycle event of an unreadable project"))?,
    };
    Ok(Some(Event {
        project,
        kind,
        name,
        action: action.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(source: &str, expected: Option<(&str, Kind, &str)>) {
        let message = json!({"type": "lifecycle", "metadata": {"action": "a", "source": source}});
        let event = parse(message.to_string().as_bytes()).unwrap();
        let event = event
            .as_ref()
            .map(|e| (e.project.as_str(), e.kind, e.name.as_str()));
        assert_eq!(event, expected, "{source}");
    }

    #[test]
    fn events_name_their_object() {
        check("/1.0/instances/web", Some(("default", Kind::Instance, "web")));
        check(
            "/1.0/instances/web?project=t1",
            Some(("t1", Kind::Instance, "web")),
        );
        check(
            "/1.0/instances/web/snapshots/s0?project=t1",
            Some(("t1", Kind::Instance, "web")),
        );
        check(
            "/1.0/profiles/a%20b?project=t%31",
            Some(("t1", Kind::Profile, "a b")),
        );
        check("/1.0/projects/t1", Some(("", Kind::Project, "t1")));
        check("/1.0", Some(("", Kind::Server, "")));
        // What lives in another object is told of as a change of that one.
        check(
            "/1.0/storage-pools/default/volumes/custom/data?project=t1",
            Some(("", Kind::StoragePool, "default")),
        );
        for source in [
            "",
            "/",
            "/1.0/instances",
            "/1.0/operations/n",
            "/2.0/instances/a",
            "/1.0/projects/%",
        ] {
            check(source, None);
        }
    }

    #[test]
    fn messages_of_other_shapes() {
        assert_eq!(parse(br#"{"type":"operation","metadata":{}}"#).unwrap(), None);
        assert!(parse(br#"{"type":"lifecycle","metadata":{}}"#).is_err());
        assert!(parse(b"no json").is_err());
    }
}
