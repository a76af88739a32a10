//! `kv watch -i`: watches that a person adds line by line, and one line that asks how far they are.

use std::io::{BufRead, IsTerminal};

use clap::{Parser, Subcommand};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::WatchArgs;
use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::kv::txn_text;

/// Watches at a time: each is a stream of its own.
const WATCHES_LIMIT: usize = 100;
const LINE_BYTES: usize = 1 << 20;

#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
struct Line {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    Watch(WatchArgs),
    Progress,
}

/// Follows what the lines of standard input say, until Ctrl-C, or their end when there is nothing to follow.
pub(super) async fn run(session: &Session) -> Result<(), CliError> {
    if std::io::stdin().is_terminal() {
        eprintln!(
            "watch KEY [RANGE_END] [--prefix] [--rev N] ... adds a watch; progress asks how far they are"
        );
    }
    let (asked, ticks) = watch::channel(());
    let mut lines = lines();
    let mut open = true;
    let mut watches = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(ended) = watches.next() => ended?,
            line = lines.recv(), if open => match line.as_deref().map(parse) {
                None => open = false,
                Some(Ok(None)) => {}
                Some(Ok(Some(Order::Progress))) => {
                    // Without a watch nobody hears it.
                    let _ = asked.send(());
                }
                Some(Ok(Some(Order::Watch(args)))) if watches.len() < WATCHES_LIMIT => {
                    let ticks = ticks.clone();
                    watches.push(async move { args.follow_forever(session, &ticks).await });
                }
                Some(Ok(Some(Order::Watch(_)))) => eprintln!("{WATCHES_LIMIT} watches are enough"),
                Some(Err(why)) => eprintln!("{why}"),
            },
            else => return Ok(()),
        }
    }
}

/// Standard input by the line. Reading it blocks, so a thread does; it ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = String::new();
            let read = std::io::Read::take(&mut stdin, LINE_BYTES as u64).read_line(&mut line);
            if !matches!(read, Ok(bytes) if bytes > 0) || sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn parse(line: &str) -> Result<Option<Order>, String> {
    let words = txn_text::words(line)?;
    if words.is_empty() {
        return Ok(None);
    }
    let parsed = Line::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        format!(
            "{}: write watch KEY, or progress",
            first.strip_prefix("error: ").unwrap_or("not understood")
        )
    })?;
    match parsed.order {
        Order::Watch(args) if args.interactive => {
            Err("it is interactive already: write watch KEY".to_owned())
        }
        order => Ok(Some(order)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_watches_or_questions() {
        assert!(matches!(
            parse("watch a --prefix --rev 3\n"),
            Ok(Some(Order::Watch(_)))
        ));
        assert!(matches!(
            parse("watch 'a b' c -- sh -c true"),
            Ok(Some(Order::Watch(_)))
        ));
        assert!(matches!(parse("progress"), Ok(Some(Order::Progress))));
        assert!(matches!(parse("  \n"), Ok(None)));
        for wrong in ["watch", "watch -i", "follow a", "watch 'a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
