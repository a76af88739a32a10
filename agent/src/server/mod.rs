//! The composition root: opens, connects and starts everything of `agent run`, in one place and in order, and
//! stops it in the opposite order. Every long-lived task is spawned here.

mod authority;
mod gate;
mod handshakes;
mod joiners;
mod listener;
mod local;
mod opening;
mod places;
mod plaintext;
mod refusal;
mod revocations;
mod tls;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use gate::Gate;
use proto::peer::Description;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::api::{self, ApiContext, ApiOptions};
use crate::backup::{BackupTask, Keeper, Store};
use crate::config::RunConfig;
use crate::fence::GuardClient;
use crate::incus::Incus;
use crate::node::bootstrap::{self, NodeOptions, NodeTasks, Origin};
use crate::node::{AutoCompaction, Node, RaftView, SpaceTask};
use crate::operator::{Operator, Planner};
use crate::peer::describe::Describer;
use crate::peer::{self, Dialer, Hosts, JoinOptions, JoinServer};
use crate::reconciler::{
    Alive, Boot, Fencer, Hands, Inventory, Mover, Preview, Reconciler, ReconcilerOptions, Scheduler,
};
use crate::service::{HostMachine, Manager, ManagerChoice, Supervisor};
use crate::shutdown::Shutdown;
use crate::telemetry::{LeaderWatch, Metrics, Passes};
use crate::tls::own::OwnTls;
use crate::tls::peer::PeerTls;
use crate::tls::revoked::Revoked;
use crate::tls::server::ServerTls;
use crate::tunnel::Tunnels;
use joiners::Joiners;
use listener::Port;
use local::LocalPort;
use revocations::RevocationTask;
use tls::Security;
use trust::TrustTask;

/// Runs one member until it is told to stop, or must.
///
/// # Errors
/// When it cannot start, or its disk or Raft fails: the text says what to do.
pub async fn run(config: RunConfig) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let peer_tls = match &config.peer_tls {
        Some(files) => Some(PeerTls::load(files, &config.args.name)?),
        None => None,
    };
    let mut background = JoinSet::new();
    if let Some(tls) = &peer_tls {
        background.spawn(tls.renewal().run());
    }
    let (revocations, revoked) = Revoked::channel();
    let dialer = Dialer::new(peer_tls.clone(), config.args.allow_plaintext).heeding(revoked.clone());
    // Ports first: a port that is taken is found before anything is opened or changed.
    let joiners = Joiners::new();
    let mut peer_ports = Vec::new();
    for url in &config.listen_peer {
        let tls = peer_tls.clone().filter(|_| url.is_tls());
        peer_ports.push(Port {
            listener: listener::bind("--listen-peer-urls", url).await?,
            security: tls.map(|tls| Security::Peers(tls, joiners.clone(), revoked.clone())),
        });
    }
    let mut client_ports = Vec::new();
    let mut server_tls = None;
    for url in &config.listen_client {
        let security = match &config.client_tls {
            Some(files) if url.is_tls() => {
                let tls = ServerTls::load(files)?;
                server_tls = Some(tls.clone());
                Some(Security::Clients(tls, revoked.clone()))
            }
            _ => None,
        };
        client_ports.push(Port {
            listener: listener::bind("--listen-client-urls", url).await?,
            security,
        });
    }

    let metrics = Metrics::new();
    let options = node_options(&config, dialer, &metrics);
    let origin = bootstrap::prepare(&options)?;

    let clients = Shutdown::new();
    let peers = Shutdown::new();
    // Served from the start: members that start together find out from each other who they are.
    let describer = Describer::new(description(&origin));
    let (peer_gate, client_gate) = (Gate::default(), Gate::default());
    let peer_router = Routes::new(describer.service())
        .into_axum_router()
        .fallback_service(peer_gate.router());
    let serving = serve_all(peer_ports, &peer_router, &peers, listener::DRAIN_PEERS);
    let mut client_serving = serve_all(
        client_ports,
        &client_gate.router(),
        &clients,
        listener::DRAIN_CLIENTS,
    );

    let identity = match origin {
        Origin::Resumed(identity) => identity,
        Origin::Empty(candidate) => tokio::select! {
            identity = candidate.search(config.election_timeout / 2) => identity,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        },
    };
    let (node, tasks) = bootstrap::start(options.clone(), identity).await?;
    tracing::info!(
        name = node.name(),
        member = format!("{:x}", node.member_id()),
        cluster = format!("{:x}", node.cluster_id()),
        data_dir = %config.data_dir.display(),
        "member started"
    );

    serve_local(&config, &client_gate.router(), &clients, &mut client_serving);
    let mut background = JoinSet::new();
    let incus = connect_incus(&config)?;
    let (tunnel_task, tunnels) = Tunnels::new();
    let hands = incus
        .clone()
        .map(|incus| hands(incus, tunnels, &config, &mut background));
    let planner = hands.clone().map(|hands| {
        let options = reconciler_options(&node, &config);
        Arc::new(Preview::new(node.clone(), hands, &options)) as Arc<dyn Planner>
    });
    let keeper = hands
        .as_ref()
        .map(|hands| Arc::new(keeper(&node, hands, &config)));
    let operator = Operator::new(
        node.name(),
        node.cluster_id(),
        incus.clone(),
        planner,
        keeper.clone(),
        hands
            .as_ref()
            .map(|hands| hands.attended.clone())
            .unwrap_or_default(),
    );
    let operator = Arc::new(operator);
    let hosts = Hosts::new(node.clone(), operator);
    background.spawn(tunnel_task.run(hosts.clone(), clients.clone()));
    let peer_routes = peer::server::routes(&node, &hosts, peer_tls.clone(), config.secrets());
    peer_gate.open(peer_routes.into_axum_router());
    if let Some(tls) = &peer_tls {
        let joining = JoinServer::new(node.clone(), tls.clone(), join_options(&config));
        joiners.open(&node, Routes::new(joining.service()).into_axum_router());
        background.spawn(TrustTask::new(node.clone(), tls.clone(), &config).run());
    }
    background.spawn(RevocationTask::new(node.store().clone(), revocations).run());
    describer.set_node(&node);
    let removed = options.removed(node.member_id()).to_string();
    let failure = spawn_node_tasks(tasks, removed, &config, &clients, &mut background);
    spawn_maintenance(&node, &config, &clients, &mut background);

    let own_tls = peer_tls.map(|peer| OwnTls {
        peer,
        server: server_tls,
    });
    let backups = keeper.map(|keeper| BackupTask::new(node.clone(), keeper, hosts.clone()));
    let passes = metrics.passes();
    let context = api_context(&node, hosts.clone(), own_tls, &config, metrics, &clients);
    background.spawn(LeaderWatch::new(context.metrics.clone(), node.raft_view(), clients.clone()).run());
    client_gate.open(api::router(context));
    background.spawn(announce(node.raft_view()));
    // A leader without an Incus of its own decides for the others.
    background.spawn(Scheduler::new(node.clone()).run(clients.clone()));
    let mut acting = spawn_reconciler(&node, hands, hosts, &config, passes, &clients)?;
    if let Some(backups) = backups {
        acting.spawn(backups.run(clients.clone()));
    }

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        reason = failed(failure) => Err(anyhow!(reason)),
    };
    match &outcome {
        Ok(()) => {
            tracing::info!("stopping");
            node.announce_stop();
            node.hand_over_leadership().await;
        }
        Err(reason) => tracing::error!("{reason}; this member stops"),
    }
    clients.cancel();
    wind_up(client_serving).await;
    // While the peers are still served: what this host has to say last is replicated through them, if they are
    // there.
    let mut view = node.raft_view();
    let no_leader = async move { view.wait_for(|view| view.leader == 0).await.map(drop) };
    wind_up_unless(acting, no_leader).await;
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

fn node_options(config: &RunConfig, dialer: Dialer, metrics: &Metrics) -> NodeOptions {
    NodeOptions {
        name: config.args.name.clone(),
        data_dir: config.data_dir.clone(),
        initial_cluster: config.initial_cluster.clone(),
        advertise_peer_urls: config.advertise_peer_urls.clone(),
        advertise_client_urls: config.advertise_client_urls.clone(),
        new_cluster: config.args.initial_cluster_state == crate::config::ClusterState::New,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        lease_checkpoint_interval: Duration::from_secs(config.args.lease_checkpoint_interval),
        snapshot_count: config.args.snapshot_count,
        quota_bytes: config.quota_bytes,
        stopwatch: metrics.stopwatch(),
        dialer,
    }
}

fn join_options(config: &RunConfig) -> JoinOptions {
    JoinOptions {
        cluster_token: config.args.initial_cluster_token.clone(),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
    }
}

/// What is told to the others before there is a node.
fn description(origin: &Origin) -> Description {
    match origin {
        Origin::Resumed(identity) => Description {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            ..Description::default()
        },
        Origin::Empty(candidate) => Description {
            state: proto::peer::description::State::Empty.into(),
            cluster_id: candidate.identity.cluster_id,
            member_id: candidate.identity.member_id,
            ..Description::default()
        },
    }
}

fn serve_all(ports: Vec<Port>, router: &Router, shutdown: &Shutdown, drain: Duration) -> JoinSet<()> {
    let mut serving = JoinSet::new();
    for port in ports {
        serving.spawn(listener::serve(port, router.clone(), shutdown.clone(), drain));
    }
    serving
}

/// The way in for this machine's root. Without it the member does all else.
fn serve_local(config: &RunConfig, router: &Router, shutdown: &Shutdown, serving: &mut JoinSet<()>) {
    match LocalPort::bind(&config.data_dir) {
        Ok(port) => {
            tracing::debug!(path = %port.path().display(), "local socket");
            serving.spawn(port.serve(router.clone(), shutdown.clone(), listener::DRAIN_CLIENTS));
        }
        Err(error) => {
            tracing::warn!(data_dir = %config.data_dir.display(), %error, "no local socket for this machine's root");
        }
    }
}

/// Spawns what keeps the member going; the receiver tells when the log or Raft has failed, or the member was
/// removed.
fn spawn_node_tasks(
    tasks: NodeTasks,
    removed: String,
    config: &RunConfig,
    shutdown: &Shutdown,
    background: &mut JoinSet<()>,
) -> watch::Receiver<Option<String>> {
    let (report, failure) = watch::channel(None);
    let removal_report = report.clone();
    background.spawn(async move {
        if tasks.removal.run().await {
            removal_report.send_replace(Some(removed));
        }
    });
    background.spawn(tasks.membership.run());
    if let Some(form) = tasks.form {
        background.spawn(form.run());
    }
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
    background.spawn(tasks.hash.run(shutdown.clone()));
    background.spawn(tasks.corruption.run(config.corrupt_check_time, shutdown.clone()));
    failure
}

/// What keeps the store within its bounds.
fn spawn_maintenance(node: &Node, config: &RunConfig, shutdown: &Shutdown, background: &mut JoinSet<()>) {
    background.spawn(SpaceTask::new(node.clone(), config.data_dir.clone()).run(shutdown.clone()));
    if let Some(retention) = config.auto_compaction {
        background.spawn(AutoCompaction::new(node.clone(), retention).run(shutdown.clone()));
    }
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

fn api_context(
    node: &Node,
    hosts: Hosts,
    tls: Option<OwnTls>,
    config: &RunConfig,
    metrics: Metrics,
    shutdown: &Shutdown,
) -> ApiContext {
    ApiContext::new(
        node.clone(),
        hosts,
        tls,
        ApiOptions {
            max_request_bytes: config.args.max_request_bytes,
            max_txn_ops: config.args.max_txn_ops,
            progress_notify_interval: Duration::from_secs(config.args.watch_progress_notify_interval),
            quota_bytes: config.quota_bytes,
            tokens: config.tokens.clone(),
            secrets: config.secrets(),
            bcrypt_cost: config.args.bcrypt_cost,
            max_client_bytes: count(config.args.limits.max_client_bytes),
            max_client_watches: count(config.args.limits.max_client_watches),
            max_leases: count(config.args.limits.max_leases),
            ..ApiOptions::default()
        },
        metrics,
        shutdown.clone(),
    )
}

/// Flags are within what any machine counts to.
fn count(flag: u64) -> usize {
    usize::try_from(flag).unwrap_or(usize::MAX)
}

/// The Incus of this host; none where the member is a store only.
fn connect_incus(config: &RunConfig) -> Result<Option<Incus>> {
    let socket = config.incus_socket.as_deref();
    socket
        .map(|socket| Incus::connect(socket).context("--incus-socket"))
        .transpose()
}

fn reconciler_options(node: &Node, config: &RunConfig) -> ReconcilerOptions {
    ReconcilerOptions {
        host: node.name().to_owned(),
        provider: config.args.provider.clone(),
        addresses: config.advertise_client_urls.clone(),
    }
}

/// What this host is changed with.
fn hands(incus: Incus, tunnels: Tunnels, config: &RunConfig, background: &mut JoinSet<()>) -> Hands {
    let folder = config.data_dir.join("services");
    let manager = match config.args.service_manager.on_this_host() {
        ManagerChoice::Systemd => Some(Manager::Systemd),
        ManagerChoice::Supervised | ManagerChoice::Auto => {
            let (supervisor, supervised) = Supervisor::new(&folder.join("supervised"));
            // Until the very end: the last steps that are under way may need it.
            background.spawn(supervisor.run(Shutdown::new()));
            Some(Manager::Supervised(supervised))
        }
        ManagerChoice::None => None,
    };
    let host = HostMachine::new(&config.args.host_root, None);
    let ledger = folder.join("ledger");
    Hands::new(incus, host, manager, &ledger, tunnels, config.secrets())
}

/// What stops this host's fenced instances in time.
fn guard(hands: &Hands, config: &RunConfig) -> GuardClient {
    let by_systemd = matches!(hands.manager, Some(Manager::Systemd));
    GuardClient::new(config.data_dir.join("fence"), hands.incus.socket(), by_systemd)
}

/// What keeps backups of this host.
fn keeper(node: &Node, hands: &Hands, config: &RunConfig) -> Keeper {
    let store = Store::open(&config.data_dir.join("backups"));
    let (board, attended) = (hands.board.clone(), hands.attended.clone());
    Keeper::new(hands.incus.clone(), node.name(), store, board, attended)
}

/// What acts on this host for the cluster.
fn spawn_reconciler(
    node: &Node,
    hands: Option<Hands>,
    hosts: Hosts,
    config: &RunConfig,
    passes: Passes,
    shutdown: &Shutdown,
) -> Result<JoinSet<()>> {
    let mut acting = JoinSet::new();
    let Some(hands) = hands else {
        tracing::info!("no Incus: a store only");
        return Ok(acting);
    };
    let boot = Boot::notice(&config.data_dir, hands.host.boot(), config.args.on_restart)?;
    let options = reconciler_options(node, config);
    let incus = hands.incus.clone();
    let fencer = Fencer::new(node.clone(), guard(&hands, config));
    let reconciler = Reconciler::new(node.clone(), hands, fencer.held(), boot, &options, passes);
    acting.spawn(fencer.run(shutdown.clone()));
    let received = config.data_dir.join("moves");
    let mover = Mover::new(node.clone(), incus.clone(), hosts, reconciler.moves(), received);
    acting.spawn(reconciler.run(shutdown.clone()));
    acting.spawn(mover.run(shutdown.clone()));
    acting.spawn(Inventory::new(node.clone(), incus.clone(), &options).run(shutdown.clone()));
    acting.spawn(Alive::new(node.clone(), incus, options).run(shutdown.clone()));
    Ok(acting)
}

/// As [`wind_up`], and not at all once there is nothing to wait for.
async fn wind_up_unless(tasks: JoinSet<()>, pointless: impl Future) {
    tokio::select! {
        () = wind_up(tasks) => {}
        _ = pointless => {}
    }
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
