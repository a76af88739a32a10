//! `instance exec` and `instance console`: a session, joined to this terminal.

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::Args;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::attach_response::Response;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::{AttachEnd, AttachStart, Console, Exec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Which;
use super::terminal::{self, Output, Raw};
use crate::cli::client::Attached;
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// Ctrl-A q leaves a console, as with `incus console`.
const CTRL_A: u8 = 0x01;
const LEAVE: u8 = b'q';

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl instance exec web -- systemctl status nginx\n  agentctl instance exec web -- sh\n  \
                        agentctl instance exec db -- pg_dump shop > shop.sql\n\n\
                        It works from anywhere, for any host, and ends with the command's exit code. The command ends \
                        when this does."
)]
pub(in crate::cli) struct ExecArgs {
    #[command(flatten)]
    which: Which,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
    /// Run it at a terminal, though this is none
    #[arg(short = 't', long, overrides_with = "no_terminal")]
    terminal: bool,
    /// Do not run it at a terminal, though this is one
    #[arg(short = 'T', long)]
    no_terminal: bool,
    /// A variable of the command's environment; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The directory to run it in [default: the user's home]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    cwd: String,
    /// The user's number in the instance
    #[arg(long, value_name = "UID", default_value_t = 0)]
    uid: u32,
    /// The group's number in the instance
    #[arg(long, value_name = "GID", default_value_t = 0)]
    gid: u32,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  agentctl instance console web\n\nCtrl-A q leaves it; what runs there goes on."
)]
pub(in crate::cli) struct ConsoleArgs {
    #[command(flatten)]
    which: Which,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl ExecArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let at_terminal = self.terminal || (!self.no_terminal && terminal::is_there());
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        if at_terminal && let Ok(kind) = std::env::var("TERM") {
            environment.insert("TERM".to_owned(), kind);
        }
        environment.extend(self.env);
        let program = self.command.first().cloned().unwrap_or_default();
        let start = AttachStart {
            instance: Some(self.which.instance()),
            what: Some(What::Exec(Exec {
                command: self.command,
                environment,
                terminal: at_terminal.then(terminal::size),
                working_directory: self.cwd,
                user: self.uid,
                group: self.gid,
            })),
        };
        let attached = session.client.attach(start).await?;
        let kind = if at_terminal { Kind::Terminal } else { Kind::Pipes };
        let ended = join(attached, kind).await?;
        // A shell says such things itself; here nobody did.
        match ended.code {
            126 | 127 if ended.is_silent => {
                let what = if ended.code == 127 {
                    "there is no command"
                } else {
                    "cannot run"
                };
                eprintln!("error: {what} {program} in {}", self.which.name);
            }
            _ => {}
        }
        ended.result()
    }
}

impl ConsoleArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let start = AttachStart {
            instance: Some(self.which.instance()),
            what: Some(What::Console(Console {
                size: Some(terminal::size()),
            })),
        };
        let attached = session.client.attach(start).await?;
        join(attached, Kind::Console).await?.result()
    }
}

/// What the other end of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pipes,
    Terminal,
    Console,
}

/// How a session ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    code: i32,
    /// Nothing came out of it.
    is_silent: bool,
}

impl Ended {
    fn result(self) -> Result<(), CliError> {
        match self.code {
            0 => Ok(()),
            code => Err(CliError::ended(u8::try_from(code).unwrap_or(1))),
        }
    }
}

/// Joins a session to this terminal until either ends.
async fn join(attached: Attached, kind: Kind) -> Result<Ended, CliError> {
    let Attached {
        requests,
        mut answers,
    } = attached;
    match answers.message().await? {
        Some(answer) if matches!(answer.response, Some(Response::Started(_))) => {}
        _ => return Err(CliError::failed("the host did not open the session")),
    }
    let raw = match kind {
        Kind::Pipes => None,
        Kind::Terminal | Kind::Console => Some(Raw::begin()?),
    };
    if kind == Kind::Console && raw.is_some() && terminal::is_there() {
        eprint!("Ctrl-A q leaves the console\r\n");
    }
    let output = Output::new();
    let ended = tokio::select! {
        ended = receive(&mut answers, &output) => ended,
        ended = send(requests, kind) => ended,
    };
    // What is still to be seen comes before anything that is said of it, at a terminal that shows it well.
    let written = output.finish();
    drop(raw);
    written.and(ended)
}

/// Shows what comes until the session ends, with this exit code.
async fn receive(
    answers: &mut tonic::Streaming<proto::agent::v1::AttachResponse>,
    output: &Output,
) -> Result<Ended, CliError> {
    let mut is_silent = true;
    while let Some(answer) = answers.message().await? {
        let is_read = match answer.response {
            Some(Response::Output(bytes)) => {
                is_silent = false;
                output.output(bytes).await
            }
            Some(Response::ErrorOutput(bytes)) => {
                is_silent = false;
                output.errors(bytes).await
            }
            Some(Response::ExitCode(code)) => return Ok(Ended { code, is_silent }),
            Some(Response::Started(_)) | None => true,
        };
        if !is_read {
            return Ok(Ended { code: 0, is_silent });
        }
    }
    Err(CliError::failed("the session broke off").hint("what ran in it was ended"))
}

/// Sends what is typed until a person leaves. Where there is no more input the session goes on.
async fn send(requests: mpsc::Sender<Request>, kind: Kind) -> Result<Ended, CliError> {
    let mut input = Some(terminal::input());
    let mut resized = signal(SignalKind::window_change()).map_err(|error| CliError::io("signals", &error))?;
    let mut leaving = Leaving::default();
    loop {
        let read = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        let request = tokio::select! {
            piece = read => match piece {
                Some(piece) if kind == Kind::Console => match leaving.passes(&piece) {
                    Some(piece) => Request::Input(piece),
                    None => {
                        return Ok(Ended {
                            code: 0,
                            is_silent: false,
                        });
                    }
                },
                Some(piece) => Request::Input(piece),
                None => {
                    input = None;
                    Request::InputEnd(AttachEnd {})
                }
            },
            _ = resized.recv(), if kind != Kind::Pipes => Request::Resize(terminal::size()),
        };
        if requests.send(request).await.is_err() {
            // The session has ended: its last words are on their way.
            return std::future::pending().await;
        }
    }
}

/// Looks for the keys that leave a console.
#[derive(Debug, Default)]
struct Leaving {
    is_armed: bool,
}

impl Leaving {
    /// What is passed on of a piece; `None` when the person leaves. Ctrl-A twice is one.
    fn passes(&mut self, piece: &[u8]) -> Option<Bytes> {
        let mut passed = Vec::with_capacity(piece.len());
        for &byte in piece {
            match (std::mem::take(&mut self.is_armed), byte) {
                (true, LEAVE) => return None,
                (true, CTRL_A) => passed.push(CTRL_A),
                (true, other) => passed.extend([CTRL_A, other]),
                (false, CTRL_A) => self.is_armed = true,
                (false, other) => passed.push(other),
            }
        }
        Some(passed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_a_console() {
        let check = |pieces: &[&str], expected: Option<&str>| {
            let mut leaving = Leaving::default();
            let mut passed = Vec::new();
            let left = pieces.iter().any(|piece| match leaving.passes(piece.as_bytes()) {
                Some(piece) => {
                    passed.extend(piece);
                    false
                }
                None => true,
            });
            let passed = String::from_utf8(passed).unwrap();
            assert_eq!((!left).then_some(passed.as_str()), expected, "{pieces:?}");
        };
        check(&["ls\r", "q"], Some("ls\rq"));
        check(&["ls\u{1}q"], None);
        check(&["\u{1}", "q"], None);
        check(&["\u{1}", "\u{1}q"], Some("\u{1}q"));
        check(&["\u{1}x"], Some("\u{1}x"));
    }

    #[test]
    fn variables_have_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("A").is_err() && variable("=b").is_err());
    }
}
