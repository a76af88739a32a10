//! What `agentctl dev` asks of a running `agent dev`: one line of JSON each way, over `DIR/dev.sock`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A line is a word and a host's name, or a few sentences.
const LINE_LIMIT_BYTES: u64 = 16 << 10;
/// For reading a request, and for its whole answer on the other side.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request {
    Kill { host: String },
    Start { host: String },
    List,
}

/// What to show, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) ok: bool,
    pub(super) text: String,
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("dev.sock")
}

/// Is somebody listening there?
pub(super) async fn answers(dir: &Path) -> bool {
    UnixStream::connect(socket(dir)).await.is_ok()
}

/// Listens for requests; what a dead predecessor left is removed.
pub(super) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let path = socket(dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

pub(super) fn remove(dir: &Path) {
    // The next run removes it too.
    let _ = std::fs::remove_file(socket(dir));
}

/// One request of one connection; nothing when it is none.
pub(super) async fn receive(stream: &mut UnixStream) -> Option<Request> {
    let line = timeout(LIMIT, read_line(stream)).await.ok()?.ok()?;
    serde_json::from_str(&line).ok()
}

pub(super) async fn reply(stream: &mut UnixStream, reply: &Reply) {
    let Ok(mut line) = serde_json::to_vec(reply) else {
        return;
    };
    line.push(b'\n');
    // Whoever asked may be gone: it is done nevertheless.
    let _ = timeout(LIMIT, stream.write_all(&line)).await;
}

/// Asks the `agent dev` that runs in `dir`; its words, or why there are none.
///
/// # Errors
/// For people: what is wrong, and what to do.
pub(crate) async fn ask(dir: &Path, request: &Request) -> Result<String, String> {
    let asked = async {
        let mut stream = UnixStream::connect(socket(dir)).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        read_line(&mut stream).await
    };
    let line = match timeout(LIMIT, asked).await {
        Err(_elapsed) => return Err(format!("`agent dev` in {} does not answer", dir.display())),
        Ok(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(format!("no `agent dev` runs in {}", dir.display()));
        }
        Ok(Err(error)) => return Err(format!("{}: {error}", socket(dir).display())),
        Ok(Ok(line)) => line,
    };
    match serde_json::from_str::<Reply>(&line) {
        Ok(Reply { ok: true, text }) => Ok(text),
        Ok(Reply { ok: false, text }) => Err(text),
        Err(_) => Err(format!("`agent dev` in {} is of another version", dir.display())),
    }
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_LIMIT_BYTES))
        .read_line(&mut line)
        .await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!answers(dir.path()).await);
        let kill = Request::Kill { host: "ovh".into() };
        let alone = ask(dir.path(), &kill).await.unwrap_err();
        assert!(alone.starts_with("no `agent dev` runs in"), "{alone}");

        let listener = listen(dir.path()).unwrap();
        let expected = kill.clone();
        let server = tokio::spawn(async move {
            for ok in [true, false] {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_eq!(receive(&mut stream).await, Some(expected.clone()));
                reply(
                    &mut stream,
                    &Reply {
                        ok,
                        text: "words\n".into(),
                    },
                )
                .await;
            }
        });
        assert_eq!(ask(dir.path(), &kill).await, Ok("words\n".to_owned()));
        assert_eq!(ask(dir.path(), &kill).await, Err("words\n".to_owned()));
        server.await.unwrap();
        assert_eq!(
            serde_json::to_string(&kill).unwrap(),
            r#"{"do":"kill","host":"ovh"}"#
        );
    }
}
