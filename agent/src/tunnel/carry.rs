//! The near end of a tunnel: a local connection, and a session that carries its bytes to the instance's host.

use std::time::Duration;

use bytes::BytesMut;
use futures::{Stream, StreamExt};
use proto::agent::v1::AttachEnd;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::attach_response::Response;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CHUNK_BYTES: usize = 32 << 10;
/// A silent connection is asked whether its other side is still there, first after this and then so often.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Has the kernel find out when the other side has vanished without a word.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let often = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL);
    // Without it a connection works as well, until one side vanishes.
    let _ = SockRef::from(stream).set_tcp_keepalive(&often);
}

/// Carries one connection to its end: that of the session, or of the connection altogether. Either side may end before the
/// other has said all.
pub(crate) async fn carry<E>(
    stream: &mut TcpStream,
    requests: mpsc::Sender<Request>,
    answers: impl Stream<Item = Result<Response, E>>,
) -> Result<(), E> {
    let (mut reader, mut writer) = stream.split();
    let out = async {
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            match answer? {
                Response::Output(bytes) if writer.write_all(&bytes).await.is_err() => return Ok(()),
                // The instance has said all; it may still be told something.
                Response::ExitCode(_) => {
                    let _ = writer.shutdown().await;
                }
                _ => {}
            }
        }
        Ok(())
    };
    let input = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            buffer.reserve(CHUNK_BYTES);
            let request = match reader.read_buf(&mut buffer).await {
                Ok(0) => Request::InputEnd(AttachEnd {}),
                Ok(_) => Request::Input(buffer.split().freeze()),
                // The connection is gone altogether.
                Err(_) => return,
            };
            let is_end = matches!(request, Request::InputEnd(_));
            if requests.send(request).await.is_err() || is_end {
                // What the instance has to say still comes.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        ended = out => ended,
        () = input => Ok(()),
    }
}
