//! The websocket that Incus tells its lifecycle events on: connecting, limits, the end. What an event says is read by
//! who listens: [`super::EventStream`] for the objects of documents, [`super::ChangeStream`] for everything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::IncusError;

const URL: &str = "ws://incus/1.0/events?type=lifecycle&all-projects=true";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// The text of each event. Ends when the daemon stops; after an error it has ended.
pub(super) struct Lifecycle {
    socket: PathBuf,
    /// `None` once it has ended.
    websocket: Option<WebSocketStream<UnixStream>>,
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Lifecycle {
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

impl Stream for Lifecycle {
    type Item = Result<Utf8Bytes, IncusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(websocket) = &mut this.websocket else {
                return Poll::Ready(None);
            };
            let item = match ready!(Pin::new(websocket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => return Poll::Ready(Some(Ok(text))),
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
