//! A websocket of Incus' API, over its unix socket.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::IncusError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Events are far smaller; of what it reads from a pipe, Incus sends at most so much at once.
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Connects. `path` begins with a slash and is encoded already.
pub(super) async fn connect(socket: &Path, path: &str) -> Result<WebSocketStream<UnixStream>, IncusError> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT_BYTES))
        .max_frame_size(Some(MESSAGE_LIMIT_BYTES));
    let handshake = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| unreachable(socket, error))?;
        tokio_tungstenite::client_async_with_config(format!("ws://incus{path}"), stream, Some(config))
            .await
            .map_err(|error| unreachable(socket, error))
    };
    let (websocket, _) = tokio::time::timeout(CONNECT_LIMIT, handshake)
        .await
        .map_err(|_| IncusError::Timeout {
            limit_seconds: CONNECT_LIMIT.as_secs(),
        })??;
    Ok(websocket)
}

pub(super) fn unreachable(
    socket: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> IncusError {
    IncusError::Unreachable {
        socket: socket.to_owned(),
        source: error.into(),
    }
}
