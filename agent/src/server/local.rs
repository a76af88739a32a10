//! The socket in the data directory: how this machine's root gets in when nobody else does.
//!
//! Who connects is root to the API, whatever users and passwords there are, so that the kernel's word is taken on who
//! that is, and every connection is in the log. The file is its owner's only. No other port knows of [`LocalRoot`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Extensions;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::listener::{http, speak, with_extensions};
use crate::api::LocalRoot;
use crate::shutdown::Shutdown;

/// In the data directory.
const FILE: &str = "agent.sock";
/// Connections at once: a person's, and their scripts'.
const CONNECTIONS: usize = 64;

/// The bound socket.
pub(super) struct LocalPort {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalPort {
    /// Binds it. The data directory is this member's alone, so that what a former one left is put away.
    ///
    /// # Errors
    /// As the system says; a path that is too long for a socket among others.
    pub(super) fn bind(data_dir: &Path) -> io::Result<LocalPort> {
        let path = data_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Whoever connected before this line is still judged by who it is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(LocalPort { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the shutdown, and then what is under way, for as long as `drain`.
    pub(super) async fn serve(self, router: Router, shutdown: Shutdown, drain: Duration) {
        let http = http();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let connections = GracefulShutdown::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                break;
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection at the local socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if !is_admitted(&stream) {
                continue;
            }
            let mut about = Extensions::new();
            about.insert(LocalRoot);
            let (http, watcher) = (http.clone(), connections.watcher());
            let service = with_extensions(router.clone(), about);
            tokio::spawn(async move {
                if let Err(error) = speak(&http, stream, service, watcher).await {
                    tracing::debug!(%error, "a local connection ended");
                }
                drop(place);
            });
        }
        // Nobody is to find a socket that nobody serves.
        let _ = fs::remove_file(&self.path);
        drop(self.listener);
        let _ = tokio::time::timeout(drain, connections.shutdown()).await;
    }
}

/// Whether the kernel says that root is there, or whoever this process runs as. Said in the log, either way.
fn is_admitted(stream: &UnixStream) -> bool {
    let (uid, pid) = match stream.peer_cred() {
        Ok(peer) => (peer.uid(), peer.pid().unwrap_or_default()),
        Err(error) => {
            tracing::warn!(%error, "a connection to the local socket is refused: nobody knows whose it is");
            return false;
        }
    };
    if may(uid, nix::unistd::geteuid().as_raw()) {
        tracing::warn!(uid, pid, "a connection by the local socket: it is root here");
        return true;
    }
    tracing::warn!(
        uid,
        pid,
        "a connection to the local socket is refused: it is not root's"
    );
    false
}

fn may(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_ones_own_user_get_in() {
        for (uid, own, expected) in [
            (0, 0, true),
            (0, 7, true),
            (7, 7, true),
            (8, 7, false),
            (7, 0, false),
        ] {
            assert_eq!(may(uid, own), expected, "{uid} at {own}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_and_takes_the_place_of_a_former_one() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let port = LocalPort::bind(folder.path()).unwrap();
            let mode = fs::metadata(port.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let long = folder.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        assert!(LocalPort::bind(&long).is_err());
    }
}
