//! The metrics that dashboards for etcd ask for: they are there, and they move.

use std::collections::BTreeMap;

use tests::cluster::{Cluster, Subject};

/// What has to be more after some writes than before.
const MOVING: &[&str] = &[
    r#"grpc_server_started_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put"}"#,
    r#"grpc_server_handled_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put",grpc_code="OK"}"#,
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_sum",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_sum",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_debugging_mvcc_current_revision",
];

/// What has to be there.
const THERE: &[(&str, f64)] = &[
    ("etcd_server_has_leader", 1.0),
    ("etcd_server_is_leader", 1.0),
    ("etcd_server_leader_changes_seen_total", 1.0),
    ("etcd_server_proposals_pending", 0.0),
    ("etcd_server_proposals_failed_total", 0.0),
];

#[tokio::test]
async fn they_move() {
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let mut client = cluster.client(0);
    client.put("before", b"1").await.expect("put");
    let before = cluster.metrics(0).await;
    let value = vec![b'x'; 10_000];
    for i in 0..10 {
        client.put(&format!("key/{i}"), &value).await.expect("put");
    }
    client.get_prefix("key/", false).await.expect("get");
    let after = cluster.metrics(0).await;
    for name in MOVING {
        let of = |scrape: &BTreeMap<String, f64>| *scrape.get(*name).unwrap_or_else(|| panic!("no {name}"));
        assert!(of(&after) > of(&before), "{name} stands still at {}", of(&after));
    }
    for (name, expected) in THERE {
        assert_eq!(after.get(*name), Some(expected), "{name}");
    }
    let bytes = |name: &str| after[name] - before[name];
    assert!(bytes("etcd_network_client_grpc_received_bytes_total") >= 100_000.0);
    assert!(bytes("etcd_network_client_grpc_sent_bytes_total") >= 100_000.0);
    assert!(after["process_resident_memory_bytes"] > 1e6);
}
