//! `agentctl dev`: providers that go away and come back, in a running `agent dev`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::format;
use crate::dev::{DEFAULT_DIR, Request, ask};

#[derive(Debug, Subcommand)]
pub(super) enum DevCommand {
    /// Kill a member, as if its provider were gone (SIGKILL)
    #[command(after_help = "Example:\n  agentctl dev kill ovh")]
    Kill(HostArgs),
    /// Start a member that was killed
    #[command(after_help = "Example:\n  agentctl dev start ovh")]
    Start(HostArgs),
    /// The members, and whether they run
    #[command(after_help = "Example:\n  agentctl dev list")]
    List(DirArg),
}

#[derive(Args, Debug)]
pub(super) struct HostArgs {
    /// ovh, ionos or liquidweb
    host: String,
    #[command(flatten)]
    dir: DirArg,
}

#[derive(Args, Debug)]
pub(super) struct DirArg {
    /// The --dir of `agent dev`
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

impl DevCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (dir, request) = match self {
            Self::Kill(HostArgs { host, dir }) => (dir.dir, Request::Kill { host }),
            Self::Start(HostArgs { host, dir }) => (dir.dir, Request::Start { host }),
            Self::List(dir) => (dir.dir, Request::List),
        };
        match ask(&dir, &request).await {
            Ok(text) => format::write(text.as_bytes()),
            Err(why) if why.starts_with("no `agent dev`") => {
                Err(CliError::failed(why).hint("start it with `agent dev`, or say where it runs: --dir DIR"))
            }
            Err(why) => Err(CliError::failed(why)),
        }
    }
}
