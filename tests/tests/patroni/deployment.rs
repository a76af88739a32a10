//! Three Patroni nodes, each with a PostgreSQL of its own.
//!
//! Owns their processes and folders. PostgreSQL leaves its parent's session and survives Patroni, so that a
//! node's processes are known by where they work: within the node's folder, where nothing else runs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;
use tests::cluster::{Cluster, address};
use tests::{notes, tools, wait};

use crate::database::Database;

/// A first start makes a database and copies it twice; a failover takes up to Patroni's `ttl` of 20 s.
const PATIENCE: Duration = Duration::from_secs(100);
const LOG_TAIL_BYTES: usize = 4_000;

/// What Patroni signs in with.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Three nodes of one PostgreSQL cluster.
#[derive(Debug)]
pub(crate) struct Deployment {
    nodes: Vec<Node>,
    /// PostgreSQL refuses root: who it runs as then.
    user: Option<User>,
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    folder: PathBuf,
    database: Database,
    process: Option<Child>,
}

/// Whether Patroni is there; says so if not.
pub(crate) fn is_available() -> bool {
    let there = tools::folder("patroni").is_some();
    if !there {
        notes::skipped("no Patroni");
    }
    there
}

impl Deployment {
    /// Starts all nodes; [`Deployment::serving`] waits for them.
    pub(crate) fn start(store: &Cluster, credentials: Option<&Credentials>) -> Deployment {
        let folder = tempfile::Builder::new()
            .prefix("patroni-")
            .tempdir()
            .expect("temporary folder");
        let user = tools::is_root().then(|| User::from_name("nobody").ok().flatten().expect("user nobody"));
        give(folder.path(), user.as_ref());
        let address = address::own_loopback();
        let [p0, r0, p1, r1, p2, r2] = address::free_ports(address);
        let nodes = [(p0, r0), (p1, r1), (p2, r2)].into_iter().enumerate();
        let nodes = nodes.map(|(i, (postgres, rest))| {
            let folder = folder.path().join(format!("n{i}"));
            fs::create_dir(&folder).expect("make a node's folder");
            give(&folder, user.as_ref());
            let hosts: Vec<&str> = store
                .members()
                .iter()
                .map(|member| member.client_url.trim_start_matches("http://"))
                .collect();
            let text = configuration(&folder, i, address, (postgres, rest), &hosts, credentials);
            fs::write(folder.join("patroni.yml"), text).expect("write Patroni's configuration");
            Node {
                database: Database::new(address, postgres),
                folder,
                process: None,
            }
        });
        let mut deployment = Deployment {
            nodes: nodes.collect(),
            user,
            folder,
        };
        for i in 0..deployment.len() {
            deployment.start_node(i);
        }
        deployment
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn database(&self, node: usize) -> &Database {
        &self.nodes[node].database
    }

    /// Starts a node's Patroni, which starts PostgreSQL.
    pub(crate) fn start_node(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        assert!(node.process.is_none(), "n{i} runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.folder.join("log"))
            .expect("log file");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(program("bin/patroni"))
            .arg("patroni.yml")
            .current_dir(&node.folder)
            .env_clear()
            .envs(environment())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        node.process = Some(command.spawn().expect("start Patroni"));
    }

    /// SIGKILL of everything that a node runs, and all of it is gone when this returns.
    pub(crate) fn kill(&mut self, i: usize) {
        self.nodes[i].kill();
    }

    /// Waits until one node is primary, with so many others streaming from it, one of them synchronously.
    /// Answers the primary.
    pub(crate) async fn serving(&self, replicas: usize) -> usize {
        let streaming = "select count(*), count(*) filter (where sync_state = 'sync') \
                         from pg_stat_replication where state = 'streaming'";
        let what = format!("a primary and {replicas} streaming replicas");
        self.until(&what, async || {
            let primary = self.primary().await?;
            let found = self.nodes[primary].database.query(streaming).await?;
            (found == format!("{replicas}|1")).then_some(primary)
        })
        .await
    }

    pub(crate) async fn primary_other_than(&self, former: usize) -> usize {
        let what = format!("another primary than n{former}");
        self.until(&what, async || {
            self.primary().await.filter(|&primary| primary != former)
        })
        .await
    }

    /// The only node that takes writes.
    async fn primary(&self) -> Option<usize> {
        let mut primaries = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let answer = node.database.query("select pg_is_in_recovery()").await;
            if answer.as_deref() == Some("f") {
                primaries.push(i);
            }
        }
        // Two were asked one after the other, and may have changed places between.
        (primaries.len() == 1).then(|| primaries[0])
    }

    /// Waits until a node's own copy has all these rows; replicas follow the primary at their own pace.
    pub(crate) async fn holds(&self, i: usize, rows: &[u64]) {
        let what = format!("n{i} to hold {} acknowledged rows", rows.len());
        self.until(&what, async || {
            let found = self.nodes[i].database.query("select id from rows").await?;
            let found: std::collections::BTreeSet<u64> =
                found.lines().filter_map(|line| line.parse().ok()).collect();
            rows.iter().all(|row| found.contains(row)).then_some(())
        })
        .await;
    }

    async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, probe: impl FnMut() -> F) -> T {
        match wait::within(PATIENCE, what, probe).await {
            Ok(found) => found,
            Err(vain) => panic!("{vain}"),
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            node.kill();
            if std::thread::panicking() {
                let log = fs::read(node.folder.join("log")).unwrap_or_default();
                let tail = log
                    .get(log.len().saturating_sub(LOG_TAIL_BYTES)..)
                    .unwrap_or_default();
                eprintln!(
                    "---- Patroni n{i} in {}\n{}",
                    self.folder.path().display(),
                    String::from_utf8_lossy(tail)
                );
            }
        }
    }
}

impl Node {
    fn kill(&mut self) {
        loop {
            let running = working_in(&self.folder);
            for &pid in &running {
                // It may have ended since it was seen.
                let _ = kill(pid, Signal::SIGKILL);
            }
            if let Some(mut process) = self.process.take() {
                let _ = process.wait();
            }
            if running.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The processes whose working folder is within this one; zombies have none.
fn working_in(folder: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let works_in = fs::read_link(entry.path().join("cwd")).ok()?;
            works_in.starts_with(folder).then(|| Pid::from_raw(pid))
        })
        .collect()
}

fn give(path: &Path, user: Option<&User>) {
    if let Some(user) = user {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("give a folder away");
    }
}

/// A path below `usr` of the unpacked packages.
fn program(path: &str) -> PathBuf {
    let tools = tools::folder("patroni").expect("Patroni");
    tools.join("usr").join(path)
}

/// What PostgreSQL's and Patroni's programs need to find their libraries.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    vec![
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        (
            "LD_LIBRARY_PATH",
            program(&libraries).to_string_lossy().into_owned(),
        ),
        (
            "PYTHONPATH",
            program("lib/python3/dist-packages")
                .to_string_lossy()
                .into_owned(),
        ),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]
}

/// Where `postgres`, `psql` and the rest are: the only release that was unpacked.
pub(crate) fn postgresql_programs() -> PathBuf {
    let releases = fs::read_dir(program("lib/postgresql")).expect("PostgreSQL");
    let release = releases.flatten().next().expect("a release of PostgreSQL");
    release.path().join("bin")
}

/// Patroni's configuration. Its timers are the least that it allows.
fn configuration(
    folder: &Path,
    node: usize,
    address: Ipv4Addr,
    (postgres, rest): (u16, u16),
    hosts: &[&str],
    credentials: Option<&Credentials>,
) -> String {
    let mut etcd = format!("  hosts: [{}]\n", hosts.join(", "));
    if let Some(Credentials { user, password }) = credentials {
        let _ = write!(etcd, "  username: {user}\n  password: {password}\n");
        // Debian's Patroni asks for the list of members before it signs in, which is refused here and by etcd since
        // 3.5.28. With this it takes its configuration's word for who they are.
        etcd.push_str("  use_proxies: true\n");
    }
    let folder = folder.display();
    let programs = postgresql_programs();
    let programs = programs.display();
    format!(
        "scope: tests
name: n{node}
restapi:
  listen: {address}:{rest}
  connect_address: {address}:{rest}
etcd3:
{etcd}bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 5
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{shared_buffers: 16MB, max_connections: 30, jit: 'off',
      # In the data directory: what a kill leaves in shared memory would stay.
      dynamic_shared_memory_type: mmap}}
  initdb: [encoding: UTF8, locale: C, auth: trust, data-checksums]
postgresql:
  listen: {address}:{postgres}
  connect_address: {address}:{postgres}
  data_dir: {folder}/data
  bin_dir: {programs}
  pgpass: {folder}/pgpass
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: replicator}}
    rewind: {{username: rewinder}}
  pg_hba:
    - host all all 127.0.0.0/8 trust
    - host replication all 127.0.0.0/8 trust
  parameters: {{unix_socket_directories: '{folder}'}}
"
    )
}
