//! A cluster as its operator makes it: `agentctl cluster init`, and hosts of real processes that join by token.

use std::fs::{self, OpenOptions};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use agent::join::ticket;
use proto::agent::v1::JoinTicket;
use tempfile::TempDir;
use tests::cluster::address::{free_ports, own_loopback};
use tests::{tools, wait};

pub(crate) struct Site {
    folder: TempDir,
    address: Ipv4Addr,
    pub(crate) hosts: Vec<Host>,
}

/// A machine: its folders, its addresses, and the agent on it.
pub(crate) struct Host {
    pub(crate) name: String,
    /// Its `/etc/agent`.
    pub(crate) dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) peer_url: String,
    pub(crate) client_url: String,
    address: Ipv4Addr,
    log: PathBuf,
    process: Option<Child>,
}

impl Site {
    /// A cluster whose first hosts, so many, are there; none runs yet.
    pub(crate) fn found(hosts: usize) -> Site {
        let mut site = Site {
            folder: tempfile::tempdir().expect("a folder"),
            address: own_loopback(),
            hosts: Vec::new(),
        };
        for i in 0..hosts {
            site.place(&format!("m{i}"));
        }
        // Hosts of the operator's are at one port each; here they share an address.
        let named: Vec<String> = site
            .hosts
            .iter()
            .map(|host| format!("{}={}", host.name, host.address))
            .collect();
        let mut init = vec!["cluster", "init", "prod"];
        for host in &named {
            init.extend(["--host", host]);
        }
        site.agentctl(&init).expect("cluster init");
        for host in &site.hosts {
            let made = site.cluster().join("hosts").join(&host.name);
            fs::create_dir_all(&host.dir).expect("make a folder");
            for file in fs::read_dir(made).expect("read a folder") {
                let file = file.expect("a file");
                fs::copy(file.path(), host.dir.join(file.file_name())).expect("copy a file");
            }
        }
        site
    }

    /// The operator's folder of the cluster.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.folder.path().join("agentctl/prod")
    }

    /// One more machine with nothing on it. Its number.
    pub(crate) fn place(&mut self, name: &str) -> usize {
        let i = self.hosts.len();
        let address = Ipv4Addr::from(u32::from(self.address) + u32::try_from(i << 8).expect("small"));
        let [peer, client] = free_ports(address);
        let below = |folder: &str| self.folder.path().join(format!("{i}-{name}")).join(folder);
        self.hosts.push(Host {
            name: name.to_owned(),
            dir: below("etc"),
            data_dir: below("data"),
            peer_url: format!("https://{address}:{peer}"),
            client_url: format!("https://{address}:{client}"),
            address,
            log: self.folder.path().join(format!("{i}-{name}.log")),
            process: None,
        });
        i
    }

    /// Starts one of the first hosts.
    pub(crate) fn start(&mut self, i: usize) {
        let members: Vec<String> = self
            .hosts
            .iter()
            .filter(|host| host.is_of_the_first())
            .map(|host| format!("{}={}", host.name, host.peer_url))
            .collect();
        let host = &mut self.hosts[i];
        // What was made for /etc/agent and the usual ports.
        let text = fs::read_to_string(host.dir.join("config.yaml")).expect("read a file");
        let text = text.replace("/etc/agent", &host.dir.display().to_string());
        let here = host.dir.join("here.yaml");
        fs::write(&here, text).expect("write a file");
        let mut command = Command::new(tools::agent());
        command.arg("run").arg("--config").arg(here);
        command.args(host.flags());
        command.args(["--initial-cluster", &members.join(",")]);
        command.args(["--initial-advertise-peer-urls", &host.peer_url]);
        command.args(["--advertise-client-urls", &host.client_url]);
        host.spawn(command);
    }

    /// Starts a host again that has run, as it was started, and waits until it serves.
    pub(crate) async fn restart(&mut self, i: usize) {
        match self.hosts[i].is_of_the_first() {
            true => self.start(i),
            false => self.join(i, "", &[]),
        }
        self.serves(i).await;
    }

    /// `agent join` on a host, with a token from a file. It goes on as its member.
    pub(crate) fn join(&mut self, i: usize, token: &str, more: &[&str]) {
        self.join_as_told(i, token, &[], more);
    }

    /// As [`Site::join`], and it does not end when the token is refused.
    pub(crate) fn join_patiently(&mut self, i: usize, token: &str) {
        self.join_as_told(i, token, &["--keep-trying"], &[]);
    }

    /// Another token in the same file.
    pub(crate) fn bring_token(&self, i: usize, token: &str) -> PathBuf {
        let file = self.folder.path().join(format!("token-{i}"));
        fs::write(&file, token).expect("write a file");
        file
    }

    fn join_as_told(&mut self, i: usize, token: &str, flags: &[&str], more: &[&str]) {
        let file = self.bring_token(i, token);
        let host = &mut self.hosts[i];
        let mut command = Command::new(tools::agent());
        command.arg("join").args(flags).arg("--token-file").arg(file);
        command.arg("--dir").arg(&host.dir).arg("--");
        command.args(host.flags()).args(more);
        host.spawn(command);
    }

    /// What `agent join` says of a token that is not taken.
    pub(crate) async fn refused(&mut self, i: usize, token: &str, more: &[&str]) -> String {
        fs::write(&self.hosts[i].log, "").expect("empty a file");
        self.join(i, token, more);
        let status = self.hosts[i].ended().await;
        assert!(!status.success(), "{}", self.hosts[i].log());
        self.hosts[i].log()
    }

    /// A token for a host, made through host `through`.
    pub(crate) fn token(&self, through: usize, i: usize, more: &[&str]) -> String {
        let host = &self.hosts[i];
        let port = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
        let (address, peer, client) = (
            host.address.to_string(),
            port(&host.peer_url),
            port(&host.client_url),
        );
        let create = ["token", "create", "--host", &host.name, "--address", &address];
        let ports = ["--peer-port", &peer, "--client-port", &client];
        let made = self.ask(through, &[&create[..], &ports, more].concat());
        made.expect("a token").trim().to_owned()
    }

    /// `agentctl` as root, at one host.
    pub(crate) fn ask(&self, through: usize, words: &[&str]) -> Result<String, String> {
        let file = |name: &str| self.cluster().join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("admin.pem"), file("admin.key"));
        let endpoints = &self.hosts[through].client_url;
        let as_root = [
            "--endpoints",
            endpoints,
            "--cacert",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
        ];
        self.agentctl(&[&as_root[..], words].concat())
    }

    fn agentctl(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(tools::agentctl())
            .args(words)
            .env_clear()
            .env("XDG_CONFIG_HOME", self.folder.path())
            .output()
            .expect("run agentctl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Waits until a host serves writes.
    pub(crate) async fn serves(&self, i: usize) {
        let host = &self.hosts[i];
        let what = format!("{} to serve", host.name);
        let served = wait::within(wait::PATIENCE, &what, async || {
            self.ask(i, &["kv", "put", "served", &host.name]).ok()
        });
        if let Err(vain) = served.await {
            panic!("{vain}: {}", host.log());
        }
    }

    /// Waits until the cluster has these voters, and all have started.
    pub(crate) async fn voters(&self, through: usize, names: &[&str]) {
        let what = format!("the voters {names:?}");
        let mut seen = String::new();
        let found = wait::within(wait::PATIENCE, &what, || {
            let listed = self.ask(through, &["member", "list", "-w", "json"]);
            seen = listed.unwrap_or_else(|error| error);
            std::future::ready(are_voters(&seen, names).then_some(()))
        });
        let found = found.await;
        assert!(found.is_ok(), "{found:?}: {seen}");
    }
}

fn are_voters(listed: &str, names: &[&str]) -> bool {
    let Ok(listed) = serde_json::from_str::<serde_json::Value>(listed) else {
        return false;
    };
    let members = listed["members"].as_array().cloned().unwrap_or_default();
    let mut voters: Vec<&str> = members
        .iter()
        .filter(|member| member["isLearner"].as_bool() != Some(true))
        .filter(|member| {
            member["clientURLs"]
                .as_array()
                .is_some_and(|urls| !urls.is_empty())
        })
        .filter_map(|member| member["name"].as_str())
        .collect();
    voters.sort_unstable();
    voters == names && members.len() == names.len()
}

impl Host {
    /// Whether it is one that the cluster was made with, and not one that has joined.
    fn is_of_the_first(&self) -> bool {
        let settings = fs::read_to_string(self.dir.join("config.yaml")).unwrap_or_default();
        settings.contains("agentctl cluster init")
    }

    /// What differs from a machine of its own.
    fn flags(&self) -> Vec<String> {
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        vec![
            flag("data-dir", &self.data_dir.display().to_string()),
            flag("incus-socket", "none"),
            flag("listen-peer-urls", &self.peer_url),
            flag("listen-client-urls", &self.client_url),
        ]
    }

    fn spawn(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("a log file");
        command.env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        self.process = Some(command.spawn().expect("start the agent"));
    }

    /// SIGKILL, and it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill a child");
            process.wait().expect("wait for a child");
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("a running agent");
        let ended = wait::within(wait::PATIENCE, "the end of an agent", || {
            std::future::ready(process.try_wait().expect("wait for a child"))
        });
        let status = ended.await;
        self.process = None;
        status.unwrap_or_else(|vain| panic!("{vain}: {}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) async fn says(&self, words: &str) {
        let what = format!("{} to say {words:?}", self.name);
        let said = wait::within(wait::PATIENCE, &what, async || {
            self.log().contains(words).then_some(())
        });
        if let Err(vain) = said.await {
            panic!("{vain}: {}", self.log());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; nothing is left to do then.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
            eprintln!("---- {}\n{}", self.name, tail.join("\n"));
        }
    }
}

/// A token with something else in it.
pub(crate) fn altered(token: &str, change: impl FnOnce(&mut JoinTicket)) -> String {
    let mut ticket = ticket::read(token).expect("a token");
    change(&mut ticket);
    ticket::write(&ticket)
}
