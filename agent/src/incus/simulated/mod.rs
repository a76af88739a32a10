//! An Incus daemon that only pretends: Incus' REST API on a unix socket, with objects that are nothing but records.
//!
//! It serves `agent dev` where there is no Incus, and tests of what a machine cannot run (virtual machines). It owns
//! the behaviour a client can trip over: the envelope, operations and how they fail, ETags, what a patch merges and
//! what it replaces, what cannot be deleted, lifecycle events. It must not be lenient where Incus is not: the same
//! contract test runs against it and against a real daemon. Pools, networks, volumes and images are records that do
//! nothing. Not simulated: devices, limits, what is inside an instance (exec is refused) or on its disks, and which config
//! keys exist within their namespaces.

mod api;
mod change;
mod check;
mod events;
mod nested;
mod operations;
mod records;
mod snapshots;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::change::{Changed, Refusal};
use self::events::Told;
use self::operations::Operations;
use self::world::World;

/// The Incus whose behaviour is simulated.
const VERSION: &str = "6.0.4";
/// How long requests under way may take when it stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Why the simulated daemon does not start.
#[derive(Debug, Error)]
pub enum SimulatedIncusError {
    #[error("something answers at {} already", .0.display())]
    InUse(PathBuf),
    #[error("cannot listen at {}", socket.display())]
    Listen { socket: PathBuf, source: io::Error },
    #[error("cannot read or write {}", dir.display())]
    State { dir: PathBuf, source: io::Error },
}

/// The running simulated daemon. Dropping it stops it; its directory keeps what there was.
#[derive(Debug)]
pub struct SimulatedIncus {
    socket: PathBuf,
    serving: JoinHandle<()>,
    stop: DropGuard,
}

impl SimulatedIncus {
    /// Starts a daemon that keeps its objects in `dir` and listens at `socket`. Both are made if missing; a
    /// socket nobody answers at any more is replaced.
    pub async fn start(dir: &Path, socket: &Path) -> Result<Self, SimulatedIncusError> {
        let state = |source| SimulatedIncusError::State {
            dir: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(state)?;
        let world = World::load(dir).map_err(state)?;
        world.save(dir).map_err(state)?;
        let listener = listen(socket).await?;
        let stopped = CancellationToken::new();
        let daemon = Daemon {
            dir: dir.into(),
            world: Arc::new(Mutex::new(world)),
            operations: Arc::new(Mutex::new(Operations::default())),
            events: broadcast::Sender::new(events::BACKLOG),
            stopped: stopped.clone(),
        };
        let serving = tokio::spawn(serve(listener, daemon, socket.to_owned()));
        Ok(Self {
            socket: socket.to_owned(),
            serving,
            stop: stopped.drop_guard(),
        })
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops it and waits until it has.
    pub async fn stop(self) {
        drop(self.stop);
        // An error would be its panic, which was reported where it happened.
        let _ = self.serving.await;
    }
}

/// What every request works on.
#[derive(Clone, Debug)]
struct Daemon {
    dir: Arc<Path>,
    world: Arc<Mutex<World>>,
    operations: Arc<Mutex<Operations>>,
    events: broadcast::Sender<Told>,
    stopped: CancellationToken,
}

impl Daemon {
    /// Makes one change, wholly or not at all: on a copy, then on disk, then in memory. Its events are told while
    /// the world is locked, so that they come in the order of the changes.
    fn change(&self, change: impl FnOnce(&mut World) -> Changed) -> Result<(), Refusal> {
        let mut world = self.world.lock();
        let mut new = world.clone();
        let happened = change(&mut new)?;
        // A small file without a sync: too short to move it off this thread.
        new.save(&self.dir).map_err(|error| Refusal::AtOnce {
            status: 500,
            message: error.to_string(),
        })?;
        *world = new;
        for happened in happened {
            // Without listeners there is nobody to tell.
            let _ = self.events.send(Told::new(happened));
        }
        Ok(())
    }
}

/// Accepts as Incus does: the next connection waits until something was said on this one. A client that opens
/// connections ahead of its requests shuts everybody out, and finds it out here.
struct Listening(UnixListener);

impl axum::serve::Listener for Listening {
    type Io = BufReader<UnixStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            let mut stream = BufReader::new(stream);
            if stream.fill_buf().await.is_ok_and(|said| !said.is_empty()) {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

async fn listen(socket: &Path) -> Result<Listening, SimulatedIncusError> {
    let failed = |source| SimulatedIncusError::Listen {
        socket: socket.to_owned(),
        source,
    };
    match UnixStream::connect(socket).await {
        Ok(_) => return Err(SimulatedIncusError::InUse(socket.to_owned())),
        // Left by a daemon that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket).map_err(failed)?;
        }
        Err(_) => {}
    }
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    UnixListener::bind(socket).map(Listening).map_err(failed)
}

/// Ends soon after the stop, whatever its clients do.
async fn serve(listener: Listening, daemon: Daemon, socket: PathBuf) {
    let stopped = daemon.stopped.clone();
    let cut = async {
        stopped.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    let serve =
        axum::serve(listener, api::router(daemon)).with_graceful_shutdown(stopped.clone().cancelled_owned());
    tokio::select! {
        served = serve.into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "the simulated Incus stopped");
            }
        }
        () = cut => {}
    }
    // Best effort: a start replaces what is left.
    let _ = std::fs::remove_file(socket);
}
