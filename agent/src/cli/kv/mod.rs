//! `agentctl kv`: keys as etcdctl shows them.

pub(super) mod compact;
mod delete;
mod edit;
mod get;
mod put;
mod txn;
mod txn_text;
mod value;
mod watch;

use clap::Subcommand;

pub(super) use value::read as read_value;

use super::Session;
use super::error::CliError;

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Show keys and their values
    Get(get::GetArgs),
    /// Write a key
    Put(put::PutArgs),
    /// Delete keys; prints how many
    Del(delete::DeleteArgs),
    /// Follow keys as they change
    Watch(watch::WatchArgs),
    /// Several reads and writes at once, under conditions, read from standard input
    Txn(txn::TxnArgs),
    /// Forget the history before a revision
    #[command(visible_alias = "compaction")]
    Compact(compact::CompactArgs),
    /// Change a value in $VISUAL or $EDITOR; documents are checked before they are stored
    Edit(edit::EditArgs),
}

impl KvCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Get(args) => args.run(session).await,
            Self::Put(args) => args.run(session).await,
            Self::Del(args) => args.run(session).await,
            Self::Watch(args) => args.run(session).await,
            Self::Txn(args) => args.run(session).await,
            Self::Compact(args) => args.run(session).await,
            Self::Edit(args) => args.run(session).await,
        }
    }
}
