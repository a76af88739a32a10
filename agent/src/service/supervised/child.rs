//! One process: begun by us, or found from before.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use tokio::process::{Child, Command};

use super::log;
use super::proc::{self, Identity};
use crate::service::Definition;

/// In the environment of every process of a service: its folder.
const MARK: &str = "AGENT_SERVICE";
/// Nobody tells of the end of a process that is not our child.
const POLL: Duration = Duration::from_millis(500);
/// How long a group may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(50);
/// Killed processes end at once, unless the kernel itself holds them.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A process that runs, as far as anybody knows.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: Identity,
    /// `None`: begun by an agent before this one.
    child: Option<Child>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) success: bool,
    pub(super) why: String,
}

impl Process {
    pub(super) fn start(definition: &Definition, folder: &Path) -> io::Result<Process> {
        let out = log::open(folder)?;
        let mut command = Command::new(&definition.exec);
        command
            .args(&definition.args)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs(&definition.environment)
            .env(MARK, folder)
            .current_dir(definition.working_directory.as_deref().unwrap_or("/"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        if let Some(name) = &definition.user {
            let user = User::from_name(name)?
                .ok_or_else(|| io::Error::other(format!("no user {name} on this host")))?;
            if user.uid != nix::unistd::geteuid() {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
        }
        let child = command.spawn()?;
        // Until it is waited for, its number is its own.
        let identity = child.id().and_then(|pid| Identity::of(i32::try_from(pid).ok()?));
        Ok(Process {
            identity: identity.ok_or_else(|| io::Error::other("the process cannot be found in /proc"))?,
            child: Some(child),
        })
    }

    /// One that an agent before this one began, and ended before it could write that down.
    pub(super) fn find(definition: &Definition, folder: &Path) -> Option<Process> {
        let words: Vec<&str> = std::iter::once(&definition.exec)
            .chain(&definition.args)
            .map(String::as_str)
            .collect();
        let identity = proc::find(&format!("{MARK}={}", folder.display()), &words)?;
        Some(Process {
            identity,
            child: None,
        })
    }

    /// One that an agent before this one began, if it still runs.
    pub(super) fn adopt(identity: Identity) -> Option<Process> {
        identity.is_alive().then_some(Process {
            identity,
            child: None,
        })
    }

    /// Waits for its end. Nothing is lost when the future is dropped.
    pub(super) async fn ended(&mut self) -> End {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => End {
                    success: status.success(),
                    why: format!("ended with {status}"),
                },
                Err(error) => End {
                    success: false,
                    why: format!("cannot be waited for: {error}"),
                },
            },
            None => {
                while self.identity.is_alive() {
                    tokio::time::sleep(POLL).await;
                }
                End {
                    success: false,
                    why: "ended".to_owned(),
                }
            }
        }
    }

    /// Ends it and its group: asked first, killed if it does not listen. Whether nothing of them is left.
    pub(super) async fn stop(&mut self) -> bool {
        signal(&self.identity, Signal::SIGTERM);
        if tokio::time::timeout(STOP_LIMIT, self.ended()).await.is_err() {
            signal(&self.identity, Signal::SIGKILL);
            if tokio::time::timeout(KILL_LIMIT, self.ended()).await.is_err() {
                return false;
            }
        }
        kill_others(&self.identity).await
    }
}

/// Kills what a process that ended has left of its group. Whether nothing of it is left.
pub(super) async fn kill_others(identity: &Identity) -> bool {
    let gone = async {
        while identity.left_others() {
            let _ = killpg(Pid::from_raw(identity.pid), Signal::SIGKILL);
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    tokio::time::timeout(KILL_LIMIT, gone).await.is_ok()
}

fn signal(identity: &Identity, signal: Signal) {
    if identity.is_alive() {
        // It may end in between, which is what was wanted.
        let _ = killpg(Pid::from_raw(identity.pid), signal);
    }
}
