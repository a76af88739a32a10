//! gRPC calls, counted by method and outcome, under the names of gRPC's usual Prometheus metrics.
//!
//! Counting a call that succeeds takes no lock: its counters are found once, at the start.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// How many messages go each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Unary,
    Streaming,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// Every method that is counted: package and service, method, kind.
const METHODS: [(&str, &[(&str, &str)]); 9] = [
    (
        "etcdserverpb.KV",
        &[
            ("Range", UNARY),
            ("Put", UNARY),
            ("DeleteRange", UNARY),
            ("Txn", UNARY),
            ("Compact", UNARY),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", BIDI_STREAM)]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", UNARY),
            ("LeaseRevoke", UNARY),
            ("LeaseKeepAlive", BIDI_STREAM),
            ("LeaseTimeToLive", UNARY),
            ("LeaseLeases", UNARY),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", UNARY),
            ("MemberRemove", UNARY),
            ("MemberUpdate", UNARY),
            ("MemberList", UNARY),
            ("MemberPromote", UNARY),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", UNARY),
            ("Status", UNARY),
            ("Defragment", UNARY),
            ("Hash", UNARY),
            ("HashKV", UNARY),
            ("Snapshot", SERVER_STREAM),
            ("MoveLeader", UNARY),
            ("Downgrade", UNARY),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("AuthEnable", UNARY),
            ("AuthDisable", UNARY),
            ("AuthStatus", UNARY),
            ("Authenticate", UNARY),
            ("UserAdd", UNARY),
            ("UserGet", UNARY),
            ("UserList", UNARY),
            ("UserDelete", UNARY),
            ("UserChangePassword", UNARY),
            ("UserGrantRole", UNARY),
            ("UserRevokeRole", UNARY),
            ("RoleAdd", UNARY),
            ("RoleGet", UNARY),
            ("RoleList", UNARY),
            ("RoleDelete", UNARY),
            ("RoleGrantPermission", UNARY),
            ("RoleRevokePermission", UNARY),
        ],
    ),
    ("v3lockpb.Lock", &[("Lock", UNARY), ("Unlock", UNARY)]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", UNARY),
            ("Proclaim", UNARY),
            ("Leader", UNARY),
            ("Observe", SERVER_STREAM),
            ("Resign", UNARY),
        ],
    ),
    (
        "grpc.health.v1.Health",
        &[("Check", UNARY), ("Watch", SERVER_STREAM)],
    ),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

/// One method's counters, found once.
#[derive(Debug)]
struct Method {
    labels: MethodLabels,
    started: Counter,
    succeeded: Counter,
}

/// The counters of all calls.
#[derive(Debug)]
pub(super) struct Calls {
    by_path: HashMap<String, Arc<Method>>,
    started: Family<MethodLabels, Counter>,
    handled: Family<OutcomeLabels, Counter>,
}

impl Calls {
    pub(super) fn new() -> Calls {
        let started = Family::<MethodLabels, Counter>::default();
        let handled = Family::<OutcomeLabels, Counter>::default();
        let mut by_path = HashMap::new();
        for (grpc_service, methods) in METHODS {
            for &(grpc_method, grpc_type) in methods {
                let labels = MethodLabels {
                    grpc_type,
                    grpc_service,
                    grpc_method,
                };
                let method = Method {
                    started: started.get_or_create(&labels).clone(),
                    succeeded: handled.get_or_create(&labels.ended("OK")).clone(),
                    labels,
                };
                by_path.insert(format!("/{grpc_service}/{grpc_method}"), Arc::new(method));
            }
        }
        Calls {
            by_path,
            started,
            handled,
        }
    }

    pub(super) fn start(&self, path: &str) -> Option<StartedCall> {
        let method = self.by_path.get(path)?.clone();
        method.started.inc();
        Some(StartedCall {
            method,
            handled: self.handled.clone(),
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("grpc_server_started", "Calls started", self.started.clone());
        registry.register(
            "grpc_server_handled",
            "Calls ended, by outcome",
            self.handled.clone(),
        );
    }
}

impl MethodLabels {
    fn ended(&self, grpc_code: &'static str) -> OutcomeLabels {
        let MethodLabels {
            grpc_type,
            grpc_service,
            grpc_method,
        } = *self;
        OutcomeLabels {
            grpc_type,
            grpc_service,
            grpc_method,
            grpc_code,
        }
    }
}

/// A call under way. Whoever makes it says how it ended.
#[derive(Debug)]
pub struct StartedCall {
    method: Arc<Method>,
    handled: Family<OutcomeLabels, Counter>,
}

impl StartedCall {
    #[must_use]
    pub fn kind(&self) -> CallKind {
        if self.method.labels.grpc_type == UNARY {
            CallKind::Unary
        } else {
            CallKind::Streaming
        }
    }

    /// `code` is gRPC's name of the outcome, as dashboards know it: `OK`, `Unavailable`.
    pub fn ended(self, code: &'static str) {
        if code == "OK" {
            self.method.succeeded.inc();
        } else {
            self.handled.get_or_create(&self.method.labels.ended(code)).inc();
        }
    }
}
