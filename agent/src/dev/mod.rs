//! `agent dev`: three members on this machine, each a process of its own, as if at three providers.
//!
//! [`layout`] says where everything is, [`member`] owns one process, [`incus`] the real or simulated Incus,
//! [`control`] what `agentctl dev` may ask, [`supervisor`] the loop over all of them; [`text`] is what is shown. It
//! must not know anything about members that `agent run` and the client port do not tell everybody.

mod control;
mod incus;
mod layout;
mod member;
mod ready;
mod supervisor;
mod text;

pub(crate) use control::{Request, ask};

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use thiserror::Error;

use incus::IncusChoice;
use layout::{Layout, LayoutError};
use supervisor::Supervisor;

/// Where `agent dev` keeps everything, unless told otherwise.
pub(crate) const DEFAULT_DIR: &str = "./agent-dev";

/// Three members on this machine, each a process of its own, as if at three providers
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Everything is in --dir, logs too: DIR/HOST.log. `agentctl dev kill HOST` takes a member \
                        away, `agentctl dev start HOST` brings it back."
)]
pub struct DevArgs {
    /// Where the data, the logs and the control socket are
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub dir: PathBuf,
    /// Forget what earlier runs stored
    #[arg(long)]
    pub fresh: bool,
    /// Client port of the first member; the others are 10000 and 20000 higher, peer ports one higher each; 0 takes
    /// free ones [default: 2379, or as in the run before]
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
    /// The Incus to use; `simulated` pretends to have one, `none` goes without [default: the real one if it is there]
    #[arg(long, value_name = "PATH|simulated|none")]
    pub incus_socket: Option<String>,
}

/// Why the members do not run.
#[derive(Debug, Error)]
pub(crate) enum DevError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("{0}")]
    Incus(String),
    #[error("{host} ended at once ({status}); {log} ends with:\n{tail}")]
    EndedEarly {
        host: &'static str,
        status: String,
        log: String,
        tail: String,
    },
    #[error("{host} is not ready after {seconds} s; {log} ends with:\n{tail}")]
    NotReady {
        host: &'static str,
        seconds: u64,
        log: String,
        tail: String,
    },
    #[error("every member has ended; their logs are in {dir}")]
    AllEnded { dir: String },
}

impl DevError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Runs three members until Ctrl-C or SIGTERM, on a runtime of its own.
///
/// # Errors
/// When they cannot start, or none is left.
pub fn run(args: DevArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run_members(args));
    runtime.shutdown_background();
    Ok(result?)
}

async fn run_members(args: DevArgs) -> Result<(), DevError> {
    let started = Instant::now();
    let signals = supervisor::Signals::install().map_err(DevError::io("signals"))?;
    if control::answers(&args.dir).await {
        return Err(LayoutError::RunsAlready {
            dir: args.dir.display().to_string(),
        }
        .into());
    }
    let layout = Layout::prepare(&args.dir, args.fresh, args.base_port)?;
    let choice = IncusChoice::from_flag(args.incus_socket.as_deref());
    let incus = incus::Backends::start(choice, &layout).await?;
    let mut supervisor = Supervisor::start(layout, &incus)?;
    let result = match supervisor.ready(signals.clone()).await {
        Ok(Some(leader)) => {
            print!(
                "{}",
                text::ready(&supervisor.screen(&incus, leader, started.elapsed()))
            );
            supervisor.run(signals).await
        }
        // Stopped before it was ready: that is no failure.
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    supervisor.stop().await;
    incus.stop().await;
    if result.is_ok() {
        println!("stopped; data stays in {}", args.dir.display());
    }
    result
}
