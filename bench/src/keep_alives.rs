//! Ten thousand clients that keep a lease each: renewals a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args as ClapArgs;
use comfy_table::{CellAlignment, Table, presets};
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::servers::{Kind, Servers, find};

const MEMBERS: usize = 3;
const CONNECTIONS: usize = 100;
const TTL_SECONDS: i64 = 600;

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// The etcd to compare with [default: $ETCD35_DIR/etcd, what tests/run unpacked, or the one on the PATH]
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Our agent [default: beside this program, built if it is not there]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// How many clients, each with a lease and a stream of its own
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Where the members keep their data while it runs [default: beside this program]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let ours = measure(Kind::Agent, find(Kind::Agent, args.agent.as_deref())?, args).await?;
    let theirs = measure(Kind::Etcd, find(Kind::Etcd, args.etcd.as_deref())?, args).await?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["CLIENTS", "AGENT /s", "ETCD /s", "AGENT/ETCD"]);
    table.add_row([
        args.clients.to_string(),
        format!("{ours:.0}"),
        format!("{theirs:.0}"),
        format!("{:.2}", ours / theirs),
    ]);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    Ok(())
}

/// Renewals answered a second.
#[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
async fn measure(kind: Kind, program: PathBuf, args: &Args) -> anyhow::Result<f64> {
    let servers = Servers::start(kind, &program, MEMBERS, args.dir.as_deref())
        .await
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut channels = Vec::new();
    for endpoint in servers.endpoints().await?.iter().cycle().take(CONNECTIONS) {
        channels.push(Channel::from_shared(endpoint.clone())?.connect().await?);
    }
    eprintln!("{}: granting {} leases ...", kind.name(), args.clients);
    let mut clients = JoinSet::new();
    for client in 0..args.clients {
        let channel = channels[client % CONNECTIONS].clone();
        clients.spawn(async move {
            let mut lease = LeaseClient::new(channel);
            let id = i64::try_from(client)? + 1;
            let grant = LeaseGrantRequest { id, ttl: TTL_SECONDS };
            lease.lease_grant(grant).await?;
            anyhow::Ok((lease, id))
        });
    }
    let mut granted = Vec::new();
    while let Some(client) = clients.join_next().await {
        granted.push(client??);
    }
    eprintln!("{}: keeping them ...", kind.name());
    let answered = Arc::new(AtomicU64::new(0));
    let mut keepers = JoinSet::new();
    for (lease, id) in granted {
        keepers.spawn(keep(lease, id, answered.clone()));
    }
    // Every stream is open, and has had an answer, before it counts.
    while answered.load(Ordering::Relaxed) < args.clients as u64 {
        if let Some(ended) = keepers.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (before, started) = (answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let renewals = answered.load(Ordering::Relaxed) - before;
    Ok(renewals as f64 / started.elapsed().as_secs_f64())
}

/// Renews a lease as soon as the last renewal is answered.
async fn keep(mut client: LeaseClient<Channel>, id: i64, answered: Arc<AtomicU64>) -> anyhow::Result<()> {
    let (requests, outbound) = mpsc::channel(1);
    requests.send(LeaseKeepAliveRequest { id }).await?;
    let mut answers = client
        .lease_keep_alive(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    loop {
        let answer = answers.message().await?.context("a stream ended")?;
        anyhow::ensure!(answer.ttl > 0, "lease {id} is gone");
        answered.fetch_add(1, Ordering::Relaxed);
        requests.send(LeaseKeepAliveRequest { id }).await?;
    }
}
