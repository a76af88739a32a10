//! The far end of a tunnel: a connection to a port of an instance of this host.
//!
//! Bytes pass until both sides have said all they have to say; the end of one is told to the other at once. Then half a
//! connection is left, which the side that has not ended may forget: it ends when nothing has passed for a while. A whole
//! one may be silent as long as it likes, since keep-alives tell whether the instance is still there.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use proto::agent::v1::Tunnel;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::attach_response::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::address::addresses;
use super::error::{Failure, OperatorError};
use super::{Answers, Operator, Requests};
use crate::tunnel::keep_alive;

/// Read at once from an instance's port.
const CHUNK_BYTES: usize = 32 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Half a connection on which nothing passes for so long is over.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(300);

impl Operator {
    pub(super) async fn connect(
        &self,
        tenant: &str,
        name: &str,
        tunnel: &Tunnel,
    ) -> Result<TcpStream, OperatorError> {
        let port = u16::try_from(tunnel.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| OperatorError::new(Failure::Invalid, "a port is 1 to 65535"))?;
        let state = self.incus()?.state(tenant, name).await?.unwrap_or_default();
        let mut reason = format!("instance {name} has no address: is it on a network?");
        for address in addresses(&state) {
            let address = SocketAddr::new(address, port);
            match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    keep_alive(&stream);
                    return Ok(stream);
                }
                Ok(Err(error)) => reason = format!("{address} of instance {name}: {error}"),
                Err(_) => reason = format!("{address} of instance {name} does not answer"),
            }
        }
        Err(OperatorError::new(Failure::Refused, reason))
    }
}

/// What has ended, where one direction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// This direction.
    Half,
    /// There is nobody left to carry for.
    All,
}

/// Carries bytes both ways until both sides have ended, or the caller is gone.
pub(super) async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    mut requests: Requests,
    answers: &Answers,
) -> Result<(), OperatorError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let passed = Notify::new();
    let out = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            buffer.reserve(CHUNK_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {
                    let chunk = Response::Output(buffer.split().freeze());
                    if answers.send(chunk).await.is_err() {
                        return Ok(End::All);
                    }
                    passed.notify_one();
                }
                Err(error) => {
                    let message = format!("the instance broke the connection: {error}");
                    return Err(OperatorError::new(Failure::Refused, message));
                }
            }
        }
        let told = answers.send(Response::ExitCode(0)).await;
        Ok(told.map_or(End::All, |()| End::Half))
    };
    let input = async {
        while let Some(request) = requests.recv().await {
            let done = match request {
                Request::Input(bytes) => writer.write_all(&bytes).await,
                Request::InputEnd(_) => {
                    let _ = writer.shutdown().await;
                    return End::Half;
                }
                _ => Ok(()),
            };
            if done.is_err() {
                // What the instance still has to say comes out on the other side.
                return End::Half;
            }
            passed.notify_one();
        }
        End::All
    };
    let (mut out, mut input) = (pin!(out), pin!(input));
    let both = async {
        tokio::select! {
            end = &mut out => if end? == End::Half {
                tokio::select! {
                    _ = &mut input => {}
                    () = silence(&passed) => {}
                }
            },
            end = &mut input => if end == End::Half {
                tokio::select! {
                    end = &mut out => end.map(drop)?,
                    () = silence(&passed) => {}
                }
            },
        }
        Ok(())
    };
    tokio::select! {
        ended = both => ended,
        () = answers.closed() => Ok(()),
    }
}

/// Completes when nothing has passed for too long.
async fn silence(passed: &Notify) {
    while tokio::time::timeout(HALF_CLOSED_LIMIT, passed.notified())
        .await
        .is_ok()
    {}
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::agent::v1::AttachEnd;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    struct Carried {
        instance: DuplexStream,
        requests: mpsc::Sender<Request>,
        answers: mpsc::Receiver<Response>,
        carrying: JoinHandle<Result<(), OperatorError>>,
    }

    impl Carried {
        fn begin() -> Carried {
            let (near, instance) = tokio::io::duplex(1024);
            let (requests, taken) = mpsc::channel(4);
            let (given, answers) = mpsc::channel(4);
            let carrying = tokio::spawn(async move { carry(near, taken, &given).await });
            Carried {
                instance,
                requests,
                answers,
                carrying,
            }
        }

        async fn hears(&mut self, said: &[u8]) {
            let said = Bytes::copy_from_slice(said);
            self.requests.send(Request::Input(said)).await.unwrap();
        }

        async fn hears_the_end(&mut self) {
            self.requests.send(Request::InputEnd(AttachEnd {})).await.unwrap();
        }

        async fn read(&mut self, length: usize) -> Vec<u8> {
            let mut read = vec![0; length];
            self.instance.read_exact(&mut read).await.unwrap();
            read
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_side_may_end_first_and_hear_the_other_out() {
        let mut carried = Carried::begin();
        carried.hears_the_end().await;
        assert_eq!(carried.instance.read(&mut [0; 1]).await.unwrap(), 0);
        carried.instance.write_all(b"last words").await.unwrap();
        let answer = carried.answers.recv().await;
        assert_eq!(answer, Some(Response::Output(Bytes::from_static(b"last words"))));
        carried.instance.shutdown().await.unwrap();
        assert_eq!(carried.answers.recv().await, Some(Response::ExitCode(0)));
        carried.carrying.await.unwrap().unwrap();

        let mut carried = Carried::begin();
        carried.instance.shutdown().await.unwrap();
        assert_eq!(carried.answers.recv().await, Some(Response::ExitCode(0)));
        carried.hears(b"and you").await;
        assert_eq!(carried.read(7).await, b"and you");
        carried.hears_the_end().await;
        carried.carrying.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_connection_ends_with_its_silence_and_a_whole_one_does_not() {
        let mut carried = Carried::begin();
        tokio::time::sleep(HALF_CLOSED_LIMIT * 100).await;
        carried.hears(b"still there").await;
        assert_eq!(carried.read(11).await, b"still there");

        carried.hears_the_end().await;
        tokio::time::sleep(HALF_CLOSED_LIMIT / 2).await;
        carried.instance.write_all(b"words").await.unwrap();
        assert!(matches!(carried.answers.recv().await, Some(Response::Output(_))));
        let last = Instant::now();
        carried.carrying.await.unwrap().unwrap();
        assert_eq!(last.elapsed().as_secs(), HALF_CLOSED_LIMIT.as_secs());
    }

    #[tokio::test]
    async fn a_caller_that_is_gone_ends_it() {
        let mut carried = Carried::begin();
        drop(carried.requests);
        carried.carrying.await.unwrap().unwrap();
        assert_eq!(carried.instance.read(&mut [0; 1]).await.unwrap(), 0);

        let carried = Carried::begin();
        drop(carried.answers);
        carried.carrying.await.unwrap().unwrap();
    }
}
