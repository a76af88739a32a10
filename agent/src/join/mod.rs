//! `agent join`: how a machine with nothing but a token becomes a host of a cluster, and what it does at every later start.
//!
//! [`ticket`] is a token as text, [`folder`] what is on the machine afterwards: the same files as on a host that `agentctl
//! cluster init` was asked for. Each step finds what the one before has left, so that a machine which is cut off anywhere
//! goes on by the same command: the keys come first and stay, the token is good for them, and the settings come last.

mod folder;
pub mod ticket;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use proto::agent::v1::JoinTicket;
use proto::peer::{JoinAnswer, JoinRequest};
use tokio::time::Instant;

use crate::config::HOST_FOLDER;
use crate::peer::{self, JoinError};
use crate::tls::files::{LOOK_AGAIN_AFTER, Stamps};
use crate::tls::pinned::Pin;
use folder::Folder;

/// How long a cluster is asked that cannot let anybody in now.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Before a token that was refused is shown again: it stays refused, most often.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Makes this machine a host of a cluster, and runs its member.
#[derive(Args, Debug)]
#[command(
    after_help = "The token is made by `agentctl token create --host NAME`, is good for that host, once, and for some minutes. The same\n\
                  command goes on where it was interrupted; on a host that has joined it only runs the member.\n\n\
                  Examples:\n  agent join --token-file /run/token\n  agent join agent1.CAcQ... -- --provider OVH"
)]
pub struct JoinArgs {
    /// What `agentctl token create` has printed; others on this machine may see it here: better in --token-file
    #[arg(value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Do not end when the token is refused: wait for another one in its file
    #[arg(long, requires = "token_file")]
    keep_trying: bool,
    /// Where this host keeps its certificates and settings
    #[arg(long, value_name = "DIR", default_value = HOST_FOLDER)]
    dir: PathBuf,
    /// Only join: `agent run --config DIR/config.yaml` starts the member
    #[arg(long)]
    no_run: bool,
    /// More settings of `agent run`
    #[arg(last = true, value_name = "RUN FLAGS")]
    run: Vec<String>,
}

impl JoinArgs {
    /// Joins, unless that was done before.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn join(&self) -> Result<()> {
        let folder = Folder::open(&self.dir)?;
        let data_dir = self.flag("data-dir").map(PathBuf::from);
        if folder.has_joined() && folder.has_data(data_dir.as_deref())? {
            return Ok(());
        }
        let mut pause = FIRST_WAIT;
        loop {
            let seen = self.stamps();
            match self.try_to_join(&folder) {
                Err(error) if self.keep_trying && !folder.has_joined() => {
                    tracing::error!(
                        reason = format!("{error:#}"),
                        token_file = %self.token_file.as_deref().unwrap_or(&self.dir).display(),
                        next_try_s = pause.as_secs(),
                        "this host needs a new token in its file"
                    );
                    wait_for_another(|| self.stamps() != seen, pause);
                    pause = (pause * 2).min(LONGEST_WAIT);
                }
                outcome => return outcome,
            }
        }
    }

    fn stamps(&self) -> Stamps {
        Stamps::of(self.token_file.as_deref())
    }

    fn try_to_join(&self, folder: &Folder) -> Result<()> {
        let ticket = match self.text()? {
            Some(text) => ticket::read(&text)?,
            // Joined before, and has not run yet: the cluster knows it.
            None if folder.has_joined() => return Ok(()),
            None => bail!("this host has joined no cluster yet: give it a token, or --token-file"),
        };
        if let Some(name) = self.flag("name").filter(|name| *name != ticket.host) {
            bail!("the join token is for host {}, and --name is {name}", ticket.host);
        }
        folder.check_host(&ticket.host)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        match runtime.block_on(ask_all(&ticket, folder)) {
            Ok(answer) => {
                folder.write(&ticket.host, &answer)?;
                tracing::info!(
                    host = ticket.host,
                    cluster = format!("{:x}", ticket.cluster_id),
                    "joined: the member votes when it has caught up"
                );
                Ok(())
            }
            // Its place in the cluster may be waiting for it all the same, and if not, the member says so.
            Err(error) if folder.has_joined() => {
                tracing::warn!(reason = %error, "the token was not taken again");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What `agent run` is to be started with; `None`: it is not.
    #[must_use]
    pub fn run_arguments(&self) -> Option<Vec<String>> {
        let config = self.dir.join("config.yaml").display().to_string();
        let start = ["agent", "run", "--config"].map(ToOwned::to_owned);
        let all = start.into_iter().chain([config]).chain(self.run.iter().cloned());
        (!self.no_run).then(|| all.collect())
    }

    fn text(&self) -> Result<Option<String>> {
        match &self.token_file {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(anyhow!("--token-file {}: {error}", path.display())),
            },
            None => Ok(self.token.clone()),
        }
    }

    /// The value of one of the flags for `agent run`.
    fn flag(&self, name: &str) -> Option<&str> {
        let long = format!("--{name}");
        let mut words = self.run.iter();
        while let Some(word) = words.next() {
            if *word == long {
                return words.next().map(String::as_str);
            }
            if let Some(value) = word.strip_prefix(&format!("{long}=")) {
                return Some(value);
            }
        }
        None
    }
}

/// Until the file has changed, or the time is up.
fn wait_for_another(changed: impl Fn() -> bool, pause: Duration) {
    let until = std::time::Instant::now() + pause;
    while std::time::Instant::now() < until && !changed() {
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

/// Asks the members of the token, until one lets this host in or says that none will.
async fn ask_all(ticket: &JoinTicket, folder: &Folder) -> Result<JoinAnswer> {
    let pin: Pin = ticket
        .ca_sha256
        .as_ref()
        .try_into()
        .map_err(|_| anyhow!("the join token is not complete: copy all of it"))?;
    let keys = folder.keys()?;
    let request = JoinRequest {
        cluster_id: ticket.cluster_id,
        token_id: ticket.token_id,
        secret: ticket.secret.clone(),
        host: ticket.host.clone(),
        peer_csr: keys.peer_csr.into(),
        server_csr: keys.server_csr.into(),
    };
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let mut reasons = Vec::new();
        for url in &ticket.endpoints {
            match peer::join(url, pin, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(JoinError::Refused(reason)) => bail!("{url}: {reason}"),
                Err(JoinError::NotNow(reason)) => reasons.push(reason),
            }
        }
        let reasons = reasons.join("; ");
        if started.elapsed() >= PATIENCE {
            bail!("no member lets this host in: {reasons}");
        }
        if reasons != said {
            tracing::info!(reasons, "waiting to be let in");
            said = reasons;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
