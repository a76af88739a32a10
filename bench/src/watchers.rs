//! What ten thousand watchers of other keys cost a put: nothing, if they are found by key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;
use comfy_table::{CellAlignment, Table, presets};
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::load::{self, Measured, Operation};
use crate::servers::{Kind, Servers, find};

const CLIENTS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(1);
const CREATES_UNDER_WAY: usize = 64;

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Our agent [default: beside this program, built if it is not there]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// How many watchers
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Where the members keep their data while it runs [default: beside this program]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// What the watchers watch: never a key that is put.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Keys,
    Ranges,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let program = find(Kind::Agent, args.agent.as_deref())?;
    let servers = Servers::start(Kind::Agent, &program, 1, args.dir.as_deref())
        .await
        .with_context(|| format!("cannot start {}", program.display()))?;
    let endpoints = servers.endpoints().await?;
    let length = Duration::from_secs(args.seconds);
    let puts = async || load::run(&endpoints, Operation::Put, CLIENTS, WARM_UP, length).await;

    let without = puts().await?;
    let mut lines = vec![("none".to_owned(), without.clone())];
    for (watched, streams) in [
        (Watched::Keys, 1),
        (Watched::Keys, 1_000),
        (Watched::Ranges, 1),
        (Watched::Ranges, 1_000),
    ] {
        let name = format!("{} {watched:?} on {streams} streams", args.watchers);
        eprintln!("{name} ...");
        let channel = Channel::from_shared(endpoints[0].clone())?.connect().await?;
        let open = open(&channel, args.watchers, streams, watched).await?;
        lines.push((name, puts().await?));
        drop(open);
    }
    println!("{}", table(&lines, &without));
    Ok(())
}

/// Streams that stay open, with all their watches made.
async fn open(
    channel: &Channel,
    watchers: usize,
    streams: usize,
    watched: Watched,
) -> anyhow::Result<Vec<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)>> {
    let mut open = Vec::new();
    for stream in 0..streams {
        let numbers: Vec<usize> = (stream..watchers).step_by(streams).collect();
        let expected = numbers.len();
        let (requests, outbound) = mpsc::channel(CREATES_UNDER_WAY);
        let sender = requests.clone();
        tokio::spawn(async move {
            for number in numbers {
                // It fails when the measurement is given up.
                let _ = sender.send(create(number, watched)).await;
            }
        });
        let mut client = WatchClient::new(channel.clone());
        let mut responses = client.watch(ReceiverStream::new(outbound)).await?.into_inner();
        for _ in 0..expected {
            responses.message().await?.context("a stream ended")?;
        }
        open.push((requests, responses));
    }
    Ok(open)
}

fn create(number: usize, watched: Watched) -> WatchRequest {
    let create = WatchCreateRequest {
        key: format!("watched/{number:06}").into(),
        range_end: match watched {
            Watched::Keys => bytes::Bytes::new(),
            Watched::Ranges => format!("watched/{:06}", number + 2).into(),
        },
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

fn table(lines: &[(String, Measured)], without: &Measured) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["WATCHERS", "PUTS /s", "RATIO"]);
    for (name, measured) in lines {
        table.add_row([
            name.clone(),
            format!("{:.0}", measured.per_second()),
            format!("{:.2}", measured.per_second() / without.per_second()),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
