//! The websocket that Incus tells its lifecycle events on: connecting, limits, the end. What an event says is read by
//! who listens: [`super::EventStream`] for the objects of documents, [`super::ChangeStream`] for everything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{IncusError, websocket};

const PATH: &str = "/1.0/events?type=lifecycle&all-projects=true";

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
        let websocket = websocket::connect(socket, PATH).await?;
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
                Some(Err(error)) => Some(Err(websocket::unreachable(&this.socket, error))),
            };
            this.websocket = None;
            return Poll::Ready(item);
        }
    }
}
