//! Hosts: members with a real Incus each, and the people who work on them, by `agentctl` and by hand.
//!
//! Owns nothing of its own but what holds the two together: [`crate::cluster`] has the processes, [`crate::lab`] the
//! daemons. A scenario says here what is applied, waits for what hosts say of it, and looks at Incus past the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::agentctl::{self, text};
use crate::cluster::{self, Cluster, Subject};
use crate::lab::{IncusDaemon, Lab, leftovers};
use crate::wait::{self, PATIENCE};

/// Members `m0`, `m1`, ...; the first ones have an Incus each. Member `m1` is host 1.
#[derive(Debug)]
pub struct Hosts {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    pub cluster: Cluster,
    lab: Lab,
    // After the members, which would start again what ends.
    root: Option<HostRoot>,
    asked: Option<usize>,
}

/// What the machines of the members are: a folder, so that no path of this one is written. Services on a host outlive
/// their agent, as they should: those that have the folder in their command line end with it.
#[derive(Debug)]
struct HostRoot(TempDir);

impl HostRoot {
    fn boot(&self, id: &str) {
        let folder = self.0.path().join("proc/sys/kernel/random");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("boot_id"), format!("{id}\n")).expect("write a file");
    }
}

impl Drop for HostRoot {
    fn drop(&mut self) {
        leftovers::kill_processes(self.0.path());
    }
}

/// How hosts are started, beyond the defaults.
#[derive(Debug)]
pub struct Builder {
    cluster: cluster::Builder,
    hosts: usize,
    apart: bool,
    root: Option<HostRoot>,
}

impl Builder {
    /// Each daemon in a network of its own, where its bridges may have any name and address.
    #[must_use]
    pub fn apart(mut self) -> Builder {
        self.apart = true;
        self
    }

    /// Services and files may be put on the hosts: into one folder for all of them, [`Hosts::root`]. A service's command
    /// line has to name something in it, or its processes must end by themselves: by that they are found.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn with_root(mut self) -> Builder {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("etc")).expect("a folder");
        self = self
            .arg("--service-manager", "supervised")
            .arg("--host-root", &root.path().to_string_lossy());
        self.root = Some(HostRoot(root));
        self
    }

    /// See [`cluster::Builder::with_secrets`].
    #[must_use]
    pub fn with_secrets(mut self) -> Builder {
        self.cluster = self.cluster.with_secrets();
        self
    }

    /// With a root, as by [`Builder::with_root`], of machines that say that this is their boot.
    #[must_use]
    pub fn booted(self, boot: &str) -> Builder {
        let builder = self.with_root();
        if let Some(root) = &builder.root {
            root.boot(boot);
        }
        builder
    }

    /// One more flag for every member.
    #[must_use]
    pub fn arg(mut self, flag: &str, value: &str) -> Builder {
        self.cluster = self.cluster.arg(flag, value);
        self
    }

    /// `None`, said aloud, where Incus cannot run.
    pub async fn start(self) -> Option<Hosts> {
        let lab = if self.apart {
            Lab::running_apart(self.hosts).await?
        } else {
            Lab::running(self.hosts).await?
        };
        let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
        let cluster = self.cluster.incus(&sockets).start().await;
        Some(Hosts {
            cluster,
            lab,
            root: self.root,
            asked: None,
        })
    }
}

impl Hosts {
    /// So many members with an Incus each.
    #[must_use]
    pub fn builder(hosts: usize) -> Builder {
        Self::among(hosts, hosts)
    }

    /// Fewer hosts than members: the last ones have no Incus.
    #[must_use]
    pub fn among(members: usize, hosts: usize) -> Builder {
        Builder {
            cluster: Cluster::builder(&Subject::agent(), members),
            hosts,
            apart: false,
            root: None,
        }
    }

    /// From here on `agentctl` is told of this member only.
    #[must_use]
    pub fn asking(mut self, member: usize) -> Hosts {
        self.ask(Some(member));
        self
    }

    /// Whom `agentctl` is told of: one member, or all.
    pub fn ask(&mut self, member: Option<usize>) {
        self.asked = member;
    }

    /// The folder that is the hosts' root.
    ///
    /// # Panics
    /// Without [`Builder::with_root`].
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.as_ref().expect("hosts with a root").0.path()
    }

    /// Agents that start from now on find themselves in this boot of their machines.
    ///
    /// # Panics
    /// Without [`Builder::with_root`].
    pub fn boot(&self, id: &str) {
        self.root.as_ref().expect("hosts with a root").boot(id);
    }

    #[must_use]
    pub fn daemon(&self, host: usize) -> &IncusDaemon {
        &self.lab.daemons()[host]
    }

    /// Incus' own command line on a host; it must succeed.
    pub fn incus(&self, host: usize, args: &[&str]) -> String {
        let said = self.daemon(host).incus(args);
        said.unwrap_or_else(|error| panic!("incus {args:?}: {error:#}"))
    }

    /// What Incus answers at a path, null if nothing.
    #[must_use]
    pub fn query(&self, host: usize, path: &str) -> Value {
        let answer = self.daemon(host).incus(&["query", path]);
        answer
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// An instance of Incus' default project, null if there is none.
    #[must_use]
    pub fn instance(&self, host: usize, name: &str) -> Value {
        self.query(host, &format!("/1.0/instances/{name}"))
    }

    /// `Running`, `Stopped`, or nothing where it does not exist.
    #[must_use]
    pub fn state(&self, host: usize, name: &str) -> String {
        let instance = self.instance(host, name);
        instance["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The `limits.memory` of an instance.
    #[must_use]
    pub fn memory(&self, host: usize, name: &str) -> String {
        let instance = self.instance(host, name);
        let limit = instance["config"]["limits.memory"].as_str();
        limit.unwrap_or_default().to_owned()
    }

    /// The first process of a running instance: another one after every restart.
    #[must_use]
    pub fn pid(&self, host: usize, name: &str) -> i64 {
        let state = self.query(host, &format!("/1.0/instances/{name}/state"));
        state["pid"].as_i64().expect("a pid")
    }

    /// The names of a host's instances.
    #[must_use]
    pub fn list(&self, host: usize) -> Vec<String> {
        let names = self.incus(host, &["list", "--format", "csv", "--columns", "n"]);
        names.lines().map(str::to_owned).collect()
    }

    pub async fn running(&self, host: usize, name: &str) {
        wait::until(&format!("{name} to run"), async || {
            (self.state(host, name) == "Running").then_some(())
        })
        .await;
    }

    /// What the host says on a document, named as in `instances/web`; on a document of no tenant: `os-services/lvm`.
    pub async fn status(&self, host: usize, document: &str) -> Option<Value> {
        // The member itself, asked for no quorum's word: there may be none.
        let mut client = self.cluster.client(host);
        for prefix in ["/tenants/default/status", "/cluster/status"] {
            let key = format!("{prefix}/{document}/m{host}");
            let answer = client.get_prefix(&key, true).await.ok()?;
            if let Some(kv) = answer.kvs.first() {
                return serde_json::from_slice(&kv.value).ok();
            }
        }
        None
    }

    /// Waits until the host says this phase, of the document as it is at a revision or at any.
    pub async fn reported(
        &self,
        host: usize,
        document: &str,
        phase: &str,
        revision: impl Into<Option<i64>>,
    ) -> Value {
        let revision = revision.into();
        let what = format!("{document} to be {phase} on m{host}");
        let waited = wait::within(PATIENCE, &what, async || {
            let status = self.status(host, document).await?;
            let of_it = revision.is_none_or(|revision| status["revision"] == revision);
            (of_it && status["phase"] == phase).then_some(status)
        });
        match waited.await {
            Ok(status) => status,
            Err(vain) => panic!("{vain}: {:?}", self.status(host, document).await),
        }
    }

    /// Waits until the host says nothing more of a document that is gone.
    pub async fn forgotten(&self, host: usize, document: &str) {
        wait::until(&format!("{document} to be forgotten by m{host}"), async || {
            self.status(host, document).await.is_none().then_some(())
        })
        .await;
    }

    /// Writes a file of the test's own; its path.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = self.cluster.folder().join(name);
        fs::write(&file, text).expect("write a file");
        file.to_string_lossy().into_owned()
    }

    /// Stores documents; the revision of them all.
    pub async fn apply(&self, documents: &str) -> i64 {
        let file = self.file("document.yaml", documents);
        let applied = self.agentctl(&["apply", "-f", &file]).await;
        let revision = applied
            .rsplit("revision ")
            .next()
            .and_then(|text| text.trim().parse().ok());
        revision.unwrap_or_else(|| panic!("no revision: {applied}"))
    }

    /// `agentctl`, to be started by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let endpoints = match self.asked {
            Some(member) => self.cluster.endpoint(member).to_owned(),
            None => self.cluster.endpoints().join(","),
        };
        agentctl::command(&endpoints, args)
    }

    /// Starts a tunnel and waits for its port.
    pub async fn tunnel(&self, args: &[&str]) -> (Child, u16) {
        let mut tunnel = self
            .command(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start agentctl");
        let mut said = String::new();
        let stdout = tunnel.stdout.as_mut().expect("its output");
        while !said.ends_with('\n') {
            let byte = tokio::time::timeout(PATIENCE, stdout.read_u8()).await;
            said.push(char::from(byte.expect("a line in time").expect("a line")));
        }
        let port = said.split([':', ' ']).nth(1).and_then(|port| port.parse().ok());
        (tunnel, port.unwrap_or_else(|| panic!("a port in: {said}")))
    }

    pub async fn run(&self, args: &[&str], input: &[u8]) -> Output {
        agentctl::run(self.command(args), input).await
    }

    /// What it prints; it must succeed.
    pub async fn agentctl(&self, args: &[&str]) -> String {
        let output = self.run(args, b"").await;
        assert!(
            output.status.success(),
            "agentctl {args:?} ended with {}:\n{}",
            output.status,
            agentctl::says(&output)
        );
        text(&output.stdout)
    }

    /// What it prints and complains of, whether it succeeds or not.
    pub async fn agentctl_says(&self, args: &[&str]) -> String {
        agentctl::says(&self.run(args, b"").await)
    }

    /// What it says of its failure.
    pub async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args, b"").await;
        assert_eq!(output.status.code(), Some(1), "agentctl {args:?}: {output:?}");
        text(&output.stderr)
    }
}
