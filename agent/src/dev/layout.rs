//! Where everything of `agent dev` is: hosts, ports, files. And what of it is remembered for the next run.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secrets::generate;
use crate::tls::files::write_private;

/// The hosts, and the providers they stand for.
pub(super) const HOSTS: [(&str, &str); 3] = [("ovh", "OVH"), ("ionos", "IONOS"), ("liquidweb", "LiquidWeb")];
const DEFAULT_BASE_PORT: u16 = 2379;
/// From one host's ports to the next one's.
const PORT_STEP: u16 = 10_000;
const STATE_VERSION: u32 = 1;
const STATE_LIMIT_BYTES: u64 = 64 << 10;

/// Why the members have no place to run.
#[derive(Debug, Error)]
pub(crate) enum LayoutError {
    #[error("`agent dev` runs in {dir} already; stop it, or use another --dir and --base-port")]
    RunsAlready { dir: String },
    #[error("port {port} is taken; stop what uses it, or choose other ports: --base-port 0")]
    PortTaken { port: u16 },
    #[error("members of an earlier `agent dev` in {dir}, which could not stop them, run; first: kill {pids}")]
    LeftBehind { dir: String, pids: String },
    #[error(
        "no port {base} + {PORT_STEP} x 2 + 1; the highest --base-port is {}",
        highest_base()
    )]
    NoSuchPort { base: u16 },
    #[error(
        "the members in {dir} know each other at port {stored}, not {given}; leave out --base-port, or begin \
         anew with --fresh"
    )]
    OtherPorts { dir: String, stored: u16, given: u16 },
    #[error("{path} is not what `agent dev` writes; begin anew with --fresh")]
    BadState { path: String },
    #[error("{path}")]
    Io { path: String, source: io::Error },
}

/// One member's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) client_port: u16,
    pub(super) peer_port: u16,
    /// While it runs.
    pub(super) pid: Option<u32>,
}

/// What `DIR/dev.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    members: Vec<Place>,
}

#[derive(Debug)]
pub(super) struct Layout {
    /// As given: for the screen.
    pub(super) dir: PathBuf,
    /// In the order of [`HOSTS`], one each.
    pub(super) places: Vec<Place>,
}

const fn highest_base() -> u16 {
    u16::MAX - 2 * PORT_STEP - 1
}

impl Layout {
    /// Makes the directory, finds the ports, and checks that nobody has them.
    pub(super) fn prepare(dir: &Path, fresh: bool, base_port: Option<u16>) -> Result<Self, LayoutError> {
        if fresh {
            // What runs there would go on writing to what is gone.
            refuse_leftovers(dir, &stored(dir).ok().flatten().unwrap_or_default())?;
            wipe(dir)?;
        }
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let places = match stored(dir)? {
            Some(places) => {
                refuse_leftovers(dir, &places)?;
                check_same_ports(dir, places, base_port)?
            }
            None => choose(base_port.unwrap_or(DEFAULT_BASE_PORT))?,
        };
        let places: Vec<Place> = places
            .into_iter()
            .map(|place| Place { pid: None, ..place })
            .collect();
        for place in &places {
            for port in [place.client_port, place.peer_port] {
                bind(port)?;
            }
        }
        let layout = Self {
            dir: dir.to_owned(),
            places,
        };
        layout.save()?;
        layout.make_secrets_key()?;
        Ok(layout)
    }

    /// What the members seal secrets with: made once.
    fn make_secrets_key(&self) -> Result<(), LayoutError> {
        let path = self.secrets_key();
        if path.exists() {
            return Ok(());
        }
        let made = generate().and_then(|text| write_private(&path, &text));
        made.map_err(io_error(&path))
    }

    pub(super) fn secrets_key(&self) -> PathBuf {
        self.dir.join("secrets.key")
    }

    /// Remembers ports and process ids, so that nobody ever reads half of it.
    pub(super) fn save(&self) -> Result<(), LayoutError> {
        let state = State {
            version: STATE_VERSION,
            members: self.places.clone(),
        };
        let path = state_path(&self.dir);
        let part = path.with_extension("json.part");
        let text = serde_json::to_vec_pretty(&state).map_err(|error| LayoutError::Io {
            path: path.display().to_string(),
            source: io::Error::other(error),
        })?;
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(io_error(&path))
    }

    pub(super) fn data_dir(&self, host: &str) -> PathBuf {
        self.dir.join(host)
    }

    pub(super) fn log(&self, host: &str) -> PathBuf {
        self.dir.join(format!("{host}.log"))
    }

    /// `ovh=http://127.0.0.1:2380,...`
    pub(super) fn initial_cluster(&self) -> String {
        let member = |place: &Place| format!("{}={}", place.host, peer_url(place));
        self.places.iter().map(member).collect::<Vec<_>>().join(",")
    }
}

pub(super) fn client_url(place: &Place) -> String {
    format!("http://127.0.0.1:{}", place.client_port)
}

pub(super) fn peer_url(place: &Place) -> String {
    format!("http://127.0.0.1:{}", place.peer_port)
}

fn state_path(dir: &Path) -> PathBuf {
    dir.join("dev.json")
}

/// Removes what we put there and nothing else: DIR may be somebody's home.
fn wipe(dir: &Path) -> Result<(), LayoutError> {
    let absent_is_fine = |path: &Path, result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    };
    for (host, _) in HOSTS {
        for path in [dir.join(host), dir.join("incus").join(host)] {
            absent_is_fine(&path, fs::remove_dir_all(&path))?;
        }
        for path in [
            dir.join(format!("{host}.log")),
            dir.join(format!("{host}-incus.sock")),
        ] {
            absent_is_fine(&path, fs::remove_file(&path))?;
        }
    }
    let key = dir.join("secrets.key");
    absent_is_fine(&key, fs::remove_file(&key))?;
    let state = state_path(dir);
    absent_is_fine(&state, fs::remove_file(&state))
}

fn stored(dir: &Path) -> Result<Option<Vec<Place>>, LayoutError> {
    let path = state_path(dir);
    let bad = || LayoutError::BadState {
        path: path.display().to_string(),
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(&path)(error)),
        Ok(metadata) if metadata.len() > STATE_LIMIT_BYTES => return Err(bad()),
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(io_error(&path))?;
    let state: State = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let hosts_are_ours = state
        .members
        .iter()
        .map(|place| place.host.as_str())
        .eq(HOSTS.map(|(host, _)| host));
    if state.version != STATE_VERSION || !hosts_are_ours {
        return Err(bad());
    }
    Ok(Some(state.members))
}

/// Members outlive an `agent dev` that was killed itself; they are told by the directory they were started with.
fn refuse_leftovers(dir: &Path, places: &[Place]) -> Result<(), LayoutError> {
    let runs = |place: &Place| {
        let pid = place.pid?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let data_dir = dir.join(&place.host);
        let ours = command
            .split(|byte| *byte == 0)
            .any(|word| word == data_dir.as_os_str().as_bytes());
        ours.then(|| pid.to_string())
    };
    let pids: Vec<String> = places.iter().filter_map(runs).collect();
    if pids.is_empty() {
        return Ok(());
    }
    Err(LayoutError::LeftBehind {
        dir: dir.display().to_string(),
        pids: pids.join(" "),
    })
}

/// The members remember each other's peer ports: others would not do.
fn check_same_ports(dir: &Path, places: Vec<Place>, given: Option<u16>) -> Result<Vec<Place>, LayoutError> {
    let stored = places.first().map_or(0, |place| place.client_port);
    match given {
        Some(given) if given != 0 && given != stored => Err(LayoutError::OtherPorts {
            dir: dir.display().to_string(),
            stored,
            given,
        }),
        _ => Ok(places),
    }
}

fn choose(base: u16) -> Result<Vec<Place>, LayoutError> {
    let hosts = HOSTS.iter().map(|(host, _)| (*host).to_owned());
    let place = |host, client_port, peer_port| Place {
        host,
        client_port,
        peer_port,
        pid: None,
    };
    if base == 0 {
        // All are held until all are found, so that no port is found twice.
        let held = (0..HOSTS.len() * 2)
            .map(|_| bind(0))
            .collect::<Result<Vec<_>, _>>()?;
        let ports = held
            .iter()
            .map(|listener| listener.local_addr().map(|address| address.port()));
        let ports: Vec<u16> = ports
            .collect::<io::Result<_>>()
            .map_err(io_error(Path::new("127.0.0.1")))?;
        return Ok(hosts
            .zip(ports.chunks_exact(2))
            .map(|(host, pair)| place(host, pair[0], pair[1]))
            .collect());
    }
    if base > highest_base() {
        return Err(LayoutError::NoSuchPort { base });
    }
    Ok(hosts
        .zip(0..)
        .map(|(host, index)| {
            let client = base + index * PORT_STEP;
            place(host, client, client + 1)
        })
        .collect())
}

fn bind(port: u16) -> Result<TcpListener, LayoutError> {
    TcpListener::bind(("127.0.0.1", port)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => LayoutError::PortTaken { port },
        _ => io_error(Path::new(&format!("127.0.0.1:{port}")))(error),
    })
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> LayoutError {
    let path = path.display().to_string();
    move |source| LayoutError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_kept_for_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::prepare(dir.path(), false, Some(0)).unwrap();
        let again = Layout::prepare(dir.path(), false, None).unwrap();
        assert_eq!(first.places, again.places);
        let mut ports: Vec<u16> = first
            .places
            .iter()
            .flat_map(|place| [place.client_port, place.peer_port])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
        let other = Layout::prepare(dir.path(), false, Some(1)).unwrap_err();
        assert!(other.to_string().contains("--fresh"), "{other}");
    }

    #[test]
    fn ports_are_etcds_by_default() {
        let ports: Vec<_> = choose(2379)
            .unwrap()
            .iter()
            .map(|place| (place.client_port, place.peer_port))
            .collect();
        assert_eq!(ports, [(2379, 2380), (12379, 12380), (22379, 22380)]);
        assert!(choose(highest_base()).is_ok());
        let error = choose(highest_base() + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no port 45535 + 10000 x 2 + 1; the highest --base-port is 45534"
        );
    }

    #[test]
    fn a_taken_port_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path(), false, Some(0)).unwrap();
        let port = layout.places[1].peer_port;
        let _somebody = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let error = Layout::prepare(dir.path(), false, None).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("port {port} is taken")),
            "{error}"
        );
    }

    #[test]
    fn fresh_forgets_what_is_ours_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path(), false, Some(0)).unwrap();
        fs::create_dir_all(layout.data_dir("ovh").join("wal")).unwrap();
        fs::write(layout.log("ovh"), "x").unwrap();
        fs::write(dir.path().join("letters.txt"), "x").unwrap();
        Layout::prepare(dir.path(), true, Some(0)).unwrap();
        assert!(!layout.data_dir("ovh").exists() && !layout.log("ovh").exists());
        assert!(dir.path().join("letters.txt").exists());
    }

    #[test]
    fn members_left_behind_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::prepare(dir.path(), false, Some(0)).unwrap();
        // As a member is started: its data directory is one of its arguments.
        let data_dir = layout.data_dir("ionos");
        let script = ["-c", "echo started; read line; exit", "--data-dir"];
        let mut command = std::process::Command::new("sh");
        let mut left = command
            .args(script)
            .arg(&data_dir)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A process has its new arguments only a moment after it is another program: this one has begun.
        let mut started = [0; 8];
        std::io::Read::read_exact(left.stdout.as_mut().unwrap(), &mut started).unwrap();
        layout.places[0].pid = Some(std::process::id());
        layout.places[1].pid = Some(left.id());
        layout.save().unwrap();
        for fresh in [false, true] {
            let error = Layout::prepare(dir.path(), fresh, None).unwrap_err().to_string();
            assert!(error.ends_with(&format!("first: kill {}", left.id())), "{error}");
        }
        drop(left.stdin.take());
        left.wait().unwrap();
        Layout::prepare(dir.path(), false, None).unwrap();
    }

    #[test]
    fn a_file_that_is_not_ours_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            r#"{"version":2,"members":[]}"#,
            r#"{"version":1,"members":[]}"#,
        ] {
            fs::write(state_path(dir.path()), text).unwrap();
            let error = Layout::prepare(dir.path(), false, None).unwrap_err();
            assert!(matches!(error, LayoutError::BadState { .. }), "{text}: {error}");
        }
    }
}
