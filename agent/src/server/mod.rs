//! The composition root: opens, connects and starts everything of `agent run`, in one place and in order, and
//! stops it in the opposite order. Every long-lived task is spawned here.

mod authority;
mod listener;
mod tls;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{self, ApiContext, ApiOptions};
use crate::config::RunConfig;
use crate::incus::Incus;
use crate::node::bootstrap::{self, NodeOptions, NodeTasks};
use crate::node::{Node, RaftView};
use crate::peer;
use crate::reconciler::{Alive, Reconciler, ReconcilerOptions};
use crate::shutdown::Shutdown;
use crate::telemetry::LeaderWatch;
use listener::Port;
use tls::Certificates;

/// Runs one member until it is told to stop, or must.
///
/// # Errors
/// When it cannot start, or its disk or Raft fails: the text says what to do.
pub async fn run(config: RunConfig) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Ports first: a port that is taken is found before anything is opened or changed.
    let mut peer_ports = Vec::new();
    for url in &config.listen_peer {
        peer_ports.push(Port {
            listener: listener::bind("--listen-peer-urls", url).await?,
            certificates: None,
        });
    }
    let mut client_ports = Vec::new();
    for url in &config.listen_client {
        let certificates = match &config.client_tls {
            Some(files) if url.is_tls() => Some(Certificates::load(files)?),
            _ => None,
        };
        client_ports.push(Port {
            listener: listener::bind("--listen-client-urls", url).await?,
            certificates,
        });
    }

    let (node, tasks) = bootstrap::start(node_options(&config)).await?;
    tracing::info!(
        name = node.name(),
        member = format!("{:x}", node.member_id()),
        cluster = format!("{:x}", node.cluster_id()),
        data_dir = %config.data_dir.display(),
        "member started"
    );

    let clients = Shutdown::new();
    let peers = Shutdown::new();
    let mut serving = JoinSet::new();
    let mut background = JoinSet::new();
    let failure = spawn_node_tasks(tasks, &mut background);

    let peer_router = peer::server::routes(&node).into_axum_router();
    for port in peer_ports {
        serving.spawn(listener::serve(
            port,
            peer_router.clone(),
            peers.clone(),
            listener::DRAIN_PEERS,
        ));
    }
    let context = api_context(&node, &config, &clients);
    background.spawn(LeaderWatch::new(context.metrics.clone(), node.raft_view(), clients.clone()).run());
    let client_router = api::router(context);
    let mut client_serving = JoinSet::new();
    for port in client_ports {
        client_serving.spawn(listener::serve(
            port,
            client_router.clone(),
            clients.clone(),
            listener::DRAIN_CLIENTS,
        ));
    }
    background.spawn(announce(node.raft_view()));
    let acting = spawn_reconciler(&node, &config, &clients)?;

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        reason = failed(failure) => Err(anyhow!(reason)),
    };
    match &outcome {
        Ok(()) => {
            tracing::info!("stopping");
            node.hand_over_leadership().await;
        }
        Err(reason) => tracing::error!("{reason}; this member stops"),
    }
    clients.cancel();
    wind_up(client_serving).await;
    // While the peers are still served: what this host has to say last is replicated through them.
    wind_up(acting).await;
    if tokio::time::timeout(Duration::from_secs(5), node.raft().shutdown())
        .await
        .is_err()
    {
        tracing::warn!("raft did not stop in time");
    }
    peers.cancel();
    wind_up(serving).await;
    background.shutdown().await;
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

fn node_options(config: &RunConfig) -> NodeOptions {
    NodeOptions {
        name: config.args.name.clone(),
        data_dir: config.data_dir.clone(),
        initial_cluster: config.initial_cluster.clone(),
        advertise_peer_urls: config.advertise_peer_urls.clone(),
        advertise_client_urls: config.advertise_client_urls.clone(),
        new_cluster: config.args.initial_cluster_state == crate::config::ClusterState::New,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_count: config.args.snapshot_count,
        quota_bytes: config.quota_bytes,
    }
}

/// Spawns what keeps the member going; the receiver tells when the log or Raft has failed.
fn spawn_node_tasks(tasks: NodeTasks, background: &mut JoinSet<()>) -> watch::Receiver<Option<String>> {
    let (report, failure) = watch::channel(None);
    let raft_report = report.clone();
    background.spawn(async move {
        if let Some(reason) = tasks.view.run().await {
            raft_report.send_if_modified(|failure| {
                let first = failure.is_none();
                failure.get_or_insert(reason);
                first
            });
        }
    });
    let mut log_failure = tasks.log_failure;
    background.spawn(async move {
        let Ok(reason) = log_failure
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone())
        else {
            return;
        };
        // The log's own words beat Raft's: they name the file and the way out.
        report.send_replace(reason);
    });
    background.spawn(tasks.read_index.run());
    background.spawn(tasks.leases.run());
    background.spawn(tasks.publish.run());
    failure
}

async fn failed(mut failure: watch::Receiver<Option<String>>) -> String {
    /// Raft often notices a failed disk a moment before the log says why.
    const LET_THE_CAUSE_ARRIVE: Duration = Duration::from_millis(100);
    match failure.wait_for(Option::is_some).await {
        Ok(_) => {}
        Err(_) => std::future::pending().await,
    }
    tokio::time::sleep(LET_THE_CAUSE_ARRIVE).await;
    let reason = failure.borrow().clone();
    reason.unwrap_or_default()
}

/// etcd's own words, which scripts and supervisors wait for.
async fn announce(mut view: watch::Receiver<RaftView>) {
    let mut leader = 0;
    loop {
        let changed = view
            .wait_for(|view| view.leader != leader)
            .await
            .map(|view| *view);
        let Ok(view) = changed else { return };
        if view.leader == 0 {
            tracing::warn!(term = view.term, "no leader");
        } else {
            tracing::info!(
                leader = format!("{:x}", view.leader),
                term = view.term,
                "leader known"
            );
            if leader == 0 {
                tracing::info!("ready to serve client requests");
            }
        }
        leader = view.leader;
    }
}

fn api_context(node: &Node, config: &RunConfig, shutdown: &Shutdown) -> ApiContext {
    ApiContext::new(
        node.clone(),
        ApiOptions {
            max_request_bytes: config.args.max_request_bytes,
            max_txn_ops: config.args.max_txn_ops,
            progress_notify_interval: Duration::from_secs(config.args.watch_progress_notify_interval),
            quota_bytes: config.quota_bytes,
            ..ApiOptions::default()
        },
        shutdown.clone(),
    )
}

/// What acts on this host for the cluster.
fn spawn_reconciler(node: &Node, config: &RunConfig, shutdown: &Shutdown) -> Result<JoinSet<()>> {
    let mut acting = JoinSet::new();
    let Some(socket) = &config.incus_socket else {
        tracing::info!("no Incus: a store only");
        return Ok(acting);
    };
    let incus = Incus::connect(socket).context("--incus-socket")?;
    let options = ReconcilerOptions {
        host: node.name().to_owned(),
        provider: config.args.provider.clone(),
        addresses: config.advertise_client_urls.clone(),
    };
    acting.spawn(Reconciler::new(node.clone(), incus.clone(), &options).run(shutdown.clone()));
    acting.spawn(Alive::new(node.clone(), incus, options).run(shutdown.clone()));
    Ok(acting)
}

/// Waits for tasks that were told to stop, and aborts those that take too long.
async fn wind_up(mut tasks: JoinSet<()>) {
    const PATIENCE: Duration = Duration::from_secs(3);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tasks.shutdown().await;
    }
}

/// The runtime for `agent run`.
///
/// # Errors
/// As for [`run`].
pub fn block_on(config: RunConfig) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("agent")
        .build()
        .context("cannot start the runtime")?
        .block_on(run(config))
}
