//! Sessions: a command in an instance, its console, or a connection to one of its ports.
//!
//! What comes from the caller and what goes to it pass through short queues: who reads slowly makes the other side
//! wait. A session ends with whatever it was opened to, or when its future is dropped, which kills the command.

use futures::future::join_all;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::attach_response::Response;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::{AttachStart, AttachStarted, Console, Exec, TerminalSize};
use tokio::sync::{mpsc, oneshot};

use super::Operator;
use super::error::{Failure, OperatorError};
use super::instances::named;
use super::tunnel::carry;
use crate::incus::{Command, Incoming, Outgoing, Session, Size, Stream};

/// Messages under way in each direction.
pub const SESSION_QUEUE: usize = 16;
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
        // Programs open many connections, and people must still get in.
        let (places, limit, what) = match start.what {
            Some(What::Tunnel(_)) => (&self.connections, super::CONNECTIONS, "connections"),
            _ => (&self.sessions, super::SESSIONS, "sessions"),
        };
        let Ok(_place) = places.try_acquire() else {
            return Err(OperatorError::new(
                Failure::Busy,
                format!("host {} has {limit} {what} open already", self.host),
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
                if answers.send(started).await.is_err() {
                    return Ok(());
                }
                return carry(stream, requests, &answers).await;
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
