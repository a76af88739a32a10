//! `kv compact`.

use clap::Args;
use proto::etcdserverpb as pb;

use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::{fields, json};

#[derive(Args, Debug)]
#[command(
    after_help = "What keys hold now stays; what they held before REVISION is gone for good.\n\nExample:\n  \
                        agentctl compact 1024"
)]
pub(in crate::cli) struct CompactArgs {
    /// The oldest revision that stays readable
    #[arg(value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    revision: i64,
    /// Come back only when the space is free
    #[arg(long)]
    physical: bool,
}

impl CompactArgs {
    pub(in crate::cli) async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = pb::CompactionRequest {
            revision: self.revision,
            physical: self.physical,
        };
        let response = session.client.compact(request).await?;
        let line = format!("compacted revision {}", self.revision);
        session.show_line(&response, json::compact, fields::compact, &line)
    }
}
