//! `check perf`: a steady pace of writes for a while, and a verdict.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::load::{self, Outcome};
use super::statistics::Statistics;
use super::{AfterArgs, Load, and_tidy, must_be_empty, put};
use crate::cli::duration;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::session::Session;

const VALUE_BYTES: usize = 1024;
/// Less than this part of the pace is too slow.
const THROUGHPUT: f64 = 0.9;
const SLOWEST_S: f64 = 0.5;
const STDDEV_S: f64 = 0.1;
/// The pace is kept in steps: a timer fires no faster.
const STEP: Duration = Duration::from_millis(10);

#[derive(Args, Debug)]
pub(in crate::cli) struct PerfArgs {
    /// How much: small, medium, large, extra large
    #[arg(long, value_enum, ignore_case = true, default_value = "s")]
    load: Load,
    /// How long
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s")]
    duration: Duration,
    /// Where to write; nothing may be there yet
    #[arg(long, value_name = "KEY", default_value = "/etcdctl-check-perf/")]
    prefix: String,
    #[command(flatten)]
    after: AfterArgs,
}

/// What a load asks of the cluster.
struct Pace {
    per_second: u32,
    clients: usize,
}

impl Load {
    fn pace(self) -> Pace {
        let (per_second, clients) = match self {
            Load::Small => (150, 50),
            Load::Medium => (1_000, 200),
            Load::Large => (8_000, 500),
            Load::ExtraLarge => (15_000, 1_000),
        };
        Pace { per_second, clients }
    }
}

impl PerfArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        must_be_empty(session, &self.prefix).await?;
        let pace = self.load.pace();
        let check = async {
            let (text, passed) = verdict(&self.write(session, &pace).await?, &pace);
            format::write(text.as_bytes())?;
            Ok(passed)
        };
        if and_tidy(session, &self.prefix, self.after, check).await? {
            Ok(())
        } else {
            Err(CliError::already_said())
        }
    }

    async fn write(&self, session: &Session, pace: &Pace) -> Result<Outcome, CliError> {
        let load = load::Load::new(&session.client, pace.clients)?;
        let total = (self.duration.as_secs_f64() * f64::from(pace.per_second)) as u64;
        let bar = load::bar(total);
        let started = Instant::now();
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let next = async |number: u64| {
            // The n-th write is due n/pace after the start; one that is late goes at once.
            let due = started + Duration::from_secs_f64(number as f64 / f64::from(pace.per_second));
            while Instant::now() < due {
                steps.tick().await;
            }
            Some(put(&self.prefix, number, VALUE_BYTES))
        };
        let outcome = load.run(&bar, next, sleep(self.duration)).await;
        bar.finish_and_clear();
        Ok(outcome)
    }
}

/// What etcdctl says of the figures, and whether all is well.
fn verdict(outcome: &Outcome, pace: &Pace) -> (String, bool) {
    let figures = Statistics::of(&outcome.took, outcome.elapsed);
    let mut passed = outcome.errors.is_empty();
    let mut text = String::new();
    if !passed {
        text.push_str("FAIL: too many errors\n");
        for (error, count) in &outcome.errors {
            text.push_str(&format!("FAIL: ERROR({error}) -> {count}\n"));
        }
    }
    let enough = figures.per_second / f64::from(pace.per_second) > THROUGHPUT;
    let per_second = figures.per_second.round();
    text.push_str(&if enough {
        format!("PASS: Throughput is {per_second} writes/s\n")
    } else {
        format!("FAIL: Throughput too low: {per_second} writes/s\n")
    });
    let soon = figures.slowest_s <= SLOWEST_S;
    text.push_str(&if soon {
        format!("PASS: Slowest request took {:.6}s\n", figures.slowest_s)
    } else {
        format!("FAIL: Slowest request took too long: {:.6}s\n", figures.slowest_s)
    });
    let steady = figures.stddev_s <= STDDEV_S;
    text.push_str(&if steady {
        format!("PASS: Stddev is {:.6}s\n", figures.stddev_s)
    } else {
        format!("FAIL: Stddev too high: {:.6}s\n", figures.stddev_s)
    });
    passed = passed && enough && soon && steady;
    text.push_str(if passed { "PASS\n" } else { "FAIL\n" });
    (text, passed)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(took_ms: &[u64], error: Option<&str>, expected: &Expect) {
        let mut outcome = Outcome {
            took: took_ms.iter().map(|ms| Duration::from_millis(*ms)).collect(),
            elapsed: Duration::from_secs(1),
            ..Default::default()
        };
        outcome.errors.extend(error.map(|error| (error.to_owned(), 2)));
        let pace = Pace {
            per_second: 10,
            clients: 1,
        };
        let (text, passed) = verdict(&outcome, &pace);
        assert_eq!(passed, text.ends_with("PASS\n"));
        expected.assert_eq(&text);
    }

    #[test]
    fn a_cluster_that_keeps_up_passes() {
        check(
            &[4; 10],
            None,
            &expect![[r#"
                PASS: Throughput is 10 writes/s
                PASS: Slowest request took 0.004000s
                PASS: Stddev is 0.000000s
                PASS
            "#]],
        );
    }

    #[test]
    fn each_fault_is_named() {
        check(
            &[4, 4, 4, 600],
            Some("etcdserver: no leader"),
            &expect![[r#"
                FAIL: too many errors
                FAIL: ERROR(etcdserver: no leader) -> 2
                FAIL: Throughput too low: 4 writes/s
                FAIL: Slowest request took too long: 0.600000s
                FAIL: Stddev too high: 0.258076s
                FAIL
            "#]],
        );
    }
}
