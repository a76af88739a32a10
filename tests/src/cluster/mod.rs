//! Clusters of real processes.
//!
//! Owns the processes, their folders and logs: all are gone when the [`Cluster`] is dropped, and a failing test
//! shows the ends of the logs. It never looks into a data directory.

pub mod address;
mod growth;
mod member;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use member::Member;
pub use subject::Subject;

use crate::client::Client;
use crate::wait::{self, PATIENCE};

/// How a cluster is started, beyond the defaults of [`Cluster::start`].
#[derive(Debug)]
pub struct Builder {
    subject: Subject,
    members: usize,
    token: String,
    args: Vec<String>,
    data_dirs: Vec<Option<PathBuf>>,
    incus_sockets: Vec<PathBuf>,
    certificates: Option<PathBuf>,
    peer_certificates: Option<PathBuf>,
    takes_secrets: bool,
}

impl Builder {
    /// One more flag for every member.
    #[must_use]
    pub fn arg(mut self, flag: &str, value: &str) -> Builder {
        self.args.push(format!("{flag}={value}"));
        self
    }

    /// Keeps a member's data in a folder of the caller's, which outlives the cluster.
    #[must_use]
    pub fn data_dir(mut self, member: usize, path: &Path) -> Builder {
        self.data_dirs[member] = Some(path.to_owned());
        self
    }

    /// `--initial-cluster-token`, by which clusters with the same members differ.
    #[must_use]
    pub fn token(mut self, token: &str) -> Builder {
        token.clone_into(&mut self.token);
        self
    }

    /// Each member's own Incus; without it the agent is a store only.
    #[must_use]
    pub fn incus(mut self, sockets: &[PathBuf]) -> Builder {
        sockets.clone_into(&mut self.incus_sockets);
        self
    }

    /// Serves clients with TLS too, with what a [`crate::certificates::Authority`] wrote into a folder. Clients must
    /// show a certificate.
    #[must_use]
    pub fn tls(mut self, certificates: &Path) -> Builder {
        self.certificates = Some(certificates.to_owned());
        self
    }

    /// Members speak TLS with each other: each has `peer-NAME.pem` and its key in a folder, and trusts `ca.pem`.
    #[must_use]
    pub fn peer_tls(mut self, certificates: &Path) -> Builder {
        self.peer_certificates = Some(certificates.to_owned());
        self
    }

    /// The members have a key to seal secrets with: the same in every cluster, so that answers that name it are, too.
    #[must_use]
    pub fn with_secrets(mut self) -> Builder {
        self.takes_secrets = true;
        self
    }

    fn peer_scheme(&self) -> &'static str {
        match self.peer_certificates {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Starts the members and waits until each serves.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        for i in 0..cluster.members.len() {
            cluster.start(i);
        }
        cluster.ready().await;
        cluster.published().await;
        cluster
    }

    /// Everything but the processes: [`Cluster::start`] starts them.
    #[must_use]
    pub fn prepare(mut self) -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("cluster-")
            .tempdir()
            .expect("temporary folder");
        if self.takes_secrets {
            let key = folder.path().join("secrets.key");
            std::fs::write(&key, format!("{}=\n", "A".repeat(43))).expect("write a key");
            self = self.arg("--secrets-key-file", &key.to_string_lossy());
        }
        let address = address::own_loopback();
        let members = (0..self.members)
            .map(|i| {
                let name = format!("m{i}");
                let data = self.data_dirs[i]
                    .clone()
                    .unwrap_or_else(|| folder.path().join(&name));
                let log = folder.path().join(format!("{name}.log"));
                Member::new(&name, address, self.peer_scheme(), data, log)
            })
            .collect();
        Cluster {
            builder: self,
            members,
            address,
            joined: BTreeSet::new(),
            folder,
            user: None,
        }
    }
}

/// A running cluster. Members are numbered from 0 and named `m0`, `m1`, ...
#[derive(Debug)]
pub struct Cluster {
    builder: Builder,
    members: Vec<Member>,
    address: Ipv4Addr,
    /// Those that came after the first ones.
    joined: BTreeSet<usize>,
    folder: TempDir,
    /// In whose name the cluster is asked.
    user: Option<Client>,
}

impl Cluster {
    #[must_use]
    pub fn builder(subject: &Subject, members: usize) -> Builder {
        Builder {
            subject: subject.clone(),
            members,
            token: "tests".to_owned(),
            args: Vec::new(),
            data_dirs: vec![None; members],
            incus_sockets: Vec::new(),
            certificates: None,
            peer_certificates: None,
            takes_secrets: false,
        }
    }

    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.builder.subject
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn member(&self, i: usize) -> &Member {
        &self.members[i]
    }

    pub fn member_mut(&mut self, i: usize) -> &mut Member {
        &mut self.members[i]
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn endpoint(&self, i: usize) -> &str {
        &self.members[i].client_url
    }

    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.client_url.clone())
            .collect()
    }

    /// Another value of a flag, from the next start of a member on.
    pub fn set_arg(&mut self, flag: &str, value: &str) {
        let args = &mut self.builder.args;
        args.retain(|arg| !arg.starts_with(&format!("{flag}=")));
        args.push(format!("{flag}={value}"));
    }

    /// What a member's metrics say, by name and labels.
    ///
    /// # Panics
    /// When it does not answer with numbers.
    pub async fn metrics(&self, i: usize) -> BTreeMap<String, f64> {
        let response = reqwest::get(format!("{}/metrics", self.endpoint(i))).await;
        let text = response.expect("scrape").text().await.expect("text");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect()
    }

    /// A client of one member, not connected yet, in the name of the cluster's user if it has one.
    #[must_use]
    pub fn client(&self, i: usize) -> Client {
        let client = Client::new(self.endpoint(i));
        match &self.user {
            Some(user) => client.in_the_name_of(user),
            None => client,
        }
    }

    /// From here on [`Cluster::client`] is this client's user: with auth on, members are asked nothing anonymously.
    pub fn set_user(&mut self, client: &Client) {
        self.user = Some(client.clone());
    }

    /// Starts a member's process, for the first time or again. [`Cluster::ready`] waits for it.
    pub fn start(&mut self, i: usize) {
        let command = self.command(i);
        self.members[i].spawn(command);
    }

    /// SIGKILL: what a power cut leaves of the process.
    pub fn kill(&mut self, i: usize) {
        self.members[i].kill();
    }

    pub fn kill_all(&mut self) {
        // All signalled before any is waited for, so that they die as near together as can be.
        for member in &self.members {
            member.signal(Signal::SIGKILL);
        }
        self.members.iter_mut().for_each(Member::kill);
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self, i: usize) -> ExitStatus {
        self.members[i].signal(Signal::SIGTERM);
        match self.members[i].wait_exit(PATIENCE).await {
            Ok(status) => status,
            Err(vain) => panic!("{vain} after SIGTERM"),
        }
    }

    /// Waits until each member knows where clients reach each other one: they tell it when they have started. Where users
    /// must log in, it is not asked.
    async fn published(&self) {
        for i in 0..self.members.len() {
            wait::until("the members to say where clients reach them", async || {
                let told = match self.client(i).member_list().await {
                    Ok(members) => members.iter().all(|member| !member.client_ur_ls.is_empty()),
                    Err(refused) => refused.code() == tonic::Code::InvalidArgument,
                };
                told.then_some(())
            })
            .await;
        }
    }

    /// Waits until each running member serves linearizable reads and sees the same leader.
    pub async fn ready(&mut self) {
        for i in 0..self.members.len() {
            if self.members[i].is_running() {
                self.member_ready(i).await;
            }
        }
    }

    /// Waits until one member serves linearizable reads.
    pub async fn member_ready(&mut self, i: usize) {
        let client = self.client(i);
        let what = format!("{} to serve", self.members[i].name);
        let started = std::time::Instant::now();
        let served = async || {
            client
                .clone()
                .get_within("", Duration::from_secs(1))
                .await
                .is_ok()
        };
        while !served().await {
            if let Some(status) = self.members[i].exited() {
                panic!("waiting for {what}: it ended with {status}");
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited {PATIENCE:?} in vain for {what}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The leader, by what the running members say; waits until they agree.
    pub async fn leader(&self) -> usize {
        wait::until("a leader all running members agree on", || self.agreed_leader()).await
    }

    async fn agreed_leader(&self) -> Option<usize> {
        let mut leader = None;
        let mut leads = None;
        for (i, _) in self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.is_running())
        {
            let status = self.client(i).status().await.ok()?;
            if status.leader == 0 || leader.is_some_and(|other| other != status.leader) {
                return None;
            }
            leader = Some(status.leader);
            if status
                .header
                .is_some_and(|header| header.member_id == status.leader)
            {
                leads = Some(i);
            }
        }
        leads
    }

    /// Any running member but the leader.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let mut running = (0..self.len()).filter(|&i| i != leader && self.members[i].is_running());
        running.next().expect("a running follower")
    }

    fn command(&self, i: usize) -> Command {
        let member = &self.members[i];
        let socket = self.builder.incus_sockets.get(i).map(PathBuf::as_path);
        let mut command = self.builder.subject.command(socket);
        let joins = self.joined.contains(&i);
        let initial: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .filter(|(other, _)| joins || !self.joined.contains(other))
            .map(|(_, member)| format!("{}={}", member.name, member.first_peer_url()))
            .collect();
        command.args(["--name", &member.name]);
        command.arg("--data-dir").arg(&member.data_dir);
        let mut listen = member.client_url.clone();
        if let Some(folder) = &self.builder.certificates {
            listen = format!("{listen},{}", member.tls_url);
            command.arg("--cert-file").arg(folder.join("server.pem"));
            command.arg("--key-file").arg(folder.join("server.key"));
            command.arg("--trusted-ca-file").arg(folder.join("ca.pem"));
            command.arg("--client-cert-auth");
        }
        if let Some(folder) = &self.builder.peer_certificates {
            let file = |suffix: &str| folder.join(format!("peer-{}.{suffix}", member.name));
            command.arg("--peer-cert-file").arg(file("pem"));
            command.arg("--peer-key-file").arg(file("key"));
            command.arg("--peer-trusted-ca-file").arg(folder.join("ca.pem"));
        }
        command.args(["--listen-client-urls", &listen]);
        command.args(["--advertise-client-urls", &member.client_url]);
        command.args(["--listen-peer-urls", &member.peer_url]);
        command.args(["--initial-advertise-peer-urls", member.first_peer_url()]);
        command.args(["--initial-cluster", &initial.join(",")]);
        command.args([
            "--initial-cluster-state",
            if joins { "existing" } else { "new" },
            "--initial-cluster-token",
            &self.builder.token,
        ]);
        command.args(&self.builder.args);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
            if std::thread::panicking() {
                eprintln!(
                    "---- {} of {}\n{}",
                    member.name,
                    self.builder.subject.name(),
                    member.log_tail()
                );
            }
        }
    }
}
