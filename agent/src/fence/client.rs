//! The agent's side: feeds the guard, and starts it where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::warn;

use super::message::{self, Feed, Hold, Kept, Name, SOCKET};

/// The guard answers at once: it keeps nothing but a small file.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const LOG: &str = "guard.log";
/// What a guard of old has logged goes when a new one starts.
const LOG_LIMIT_BYTES: u64 = 1 << 20;

#[derive(Debug, Error)]
pub(crate) enum FenceError {
    #[error("the guard does not answer")]
    Silent(#[source] io::Error),
    #[error("the guard cannot be started")]
    NotStarted(#[source] io::Error),
}

/// Where the guard is, and how one is started.
#[derive(Clone, Debug)]
pub(crate) struct GuardClient {
    folder: PathBuf,
    incus_socket: PathBuf,
    /// The guard is a unit of its own: it outlives the agent's.
    by_systemd: bool,
}

impl GuardClient {
    pub(crate) fn new(folder: PathBuf, incus_socket: &Path, by_systemd: bool) -> GuardClient {
        GuardClient {
            folder,
            incus_socket: incus_socket.to_owned(),
            by_systemd,
        }
    }

    /// Whether there was a guard before this agent: it may have instances that are to be let go of.
    pub(crate) fn was_started(&self) -> bool {
        self.folder.is_dir()
    }

    /// Starts the guard, if none runs. What it had before a boot it stops at once.
    pub(crate) async fn wake(&self) {
        if UnixStream::connect(self.folder.join(SOCKET)).await.is_ok() {
            return;
        }
        if let Err(error) = self.start().await {
            warn!(%error, "the guard cannot be started");
        }
    }

    /// Tells the guard of all instances that it is to have; those that may run until the deadline which they were given.
    pub(crate) async fn feed(&self, holds: Vec<Hold>) -> Result<BTreeSet<Name>, FenceError> {
        let feed = Feed { holds };
        match self.ask(&feed).await {
            Ok(held) => Ok(held),
            Err(error) => {
                self.start().await.map_err(FenceError::NotStarted)?;
                // It needs a moment; the next feed comes soon.
                Err(FenceError::Silent(error))
            }
        }
    }

    async fn ask(&self, feed: &Feed) -> io::Result<BTreeSet<Name>> {
        let asked = async {
            let mut stream = UnixStream::connect(self.folder.join(SOCKET)).await?;
            message::write(&mut stream, feed).await?;
            let kept: Kept = message::read(&mut stream).await?;
            Ok(kept.held.into_iter().collect())
        };
        timeout(ANSWER_LIMIT, asked).await?
    }

    async fn start(&self) -> io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.folder)?;
        let program = program()?;
        let mut command;
        if self.by_systemd {
            command = Command::new("systemd-run");
            command.args(["--quiet", "--collect", "--unit=agent-fence"]);
            command.args(["--description=Stops instances that may be another host's by now"]);
            command.args(["--property=Restart=on-failure", "--property=RestartSec=1"]);
            command.arg(program);
        } else {
            command = Command::new(program);
        }
        command
            .arg("fence")
            .arg("--folder")
            .arg(&self.folder)
            .arg("--incus-socket")
            .arg(&self.incus_socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log()?)
            // What is said to the agent's group is not said to it.
            .process_group(0);
        let mut child = command.spawn()?;
        if self.by_systemd {
            let status = child.wait().await?;
            if !status.success() {
                return Err(io::Error::other(format!("systemd-run: {status}")));
            }
        }
        Ok(())
    }

    fn log(&self) -> io::Result<fs::File> {
        let path = self.folder.join(LOG);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT_BYTES) {
            fs::remove_file(&path)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(path)
    }
}

/// This program, also after its file was replaced by a newer one.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)"));
    Ok(replaced.map_or_else(|| path.clone(), PathBuf::from))
}
