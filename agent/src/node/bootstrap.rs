//! Opens what is on disk, starts Raft on it, and forms the cluster where there is nothing yet.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use proto::replicated::{PublishMember, request::Op};
use raft_store::wal::WalOptions;
use raft_store::{LogStore, OpenLogError, OpenStoreError, StateMachine, StoreOptions};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use super::corruption::{self, CorruptionTask, HashTask};
use super::forward::Forwarder;
use super::identity::{InitialCluster, InitialClusterError};
use super::leases::LeaseTask;
use super::read_index::ReadIndexTask;
use super::space::Space;
use super::view::ViewTask;
use super::{Inner, Node, Raft, Timeouts, leases, read_index};
use crate::peer::PeerTimeouts;
use crate::peer::client::PeerNetwork;

/// Proposals of one member's clients under way at once.
const PROPOSALS_IN_FLIGHT: usize = 16_384;

const SEGMENT_BYTES: u64 = 64 << 20;
const LOG_CACHE_BYTES: usize = 64 << 20;
const STORE_CACHE_BYTES: u64 = 64 << 20;
const WATCH_BUFFER_EVENTS: usize = 4096;

/// What a member needs to start.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub name: String,
    pub data_dir: PathBuf,
    pub initial_cluster: InitialCluster,
    pub advertise_peer_urls: Vec<String>,
    pub advertise_client_urls: Vec<String>,
    /// Whether an empty data directory may become a member of a new cluster.
    pub new_cluster: bool,
    pub heartbeat_interval: Duration,
    /// As etcd's flag: about how long the cluster is without a leader after its leader is lost.
    pub election_timeout: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    /// Above which live data takes no puts; 0: no quota.
    pub quota_bytes: u64,
}

/// Why a member does not start. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    InitialCluster(#[from] InitialClusterError),
    #[error("data directory {path}: {source}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] OpenLogError),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("timeouts: {0}")]
    Timeouts(String),
    #[error(
        "--initial-cluster-state existing, but {0} holds no member's data; a member that lost its data joins under a new id"
    )]
    NothingToResume(PathBuf),
    #[error(
        "{0} holds a store but no log: a member that lost its log has forgotten its votes, and must join under a new id"
    )]
    LogLost(PathBuf),
    #[error("raft: {0}")]
    Raft(String),
}

/// The member's long-lived tasks, for the server to spawn.
#[derive(Debug)]
pub struct NodeTasks {
    pub view: ViewTask,
    pub read_index: ReadIndexTask,
    pub leases: LeaseTask,
    pub publish: PublishTask,
    pub hash: HashTask,
    pub corruption: CorruptionTask,
    /// Changes to the reason when the log can no longer be written.
    pub log_failure: tokio::sync::watch::Receiver<Option<String>>,
}

/// Opens the data directory and starts Raft.
///
/// # Errors
/// See [`StartError`].
pub async fn start(options: NodeOptions) -> Result<(Node, NodeTasks), StartError> {
    let identity = options
        .initial_cluster
        .identity(&options.name, &options.advertise_peer_urls)?;
    std::fs::create_dir_all(&options.data_dir).map_err(|source| StartError::DataDir {
        path: options.data_dir.clone(),
        source,
    })?;
    let wal_dir = options.data_dir.join("wal");
    let store_dir = options.data_dir.join("store");
    if !LogStore::exists(&wal_dir) {
        if store_dir.exists() {
            return Err(StartError::LogLost(options.data_dir));
        }
        if !options.new_cluster {
            return Err(StartError::NothingToResume(options.data_dir));
        }
    }
    let wal = WalOptions {
        dir: wal_dir,
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: LOG_CACHE_BYTES,
    };
    let log = LogStore::open(wal, identity)?;
    let (state_machine, store) = StateMachine::open(StoreOptions {
        dir: store_dir,
        cache_bytes: STORE_CACHE_BYTES,
        watch_buffer_events: WATCH_BUFFER_EVENTS,
    })?;
    let config = raft_config(&options)?;
    let peer_timeouts = PeerTimeouts {
        connect: options.election_timeout / 2,
        keep_alive: options.election_timeout * 2,
    };
    let network = PeerNetwork::new(identity.cluster_id, peer_timeouts);
    let log_failure = log.failed();
    let raft = Raft::new(identity.member_id, config, network, log, state_machine)
        .await
        .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
    if options.new_cluster
        && !raft
            .is_initialized()
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?
    {
        form_cluster(&raft, &options.initial_cluster).await?;
    }

    let (view_task, view) = ViewTask::new(raft.clone(), options.election_timeout);
    let (read_rounds, waiters) = mpsc::channel(read_index::WAITING);
    let (lease_commands, commands) = mpsc::channel(leases::QUEUED);
    let (hashes, found_hashes) = mpsc::channel(corruption::QUEUED);
    let node = Node {
        inner: Arc::new(Inner {
            identity,
            name: options.name.clone(),
            timeouts: Timeouts {
                election: options.election_timeout,
                // etcd's own: disk and network time for one request, and two elections.
                request: Duration::from_secs(5) + 2 * options.election_timeout,
            },
            raft,
            store,
            view,
            forwarder: Forwarder::new(identity.cluster_id, peer_timeouts),
            read_rounds,
            leases: lease_commands,
            in_flight: Semaphore::new(PROPOSALS_IN_FLIGHT),
            space: Space::new(options.quota_bytes),
            hashes,
        }),
    };
    let tasks = NodeTasks {
        view: view_task,
        read_index: ReadIndexTask::new(node.clone(), waiters),
        leases: LeaseTask::new(node.clone(), commands),
        publish: PublishTask {
            node: node.clone(),
            client_urls: options.advertise_client_urls,
        },
        hash: HashTask::new(node.clone()),
        corruption: CorruptionTask::new(node.clone(), found_hashes),
        log_failure,
    };
    Ok((node, tasks))
}

/// etcd elects one to two election timeouts after the leader falls silent. openraft waits for the leader's lease
/// and then for a random time; both together stay within one election timeout here.
fn raft_config(options: &NodeOptions) -> Result<Arc<Config>, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election = millis(options.election_timeout);
    let heartbeat = millis(options.heartbeat_interval);
    if heartbeat == 0 || election < heartbeat.saturating_mul(5) {
        return Err(StartError::Timeouts(format!(
            "--election-timeout {election} ms must be at least 5 times --heartbeat-interval {heartbeat} ms"
        )));
    }
    let lease = election / 2;
    let config = Config {
        cluster_name: format!("{:x}", options.initial_cluster.cluster_id),
        heartbeat_interval: heartbeat,
        election_timeout_min: election * 3 / 10,
        election_timeout_max: lease,
        // One that is cut off in one direction must give way: openraft asks for at least two leases.
        quorum_loss_probe_interval: Some(lease * 2),
        install_snapshot_timeout: 10 * 60 * 1000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_count),
        replication_lag_threshold: options.snapshot_count.saturating_mul(2).max(1),
        // A member that was away for a moment is caught up from the log, not by a snapshot.
        max_in_snapshot_log_to_keep: options.snapshot_count / 2,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        // sled is not synced on every apply: what a restarted leader applied may be older than what it answered.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    let config = config
        .validate()
        .map_err(|error| StartError::Timeouts(error.to_string()))?;
    Ok(Arc::new(config))
}

/// Every member proposes the same first membership; Raft makes one of it.
async fn form_cluster(raft: &Raft, cluster: &InitialCluster) -> Result<(), StartError> {
    match raft.initialize(cluster.members.clone()).await {
        // Not allowed: another member was faster and this one has its log already.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Raft(error.to_string())),
    }
}

/// Tells the cluster this member's name and client URLs, until it knows them.
#[derive(Debug)]
pub struct PublishTask {
    node: Node,
    client_urls: Vec<String>,
}

impl PublishTask {
    /// Completes when the cluster knows.
    pub async fn run(self) {
        const PAUSE: Duration = Duration::from_millis(500);
        loop {
            let known = self.node.store().member_attributes(self.node.member_id());
            if known
                .is_some_and(|known| known.name == self.node.name() && known.client_urls == self.client_urls)
            {
                return;
            }
            let publish = PublishMember {
                id: self.node.member_id(),
                name: self.node.name().to_owned(),
                client_urls: self.client_urls.clone(),
            };
            match self.node.propose(Op::PublishMember(publish)).await {
                Ok(_) => return,
                Err(super::NodeError::Stopped) => return,
                // No quorum yet, most often: the others are still to be started.
                Err(error) => tracing::debug!(%error, "not published yet"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
