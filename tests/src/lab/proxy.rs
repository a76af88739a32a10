//! A socket between an agent and its Incus, at which things go wrong on purpose: requests that are refused or
//! have no answer, and writes that are lost on the way there or on the way back.
//!
//! Each connection carries one request, as the agent's client has it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

const HEAD_LIMIT_BYTES: usize = 64 << 10;
const BODY_LIMIT_BYTES: usize = 64 << 20;
const REFUSAL: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 111\r\n\r\n\
    {\"type\":\"error\",\"status\":\"\",\"status_code\":0,\"operation\":\"\",\"error_code\":500,\"error\":\"out of luck\",\"metadata\":0}";

/// What becomes of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every write is answered with status 500, and not done.
    RefuseWrites,
    /// Connections are closed as soon as something is said on them.
    Gone,
    /// Every write is lost twice, before it passes: at first it is not done, then it is, and its answer is lost. Writes
    /// are told apart by method and path, and counted from when this was set.
    LoseEachTwice,
}

/// How a write is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    OnItsWay,
    OnItsWayBack,
}

/// The socket. Dropping it stops it.
#[derive(Debug)]
pub struct IncusProxy {
    socket: PathBuf,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: PathBuf,
    state: Mutex<State>,
    /// Whether a request that was lost is cut off; otherwise its client waits for an answer until it dies.
    cut: bool,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    /// How often each write was asked for. A test's own few.
    seen: HashMap<String, u32>,
    lost: Vec<String>,
}

impl IncusProxy {
    /// Listens at `socket` and passes on to `upstream`. With `cut`, a client notices at once that its request was lost.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(socket: &Path, upstream: &Path, cut: bool) -> io::Result<IncusProxy> {
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
            cut,
        });
        let accepting = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                connections.spawn(async move {
                    // A client that went away is no error here.
                    let _ = shared.serve(client).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(IncusProxy {
            socket: socket.to_owned(),
            shared,
            serving,
        })
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From the next request on.
    ///
    /// # Panics
    /// When a connection's task panicked.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state.lock().expect("no task panics with it");
        state.fault = fault;
        state.seen.clear();
        state.lost.clear();
    }

    /// The writes that were lost since this was asked last: their request lines, and whether they were done.
    ///
    /// # Panics
    /// When a connection's task panicked.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().expect("no task panics with it").lost)
    }
}

impl Drop for IncusProxy {
    fn drop(&mut self) {
        self.serving.abort();
        // Best effort: it is in a test's own directory.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    async fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut begun = BytesMut::new();
        let Some(request) = Head::read(&mut client, &mut begun).await? else {
            return Ok(());
        };
        let is_write = !request.first_line.starts_with("GET ");
        match self.fate(&request, is_write) {
            (Fault::RefuseWrites, _) if is_write => {
                request.read_body(&mut client, &mut begun).await?;
                client.write_all(REFUSAL.as_bytes()).await
            }
            (Fault::Gone, _) => Ok(()),
            (_, Some(Loss::OnItsWay)) => self.lose(&request, "not done").await,
            (_, Some(Loss::OnItsWayBack)) => {
                request.read_body(&mut client, &mut begun).await?;
                let mut upstream = UnixStream::connect(&self.upstream).await?;
                upstream.write_all(&begun).await?;
                let mut answer = BytesMut::new();
                if let Some(head) = Head::read(&mut upstream, &mut answer).await? {
                    head.read_body(&mut upstream, &mut answer).await?;
                }
                self.lose(&request, "done").await
            }
            _ => {
                let mut upstream = UnixStream::connect(&self.upstream).await?;
                upstream.write_all(&begun).await?;
                copy_bidirectional(&mut client, &mut upstream).await.map(drop)
            }
        }
    }

    fn fate(&self, request: &Head, is_write: bool) -> (Fault, Option<Loss>) {
        let mut state = self.state.lock().expect("no task panics with it");
        if state.fault != Fault::LoseEachTwice || !is_write {
            return (state.fault, None);
        }
        let times = state.seen.entry(request.first_line.clone()).or_default();
        *times += 1;
        let loss = match *times {
            1 => Some(Loss::OnItsWay),
            2 => Some(Loss::OnItsWayBack),
            _ => None,
        };
        (state.fault, loss)
    }

    async fn lose(&self, request: &Head, how: &str) -> io::Result<()> {
        let lost = format!("{}, {how}", request.first_line);
        self.state.lock().expect("no task panics with it").lost.push(lost);
        if !self.cut {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The head of an HTTP message.
struct Head {
    first_line: String,
    head_bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// Reads until the head is complete; what is read besides stays in `begun`, too. `None`: the other end has nothing
    /// to say.
    async fn read(stream: &mut UnixStream, begun: &mut BytesMut) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = begun.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&begun[..end]).into_owned();
                let length = text.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse().ok())?
                });
                return Ok(Some(Head {
                    first_line: text.lines().next().unwrap_or_default().to_owned(),
                    head_bytes: end + 4,
                    body_bytes: length.unwrap_or(0).min(BODY_LIMIT_BYTES),
                }));
            }
            if begun.len() > HEAD_LIMIT_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.read_buf(begun).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn read_body(&self, stream: &mut UnixStream, begun: &mut BytesMut) -> io::Result<()> {
        while begun.len() < self.head_bytes + self.body_bytes {
            if stream.read_buf(begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
