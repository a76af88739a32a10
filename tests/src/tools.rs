//! Where the programs under test are. `tests/run` says it in the environment; run by hand, they are looked for
//! where it puts them.

use std::path::PathBuf;

/// A release of etcd that the distribution has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdVersion {
    V3_4,
    V3_5,
}

impl EtcdVersion {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EtcdVersion::V3_4 => "3.4",
            EtcdVersion::V3_5 => "3.5",
        }
    }

    /// One of its programs, `None` where it is missing.
    #[must_use]
    pub fn program(self, name: &str) -> Option<PathBuf> {
        let variable = match self {
            EtcdVersion::V3_4 => "ETCD34_DIR",
            EtcdVersion::V3_5 => "ETCD35_DIR",
        };
        let folder = std::env::var_os(variable).map_or_else(
            || target().join(format!("tools/etcd-{}/usr/bin", self.name())),
            PathBuf::from,
        );
        let program = folder.join(name);
        program.is_file().then_some(program)
    }
}

/// Our server.
#[must_use]
pub fn agent() -> PathBuf {
    std::env::var_os("AGENT_BIN").map_or_else(|| target().join("debug/agent"), PathBuf::from)
}

/// Our command line, beside the server.
#[must_use]
pub fn agentctl() -> PathBuf {
    agent().with_file_name("agentctl")
}

/// The folder into which `tests/run` unpacked or installed a tool, `None` where it is missing.
#[must_use]
pub fn folder(name: &str) -> Option<PathBuf> {
    let folder = target().join("tools").join(name);
    folder.is_dir().then_some(folder)
}

/// What only root may do: mounts, and a real Incus.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The folder that cargo builds into: a test's binary is in `target/debug/deps`.
fn target() -> PathBuf {
    let binary = std::env::current_exe().unwrap_or_default();
    binary.ancestors().nth(3).map(PathBuf::from).unwrap_or_default()
}
