//! Hashes, alarms, snapshots, the member list and the status.

use proto::etcdserverpb::{
    AlarmRequest, HashKvRequest, MemberListRequest, MoveLeaderRequest, SnapshotRequest, StatusRequest,
};
use sha2::{Digest, Sha256};
use tests::cluster::{Cluster, Subject};
use tests::notes;

use crate::ask::Ask::{Alarm, HashKv, MoveLeader, Put};
use crate::ask::{Row, compact, put, table};

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
