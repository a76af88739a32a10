//! `agentctl snapshot`: the whole store in one file, and a new cluster from one.

mod restore;
mod save;
mod status;

use clap::Subcommand;
use raft_store::restore::RestoreError;

use super::Session;
use super::error::CliError;

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Save the store of one member, checked, to a file
    #[command(after_help = "Example:\n  agentctl snapshot save backup.snap")]
    Save(save::SaveArgs),
    /// Check a saved file and say what is in it
    #[command(after_help = "Example:\n  agentctl snapshot status backup.snap")]
    Status(status::StatusArgs),
    /// Make the data directory of a member of a new cluster from a saved file
    Restore(Box<restore::RestoreArgs>),
}

impl SnapshotCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Save(args) => args.run(session).await,
            Self::Status(args) => args.run(session.format),
            Self::Restore(args) => args.run(session.format),
        }
    }
}

/// What is wrong with a file or a folder, and what to do about it.
fn refused(error: &RestoreError) -> CliError {
    let failed = CliError::failed(match error {
        RestoreError::Io { path, source } => {
            format!("cannot restore to {path}: {}", super::error::os_text(source))
        }
        RestoreError::Unreadable { path, source } => {
            format!("{path}: {}", super::error::os_text(source))
        }
        error => error.to_string(),
    });
    match error {
        RestoreError::Etcd { .. } => failed.hint(
            "restore it with etcdutl to an etcd, and copy its keys over, or save one with `agentctl snapshot save`",
        ),
        RestoreError::Damaged { .. } => failed.hint("use another copy; nothing was changed"),
        RestoreError::Exists(_) => failed.hint("name a --data-dir that does not exist yet, or move that one away"),
        RestoreError::TooFar { .. } => failed.hint("choose a smaller --bump-revision"),
        RestoreError::Unreadable { .. } => {
            failed.hint("name the file that `agentctl snapshot save` has written")
        }
        RestoreError::Io { .. } | RestoreError::Log(_) => failed,
    }
}
