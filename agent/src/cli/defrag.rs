//! `agentctl defrag`: gives free space back to the file system, member by member.

use clap::Args;

use super::endpoint::WhichArgs;
use super::error::CliError;
use super::format;
use super::session::Session;

#[derive(Args, Debug)]
#[command(
    after_help = "A member of an etcd answers nobody meanwhile, so they go one after the other; give it time with \
                  --command-timeout.\nAn agent frees space by itself and has nothing to do here.\n\n\
                  Example:\n  agentctl defrag --cluster"
)]
pub(super) struct DefragArgs {
    #[command(flatten)]
    which: WhichArgs,
}

impl DefragArgs {
    /// Goes on to the next member when one fails, and fails in the end.
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut all_done = true;
        for endpoint in self.which.endpoints(session).await? {
            let done = match session.client.only(&endpoint) {
                Ok(client) => client.defragment().await,
                Err(error) => Err(error),
            };
            match done {
                Ok(_) => {
                    let line = format!("Finished defragmenting etcd member[{endpoint}]\n");
                    format::write(line.as_bytes())?;
                }
                Err(error) => {
                    all_done = false;
                    eprintln!("Failed to defragment etcd member[{endpoint}] ({error})");
                }
            }
        }
        if all_done {
            Ok(())
        } else {
            Err(CliError::already_said())
        }
    }
}
