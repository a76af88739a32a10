//! `agentctl snapshot status`: is the file whole, and what is in it. Works offline.

use std::path::PathBuf;

use clap::Args;
use raft_store::restore::{SnapshotSummary, inspect};
use serde_json::{Value, json};

use super::refused;
use crate::cli::error::CliError;
use crate::cli::format::columns::{columns, size};
use crate::cli::format::fields::Fields;
use crate::cli::format::{self, Format};

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    /// The saved file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl StatusArgs {
    pub(super) fn run(self, format: Option<Format>) -> Result<(), CliError> {
        let summary = inspect(&self.file).map_err(|error| refused(&error))?;
        match format {
            Some(Format::Json) => format::write_json(&to_json(&summary)),
            Some(Format::Simple) => format::write(line(&summary).as_bytes()),
            Some(Format::Fields) => format::write(&fields(&summary)),
            Some(Format::Protobuf) => Err(CliError::usage(
                "a snapshot's status has no protobuf: -w json has all",
            )),
            Some(Format::Table) | None => format::write(table(&summary).as_bytes()),
        }
    }
}

pub(super) fn to_json(summary: &SnapshotSummary) -> Value {
    json!({
        "hash": summary.hash,
        "revision": summary.revision,
        "totalKey": summary.total_keys,
        "totalSize": summary.size_bytes,
    })
}

fn cells(summary: &SnapshotSummary) -> [String; 4] {
    [
        format!("{:x}", summary.hash),
        summary.revision.to_string(),
        summary.total_keys.to_string(),
        size(i64::try_from(summary.size_bytes).unwrap_or(i64::MAX)),
    ]
}

/// etcdutl's: hash, revision, keys, size.
fn line(summary: &SnapshotSummary) -> String {
    format!("{}\n", cells(summary).join(", "))
}

fn fields(summary: &SnapshotSummary) -> Vec<u8> {
    let mut out = Fields::default();
    out.plain("Hash", summary.hash);
    out.plain("Revision", summary.revision);
    out.plain("Keys", summary.total_keys);
    out.plain("Size", summary.size_bytes);
    out.into_bytes()
}

fn table(summary: &SnapshotSummary) -> String {
    columns(
        ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"],
        &[cells(summary)],
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_status_is_etcdutls() {
        let summary = SnapshotSummary {
            hash: 0x1b5c_97bc,
            revision: 4,
            total_keys: 11,
            size_bytes: 20_480,
        };
        assert_eq!(line(&summary), "1b5c97bc, 4, 11, 20 kB\n");
        expect![[r#"
            HASH      REVISION  TOTAL KEYS  TOTAL SIZE
            1b5c97bc  4         11          20 kB
        "#]]
        .assert_eq(&table(&summary));
        assert_eq!(
            to_json(&summary).to_string(),
            r#"{"hash":459052988,"revision":4,"totalKey":11,"totalSize":20480}"#
        );
    }
}
