//! Runs every load on every server and prints the table.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};

use crate::load::{self, Measured, Operation};
use crate::servers::{Kind, Servers, find};

const MEMBERS: usize = 3;
/// Past this a run says nothing more about a server, and much about the machine.
const LONGEST_SECONDS: u64 = 600;

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// The etcd to compare with [default: $ETCD35_DIR/etcd, what tests/run unpacked, or the one on the PATH]
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Our agent [default: beside this program, built if it is not there]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=LONGEST_SECONDS))]
    seconds: u64,
    /// Seconds before each measurement that are not counted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up_seconds: u64,
    /// How many clients at once, each on a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    clients: Vec<usize>,
    /// Only one of the two
    #[arg(long)]
    only: Option<Only>,
    /// Where the members keep their data while it runs [default: beside this program]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Agent,
    Etcd,
}

/// One line of the table.
#[derive(Debug)]
struct Line {
    operation: Operation,
    clients: usize,
    measured: Measured,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let ours = match args.only {
        Some(Only::Etcd) => None,
        _ => Some(measure(Kind::Agent, find(Kind::Agent, args.agent.as_deref())?, args).await?),
    };
    let theirs = match args.only {
        Some(Only::Agent) => None,
        _ => Some(measure(Kind::Etcd, find(Kind::Etcd, args.etcd.as_deref())?, args).await?),
    };
    println!("{}", table(ours.as_deref(), theirs.as_deref()));
    Ok(())
}

async fn measure(kind: Kind, program: PathBuf, args: &Args) -> anyhow::Result<Vec<Line>> {
    let servers = Servers::start(kind, &program, MEMBERS, args.dir.as_deref())
        .await
        .with_context(|| format!("cannot start {}", program.display()))?;
    let endpoints = servers.endpoints().await?;
    let mut lines = Vec::new();
    for &clients in &args.clients {
        for operation in [
            Operation::Put,
            Operation::GetLinearizable,
            Operation::GetSerializable,
        ] {
            eprintln!("{}: {} with {clients} clients ...", kind.name(), operation.name());
            let warm_up = Duration::from_secs(args.warm_up_seconds);
            let length = Duration::from_secs(args.seconds);
            let measured = load::run(&endpoints, operation, clients, warm_up, length).await?;
            lines.push(Line {
                operation,
                clients,
                measured,
            });
        }
    }
    Ok(lines)
}

fn table(ours: Option<&[Line]>, theirs: Option<&[Line]>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns = [
        "OPERATION",
        "CLIENTS",
        "AGENT /s",
        "p50",
        "p99",
        "ETCD /s",
        "p50",
        "p99",
        "AGENT/ETCD",
    ];
    table.set_header(columns);
    for line in ours.or(theirs).unwrap_or_default() {
        let of = |lines: Option<&[Line]>| {
            let same = |other: &&Line| other.operation == line.operation && other.clients == line.clients;
            lines
                .and_then(|lines| lines.iter().find(same))
                .map(|line| line.measured.clone())
        };
        let (our, their) = (of(ours), of(theirs));
        let mut cells = vec![line.operation.name().to_owned(), line.clients.to_string()];
        for measured in [&our, &their] {
            match measured {
                Some(measured) => cells.extend([
                    format!("{:.0}", measured.per_second()),
                    milliseconds(measured.percentile(50.0)),
                    milliseconds(measured.percentile(99.0)),
                ]),
                None => cells.extend(["-"; 3].map(str::to_owned)),
            }
        }
        cells.push(match (&our, &their) {
            (Some(our), Some(their)) => format!("{:.2}", our.per_second() / their.per_second()),
            _ => "-".to_owned(),
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1_000.0)
}
