//! `check datascale`: how much memory an amount of data costs a member.

use clap::Args;

use super::load::{self, Outcome};
use super::{AfterArgs, Load, and_tidy, must_be_empty, put};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::session::Session;

const VALUE_BYTES: usize = 1024;
/// The metric that says what memory a member has.
const MEMORY_METRIC: &str = "process_resident_memory_bytes ";

#[derive(Args, Debug)]
pub(in crate::cli) struct DatascaleArgs {
    /// How much: small, medium, large, extra large
    #[arg(long, value_enum, ignore_case = true, default_value = "s")]
    load: Load,
    /// Where to write; nothing may be there yet
    #[arg(long, value_name = "KEY", default_value = "/etcdctl-check-datascale/")]
    prefix: String,
    #[command(flatten)]
    after: AfterArgs,
}

/// What a load writes.
struct Amount {
    keys: u64,
    clients: usize,
}

impl Load {
    fn amount(self) -> Amount {
        let (keys, clients) = match self {
            Load::Small => (10_000, 50),
            Load::Medium => (100_000, 100),
            Load::Large => (1_000_000, 200),
            Load::ExtraLarge => (3_000_000, 500),
        };
        Amount { keys, clients }
    }
}

impl DatascaleArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let first = session.client.endpoints().first().cloned().unwrap_or_default();
        let client = session.client.only(&first)?;
        must_be_empty(session, &self.prefix).await?;
        let amount = self.load.amount();
        let before = memory(&client).await?;
        let check = async {
            eprintln!(
                "writing {} keys of {VALUE_BYTES} bytes, {} at a time",
                amount.keys, amount.clients
            );
            let outcome = self.write(&client, &amount).await?;
            let (text, passed) = verdict(&outcome, before, memory(&client).await?);
            format::write(text.as_bytes())?;
            Ok(passed)
        };
        if and_tidy(session, &self.prefix, self.after, check).await? {
            Ok(())
        } else {
            Err(CliError::already_said())
        }
    }

    async fn write(&self, client: &Client, amount: &Amount) -> Result<Outcome, CliError> {
        let load = load::Load::new(client, amount.clients)?;
        let bar = load::bar(amount.keys);
        let next = async |number: u64| (number < amount.keys).then(|| put(&self.prefix, number, VALUE_BYTES));
        let outcome = load.run(&bar, next, std::future::pending()).await;
        bar.finish_and_clear();
        Ok(outcome)
    }
}

fn verdict(outcome: &Outcome, before: u64, after: u64) -> (String, bool) {
    if !outcome.errors.is_empty() {
        let mut text = "FAIL: too many errors\n".to_owned();
        for (error, count) in &outcome.errors {
            text.push_str(&format!("FAIL: ERROR({error}) -> {count}\n"));
        }
        return (text, false);
    }
    let used = after.saturating_sub(before) as f64 / f64::from(1 << 20);
    (
        format!("PASS: Approximate system memory used : {used:.2} MB.\n"),
        true,
    )
}

/// What memory the member has, by its own metrics.
async fn memory(client: &Client) -> Result<u64, CliError> {
    let text = client.metrics().await?;
    resident(&text).ok_or_else(|| {
        CliError::failed("the member's metrics do not say what memory it has")
            .hint("its /metrics should hold process_resident_memory_bytes")
    })
}

fn resident(metrics: &str) -> Option<u64> {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(MEMORY_METRIC))?;
    // Prometheus writes large numbers as 1.2345e+07.
    value.trim().parse::<f64>().ok().map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_metrics() {
        let metrics =
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.097152e+06\nx 1\n";
        assert_eq!(resident(metrics), Some(2_097_152));
        assert_eq!(resident("process_resident_memory_bytes 4096"), Some(4_096));
        assert_eq!(resident("up 1\n"), None);
    }

    #[test]
    fn the_verdict_is_etcdctls() {
        let (text, passed) = verdict(&Outcome::default(), 1 << 20, 3 << 20);
        assert_eq!(
            (text.as_str(), passed),
            ("PASS: Approximate system memory used : 2.00 MB.\n", true)
        );
        let mut failed = Outcome::default();
        failed.errors.insert("no leader".into(), 3);
        let (text, passed) = verdict(&failed, 0, 0);
        assert_eq!(
            (text.as_str(), passed),
            ("FAIL: too many errors\nFAIL: ERROR(no leader) -> 3\n", false)
        );
    }
}
