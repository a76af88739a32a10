//! `agentctl lock`: one at a time, anywhere in the cluster.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use bytes::Bytes;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::concurrency::{Asked, Ending, KeptLease, Place};
use super::error::CliError;
use super::format::{fields, json};
use super::session::Session;

#[derive(Args, Debug)]
#[command(
    after_help = "Without COMMAND it prints the lock's key once it holds it, and holds it until Ctrl-C or SIGTERM.\n\
                  With COMMAND it holds it as long as that runs, and ends with its exit code; COMMAND finds \
                  ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment.\n\n\
                  Examples:\n  agentctl lock nightly\n  agentctl lock nightly -- ./backup.sh --all"
)]
pub(super) struct LockArgs {
    /// The lock's name: who uses the same one waits for the other
    #[arg(value_name = "NAME")]
    name: OsString,
    /// What to run while holding it
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
    /// Seconds after which the lock is free if this program dies or is cut off
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..))]
    ttl: i64,
}

impl LockArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        if self.name.is_empty() {
            return Err(CliError::usage("the lock's name is empty"));
        }
        let mut ending = Ending::new()?;
        let lease = KeptLease::grant(&session.client, self.ttl).await?;
        let held = self.hold(session, &lease, &mut ending).await;
        let released = lease.release().await;
        match (held, released) {
            (Ok(0), released) => released,
            (Ok(code), _) => Err(CliError::ended(code)),
            (Err(error), _) => Err(error),
        }
    }

    /// Waits for the lock and holds it; the exit code for the end.
    async fn hold(
        self,
        session: &Session,
        lease: &KeptLease<'_>,
        ending: &mut Ending,
    ) -> Result<u8, CliError> {
        let name = self.name.into_vec();
        let waited = async {
            let place = Place::take(lease, &name, Bytes::new()).await?;
            let own = place.wait().await?;
            Ok((place, own))
        };
        let (place, own) = tokio::select! {
            held = lease.during(waited) => held?,
            _ = ending.asked() => return Err(CliError::interrupted()),
        };
        if let Some((program, arguments)) = self.command.split_first() {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env("ETCD_LOCK_KEY", OsString::from_vec(place.key.to_vec()))
                .env("ETCD_LOCK_REV", place.created.to_string());
            let child = command
                .spawn()
                .map_err(|error| CliError::io(program.to_string_lossy(), &error))?;
            return run(child, lease, ending).await;
        }
        session.show(&own, json::range, fields::range, |out, _, _| {
            out.extend_from_slice(&place.key);
            out.push(b'\n');
        })?;
        tokio::select! {
            lost = lease.during(std::future::pending()) => lost,
            _ = ending.asked() => Ok(0),
        }
    }
}

/// Waits for the command, whatever happens: while it runs the lock is not given away. SIGTERM is handed on to it, Ctrl-C
/// it gets from the terminal; when the lease is lost it is told to end.
async fn run(mut child: Child, lease: &KeptLease<'_>, ending: &mut Ending) -> Result<u8, CliError> {
    let failed = |error: std::io::Error| CliError::io("the command", &error);
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    let tell_to_end = || {
        if let Some(pid) = pid {
            // It may have ended already: then there is nobody to tell.
            let _ = kill(pid, Signal::SIGTERM);
        }
    };
    let ended = async {
        loop {
            tokio::select! {
                status = child.wait() => return status.map(exit_code).map_err(failed),
                asked = ending.asked() => {
                    if asked == Asked::Terminate {
                        tell_to_end();
                    }
                }
            }
        }
    };
    tokio::pin!(ended);
    match lease.during(&mut ended).await {
        Ok(code) => Ok(code),
        Err(lost) => {
            tell_to_end();
            let _ = ended.await;
            Err(lost)
        }
    }
}

/// As a shell says it: 128 and the signal for a program that one has ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
