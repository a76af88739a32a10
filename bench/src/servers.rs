//! Three members of one kind, on loopback, on one disk.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{RangeRequest, StatusRequest};
use tempfile::TempDir;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const LOG_TAIL_LINES: usize = 10;

/// Whose servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Agent,
    Etcd,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Agent => "agent",
            Kind::Etcd => "etcd",
        }
    }
}

/// Running members. Dropping them kills the processes and removes their data.
#[derive(Debug)]
pub(crate) struct Servers {
    members: Vec<Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    client_url: String,
    peer_url: String,
    process: Option<Child>,
}

/// Where the program is: as asked for, beside this one, or where it usually is.
pub(crate) fn find(kind: Kind, asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path.to_owned());
    }
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    match kind {
        Kind::Agent => {
            let agent = this.with_file_name("agent");
            if !agent.is_file() {
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let built = Command::new(cargo)
                    .args(["build", "--release", "--locked", "-p", "agent"])
                    .status()?;
                anyhow::ensure!(
                    built.success() && agent.is_file(),
                    "cannot build {}",
                    agent.display()
                );
            }
            Ok(agent)
        }
        Kind::Etcd => {
            let given = std::env::var_os("ETCD35_DIR").map(|folder| PathBuf::from(folder).join("etcd"));
            let unpacked = this
                .ancestors()
                .nth(2)
                .map(|target| target.join("tools/etcd-3.5/usr/bin/etcd"));
            let found = [given, unpacked]
                .into_iter()
                .flatten()
                .find(|path| path.is_file());
            Ok(found.unwrap_or_else(|| "etcd".into()))
        }
    }
}

impl Servers {
    pub(crate) async fn start(
        kind: Kind,
        program: &Path,
        members: usize,
        dir: Option<&Path>,
    ) -> anyhow::Result<Servers> {
        let this = std::env::current_exe().context("cannot tell where this program is")?;
        let dir = dir.or(this.parent()).context("no folder for the data")?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?;
        // All ports are held until all are known, so that they differ.
        let listeners = (0..2 * members)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<Vec<_>, _>>()?;
        let urls = listeners
            .iter()
            .map(|listener| Ok(format!("http://{}", listener.local_addr()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        drop(listeners);
        let members = urls.chunks_exact(2).enumerate().map(|(i, pair)| Member {
            name: format!("m{i}"),
            client_url: pair.first().cloned().unwrap_or_default(),
            peer_url: pair.last().cloned().unwrap_or_default(),
            process: None,
        });
        let mut servers = Servers {
            members: members.collect(),
            folder,
        };
        servers.spawn(kind, program)?;
        servers.ready().await?;
        Ok(servers)
    }

    /// Where the members are, the leader first: a single client asks the leader, of both kinds.
    pub(crate) async fn endpoints(&self) -> anyhow::Result<Vec<String>> {
        let mut leader_first = Vec::new();
        for url in self.urls() {
            let mut maintenance = MaintenanceClient::connect(url.clone()).await?;
            let status = maintenance.status(StatusRequest {}).await?.into_inner();
            let leads = status
                .header
                .is_some_and(|header| header.member_id == status.leader);
            leader_first.insert(if leads { 0 } else { leader_first.len() }, url);
        }
        Ok(leader_first)
    }

    fn urls(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.client_url.clone())
            .collect()
    }

    fn spawn(&mut self, kind: Kind, program: &Path) -> anyhow::Result<()> {
        let initial: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        for member in &mut self.members {
            let log = File::create(self.folder.path().join(format!("{}.log", member.name)))?;
            let mut command = Command::new(program);
            match kind {
                Kind::Agent => command.args(["run", "--provider", "bench", "--incus-socket", "none"]),
                Kind::Etcd => command.args(["--logger", "zap", "--log-level", "warn"]),
            };
            command
                .args(["--name", &member.name])
                .arg("--data-dir")
                .arg(self.folder.path().join(&member.name));
            command.args(["--listen-client-urls", &member.client_url]);
            command.args(["--advertise-client-urls", &member.client_url]);
            command.args(["--listen-peer-urls", &member.peer_url]);
            command.args(["--initial-advertise-peer-urls", &member.peer_url]);
            command.args([
                "--initial-cluster",
                &initial.join(","),
                "--initial-cluster-state",
                "new",
            ]);
            command.args(["--initial-cluster-token", "bench"]);
            command
                .env_clear()
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            member.process = Some(command.spawn()?);
        }
        Ok(())
    }

    /// Each member answers a linearizable read.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        for i in 0..self.members.len() {
            while !self.serves(i).await {
                let Some(member) = self.members.get_mut(i) else {
                    break;
                };
                let ended = member
                    .process
                    .as_mut()
                    .map(Child::try_wait)
                    .transpose()?
                    .flatten();
                if ended.is_some() || started.elapsed() > READY_TIMEOUT {
                    let name = member.name.clone();
                    bail!(
                        "{name} does not serve; the end of its log:\n{}",
                        self.log_tail(&name)
                    );
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn serves(&self, i: usize) -> bool {
        let Some(member) = self.members.get(i) else {
            return false;
        };
        let Ok(mut kv) = KvClient::connect(member.client_url.clone()).await else {
            return false;
        };
        let read = kv.range(RangeRequest {
            key: "ready".into(),
            ..Default::default()
        });
        matches!(
            tokio::time::timeout(Duration::from_secs(1), read).await,
            Ok(Ok(_))
        )
    }

    fn log_tail(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LOG_TAIL_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in self
            .members
            .iter_mut()
            .filter_map(|member| member.process.as_mut())
        {
            // It may have ended by itself; nothing is left to do then.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
