//! Runs the stock `etcdctl`, or our `agentctl`, by a script and keeps a transcript.
//!
//! Scripts are written as in [`crate::shell`].
//!
//! `$LEASE1` is the first lease that the script was granted, and so on, `$ADDED1` the first member that it
//! added; `$LEADER`, `$FOLLOWER` (URLs), `$LEADER_ID` and `$FOLLOWER_ID` are asked of the cluster; `$SELF` is
//! the member that is asked, `$ALL` are all, `$TAKEN` is its peer URL, `$PEER` one that nobody has, `$FOLDER` the
//! test's own.

mod masks;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::{Cluster, address};
use crate::names::Names;
use crate::shell::{Command, Job, Line, steps};
use crate::tools::{self, EtcdVersion};
use crate::transcript::Transcript;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// `etcdctl check` measures for a whole minute.
const CHECK_TIMEOUT: Duration = Duration::from_secs(110);
const RETRY: Duration = Duration::from_millis(200);

/// What `$EDITOR` is for commands that open one: the change that it makes.
const EDITOR: &str = "sed -i s/hello/goodbye/";

/// A session of `etcdctl` with one member.
#[derive(Debug)]
pub struct Etcdctl<'a> {
    program: PathBuf,
    /// What the program finds in its environment, beyond its endpoint.
    variables: Vec<(&'static str, &'static str)>,
    cluster: &'a Cluster,
    member: usize,
    names: Names,
    leases: Vec<String>,
    added: Vec<String>,
    peer: String,
    left_running: VecDeque<Job>,
}

impl<'a> Etcdctl<'a> {
    /// `None` where that release is missing.
    pub async fn new(version: EtcdVersion, cluster: &'a Cluster, member: usize) -> Option<Etcdctl<'a>> {
        let program = version.program("etcdctl")?;
        let variables = vec![("ETCDCTL_API", "3")];
        Some(Self::of_program(program, variables, cluster, member).await)
    }

    /// Our own command line. `format` is what it writes where a command does not say.
    pub async fn agentctl(cluster: &'a Cluster, member: usize, format: Option<&'static str>) -> Etcdctl<'a> {
        let mut variables = vec![("EDITOR", EDITOR), ("PATH", "/usr/bin:/bin")];
        variables.extend(format.map(|format| ("AGENTCTL_WRITE_OUT", format)));
        Self::of_program(tools::agentctl(), variables, cluster, member).await
    }

    async fn of_program(
        program: PathBuf,
        variables: Vec<(&'static str, &'static str)>,
        cluster: &'a Cluster,
        member: usize,
    ) -> Etcdctl<'a> {
        let mut names = Names::of(cluster, member).await;
        let address = address::own_loopback();
        let [port] = address::free_ports(address);
        let peer = format!("http://{address}:{port}");
        names.learn("spare", &peer);
        Etcdctl {
            program,
            variables,
            cluster,
            member,
            names,
            leases: Vec::new(),
            added: Vec::new(),
            peer,
            left_running: VecDeque::new(),
        }
    }

    /// Runs every command of a script.
    pub async fn run(&mut self, script: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for (line, command) in steps(script, self.cluster.subject().is_etcd()) {
            let answer = self.step(command).await;
            transcript.push(line, &answer);
        }
        assert!(self.left_running.is_empty(), "a script ends all that it starts");
        transcript
    }

    async fn step(&mut self, line: &str) -> String {
        let roles = self.roles(line).await;
        let mut expanded = line.replace("$FOLDER", &self.cluster.folder().to_string_lossy());
        expanded = expanded.replace("$PEER", &self.peer);
        expanded = expanded.replace("$TAKEN", &self.cluster.member(self.member).peer_url);
        expanded = expanded.replace("$SELF", self.cluster.endpoint(self.member));
        expanded = expanded.replace("$ALL", &self.cluster.endpoints().join(","));
        for (kind, ids) in [("LEASE", &self.leases), ("ADDED", &self.added)] {
            for (i, id) in ids.iter().enumerate() {
                expanded = expanded.replace(&format!("${kind}{}", i + 1), id);
            }
        }
        for (role, value) in &roles {
            expanded = expanded.replace(role, value);
        }
        let (mut answer, code) = self.perform_in_time(&Line::parse(&expanded)).await;
        for (role, value) in &roles {
            answer = answer.replace(value, role);
        }
        self.learn(&answer);
        let mut lines: Vec<String> = answer
            .lines()
            // The client's own log.
            .filter(|line| !line.starts_with(r#"{"level""#) && !line.contains("\tinfo\t"))
            // Where it panics, this follows, with its addresses.
            .take_while(|line| !line.starts_with("goroutine "))
            .map(|answered| masks::same_in_every_run(line, answered, &mut self.names))
            .collect();
        if masks::is_unordered(line) {
            lines.sort();
        }
        if let Some(code) = code.filter(|&code| code != 0 && !masks::is_measured(line)) {
            lines.push(format!("exit {code}"));
        }
        lines.join("\n")
    }

    /// The values of the variables that follow the leader, longest name first.
    async fn roles(&self, line: &str) -> Vec<(&'static str, String)> {
        if !line.contains("$LEADER") && !line.contains("$FOLLOWER") {
            return Vec::new();
        }
        let leader = self.cluster.leader().await;
        let follower = self.cluster.follower().await;
        vec![
            ("$FOLLOWER_ID", self.id(follower).await),
            ("$LEADER_ID", self.id(leader).await),
            ("$FOLLOWER", self.cluster.endpoint(follower).to_owned()),
            ("$LEADER", self.cluster.endpoint(leader).to_owned()),
        ]
    }

    async fn id(&self, member: usize) -> String {
        let status = self.cluster.client(member).status().await.expect("status");
        format!("{:x}", status.header.map_or(0, |header| header.member_id))
    }

    /// [`Etcdctl::perform`], again while members are too new to each other for a change of the membership: etcd
    /// wants them connected for five seconds.
    async fn perform_in_time(&mut self, line: &Line) -> (String, Option<i32>) {
        let is_change = matches!(line, Line::Run { command, .. } if command.words.get(1).is_some_and(|word| word == "member"));
        let started = std::time::Instant::now();
        loop {
            let answer = self.perform(line.clone()).await;
            let too_early = is_change && answer.0.contains("etcdserver: unhealthy cluster");
            if !too_early || started.elapsed() > COMMAND_TIMEOUT {
                return answer;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// What was printed on both outputs, and the exit code; none when `head` ended it or it runs on.
    async fn perform(&mut self, line: Line) -> (String, Option<i32>) {
        match line {
            Line::Run { command, head: None } => self.start(&command, false).await.finish().await,
            Line::Run {
                command,
                head: Some(count),
            } => {
                let mut job = self.start(&command, true).await;
                let lines = job.lines(count).await;
                match lines {
                    Ok(lines) if lines.len() < count => job.finish().await,
                    Ok(lines) => {
                        job.stop().await;
                        (lines.join("\n"), None)
                    }
                    Err(vain) => (vain, None),
                }
            }
            Line::Start { command, lines } => {
                let mut job = self.start(&command, true).await;
                let vain = job.lines(lines).await.err();
                self.left_running.push_back(job);
                (vain.unwrap_or_default(), None)
            }
            Line::Stop { lines } => {
                let mut job = self.oldest();
                // What is missing shows in what it printed.
                let _ = job.lines(lines).await;
                job.stop().await
            }
            Line::Wait => self.oldest().finish().await,
        }
    }

    fn oldest(&mut self) -> Job {
        self.left_running.pop_front().expect("a command left running")
    }

    async fn start(&self, line: &Command, held: bool) -> Job {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .env_clear()
            .envs(self.variables.iter().copied())
            .env("AGENTCTL_CONFIG_DIR", self.cluster.folder().join("settings"))
            .args(line.words.get(1..).unwrap_or_default());
        if !line.words.iter().any(|word| word.starts_with("--endpoints")) {
            command.env("ETCDCTL_ENDPOINTS", self.cluster.endpoint(self.member));
        }
        let is_check = line.words.get(1).is_some_and(|word| word == "check");
        let timeout = if is_check { CHECK_TIMEOUT } else { COMMAND_TIMEOUT };
        // An end of the input is what interactive commands wait for, unless they are ended otherwise.
        Job::start(command, &line.input, held, timeout).await
    }

    /// Leases and members that are granted and added have names from now on.
    fn learn(&mut self, answer: &str) {
        let between = |before: &str, after: &str| {
            let (id, _) = answer.strip_prefix(before)?.split_once(after)?;
            Some(id.trim().to_owned())
        };
        if let Some(id) = between("lease ", " granted with TTL(").filter(|id| !self.leases.contains(id)) {
            self.names.learn_id("lease", &id);
            self.leases.push(id);
        }
        if let Some(id) = between("Member ", " added to cluster ").filter(|id| !self.added.contains(id)) {
            self.names.learn_id("added", &id);
            self.added.push(id);
        }
    }
}
