//! The Incus of each host: the real one of this machine, or one that only pretends, or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DevError;
use super::layout::{HOSTS, Layout};
use crate::incus::Incus;
use crate::incus::simulated::SimulatedIncus;

const REAL_SOCKET: &str = "/var/lib/incus/unix.socket";
/// The real one answers from memory: one that takes longer is not there for us.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IncusChoice {
    /// The real one if it answers, else a simulated one.
    Find,
    /// This one, or none of all starts.
    At(PathBuf),
    Simulated,
    None,
}

impl IncusChoice {
    pub(super) fn from_flag(flag: Option<&str>) -> Self {
        match flag {
            None => Self::Find,
            Some("simulated") => Self::Simulated,
            Some("none") => Self::None,
            Some(path) => Self::At(path.into()),
        }
    }
}

/// What each member is given, and what runs for that.
#[derive(Debug)]
pub(super) struct Backends {
    /// `--incus-socket` of each member, in the layout's order.
    sockets: Vec<String>,
    simulated: Vec<SimulatedIncus>,
    /// For the screen.
    pub(super) words: String,
}

impl Backends {
    pub(super) async fn start(choice: IncusChoice, layout: &Layout) -> Result<Self, DevError> {
        match choice {
            IncusChoice::None => Ok(Self::same_for_all("none", "none wanted".to_owned())),
            IncusChoice::Simulated => Self::simulate(layout, "simulated".to_owned()).await,
            IncusChoice::At(path) => match version(&path).await {
                Ok(version) => Ok(Self::real(&path, &version)),
                Err(why) => Err(DevError::Incus(format!("--incus-socket: {why}"))),
            },
            IncusChoice::Find => {
                let path = Path::new(REAL_SOCKET);
                if !path.exists() {
                    return Self::simulate(layout, "none found, simulating one".to_owned()).await;
                }
                match version(path).await {
                    Ok(version) => Ok(Self::real(path, &version)),
                    Err(why) => {
                        let words = format!("{REAL_SOCKET} is of no use ({why}), simulating one");
                        Self::simulate(layout, words).await
                    }
                }
            }
        }
    }

    fn same_for_all(socket: &str, words: String) -> Self {
        Self {
            sockets: vec![socket.to_owned(); HOSTS.len()],
            simulated: Vec::new(),
            words,
        }
    }

    fn real(path: &Path, version: &str) -> Self {
        Self::same_for_all(&path.to_string_lossy(), format!("{} ({version})", path.display()))
    }

    async fn simulate(layout: &Layout, words: String) -> Result<Self, DevError> {
        let mut backends = Self {
            sockets: Vec::new(),
            simulated: Vec::new(),
            words,
        };
        for place in &layout.places {
            let socket = layout.dir.join(format!("{}-incus.sock", place.host));
            let data = layout.dir.join("incus").join(&place.host);
            let started = SimulatedIncus::start(&data, &socket).await;
            let simulated = started.map_err(|error| DevError::Incus(format!("simulated Incus: {error}")))?;
            backends.sockets.push(socket.to_string_lossy().into_owned());
            backends.simulated.push(simulated);
        }
        Ok(backends)
    }

    pub(super) fn socket(&self, index: usize) -> &str {
        self.sockets.get(index).map_or("none", String::as_str)
    }

    pub(super) async fn stop(self) {
        for simulated in self.simulated {
            simulated.stop().await;
        }
    }
}

async fn version(socket: &Path) -> Result<String, String> {
    let incus = Incus::connect(socket).map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER_LIMIT, incus.server()).await {
        Ok(Ok(server)) => Ok(server.version),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("no answer".to_owned()),
    }
}
