//! `kv del`.

use clap::Args;
use proto::etcdserverpb as pb;

use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::{fields, json, simple};
use crate::cli::range::RangeArgs;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  agentctl kv del greeting\n  agentctl kv del /locks/ --prefix --prev-kv")]
pub(in crate::cli) struct DeleteArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Show what was deleted
    #[arg(long)]
    prev_kv: bool,
}

impl DeleteArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let response = session.client.delete_range(self.request()?).await?;
        session.show(
            &response,
            json::delete_range,
            fields::delete_range,
            simple::delete_range,
        )
    }

    pub(super) fn request(self) -> Result<pb::DeleteRangeRequest, CliError> {
        let range = self.range.range()?;
        Ok(pb::DeleteRangeRequest {
            key: range.key,
            range_end: range.range_end,
            prev_kv: self.prev_kv,
        })
    }
}
