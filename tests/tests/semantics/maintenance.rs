//! Hashes, alarms, snapshots, the member list and the status.

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DowngradeRequest, HashKvRequest, LeaseRevokeRequest,
    MemberListRequest, MoveLeaderRequest, RangeRequest, SnapshotRequest, StatusRequest, TxnRequest,
};
use sha2::{Digest, Sha256};
use tests::cluster::{Cluster, Subject};
use tests::notes;

use crate::ask::Ask::{Alarm, Compact, Delete, Downgrade, HashKv, MoveLeader, Put, Range, Revoke, Txn};
use crate::ask::{Ask, Row, compact, delete, grant, put, range, table};

const BLOB_LIMIT_BYTES: usize = 32 * 1024;
const HASH_BYTES: usize = 32;

table!("maintenance", rows);

fn rows() -> Vec<Row> {
    vec![
        ("2", Put(put("a", "1"))),
        ("3", Put(put("a", "2"))),
        (
            "the hash at the current revision",
            HashKv(HashKvRequest { revision: 0 }),
        ),
        ("at an earlier one", HashKv(HashKvRequest { revision: 2 })),
        ("at a future one", HashKv(HashKvRequest { revision: 9 })),
        ("4", Put(put("a", "3"))),
        ("compacted", compact(3)),
        ("after a compaction", HashKv(HashKvRequest { revision: 0 })),
        ("at the compacted revision", HashKv(HashKvRequest { revision: 3 })),
        ("below it", HashKv(HashKvRequest { revision: 2 })),
        ("no alarms", Alarm(AlarmRequest::default())),
        (
            "leadership cannot be given by a follower",
            MoveLeader(MoveLeaderRequest { target_id: 1 }),
        ),
    ]
}

/// A member id that no member has: the alarm is then nobody's to lift.
const NOBODY: u64 = 7;

fn alarm(action: AlarmAction, alarm: AlarmType) -> Ask {
    Alarm(AlarmRequest {
        action: action.into(),
        member_id: NOBODY,
        alarm: alarm.into(),
    })
}

fn txn(success: Vec<proto::etcdserverpb::RequestOp>, failure: Vec<proto::etcdserverpb::RequestOp>) -> Ask {
    Txn(TxnRequest {
        compare: Vec::new(),
        success,
        failure,
    })
}

fn op(request: proto::etcdserverpb::request_op::Request) -> proto::etcdserverpb::RequestOp {
    proto::etcdserverpb::RequestOp {
        request: Some(request),
    }
}

fn op_put() -> proto::etcdserverpb::RequestOp {
    op(proto::etcdserverpb::request_op::Request::RequestPut(put(
        "a", "txn",
    )))
}

fn op_get() -> proto::etcdserverpb::RequestOp {
    op(proto::etcdserverpb::request_op::Request::RequestRange(range("a")))
}

fn op_delete() -> proto::etcdserverpb::RequestOp {
    op(proto::etcdserverpb::request_op::Request::RequestDeleteRange(
        delete("none"),
    ))
}

mod alarms {
    use super::*;

    table!("alarms", rows);

    fn rows() -> Vec<Row> {
        let mut rows = vec![
            ("2", Put(put("a", "1"))),
            ("a lease from before", grant(1, 100)),
            (
                "clearing what is not raised",
                alarm(AlarmAction::Deactivate, AlarmType::Nospace),
            ),
            ("raising nothing", alarm(AlarmAction::Activate, AlarmType::None)),
            ("no space", alarm(AlarmAction::Activate, AlarmType::Nospace)),
            ("again", alarm(AlarmAction::Activate, AlarmType::Nospace)),
        ];
        rows.extend(every_request());
        rows.extend([
            ("the alarms", alarm(AlarmAction::Get, AlarmType::None)),
            ("those of a kind", alarm(AlarmAction::Get, AlarmType::Corrupt)),
            ("space again", alarm(AlarmAction::Deactivate, AlarmType::Nospace)),
            ("which is taken", Put(put("a", "2"))),
            ("a lease again", grant(1, 100)),
            ("corrupt", alarm(AlarmAction::Activate, AlarmType::Corrupt)),
        ]);
        rows.extend(every_request());
        rows.extend([
            ("mended", alarm(AlarmAction::Deactivate, AlarmType::Corrupt)),
            ("no alarms", alarm(AlarmAction::Get, AlarmType::None)),
            ("a put after all", Put(put("a", "3"))),
        ]);
        rows
    }

    fn every_request() -> Vec<Row> {
        vec![
            ("put", Put(put("a", "x"))),
            (
                "put with an unknown lease",
                Put(proto::etcdserverpb::PutRequest {
                    lease: 77,
                    ..put("a", "x")
                }),
            ),
            ("put without a key", Put(put("", "x"))),
            ("a txn that puts", txn(vec![op_put()], vec![])),
            ("a txn that would put", txn(vec![op_get()], vec![op_put()])),
            ("a txn that reads", txn(vec![op_get()], vec![])),
            ("a txn that deletes", txn(vec![op_delete()], vec![])),
            ("range", Range(range("a"))),
            (
                "serializable range",
                Range(RangeRequest {
                    serializable: true,
                    ..range("a")
                }),
            ),
            ("delete", Delete(delete("none"))),
            ("grant", grant(2, 100)),
            ("revoke", Revoke(LeaseRevokeRequest { id: 1 })),
            ("hash", HashKv(HashKvRequest { revision: 0 })),
            ("compact a future revision", compact(99)),
        ]
    }
}

mod compaction {
    use super::*;

    table!("compaction", rows);

    fn rows() -> Vec<Row> {
        let physical = |revision| {
            Compact(CompactionRequest {
                revision,
                physical: true,
            })
        };
        vec![
            ("nothing to compact", compact(0)),
            ("below everything", compact(-1)),
            ("the first revision", compact(1)),
            ("2", Put(put("a", "1"))),
            ("3", Put(put("a", "2"))),
            ("4", Put(put("a", "3"))),
            ("compacted", compact(2)),
            ("again", compact(2)),
            ("an earlier one", compact(1)),
            ("zero, once there was one", compact(0)),
            ("a future one", compact(99)),
            ("and waited for", physical(3)),
            ("again, and waited for", physical(3)),
            ("the current one", physical(4)),
            (
                "a hash below zero is of now",
                HashKv(HashKvRequest { revision: -1 }),
            ),
        ]
    }
}

mod downgrade {
    use super::*;

    table!("downgrade", rows);

    /// Without those that etcd takes: there is no release before this one to go back to.
    fn rows() -> Vec<Row> {
        let ask = |action: DowngradeAction, version: &str| {
            Downgrade(DowngradeRequest {
                action: action.into(),
                version: version.to_owned(),
            })
        };
        vec![
            ("the version that runs", ask(DowngradeAction::Validate, "3.5.0")),
            ("in short", ask(DowngradeAction::Validate, "3.5")),
            ("a newer one", ask(DowngradeAction::Validate, "3.6.0")),
            ("two back", ask(DowngradeAction::Validate, "3.3.0")),
            ("another major", ask(DowngradeAction::Validate, "4.0.0")),
            ("no version", ask(DowngradeAction::Validate, "")),
            ("half a version", ask(DowngradeAction::Validate, "3")),
            ("words", ask(DowngradeAction::Validate, "abc")),
            ("to the version that runs", ask(DowngradeAction::Enable, "3.5.0")),
            ("to words", ask(DowngradeAction::Enable, "abc")),
            ("nothing to cancel", ask(DowngradeAction::Cancel, "")),
            (
                "an unknown action",
                Downgrade(DowngradeRequest {
                    action: 7,
                    version: String::new(),
                }),
            ),
        ]
    }
}

#[tokio::test]
async fn leadership_is_given_to_voters_only() {
    for subject in [Subject::etcd(), Some(Subject::agent())] {
        let Some(subject) = subject else {
            notes::skipped("no etcd 3.5");
            continue;
        };
        let cluster = Cluster::builder(&subject, 3).start().await;
        let leader = cluster.leader().await;
        let mut client = cluster.client(leader);
        let refused = client
            .maintenance
            .move_leader(MoveLeaderRequest { target_id: 1 })
            .await
            .expect_err("nobody has this id");
        assert_eq!(
            (refused.code(), refused.message()),
            (
                tonic::Code::FailedPrecondition,
                "etcdserver: bad leader transferee"
            ),
            "{}",
            subject.name()
        );
    }
}

#[tokio::test]
async fn snapshot_members_and_status_of_etcd() {
    match Subject::etcd() {
        Some(etcd) => check(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test]
async fn snapshot_members_and_status_of_agent() {
    check(&Subject::agent()).await;
}

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 3).start().await;
    let mut client = cluster.client(cluster.follower().await);
    for i in 0..100 {
        client.put(&format!("key{i}"), &[b'x'; 4096]).await.expect("put");
    }

    let list = MemberListRequest { linearizable: true };
    let members = client
        .cluster
        .member_list(list)
        .await
        .expect("member list")
        .into_inner();
    let header = members.header.expect("a header");
    assert_eq!(header.revision, 0, "answers about members have no revision");
    assert_ne!((header.cluster_id, header.member_id, header.raft_term), (0, 0, 0));
    assert_eq!(members.members.len(), 3);

    let status = client
        .maintenance
        .status(StatusRequest {})
        .await
        .expect("status")
        .into_inner();
    let version: Vec<u32> = status
        .version
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    assert!(
        version.as_slice() >= [3, 5, 13].as_slice(),
        "clients parse the version: {version:?}"
    );
    assert!(
        members.members.iter().any(|member| member.id == status.leader),
        "the leader is a member"
    );
    assert_eq!(status.header.map(|header| header.revision), Some(101));
    assert!(status.db_size > 0 && status.db_size_in_use > 0);
    assert!(status.raft_applied_index > 100 && status.raft_index >= status.raft_applied_index);
    assert!(!status.is_learner && status.errors.is_empty());

    let mut stream = client
        .maintenance
        .snapshot(SnapshotRequest {})
        .await
        .expect("snapshot")
        .into_inner();
    let (mut saved, mut remaining) = (Vec::new(), u64::MAX);
    while let Some(part) = stream.message().await.expect("a part of the snapshot") {
        assert!(
            part.blob.len() <= BLOB_LIMIT_BYTES,
            "a blob of {} bytes",
            part.blob.len()
        );
        assert!(part.remaining_bytes <= remaining, "what remains gets less");
        remaining = part.remaining_bytes;
        saved.extend_from_slice(&part.blob);
    }
    assert_eq!(remaining, 0);
    let (content, hash) = saved.split_at(saved.len() - HASH_BYTES);
    assert_eq!(hash, Sha256::digest(content).as_slice(), "the hash of all before");
    assert_eq!(content.len() % 512, 0, "etcdctl insists on whole sectors");
    assert!(content.len() > 100 * 4096, "it holds what was put");
}
