//! Why a log was not opened, and why one stopped.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a log was not opened. Nothing that was ever acknowledged was changed.
#[derive(Debug, Error)]
pub enum OpenLogError {
    #[error("another agent runs on this data directory: {}", dir.display())]
    Locked { dir: PathBuf },
    #[error(
        "{} belongs to cluster {found:x} and this member is of cluster {expected:x}: \
         the data directory, the initial cluster or its token is not this member's",
        file.display()
    )]
    WrongCluster {
        file: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error(
        "{} belongs to member {found:x} and this is member {expected:x}: \
         the data directory, the name or the peer URLs are not this member's",
        file.display()
    )]
    WrongMember {
        file: PathBuf,
        found: u64,
        expected: u64,
    },
    /// Cutting here could forget what was acknowledged, so it is for the operator: remove this member and let
    /// it join again with an empty data directory.
    #[error(
        "the log is corrupt: {} at offset {offset}: {reason}; nothing was changed: \
         remove this member from the cluster and let it join again with an empty data directory",
        file.display()
    )]
    Corrupt {
        file: PathBuf,
        offset: u64,
        reason: String,
    },
    #[error(
        "{} has format version {found}, and this agent reads version {supported} only",
        file.display()
    )]
    UnknownFormat {
        file: PathBuf,
        found: u32,
        supported: u32,
    },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why the log stopped for good: a write, an fsync or a change of the directory failed. There is no second
/// try: after a failed fsync the kernel may call pages clean that never reached the disk.
#[derive(Clone, Debug)]
pub(crate) struct WriteError {
    kind: io::ErrorKind,
    message: String,
}

impl WriteError {
    pub(crate) fn new(action: &str, path: &Path, source: &io::Error) -> WriteError {
        let message = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(
                "cannot {action} {}: no space left on the disk of {}; free some and start again; nothing \
                 acknowledged is lost",
                path.display(),
                path.parent().unwrap_or(path).display()
            ),
            _ => format!("cannot {action} {}: {source}", path.display()),
        };
        WriteError {
            kind: source.kind(),
            message,
        }
    }

    /// For what is no answer of the system, but stops the log all the same.
    pub(crate) fn other(message: impl Into<String>) -> WriteError {
        WriteError {
            kind: io::ErrorKind::Other,
            message: message.into(),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl From<&WriteError> for io::Error {
    fn from(error: &WriteError) -> io::Error {
        io::Error::new(error.kind, error.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let error = WriteError::new("preallocate", Path::new("/data/wal/1.wal"), &error);
        assert_eq!(
            error.to_string(),
            "cannot preallocate /data/wal/1.wal: no space left on the disk of /data/wal; free some and start \
             again; nothing acknowledged is lost"
        );
    }
}
