//! Whose server is tried: ours, or etcd's. Both take etcd's flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{self, EtcdVersion};

/// A server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Our agent, as a store only: without Incus it writes nothing of its own to the key space.
    Agent(PathBuf),
    Etcd(PathBuf),
}

impl Subject {
    #[must_use]
    pub fn agent() -> Subject {
        Subject::Agent(tools::agent())
    }

    /// etcd 3.5, `None` where it is missing.
    #[must_use]
    pub fn etcd() -> Option<Subject> {
        EtcdVersion::V3_5.program("etcd").map(Subject::Etcd)
    }

    #[must_use]
    pub fn is_etcd(&self) -> bool {
        matches!(self, Subject::Etcd(_))
    }

    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.is_etcd() { "etcd" } else { "agent" }
    }

    /// The command, up to the flags that both understand.
    pub(super) fn command(&self, incus_socket: Option<&Path>) -> Command {
        match self {
            Subject::Agent(path) => {
                let mut command = Command::new(path);
                command.arg("run").args(["--provider", "lab", "--incus-socket"]);
                command.arg(incus_socket.unwrap_or(Path::new("none")));
                command.env_clear().env("RUST_BACKTRACE", "1");
                if let Some(log) = std::env::var_os("AGENT_TEST_LOG") {
                    command.env("AGENT_LOG", log);
                }
                command
            }
            Subject::Etcd(path) => {
                let mut command = Command::new(path);
                command
                    .env_clear()
                    .args(["--logger", "zap", "--log-level", "info"]);
                command
            }
        }
    }
}
