//! Many puts at once, over a few connections, with a bar that shows how far they are.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::etcdserverpb as pb;

use crate::cli::client::Client;
use crate::cli::error::CliError;

/// A connection carries any number of requests; more of them only spread the work of one processor.
const CONNECTIONS_LIMIT: usize = 8;
/// Different texts of failure kept.
const ERRORS_LIMIT: usize = 10;
/// After so many failures the verdict is clear: a cluster that is full refuses every put.
const FAILURES_LIMIT: u64 = 1_000;

/// What came of the puts.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Of those that succeeded, in the order they ended.
    pub(super) took: Vec<Duration>,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
}

/// Connections, and how many requests may be under way.
pub(super) struct Load {
    clients: Vec<Client>,
    concurrency: usize,
}

impl Load {
    pub(super) fn new(client: &Client, concurrency: usize) -> Result<Self, CliError> {
        let connections = concurrency.min(CONNECTIONS_LIMIT);
        let clients = (0..connections)
            .map(|_| client.another())
            .collect::<Result<_, _>>()?;
        Ok(Self { clients, concurrency })
    }

    /// Sends puts 0.. as `next` makes them, until it makes no more, or `until` is over.
    pub(super) async fn run(
        &self,
        bar: &ProgressBar,
        mut next: impl AsyncFnMut(u64) -> Option<pb::PutRequest>,
        until: impl Future<Output = ()>,
    ) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let mut under_way = FuturesUnordered::new();
        tokio::pin!(until);
        let mut number: u64 = 0;
        let mut more = true;
        while more || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = &mut until, if more => more = false,
                Some((took, result)) = under_way.next() => {
                    bar.inc(1);
                    outcome.add(took, result);
                    more &= outcome.errors.values().sum::<u64>() < FAILURES_LIMIT;
                }
                request = next(number), if more && under_way.len() < self.concurrency => match request {
                    None => more = false,
                    Some(request) => {
                        let client = &self.clients[usize::try_from(number).unwrap_or(0) % self.clients.len()];
                        number += 1;
                        under_way.push(async move {
                            let sent = Instant::now();
                            let result = client.put(request).await;
                            (sent.elapsed(), result.map(drop))
                        });
                    }
                },
            }
        }
        outcome.elapsed = started.elapsed();
        outcome
    }
}

impl Outcome {
    fn add(&mut self, took: Duration, result: Result<(), CliError>) {
        match result {
            Ok(()) => self.took.push(took),
            Err(error) => {
                let text = error.to_string();
                if self.errors.len() < ERRORS_LIMIT || self.errors.contains_key(&text) {
                    *self.errors.entry(text).or_default() += 1;
                }
            }
        }
    }
}

/// A bar for a person at a terminal; nothing anywhere else.
pub(super) fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(" {pos} / {len} [{bar:40}] {percent}% {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
}
