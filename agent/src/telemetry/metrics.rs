//! The metrics of a member, under etcd's names wherever the meaning is etcd's.
//!
//! What the node or the store knows anyway is read at the time of a scrape; only what happens in between is
//! counted here.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use raft_store::Stopwatch;

use super::calls::{Calls, StartedCall};
use super::disk::DiskTimes;
use super::passes::Passes;
use super::process;
use crate::node::RaftView;

/// Cloneable; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    calls: Calls,
    disk: Arc<DiskTimes>,
    passes: Passes,
    received_bytes: Counter,
    sent_bytes: Counter,
    proposals_pending: Gauge,
    proposals_failed: Counter,
    leader_changes: Counter,
    health_successes: Gauge,
    health_failures: Gauge,
    watch_streams: Gauge,
    watchers: Gauge,
    started_seconds: f64,
}

/// What the node and the store say at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct NodeSample {
    pub member_id: u64,
    pub view: RaftView,
    pub revision: i64,
    pub compacted_revision: i64,
    pub leases: u64,
    pub db_bytes: u64,
    pub db_in_use_bytes: u64,
    pub quota_bytes: u64,
    pub etcd_version: &'static str,
    pub etcd_cluster_version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerId {
    server_id: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerVersion {
    server_version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterVersion {
    cluster_version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentVersion {
    version: &'static str,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Of what [`Metrics::encode`] returns.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    #[must_use]
    pub fn new() -> Metrics {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Metrics {
            inner: Arc::new(Inner {
                calls: Calls::new(),
                disk: Arc::new(DiskTimes::new()),
                passes: Passes::new(),
                received_bytes: Counter::default(),
                sent_bytes: Counter::default(),
                proposals_pending: Gauge::default(),
                proposals_failed: Counter::default(),
                leader_changes: Counter::default(),
                health_successes: Gauge::default(),
                health_failures: Gauge::default(),
                watch_streams: Gauge::default(),
                watchers: Gauge::default(),
                started_seconds: now.as_secs_f64(),
            }),
        }
    }

    /// Counts a gRPC call. `None` when there is no such method.
    #[must_use]
    pub fn call_started(&self, path: &str) -> Option<StartedCall> {
        self.inner.calls.start(path)
    }

    /// What the store measures its disk with.
    #[must_use]
    pub fn stopwatch(&self) -> Arc<dyn Stopwatch> {
        self.inner.disk.clone()
    }

    /// What the reconciler counts its passes with.
    #[must_use]
    pub fn passes(&self) -> Passes {
        self.inner.passes.clone()
    }

    /// Clients sent this much in gRPC calls.
    pub fn received(&self, bytes: usize) {
        self.inner.received_bytes.inc_by(bytes as u64);
    }

    /// Clients were sent this much in answers to gRPC calls.
    pub fn sent(&self, bytes: usize) {
        self.inner.sent_bytes.inc_by(bytes as u64);
    }

    /// A proposal is pending until the guard is dropped.
    #[must_use]
    pub fn proposal(&self) -> PendingProposal<'_> {
        self.inner.proposals_pending.inc();
        PendingProposal { inner: &self.inner }
    }

    pub fn leader_changed(&self) {
        self.inner.leader_changes.inc();
    }

    pub fn health_checked(&self, well: bool) {
        if well {
            self.inner.health_successes.inc()
        } else {
            self.inner.health_failures.inc()
        };
    }

    /// A client's watch stream is open until the guard is dropped.
    #[must_use]
    pub fn watch_stream(&self) -> StreamGauge {
        self.inner.watch_streams.inc();
        StreamGauge {
            inner: self.inner.clone(),
            watchers: 0,
        }
    }

    /// Everything, as text.
    #[must_use]
    pub fn encode(&self, sample: &NodeSample) -> String {
        let mut registry = Registry::default();
        self.register_counted(&mut registry);
        register_raft(&mut registry, sample);
        register_store(&mut registry, sample);
        register_versions(&mut registry, sample);
        process::register(&mut registry, self.inner.started_seconds);
        let mut text = String::new();
        // Writing into a String does not fail.
        if let Err(error) = encode(&mut text, &registry) {
            tracing::warn!(%error, "could not encode the metrics");
        }
        text
    }

    fn register_counted(&self, registry: &mut Registry) {
        let Inner { calls, .. } = &*self.inner;
        calls.register(registry);
        self.inner.disk.register(registry);
        self.inner.passes.register(registry);
        registry.register(
            "etcd_network_client_grpc_received_bytes",
            "Bytes that clients sent in calls",
            self.inner.received_bytes.clone(),
        );
        registry.register(
            "etcd_network_client_grpc_sent_bytes",
            "Bytes that clients were sent in answers to calls",
            self.inner.sent_bytes.clone(),
        );
        registry.register(
            "etcd_server_proposals_pending",
            "Proposals of this member's clients under way",
            self.inner.proposals_pending.clone(),
        );
        registry.register(
            "etcd_server_proposals_failed",
            "Proposals of this member's clients that got no answer",
            self.inner.proposals_failed.clone(),
        );
        registry.register(
            "etcd_server_leader_changes_seen",
            "Leaders seen by this member",
            self.inner.leader_changes.clone(),
        );
        // etcd's names lack the suffix of counters, so these are gauges to the encoder.
        let (successes, failures) = (&self.inner.health_successes, &self.inner.health_failures);
        registry.register(
            "etcd_server_health_success",
            "Health checks passed",
            successes.clone(),
        );
        registry.register(
            "etcd_server_health_failures",
            "Health checks failed",
            failures.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_watch_stream_total",
            "Watch streams open",
            self.inner.watch_streams.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_watcher_total",
            "Watches open",
            self.inner.watchers.clone(),
        );
    }
}

fn register_raft(registry: &mut Registry, sample: &NodeSample) {
    let RaftView {
        leader,
        committed_index,
        applied_index,
        is_learner,
        term,
    } = sample.view;
    gauge(
        registry,
        "etcd_server_has_leader",
        "Whether a leader is known",
        u64::from(leader != 0),
    );
    let leads = leader != 0 && leader == sample.member_id;
    gauge(
        registry,
        "etcd_server_is_leader",
        "Whether this member leads",
        u64::from(leads),
    );
    gauge(
        registry,
        "etcd_server_is_learner",
        "Whether this member is a learner",
        u64::from(is_learner),
    );
    gauge(registry, "agent_raft_term", "The term this member is in", term);
    counter(
        registry,
        "etcd_server_proposals_committed",
        "Log entries committed",
        committed_index,
    );
    counter(
        registry,
        "etcd_server_proposals_applied",
        "Log entries applied",
        applied_index,
    );
}

fn register_store(registry: &mut Registry, sample: &NodeSample) {
    gauge(
        registry,
        "etcd_mvcc_db_total_size_in_bytes",
        "Bytes of the store on disk",
        sample.db_bytes,
    );
    gauge(
        registry,
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of live data in the store",
        sample.db_in_use_bytes,
    );
    gauge(
        registry,
        "etcd_server_quota_backend_bytes",
        "The store's quota; 0: none",
        sample.quota_bytes,
    );
    gauge(
        registry,
        "etcd_debugging_mvcc_current_revision",
        "The store's revision",
        u64::try_from(sample.revision).unwrap_or_default(),
    );
    gauge(
        registry,
        "etcd_debugging_mvcc_compact_revision",
        "The revision below which history is gone",
        u64::try_from(sample.compacted_revision).unwrap_or_default(),
    );
    gauge(
        registry,
        "agent_leases",
        "Leases granted and not yet over",
        sample.leases,
    );
}

fn register_versions(registry: &mut Registry, sample: &NodeSample) {
    let id = ServerId {
        server_id: format!("{:x}", sample.member_id),
    };
    labelled(
        registry,
        "etcd_server_id",
        "This member's id, in hexadecimal",
        &id,
    );
    let server = ServerVersion {
        server_version: sample.etcd_version,
    };
    labelled(
        registry,
        "etcd_server_version",
        "The version of etcd that this member speaks",
        &server,
    );
    let cluster = ClusterVersion {
        cluster_version: sample.etcd_cluster_version,
    };
    labelled(
        registry,
        "etcd_cluster_version",
        "The version of etcd that all members speak",
        &cluster,
    );
    let agent = AgentVersion {
        version: env!("CARGO_PKG_VERSION"),
    };
    labelled(registry, "agent_version", "The version of this program", &agent);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<u64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn labelled<L>(registry: &mut Registry, name: &str, help: &str, labels: &L)
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    family.get_or_create(labels).set(1);
    registry.register(name, help, family);
}

/// A proposal under way.
#[derive(Debug)]
pub struct PendingProposal<'a> {
    inner: &'a Inner,
}

impl PendingProposal<'_> {
    pub fn failed(&self) {
        self.inner.proposals_failed.inc();
    }
}

impl Drop for PendingProposal<'_> {
    fn drop(&mut self) {
        self.inner.proposals_pending.dec();
    }
}

/// An open watch stream, and its watches.
#[derive(Debug)]
pub struct StreamGauge {
    inner: Arc<Inner>,
    watchers: i64,
}

impl StreamGauge {
    /// How many watches the stream has now.
    pub fn set_watchers(&mut self, watchers: usize) {
        let watchers = i64::try_from(watchers).unwrap_or(i64::MAX);
        self.inner.watchers.inc_by(watchers - self.watchers);
        self.watchers = watchers;
    }
}

impl Drop for StreamGauge {
    fn drop(&mut self) {
        self.set_watchers(0);
        self.inner.watch_streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_names() {
        let metrics = Metrics::new();
        let sample = NodeSample {
            member_id: 0x1a,
            view: RaftView {
                term: 2,
                leader: 0x1a,
                committed_index: 9,
                applied_index: 8,
                is_learner: false,
            },
            db_bytes: 4096,
            etcd_version: "3.5.21",
            etcd_cluster_version: "3.5.0",
            ..NodeSample::default()
        };
        metrics.call_started("/etcdserverpb.KV/Put").unwrap().ended("OK");
        metrics
            .call_started("/etcdserverpb.KV/Put")
            .unwrap()
            .ended("Unavailable");
        assert!(metrics.call_started("/etcdserverpb.KV/Nope").is_none());
        metrics.leader_changed();
        metrics.proposal().failed();
        let mut stream = metrics.watch_stream();
        stream.set_watchers(3);
        let text = metrics.encode(&sample);
        let put = r#"grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put""#;
        for line in [
            format!("grpc_server_started_total{{{put}}} 2"),
            format!("grpc_server_handled_total{{{put},grpc_code=\"OK\"}} 1"),
            format!("grpc_server_handled_total{{{put},grpc_code=\"Unavailable\"}} 1"),
            "etcd_server_has_leader 1".into(),
            "etcd_server_is_leader 1".into(),
            "etcd_server_leader_changes_seen_total 1".into(),
            "etcd_server_proposals_committed_total 9".into(),
            "etcd_server_proposals_applied_total 8".into(),
            "etcd_server_proposals_pending 0".into(),
            "etcd_server_proposals_failed_total 1".into(),
            "etcd_mvcc_db_total_size_in_bytes 4096".into(),
            "etcd_debugging_mvcc_watch_stream_total 1".into(),
            "etcd_debugging_mvcc_watcher_total 3".into(),
            r#"etcd_server_id{server_id="1a"} 1"#.into(),
            r#"etcd_server_version{server_version="3.5.21"} 1"#.into(),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes "));
        drop(stream);
        assert!(
            metrics
                .encode(&sample)
                .contains("etcd_debugging_mvcc_watcher_total 0\n")
        );
    }
}
