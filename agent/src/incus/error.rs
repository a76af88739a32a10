//! Why a request to Incus has no good answer.

use std::error::Error as StdError;
use std::path::PathBuf;

use thiserror::Error;

/// Why a request to Incus failed.
#[derive(Debug, Error)]
pub enum IncusError {
    /// Nothing answers at the socket, or the connection broke: a write may still have happened.
    #[error("no answer from incus at {}", .socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something the request names is not there: the object, its project, or, in a write, a profile it refers to.
    #[error("not found: {message}")]
    NotFound { message: String },
    /// The object changed since its ETag was read: read it again, then decide again.
    #[error("changed since it was read")]
    PreconditionFailed,
    /// Incus refused the request at once. The message is for people: it decides nothing.
    #[error("incus refused with status {status}: {message}")]
    Refused { status: u16, message: String },
    /// Incus began the operation and it failed. The message is for people: it decides nothing.
    #[error("incus operation failed: {message}")]
    OperationFailed { message: String },
    /// No answer in time: the request, or the operation, may still be under way.
    #[error("no answer from incus within {limit_seconds} s")]
    Timeout { limit_seconds: u64 },
    /// The operation is no longer known and the object does not show its effect.
    #[error("incus forgot the operation before its result was read")]
    OperationLost,
    /// The answer is not what Incus' API promises, or is larger than we read.
    #[error("unexpected answer from incus: {reason}")]
    BadAnswer { reason: String },
    /// A name that cannot stand in a path of Incus' API. Nothing was sent.
    #[error("not a usable name: {name:?}")]
    BadName { name: String },
    /// A file of this host that is to be uploaded. Nothing was sent.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A request this client does not send because it would damage something. Nothing was sent.
    #[error("request not sent: {reason}")]
    Misuse { reason: &'static str },
}

impl IncusError {
    /// Whether the same wish may succeed later with nobody changing anything: worth an early retry after reading
    /// again. The others wait for the usual backoff.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::PreconditionFailed
            | Self::Timeout { .. }
            | Self::OperationLost => true,
            Self::Refused { status, .. } => matches!(status, 429 | 503),
            Self::NotFound { .. }
            | Self::OperationFailed { .. }
            | Self::BadAnswer { .. }
            | Self::BadName { .. }
            | Self::Unreadable { .. }
            | Self::Misuse { .. } => false,
        }
    }

    pub(super) fn bad_answer(reason: impl Into<String>) -> Self {
        Self::BadAnswer {
            reason: reason.into(),
        }
    }
}
