//! `kv put`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use proto::etcdserverpb as pb;

use super::value;
use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::{fields, json, simple};
use crate::cli::lease::parse_id;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  agentctl kv put greeting hello\n  \
                        agentctl kv put /tenants/default/desired/instances/web @web.yaml\n  \
                        date | agentctl kv put now\n  agentctl kv put -- balance -5")]
pub(in crate::cli) struct PutArgs {
    /// The key
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The value; @FILE takes a file's content, - or nothing standard input
    #[arg(value_name = "VALUE|@FILE|-")]
    value: Option<OsString>,
    /// Attach the key to this lease (hexadecimal); it goes when the lease does
    #[arg(long, value_name = "ID", value_parser = parse_id, default_value = "0", hide_default_value = true)]
    lease: i64,
    /// Show the value from before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value, change the lease only
    #[arg(long, conflicts_with = "value")]
    ignore_value: bool,
    /// Keep the lease, change the value only
    #[arg(long, conflicts_with = "lease")]
    ignore_lease: bool,
}

impl PutArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let response = session.client.put(self.request()?).await?;
        session.show(&response, json::put, fields::put, simple::put)
    }

    /// Reads the value, from standard input too.
    pub(super) fn request(self) -> Result<pb::PutRequest, CliError> {
        if self.key.is_empty() {
            return Err(CliError::usage("the key is empty"));
        }
        let value = if self.ignore_value {
            bytes::Bytes::new()
        } else {
            value::read(self.value)?
        };
        Ok(pb::PutRequest {
            key: self.key.into_vec().into(),
            value,
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }

    /// Would the value come from standard input?
    pub(super) fn wants_stdin(&self) -> bool {
        !self.ignore_value && self.value.as_ref().is_none_or(|value| value == "-")
    }
}
