//! Sessions in an instance: a command or the console, over an operation's websockets.
//!
//! A session ends the command with it: Incus kills what was started when the control websocket breaks, so dropping
//! a [`Session`], or any task that holds its parts, is enough.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::operation;
use super::transport::Answer;
use super::{Incus, IncusError, path, websocket};

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u32,
    pub rows: u32,
}

/// What is to be run in an instance.
#[derive(Clone, Debug, Default)]
pub struct Command {
    pub words: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// At a terminal of this size; then its errors come with its output.
    pub terminal: Option<Size>,
    /// Empty: the user's home.
    pub working_directory: String,
    pub user: u32,
    pub group: u32,
}

/// Which of a session's outputs something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Output,
    Errors,
}

/// What goes into a session.
#[derive(Clone, Debug)]
pub enum Incoming {
    Input(Bytes),
    InputEnd,
    Resize(Size),
    /// A Unix signal.
    Signal(i32),
}

/// A command that runs, or a console that is open.
#[derive(Debug)]
pub struct Session {
    incus: Incus,
    operation: String,
    /// At a terminal the input's websocket is the output's as well.
    input: Option<Writer>,
    has_terminal: bool,
    control: Writer,
    outputs: Vec<(Stream, Reader)>,
    quiet: Vec<Reader>,
}

type Writer = SplitSink<WebSocketStream<UnixStream>, Message>;
type Reader = SplitStream<WebSocketStream<UnixStream>>;

/// One output of a session.
#[derive(Debug)]
pub struct Outgoing {
    reader: Reader,
    pub stream: Stream,
}

impl Incus {
    /// Starts a command in an instance.
    pub async fn exec(&self, project: &str, name: &str, command: &Command) -> Result<Session, IncusError> {
        let mut body = json!({
            "command": command.words, "environment": command.environment, "wait-for-websocket": true,
            "record-output": false, "interactive": command.terminal.is_some(), "cwd": command.working_directory,
            "user": command.user, "group": command.group,
        });
        if let (Some(size), Some(body)) = (command.terminal, body.as_object_mut()) {
            body.insert("width".to_owned(), size.columns.into());
            body.insert("height".to_owned(), size.rows.into());
        }
        let path = path::below_instance(project, name, "exec")?;
        self.session(&path, &body, command.terminal.is_some()).await
    }

    /// Opens an instance's console. Incus gives it to one at a time.
    pub async fn console(&self, project: &str, name: &str, size: Size) -> Result<Session, IncusError> {
        let body = json!({"type": "console", "width": size.columns, "height": size.rows});
        let path = path::below_instance(project, name, "console")?;
        self.session(&path, &body, true).await
    }

    async fn session(&self, path: &str, body: &Value, has_terminal: bool) -> Result<Session, IncusError> {
        let answer = self.write(Method::POST, path, Some(body), None).await?;
        let Answer::Async { operation, begun } = answer else {
            return Err(IncusError::bad_answer("a session that is no operation"));
        };
        let operation = operation::operation_path(&operation)?.to_owned();
        let secrets = begun.get("metadata").and_then(|metadata| metadata.get("fds"));
        let connect = async |name: &str| {
            let secret = secrets
                .and_then(|secrets| secrets.get(name))
                .and_then(Value::as_str);
            let secret = secret.ok_or_else(|| IncusError::bad_answer(format!("no websocket {name}")))?;
            let path = format!("{operation}/websocket?secret={}", path::encode(secret));
            websocket::connect(self.socket(), &path).await
        };
        let (input, first) = connect("0").await?.split();
        let mut quiet = Vec::new();
        let outputs = if has_terminal {
            vec![(Stream::Output, first)]
        } else {
            quiet.push(first);
            let (_, output) = connect("1").await?.split();
            let (_, errors) = connect("2").await?.split();
            vec![(Stream::Output, output), (Stream::Errors, errors)]
        };
        let (control, reader) = connect("control").await?.split();
        quiet.push(reader);
        Ok(Session {
            incus: self.clone(),
            operation,
            input: Some(input),
            has_terminal,
            control,
            outputs,
            quiet,
        })
    }
}

impl Session {
    /// The session's outputs, to be read side by side. Once only.
    pub fn outputs(&mut self) -> Vec<Outgoing> {
        let outputs = std::mem::take(&mut self.outputs).into_iter();
        outputs
            .map(|(stream, reader)| Outgoing { reader, stream })
            .collect()
    }

    /// Sends one thing on its way. What comes after the end of the command is dropped: its exit code says more.
    pub async fn send(&mut self, incoming: Incoming) {
        let control = match incoming {
            Incoming::Input(bytes) => {
                self.input(Message::Binary(bytes)).await;
                return;
            }
            Incoming::InputEnd => {
                // A terminal has no end of input but the character that says so. For a pipe Incus takes a text.
                if !self.has_terminal {
                    self.input(Message::Text("".into())).await;
                    self.input = None;
                }
                return;
            }
            Incoming::Resize(size) => json!({"command": "window-resize",
                "args": {"width": size.columns.to_string(), "height": size.rows.to_string()}}),
            Incoming::Signal(signal) => json!({"command": "signal", "signal": signal}),
        };
        let _ = self.control.send(Message::Text(control.to_string().into())).await;
    }

    /// Says that nothing more is typed, after the last output: until then Incus waits for it.
    pub async fn close_input(&mut self) {
        self.input(Message::Text("".into())).await;
        self.input(Message::Close(None)).await;
        self.input = None;
    }

    async fn input(&mut self, message: Message) {
        if let Some(input) = &mut self.input
            && input.send(message).await.is_err()
        {
            self.input = None;
        }
    }

    /// Reads where nothing is said, so that pings are answered; to be polled as long as the session lasts. Once only.
    pub fn quiet(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let reading = std::mem::take(&mut self.quiet).into_iter();
        let reading = reading.map(|mut reader| async move { while let Some(Ok(_)) = reader.next().await {} });
        let all = futures::future::join_all(reading);
        async move {
            all.await;
        }
    }

    /// Waits for the end of the operation: the command's exit code.
    pub fn exit(&self) -> impl Future<Output = Result<i32, IncusError>> + Send + use<> {
        let (incus, operation) = (self.incus.clone(), self.operation.clone());
        async move {
            let operation = operation::result(&incus.transport, &operation).await?;
            let code = operation
                .get("metadata")
                .and_then(|metadata| metadata.get("return"))
                .and_then(Value::as_i64);
            match code.and_then(|code| i32::try_from(code).ok()) {
                Some(code) => Ok(code),
                None => operation::ended(&operation).map(|_| 0),
            }
        }
    }
}

impl Outgoing {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.reader.next().await {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
                Some(Ok(Message::Binary(bytes))) => return Some(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                // A text says that nothing follows.
                Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return None,
            }
        }
    }
}
