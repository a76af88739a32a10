//! Sessions: a command in an instance, its console, or a connection to one of its ports.
//!
//! What comes from the caller and what goes to it pass through short queues: who reads slowly makes the other side
//! wait. A session ends with whatever it was opened to, or when its future is dropped, which kills the command.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::join_all;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::attach_response::Response;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::{AttachStart, AttachStarted, Console, Exec, TerminalSize, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::Operator;
use super::address::addresses;
use super::error::{Failure, OperatorError};
use super::instances::named;
use crate::incus::{Command, Incoming, Outgoing, Session, Size, Stream};

/// Messages under way in each direction.
pub const SESSION_QUEUE: usize = 16;
/// Read at once from an instance's port.
const CHUNK_BYTES: usize = 32 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Words of a command, and variables of its environment.
const WORDS_LIMIT: usize = 4096;

/// What a caller sends, after the start.
pub type Requests = mpsc::Receiver<Request>;
/// What the caller is sent.
pub type Answers = mpsc::Sender<Response>;

impl Operator {
    /// Opens a session and carries it to its end. Ends early, too, when the caller's queue is closed on either side.
    ///
    /// # Errors
    /// When it cannot be opened, or breaks.
    pub async fn attach(
        &self,
        start: AttachStart,
        requests: Requests,
        answers: Answers,
    ) -> Result<(), OperatorError> {
        let Ok(_place) = self.sessions.try_acquire() else {
            return Err(OperatorError::new(
                Failure::Busy,
                format!("host {} has {} sessions open already", self.host, super::SESSIONS),
            ));
        };
        let (tenant, name) = named(start.instance.as_ref())?;
        self.runs(tenant, name).await?;
        let started = Response::Started(AttachStarted {
            host: self.host.clone(),
        });
        let session = match &start.what {
            Some(What::Exec(exec)) => self.incus()?.exec(tenant, name, &command(exec)?).await?,
            Some(What::Console(console)) => {
                let size = size(console_size(console));
                self.incus()?.console(tenant, name, size).await?
            }
            Some(What::Tunnel(tunnel)) => {
                let stream = self.connect(tenant, name, tunnel).await?;
                if answers.send(started).await.is_ok() {
                    carry(stream, requests, &answers).await;
                }
                return Ok(());
            }
            None => {
                return Err(OperatorError::new(
                    Failure::Invalid,
                    "nothing to attach to is given",
                ));
            }
        };
        if answers.send(started).await.is_err() {
            return Ok(());
        }
        run(session, requests, &answers).await
    }

    async fn runs(&self, tenant: &str, name: &str) -> Result<(), OperatorError> {
        let state = self.incus()?.state(tenant, name).await?;
        let Some(state) = state else {
            return Err(OperatorError::no_instance(&self.host, tenant, name));
        };
        let status = state.get("status").and_then(serde_json::Value::as_str);
        if status == Some("Running") || status == Some("Ready") {
            return Ok(());
        }
        let status = status.unwrap_or("in no known state").to_lowercase();
        Err(OperatorError::new(
            Failure::Refused,
            format!("instance {name} on {} is {status}", self.host),
        ))
    }

    async fn connect(&self, tenant: &str, name: &str, tunnel: &Tunnel) -> Result<TcpStream, OperatorError> {
        let port = u16::try_from(tunnel.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| OperatorError::new(Failure::Invalid, "a port is 1 to 65535"))?;
        let state = self.incus()?.state(tenant, name).await?.unwrap_or_default();
        let mut reason = format!("instance {name} has no address: is it on a network?");
        for address in addresses(&state) {
            let address = SocketAddr::new(address, port);
            match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => reason = format!("{address} of instance {name}: {error}"),
                Err(_) => reason = format!("{address} of instance {name} does not answer"),
            }
        }
        Err(OperatorError::new(Failure::Refused, reason))
    }
}

/// Runs a command's session to its end.
async fn run(mut session: Session, mut requests: Requests, answers: &Answers) -> Result<(), OperatorError> {
    let exit = session.exit();
    let quiet = session.quiet();
    let outputs = session
        .outputs()
        .into_iter()
        .map(|output| pass_on(output, answers));
    let outputs = join_all(outputs);
    let (told, mut outputs_ended) = oneshot::channel::<()>();
    let outputs = async {
        outputs.await;
        drop(told);
    };
    let input = async {
        let mut is_closed = false;
        loop {
            tokio::select! {
                request = requests.recv() => match request.map(incoming) {
                    Some(Some(incoming)) => session.send(incoming).await,
                    Some(None) => {}
                    None => return,
                },
                // A terminal's end is not told until both of its directions have ended.
                _ = &mut outputs_ended, if !is_closed => {
                    is_closed = true;
                    session.close_input().await;
                }
            }
        }
    };
    let quiet = async {
        quiet.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ((), code) = async { tokio::join!(outputs, exit) } => {
            // Nobody there to hear it is no failure.
            let _ = answers.send(Response::ExitCode(code?)).await;
        }
        () = input => {}
        () = answers.closed() => {}
        () = quiet => {}
    }
    Ok(())
}

async fn pass_on(mut output: Outgoing, answers: &Answers) {
    while let Some(bytes) = output.next().await {
        let answer = match output.stream {
            Stream::Output => Response::Output(bytes),
            Stream::Errors => Response::ErrorOutput(bytes),
        };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

/// Carries bytes both ways until both sides have ended, or the caller is gone.
async fn carry(stream: TcpStream, mut requests: Requests, answers: &Answers) {
    let (mut reader, mut writer) = stream.into_split();
    let out = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            buffer.reserve(CHUNK_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let chunk = Response::Output(buffer.split().freeze());
                    if answers.send(chunk).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = answers.send(Response::ExitCode(0)).await;
    };
    let input = async {
        while let Some(request) = requests.recv().await {
            let done = match request {
                Request::Input(bytes) => writer.write_all(&bytes).await,
                Request::InputEnd(_) => writer.shutdown().await,
                _ => Ok(()),
            };
            if done.is_err() {
                // What the instance still has to say comes out on the other side.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = input => {}
        () = answers.closed() => {}
    }
}

fn incoming(request: Request) -> Option<Incoming> {
    match request {
        Request::Input(bytes) => Some(Incoming::Input(bytes)),
        Request::InputEnd(_) => Some(Incoming::InputEnd),
        Request::Resize(terminal) => Some(Incoming::Resize(size(terminal))),
        Request::Signal(signal) => Some(Incoming::Signal(signal)),
        Request::Start(_) => None,
    }
}

fn command(exec: &Exec) -> Result<Command, OperatorError> {
    if exec.command.is_empty() {
        return Err(OperatorError::new(Failure::Invalid, "no command is given"));
    }
    if exec.command.len() > WORDS_LIMIT || exec.environment.len() > WORDS_LIMIT {
        return Err(OperatorError::new(
            Failure::Invalid,
            format!("a command has at most {WORDS_LIMIT} words"),
        ));
    }
    Ok(Command {
        words: exec.command.clone(),
        environment: exec.environment.clone().into_iter().collect(),
        terminal: exec.terminal.map(size),
        working_directory: exec.working_directory.clone(),
        user: exec.user,
        group: exec.group,
    })
}

fn console_size(console: &Console) -> TerminalSize {
    console.size.unwrap_or(TerminalSize {
        columns: 80,
        rows: 24,
    })
}

fn size(size: TerminalSize) -> Size {
    Size {
        columns: size.columns,
        rows: size.rows,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::net::TcpListener;

    use super::*;

    /// A port that answers in capitals what it is told, once it has heard all of it.
    #[tokio::test]
    async fn a_tunnel_carries_both_ways_and_ends_with_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            stream.write_all(heard.to_uppercase().as_bytes()).await.unwrap();
        });
        let (to_port, requests) = mpsc::channel(SESSION_QUEUE);
        let (answers, mut from_port) = mpsc::channel(SESSION_QUEUE);
        let stream = TcpStream::connect(address).await.unwrap();
        let carrying = tokio::spawn(async move { carry(stream, requests, &answers).await });
        to_port.send(Request::Input(Bytes::from("hello"))).await.unwrap();
        to_port
            .send(Request::InputEnd(proto::agent::v1::AttachEnd {}))
            .await
            .unwrap();
        assert_eq!(
            from_port.recv().await,
            Some(Response::Output(Bytes::from("HELLO")))
        );
        assert_eq!(from_port.recv().await, Some(Response::ExitCode(0)));
        assert_eq!(from_port.recv().await, None);
        carrying.await.unwrap();
        port.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_its_tunnel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut held, _) = listener.accept().await.unwrap();
        let (to_port, requests) = mpsc::channel(SESSION_QUEUE);
        let (answers, from_port) = mpsc::channel(SESSION_QUEUE);
        let carrying = tokio::spawn(async move { carry(stream, requests, &answers).await });
        drop((to_port, from_port));
        carrying.await.unwrap();
        assert_eq!(
            held.read(&mut [0; 1]).await.unwrap(),
            0,
            "the connection is closed"
        );
    }
}
