//! The loop over the three members: starts them, waits until they are ready, does what `agentctl dev` asks, says when
//! one ends, and drains all of them at the end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::control::{self, Reply, Request};
use super::incus::Backends;
use super::layout::{HOSTS, Layout, client_url, peer_url};
use super::member::{End, Ended, Running, tail};
use super::text::{self, Screen};
use super::{DevError, ready};

/// Three elections in a row may fail on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A member hands over and finishes its requests within this; then it is killed.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// After a SIGKILL the system needs a moment.
const KILL_LIMIT: Duration = Duration::from_secs(5);
const CLUSTER_TOKEN: &str = "agent-dev";

/// Ctrl-C or SIGTERM, once: stop. Twice: at once.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    stop: CancellationToken,
    at_once: CancellationToken,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let signals = Self {
            stop: CancellationToken::new(),
            at_once: CancellationToken::new(),
        };
        let told = signals.clone();
        tokio::spawn(async move {
            for token in [told.stop, told.at_once] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(signals)
    }
}

#[derive(Debug)]
pub(super) struct Supervisor {
    layout: Layout,
    executable: PathBuf,
    sockets: Vec<String>,
    /// In the layout's order; nothing where none runs.
    members: Vec<Option<Running>>,
    ended: mpsc::Receiver<Ended>,
    tell_ended: mpsc::Sender<Ended>,
    control: UnixListener,
    at_once: CancellationToken,
}

impl Supervisor {
    /// Starts all three; [`Self::stop`] must follow, whatever happens between.
    pub(super) fn start(layout: Layout, incus: &Backends) -> Result<Self, DevError> {
        let executable = std::env::current_exe().map_err(DevError::io("this executable"))?;
        let control = control::listen(&layout.dir).map_err(DevError::io("control socket"))?;
        let (tell_ended, ended) = mpsc::channel(HOSTS.len() * 2);
        let mut supervisor = Self {
            sockets: (0..HOSTS.len())
                .map(|index| incus.socket(index).to_owned())
                .collect(),
            members: HOSTS.iter().map(|_| None).collect(),
            executable,
            ended,
            tell_ended,
            control,
            at_once: CancellationToken::new(),
            layout,
        };
        for (index, (host, _)) in HOSTS.iter().enumerate() {
            let log = supervisor.layout.log(host);
            // A log tells of one run; what `agentctl dev start` adds belongs to it.
            std::fs::write(&log, "").map_err(DevError::io(log.display().to_string()))?;
            supervisor.start_member(index)?;
        }
        Ok(supervisor)
    }

    fn start_member(&mut self, index: usize) -> Result<(), DevError> {
        let log = self.layout.log(HOSTS[index].0);
        let arguments = self.arguments(index);
        let started = Running::start(index, &self.executable, &arguments, &log, self.tell_ended.clone());
        let running = started.map_err(DevError::io(format!("starting {}", HOSTS[index].0)))?;
        self.layout.places[index].pid = Some(running.pid);
        self.members[index] = Some(running);
        self.layout.save()?;
        Ok(())
    }

    fn arguments(&self, index: usize) -> Vec<String> {
        let place = &self.layout.places[index];
        let (host, provider) = HOSTS[index];
        let flags = [
            ("--name", host.to_owned()),
            (
                "--data-dir",
                self.layout.data_dir(host).to_string_lossy().into_owned(),
            ),
            ("--listen-client-urls", client_url(place)),
            ("--advertise-client-urls", client_url(place)),
            ("--listen-peer-urls", peer_url(place)),
            ("--initial-advertise-peer-urls", peer_url(place)),
            ("--initial-cluster", self.layout.initial_cluster()),
            ("--initial-cluster-state", "new".to_owned()),
            ("--initial-cluster-token", CLUSTER_TOKEN.to_owned()),
            (
                "--secrets-key-file",
                self.layout.secrets_key().to_string_lossy().into_owned(),
            ),
            ("--provider", provider.to_owned()),
            ("--incus-socket", self.sockets[index].clone()),
            // Three hosts on one machine, which is nobody's to change: what they started would outlive them.
            ("--service-manager", "none".to_owned()),
        ];
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        std::iter::once("run".to_owned()).chain(flags).collect()
    }

    /// Waits for all three; which one leads. Nothing when we are told to stop meanwhile.
    pub(super) async fn ready(&mut self, signals: Signals) -> Result<Option<usize>, DevError> {
        self.at_once = signals.at_once;
        let urls: Vec<String> = self.layout.places.iter().map(client_url).collect();
        let deadline = Instant::now() + READY_LIMIT;
        let all = join_all(urls.iter().map(|url| timeout_at(deadline, ready::leads(url))));
        let leads = tokio::select! {
            leads = all => leads,
            () = signals.stop.cancelled() => return Ok(None),
            Some(ended) = self.ended.recv() => return Err(self.ended_early(ended)),
        };
        if let Some(late) = leads.iter().position(Result::is_err) {
            let (log, tail) = self.log_tail(late);
            let seconds = READY_LIMIT.as_secs();
            return Err(DevError::NotReady {
                host: HOSTS[late].0,
                seconds,
                log,
                tail,
            });
        }
        Ok(Some(
            leads
                .iter()
                .position(|leads| matches!(leads, Ok(true)))
                .unwrap_or(HOSTS.len()),
        ))
    }

    fn ended_early(&mut self, ended: Ended) -> DevError {
        self.forget(ended.index);
        let (log, tail) = self.log_tail(ended.index);
        DevError::EndedEarly {
            host: HOSTS[ended.index].0,
            status: text::status(ended.status),
            log,
            tail,
        }
    }

    fn log_tail(&self, index: usize) -> (String, String) {
        let log = self.layout.log(HOSTS[index].0);
        let tail = tail(&log);
        (log.display().to_string(), tail)
    }

    pub(super) fn screen(&self, incus: &Backends, leader: usize, took: Duration) -> Screen {
        Screen {
            members: self
                .layout
                .places
                .iter()
                .map(|place| (place.host.clone(), client_url(place)))
                .collect(),
            leader,
            incus: incus.words.clone(),
            dir: self.layout.dir.display().to_string(),
            took,
            tools: text::Tools::find(&self.executable),
        }
    }

    /// Until we are told to stop.
    pub(super) async fn run(&mut self, signals: Signals) -> Result<(), DevError> {
        loop {
            tokio::select! {
                () = signals.stop.cancelled() => return Ok(()),
                Some(ended) = self.ended.recv() => {
                    self.forget(ended.index);
                    let (log, tail) = self.log_tail(ended.index);
                    let (host, status) = (HOSTS[ended.index].0, text::status(ended.status));
                    eprintln!("{host} ended by itself ({status}); {log} ends with:\n{tail}");
                    eprintln!("`agentctl dev start {host}` starts it again");
                    if self.members.iter().all(Option::is_none) {
                        return Err(DevError::AllEnded { dir: self.layout.dir.display().to_string() });
                    }
                }
                accepted = self.control.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.answer(stream).await;
                    }
                }
            }
        }
    }

    /// One request at a time: they are a person's.
    async fn answer(&mut self, mut stream: UnixStream) {
        let Some(request) = control::receive(&mut stream).await else {
            return;
        };
        let result = match request {
            Request::Kill { host } => self.kill(&host).await,
            Request::Start { host } => self.start_again(&host).await,
            Request::List => Ok(self.list()),
        };
        let answer = match result {
            Ok(text) => Reply { ok: true, text },
            Err(text) => Reply { ok: false, text },
        };
        control::reply(&mut stream, &answer).await;
    }

    async fn kill(&mut self, host: &str) -> Result<String, String> {
        let index = index_of(host)?;
        let running = self.members[index]
            .as_ref()
            .ok_or_else(|| format!("{host} does not run"))?;
        running.end(End::Kill);
        let deadline = Instant::now() + KILL_LIMIT;
        while self.members[index].is_some() {
            match timeout_at(deadline, self.ended.recv()).await {
                Ok(Some(ended)) => self.forget(ended.index),
                _ => return Err(format!("{host} does not end")),
            }
        }
        println!("{host} was killed: `agentctl dev start {host}` brings it back");
        let others = self.layout.places.iter().filter(|place| place.pid.is_some());
        let others: Vec<String> = others
            .map(|place| format!("127.0.0.1:{}", place.client_port))
            .collect();
        Ok(text::killed(host, &others, text::in_path("etcdctl")))
    }

    async fn start_again(&mut self, host: &str) -> Result<String, String> {
        let index = index_of(host)?;
        if self.members[index].is_some() {
            return Err(format!("{host} runs already"));
        }
        self.start_member(index).map_err(|error| error.to_string())?;
        println!("{host} was started again");
        Ok(format!(
            "{host} starts at {}\n",
            client_url(&self.layout.places[index])
        ))
    }

    fn list(&self) -> String {
        let members = self.layout.places.iter();
        text::list(
            &members
                .map(|place| (place.host.as_str(), client_url(place), place.pid))
                .collect::<Vec<_>>(),
        )
    }

    fn forget(&mut self, index: usize) {
        self.members[index] = None;
        self.layout.places[index].pid = None;
        if let Err(error) = self.layout.save() {
            eprintln!("warning: {error}");
        }
    }

    /// Drains whoever runs; kills what does not end in time, or when Ctrl-C comes again.
    pub(super) async fn stop(mut self) {
        for running in self.members.iter().flatten() {
            running.end(End::Drain);
        }
        let at_once = self.at_once.clone();
        let drained = tokio::select! {
            drained = self.wait_for_all(DRAIN_LIMIT) => drained,
            () = at_once.cancelled() => false,
        };
        if !drained {
            for running in self.members.iter().flatten() {
                running.end(End::Kill);
            }
            self.wait_for_all(KILL_LIMIT).await;
        }
        control::remove(&self.layout.dir);
    }

    async fn wait_for_all(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.members.iter().any(Option::is_some) {
            match timeout_at(deadline, self.ended.recv()).await {
                Ok(Some(ended)) => self.forget(ended.index),
                _ => return false,
            }
        }
        true
    }
}

fn index_of(host: &str) -> Result<usize, String> {
    HOSTS.iter().position(|(name, _)| *name == host).ok_or_else(|| {
        let names = HOSTS.map(|(name, _)| name).join(", ");
        format!("there is no host {host}; there are {names}")
    })
}
