//! Opens what is on disk, and starts Raft on it.
//!
//! Who the member is comes first: from its data directory ([`prepare`]), or where that is empty from the others
//! ([`Candidate::search`]).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use proto::replicated::{PublishMember, request::Op};
use raft_store::wal::{Identity, WalOptions};
use raft_store::{LogStore, OpenLogError, OpenStoreError, StateMachine, Stopwatch, StoreOptions};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use super::corruption::{self, CorruptionTask, HashTask};
use super::form::FormTask;
use super::forward::Forwarder;
use super::identity::{InitialCluster, InitialClusterError};
use super::join::Candidate;
use super::leases::LeaseTask;
use super::member_task::{self, MembershipTask};
use super::read_index::ReadIndexTask;
use super::removal::RemovalTask;
use super::space::Space;
use super::view::ViewTask;
use super::{Inner, Node, Raft, Timeouts, leases, read_index};
use crate::peer::client::PeerNetwork;
use crate::peer::{Dialer, PeerTimeouts};

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
    /// Between two checkpoints of what a lease has left; leases that end sooner have none. Zero: no checkpoints.
    pub lease_checkpoint_interval: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    /// Above which live data takes no puts; 0: no quota.
    pub quota_bytes: u64,
    /// What the disk's work is measured with.
    pub stopwatch: Arc<dyn Stopwatch>,
    /// How the other members are reached.
    pub dialer: Dialer,
}

impl NodeOptions {
    /// What a member that was removed says, whenever it learns of it.
    #[must_use]
    pub fn removed(&self, id: u64) -> StartError {
        StartError::Removed {
            id,
            path: self.data_dir.clone(),
            name: self.name.clone(),
            urls: self.advertise_peer_urls.join(","),
        }
    }
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
        "{path} belongs to cluster {found:x}, and --initial-cluster and --initial-cluster-token make cluster \
         {expected:x}; if the members' URLs have changed since, say --initial-cluster-state existing"
    )]
    OtherCluster {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error(
        "{path} holds a store but no log: this member lost its log, and its votes with it. Remove {path}, and type \
         on another host: agentctl member replace {name}"
    )]
    LogLost { path: PathBuf, name: String },
    /// The member was removed from its cluster, for good.
    #[error(
        "member {id:x} has been permanently removed from the cluster. To bring this host back, remove {path} and type \
         on another host: agentctl member add {name} --peer-urls={urls}"
    )]
    Removed {
        id: u64,
        path: PathBuf,
        name: String,
        urls: String,
    },
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
    pub membership: MembershipTask,
    pub removal: RemovalTask,
    /// Where this member may be the one that forms a new cluster.
    pub form: Option<FormTask>,
    pub hash: HashTask,
    pub corruption: CorruptionTask,
    /// Changes to the reason when the log can no longer be written.
    pub log_failure: tokio::sync::watch::Receiver<Option<String>>,
}

/// Whose data directory it is.
#[derive(Debug)]
pub enum Origin {
    /// There is data: the member that it belongs to.
    Resumed(Identity),
    /// It is empty.
    Empty(Candidate),
}

/// Looks at the data directory, and changes nothing in it.
///
/// # Errors
/// See [`StartError`].
pub fn prepare(options: &NodeOptions) -> Result<Origin, StartError> {
    let identity = options
        .initial_cluster
        .identity(&options.name, &options.advertise_peer_urls)?;
    let path = &options.data_dir;
    match LogStore::identity(&wal_dir(options))? {
        Some(found) if options.new_cluster && found.cluster_id != identity.cluster_id => {
            Err(StartError::OtherCluster {
                path: path.clone(),
                found: found.cluster_id,
                expected: identity.cluster_id,
            })
        }
        Some(found) => Ok(Origin::Resumed(found)),
        None if store_dir(options).exists() => Err(StartError::LogLost {
            path: path.clone(),
            name: options.name.clone(),
        }),
        None => Ok(Origin::Empty(Candidate {
            name: options.name.clone(),
            initial_cluster: options.initial_cluster.clone(),
            identity,
            peer_urls: options.advertise_peer_urls.clone(),
            may_form: options.new_cluster,
            dialer: options.dialer.clone(),
        })),
    }
}

fn wal_dir(options: &NodeOptions) -> PathBuf {
    options.data_dir.join("wal")
}

fn store_dir(options: &NodeOptions) -> PathBuf {
    options.data_dir.join("store")
}

/// Opens the data directory as this member's and starts Raft.
///
/// # Errors
/// See [`StartError`].
pub async fn start(options: NodeOptions, identity: Identity) -> Result<(Node, NodeTasks), StartError> {
    std::fs::create_dir_all(&options.data_dir).map_err(|source| StartError::DataDir {
        path: options.data_dir.clone(),
        source,
    })?;
    let wal = WalOptions {
        dir: wal_dir(&options),
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: LOG_CACHE_BYTES,
    };
    let log = LogStore::open(wal, identity)?;
    let (state_machine, store) = StateMachine::open(StoreOptions {
        dir: store_dir(&options),
        cache_bytes: STORE_CACHE_BYTES,
        watch_buffer_events: WATCH_BUFFER_EVENTS,
    })?;
    log.time_with(options.stopwatch.clone());
    state_machine.time_with(options.stopwatch.clone());
    if store.is_removed(identity.member_id) {
        return Err(options.removed(identity.member_id));
    }
    let config = raft_config(&options, identity)?;
    let peer_timeouts = PeerTimeouts {
        connect: options.election_timeout / 2,
        keep_alive: options.election_timeout * 2,
    };
    let network = PeerNetwork::new(identity, options.dialer.clone(), store.clone(), peer_timeouts);
    let addresses = network.addresses();
    let log_failure = log.failed();
    let raft = Raft::new(identity.member_id, config, network, log, state_machine)
        .await
        .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
    let initialized = raft
        .is_initialized()
        .await
        .map_err(|fatal| StartError::Raft(fatal.to_string()))?;

    let (view_task, view) = ViewTask::new(raft.clone(), options.election_timeout);
    let (read_rounds, waiters) = mpsc::channel(read_index::WAITING);
    let (lease_commands, commands) = mpsc::channel(leases::QUEUED);
    let (member_changes, changes) = mpsc::channel(member_task::QUEUED);
    let (hashes, found_hashes) = mpsc::channel(corruption::QUEUED);
    let node = Node {
        inner: Arc::new(Inner {
            identity,
            name: options.name.clone(),
            member_changes,
            stopping: AtomicBool::new(false),
            timeouts: Timeouts {
                election: options.election_timeout,
                // etcd's own: disk and network time for one request, and two elections.
                request: Duration::from_secs(5) + 2 * options.election_timeout,
            },
            raft,
            store,
            view,
            forwarder: Forwarder::new(identity, options.dialer.clone(), peer_timeouts),
            dialer: options.dialer.clone(),
            read_rounds,
            leases: lease_commands,
            in_flight: Semaphore::new(PROPOSALS_IN_FLIGHT),
            space: Space::new(options.quota_bytes),
            hashes,
        }),
    };
    // One that took the id of a member that was added to a running cluster never forms one.
    let first_member = options.initial_cluster.members.contains_key(&identity.member_id)
        && options.initial_cluster.cluster_id == identity.cluster_id;
    let may_form = options.new_cluster && first_member && !initialized;
    let tasks = NodeTasks {
        view: view_task,
        read_index: ReadIndexTask::new(node.clone(), waiters),
        leases: LeaseTask::new(
            node.clone(),
            commands,
            Some(options.lease_checkpoint_interval).filter(|interval| !interval.is_zero()),
        ),
        publish: PublishTask {
            node: node.clone(),
            client_urls: options.advertise_client_urls,
        },
        membership: MembershipTask::new(
            node.clone(),
            changes,
            addresses,
            options.initial_cluster.token.clone(),
        ),
        removal: RemovalTask::new(node.clone()),
        form: may_form.then(|| FormTask::new(node.clone(), options.initial_cluster.members.clone())),
        hash: HashTask::new(node.clone()),
        corruption: CorruptionTask::new(node.clone(), found_hashes),
        log_failure,
    };
    Ok((node, tasks))
}

/// etcd elects one to two election timeouts after the leader falls silent. openraft waits for the leader's lease
/// and then for a random time; both together stay within one election timeout here.
fn raft_config(options: &NodeOptions, identity: Identity) -> Result<Arc<Config>, StartError> {
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
        cluster_name: format!("{:x}", identity.cluster_id),
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
