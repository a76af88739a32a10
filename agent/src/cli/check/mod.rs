//! `agentctl check`: is the cluster fast enough, and does it bear the amount?
//!
//! Writes under a prefix that must be empty, and deletes what it wrote. The verdicts and their limits are etcdctl's.

mod datascale;
mod load;
mod perf;
mod statistics;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use proto::etcdserverpb as pb;

use super::client::Client;
use super::concurrency::Ending;
use super::error::CliError;
use super::range::KeyRange;
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum CheckCommand {
    /// Write at a steady pace, and judge throughput and delay
    #[command(
        after_help = "Examples:\n  agentctl check perf\n  agentctl check perf --load m --duration 20s\n\n\
                      s: 150 writes/s by 50 clients, m: 1,000 by 200, l: 8,000 by 500, xl: 15,000 by 1,000."
    )]
    Perf(perf::PerfArgs),
    /// Write an amount of data, and show what memory it costs the first endpoint
    #[command(after_help = "Example:\n  agentctl check datascale --load s\n\n\
                      s: 10,000 keys of 1 KiB, m: 100,000, l: 1,000,000, xl: 3,000,000: mind the quota.")]
    Datascale(datascale::DatascaleArgs),
}

/// Keys that one request deletes at the end.
const DELETED_AT_ONCE: i64 = 10_000;

/// How much: etcdctl's four sizes, by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    #[value(name = "s", alias = "small")]
    Small,
    #[value(name = "m", alias = "medium")]
    Medium,
    #[value(name = "l", alias = "large")]
    Large,
    #[value(name = "xl", alias = "xLarge")]
    ExtraLarge,
}

/// What to tidy up at the end.
#[derive(Args, Clone, Copy, Debug)]
struct AfterArgs {
    /// Compact the history when it is over
    #[arg(long)]
    auto_compact: bool,
    /// Defragment every endpoint when it is over
    #[arg(long)]
    auto_defrag: bool,
}

impl CheckCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Perf(args) => args.run(session).await,
            Self::Datascale(args) => args.run(session).await,
        }
    }
}

/// Refuses a prefix that holds something: the end of a check deletes all of it.
async fn must_be_empty(session: &Session, prefix: &str) -> Result<(), CliError> {
    if prefix.is_empty() {
        return Err(CliError::usage("the prefix is empty").hint("the check deletes everything under it"));
    }
    let range = KeyRange::prefix(prefix.as_bytes());
    let request = pb::RangeRequest {
        key: range.key,
        range_end: range.range_end,
        limit: 1,
        keys_only: true,
        ..Default::default()
    };
    if session.client.range(request).await?.kvs.is_empty() {
        Ok(())
    } else {
        Err(
            CliError::failed(format!("there are keys under {prefix} already")).hint(format!(
                "the check would delete them: choose another --prefix, or `agentctl kv del {prefix} --prefix`"
            )),
        )
    }
}

/// Runs a check, then deletes what it wrote, however it ended; on Ctrl-C and SIGTERM too.
async fn and_tidy<T>(
    session: &Session,
    prefix: &str,
    after: AfterArgs,
    check: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let mut ending = Ending::new()?;
    let checked = tokio::select! {
        checked = check => checked,
        _ = ending.asked() => Err(CliError::interrupted()),
    };
    // Whoever asks twice does not want to wait for this either.
    let tidied = tokio::select! {
        tidied = tidy(session, prefix, after) => tidied,
        _ = ending.asked() => Err(CliError::interrupted()),
    };
    let tidied = tidied.map_err(|error| {
        error.hint(format!(
            "what was written is still there: `agentctl kv del {prefix} --prefix` deletes it"
        ))
    });
    match (checked, tidied) {
        (Ok(outcome), Ok(())) => Ok(outcome),
        (_, Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// Deletes what was written; then compacts and defragments if that is wanted.
async fn tidy(session: &Session, prefix: &str, after: AfterArgs) -> Result<(), CliError> {
    let client = &session.client;
    let revision = delete(client, prefix).await?;
    if after.auto_compact {
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        client.compact(request).await?;
        eprintln!("compacted revision {revision}");
    }
    if after.auto_defrag {
        for endpoint in client.endpoints() {
            client.only(endpoint)?.defragment().await?;
            eprintln!("defragmented {endpoint}");
        }
    }
    Ok(())
}

/// Deletes all keys under a prefix, some at a time: millions in one request would hold up everybody. The revision
/// after the last.
async fn delete(client: &Client, prefix: &str) -> Result<i64, CliError> {
    let mut range = KeyRange::prefix(prefix.as_bytes());
    let request = pb::RangeRequest {
        key: range.key.clone(),
        range_end: range.range_end.clone(),
        limit: DELETED_AT_ONCE,
        keys_only: true,
        ..Default::default()
    };
    loop {
        let some = client.range(request.clone()).await?;
        let Some(last) = some.kvs.last() else {
            return Ok(some.header.map_or(0, |header| header.revision));
        };
        // Up to and with the last one.
        range.range_end = [last.key.as_ref(), b"\0"].concat().into();
        let request = pb::DeleteRangeRequest {
            key: range.key.clone(),
            range_end: range.range_end.clone(),
            prev_kv: false,
        };
        client.delete_range(request).await?;
    }
}

/// The n-th put of a check: a key of its own, a value of that size that does not compress.
fn put(prefix: &str, number: u64, value_bytes: usize) -> pb::PutRequest {
    let mut value = vec![0_u8; value_bytes];
    rand::Rng::fill(&mut rand::rng(), value.as_mut_slice());
    pb::PutRequest {
        key: Bytes::from(format!("{prefix}{number:016x}")),
        value: value.into(),
        ..Default::default()
    }
}
