//! How a command ends when it does not succeed: one line of what went wrong, one of what to do next.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use thiserror::Error;
use tonic::{Code, Status};

/// Why a command failed. Shown as `error: MESSAGE`, followed by the hint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub(crate) struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Exit code 1.
    Failed,
    /// Exit code 1: members are there, and did not answer in time. A quorum may be missing.
    NoAnswer,
    /// Exit code 2: the command line itself is wrong.
    Usage,
    /// Exit code 1, and what happened was already said.
    AlreadySaid,
    /// The exit code of the program that was run: it has said what there was to say.
    Ended(u8),
    /// Whoever read our output went away: nothing is left to say, and nothing went wrong here.
    ReaderGone,
}

impl CliError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failed,
            message: message.into(),
            hint: None,
        }
    }

    /// Somebody is there, and did not answer in time.
    pub(crate) fn no_answer(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::NoAnswer,
            ..Self::failed(message)
        }
    }

    /// Whether members are there that gave no answer: what needs no quorum may still have one.
    pub(crate) fn is_no_answer(&self) -> bool {
        self.kind == Kind::NoAnswer
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn already_said() -> Self {
        Self {
            kind: Kind::AlreadySaid,
            message: "failed".to_owned(),
            hint: None,
        }
    }

    /// Somebody pressed Ctrl-C before it was done.
    pub(crate) fn interrupted() -> Self {
        Self::failed("interrupted")
    }

    /// A program that was run on the user's behalf ended with this code, which is not 0.
    pub(crate) fn ended(code: u8) -> Self {
        Self {
            kind: Kind::Ended(code),
            message: format!("it ended with exit code {code}"),
            hint: None,
        }
    }

    /// Did the cluster know the user, and refuse?
    pub(crate) fn is_permission_denied(&self) -> bool {
        self.message == "etcdserver: permission denied"
    }

    /// What to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// A member ended a watch, and said why in words that may hold a whole gRPC error.
    pub(crate) fn watch_ended(reason: &str) -> Self {
        let words = reason.rsplit_once(" desc = ").map_or(reason, |(_, words)| words);
        let error = Self::failed(format!("the member ended the watch: {words}"));
        match status_hint(Code::Unknown, words) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// What a file or directory refused.
    pub(crate) fn io(what: impl Display, error: &io::Error) -> Self {
        Self::failed(format!("{what}: {}", os_text(error)))
    }

    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self {
                kind: Kind::ReaderGone,
                message: "reader gone".to_owned(),
                hint: None,
            }
        } else {
            Self::io("standard output", error)
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Failed | Kind::NoAnswer | Kind::AlreadySaid => ExitCode::from(1),
            Kind::Usage => ExitCode::from(2),
            Kind::Ended(code) => ExitCode::from(code),
            Kind::ReaderGone => ExitCode::SUCCESS,
        }
    }

    /// What belongs on standard error; empty when there is nothing to say.
    pub(crate) fn text(&self) -> String {
        match self.kind {
            Kind::AlreadySaid | Kind::Ended(_) | Kind::ReaderGone => String::new(),
            Kind::Failed | Kind::NoAnswer | Kind::Usage => {
                let hint = self
                    .hint
                    .as_ref()
                    .map(|hint| format!("{hint}\n"))
                    .unwrap_or_default();
                format!("error: {}\n{hint}", self.message)
            }
        }
    }
}

/// An answer of the cluster that is an error, in its own words, with what helps against it.
impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let message = status.message();
        let error = if message.is_empty() {
            Self::failed(format!("the member answered {:?} without a word", status.code()))
        } else {
            Self::failed(message)
        };
        match status_hint(status.code(), message) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn status_hint(code: Code, message: &str) -> Option<&'static str> {
    let hints = [
        (
            "required revision has been compacted",
            "history up to there is gone already: name a newer revision",
        ),
        (
            "required revision is a future revision",
            "the store has not come that far: `agentctl endpoint status`",
        ),
        (
            "database space exceeded",
            "delete what is not needed, then `agentctl compact`: puts are taken again by themselves",
        ),
        (
            "corrupt cluster",
            "a member's store differs: `agentctl alarm list` names it, replace it, then `agentctl alarm disarm`",
        ),
        (
            "requested lease not found",
            "it has expired or was revoked: `agentctl lease list` shows those alive",
        ),
        ("request is too large", "a request may hold 1.5 MiB: split it"),
        (
            "too many operations in txn request",
            "a transaction may hold 128 operations: split it",
        ),
        (
            "given member URLs are invalid",
            "write them http://HOST:2380 or https://HOST:2380, several with a comma between",
        ),
        (
            "Peer URLs already exists",
            "a member has that URL already: `agentctl member list` shows which",
        ),
        (
            "can only promote a learner member which is in sync",
            "it has not caught up yet: `agentctl endpoint status` shows how far it is; try again then",
        ),
        (
            "can only promote a learner",
            "it is a voter already: `agentctl member list`",
        ),
        (
            "too many learner members",
            "promote or remove the learner that is there first: `agentctl member list`",
        ),
        (
            "not enough started members",
            "start the members that are down first, or too few would be left to agree: `agentctl endpoint status`",
        ),
        (
            "unhealthy cluster",
            "members must reach each other before one comes or goes: `agentctl endpoint status`; try again then",
        ),
        (
            "no host has an instance",
            "`agentctl instance list` shows what there is; another tenant's is named with --tenant",
        ),
        (
            "this Incus is simulated",
            "`agent dev --incus-socket PATH` uses a real one",
        ),
        (
            "there is no host",
            "a host is named as `agentctl member list` names it",
        ),
        ("does not run: start it", "`agentctl instance start NAME`"),
        (" is stopped", "`agentctl instance start NAME` starts it"),
        ("has no snapshot", "`agentctl instance snapshots NAME` lists them"),
        (
            "has no Incus",
            "that host keeps the cluster's store only: instances are on others, `agentctl instance list` shows which",
        ),
        (
            "member not found",
            "`agentctl member list` shows who belongs to the cluster",
        ),
        (
            "not leader",
            "ask the leader: `agentctl endpoint status` shows which it is",
        ),
        (
            "bad leader transferee",
            "name a voter: `agentctl member list` shows them",
        ),
        (
            "too many requests",
            "the member has more to do than it can keep up with: try again, with fewer at once",
        ),
        (
            "request timed out",
            "most members must be up to agree: `agentctl endpoint status` shows which are; a change may have \
             been made",
        ),
        ("too large lease TTL", "a lease may live 9,000,000,000 seconds"),
        (
            "lease already exists",
            "leave out --id: the cluster chooses one that is free",
        ),
        (
            "no leader",
            "most members must be up to agree: `agentctl endpoint status` shows which are",
        ),
        (
            "user name is empty",
            "the cluster wants to know who you are: --user NAME",
        ),
        (
            "invalid user ID or password",
            "check the name, and type the password: --user NAME asks for it",
        ),
        (
            "no password user",
            "this user logs in by a client certificate: --cert FILE --key FILE, and no --user",
        ),
        (
            "permission denied",
            "this user's roles do not cover that: `agentctl user get NAME --detail` shows what they do",
        ),
        (
            "root user does not exist",
            "make one first: `agentctl user add root`, then `agentctl user grant-role root root`",
        ),
        (
            "root user does not have root role",
            "give it: `agentctl user grant-role root root`",
        ),
        (
            "user name already exists",
            "its password is changed with `agentctl user passwd NAME`",
        ),
        (
            "role name already exists",
            "its permissions are changed with `agentctl role grant-permission NAME ...`",
        ),
        ("user name not found", "`agentctl user list` shows who there is"),
        (
            "role name not found",
            "`agentctl role list` shows those there are",
        ),
        (
            "role is not granted to the user",
            "`agentctl user get NAME` shows which are",
        ),
        (
            "permission is not granted to the role",
            "`agentctl role get NAME` shows those that are; a range must be named exactly as it was granted",
        ),
        (
            "invalid auth management",
            "root and its role stay while authentication is on: `agentctl auth disable` first",
        ),
        (
            "authentication is not enabled",
            "nobody has to log in here: leave out --user, or `agentctl auth enable`",
        ),
    ];
    hints
        .iter()
        .find(|(text, _)| message.contains(text))
        .map(|(_, hint)| *hint)
        .or(match code {
            Code::Unimplemented => Some("this member is too old or too new for that command"),
            _ => None,
        })
}

/// The error of the operating system in its own words, without Rust's `(os error 2)`.
pub(crate) fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_cluster_says_what_to_do() {
        let status = Status::failed_precondition("etcdserver: not leader");
        assert_eq!(
            CliError::from(status).text(),
            "error: etcdserver: not leader\nask the leader: `agentctl endpoint status` shows which it is\n"
        );
    }

    #[test]
    fn the_end_of_a_watch_is_said_without_grpcs_words() {
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(
            CliError::watch_ended(reason).text().lines().next(),
            Some("error: the member ended the watch: etcdserver: permission denied")
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = CliError::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.text(), "");
        assert_eq!(
            format!("{:?}", error.exit_code()),
            format!("{:?}", ExitCode::SUCCESS)
        );
    }

    #[test]
    fn errors_of_the_system_lose_their_number() {
        assert_eq!(
            os_text(&io::Error::from_raw_os_error(2)),
            "no such file or directory"
        );
    }
}
