//! Why a host did not do what it was asked.

use proto::agent::v1::SilentHost;
use thiserror::Error;

use crate::attended::AttendError;
use crate::incus::IncusError;

/// What kind of failure it is: what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request itself makes no sense.
    Invalid,
    /// The instance, its snapshot or the host is not there.
    NotFound,
    /// The host is a store only.
    NoIncus,
    /// Incus, or what is in the instance, says no.
    Refused,
    /// This agent, or its simulated Incus, does not do that.
    Unsupported,
    /// The host does not answer; what was asked for may have been done.
    Unreachable,
    /// No answer in time; what was asked for may still be done.
    TimedOut,
    /// Too much is under way already.
    Busy,
}

/// Why a host did not do what it was asked, in words for a person.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct OperatorError {
    pub failure: Failure,
    pub message: String,
}

impl OperatorError {
    pub fn new(failure: Failure, message: impl Into<String>) -> OperatorError {
        OperatorError {
            failure,
            message: message.into(),
        }
    }

    /// Nobody has it, as far as the hosts have said: why the others did not, is said, too.
    pub(crate) fn on_no_host(what: &str, silent: &[SilentHost]) -> OperatorError {
        let reasons: Vec<&str> = silent.iter().map(|silent| silent.reason.as_str()).collect();
        let unless = if reasons.is_empty() {
            String::new()
        } else {
            format!(" ({})", reasons.join("; "))
        };
        OperatorError::new(Failure::NotFound, format!("no host has {what}{unless}"))
    }

    pub(super) fn no_instance(host: &str, tenant: &str, name: &str) -> OperatorError {
        let of_tenant = if tenant == crate::document::DEFAULT_TENANT {
            String::new()
        } else {
            format!(" of tenant {tenant}")
        };
        OperatorError::new(
            Failure::NotFound,
            format!("there is no instance {name}{of_tenant} on {host}"),
        )
    }
}

impl From<AttendError> for OperatorError {
    fn from(error: AttendError) -> OperatorError {
        OperatorError::new(Failure::Busy, error.to_string())
    }
}

impl From<IncusError> for OperatorError {
    fn from(error: IncusError) -> OperatorError {
        let failure = match &error {
            IncusError::Unreachable { .. } => Failure::Unreachable,
            IncusError::NotFound { .. } => Failure::NotFound,
            IncusError::Timeout { .. } | IncusError::OperationLost => Failure::TimedOut,
            IncusError::BadName { .. } | IncusError::Misuse { .. } => Failure::Invalid,
            IncusError::Refused { status: 501, .. } => Failure::Unsupported,
            IncusError::PreconditionFailed
            | IncusError::Refused { .. }
            | IncusError::OperationFailed { .. }
            | IncusError::Unreadable { .. }
            | IncusError::BadAnswer { .. } => Failure::Refused,
        };
        let mut message = match &error {
            // Its own words say it all.
            IncusError::Refused { status: 501, message } => message.clone(),
            error => error.to_string(),
        };
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        OperatorError { failure, message }
    }
}
