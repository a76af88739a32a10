//! Calls of every service beside Auth with auth on: by nobody, by somebody with a bad token, by a user, and by root.
//!
//! Etcd 3.5.16 serves some of them to everybody, which is CVE-2026-33413, and refuses others with no code at all. Those
//! answers are on file for etcd only; the agent must refuse the calls, with the code that belongs to the words.

use std::time::Duration;

use proto::authpb::Permission;
use proto::authpb::permission::Type::{Read, Write};
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::*;
use proto::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use proto::v3lockpb::{LockRequest, UnlockRequest};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::show;
use tests::transcript::Transcript;
use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Status, Streaming};

use crate::ask::{delete, put, range};

const PATIENCE: Duration = Duration::from_secs(20);

/// Which calls etcd answers otherwise, and to whom.
const OTHERWISE: &[(&[&str], &[&str])] = &[
    // Served to strangers: CVE-2026-33413.
    (
        &[
            "KV.Txn",
            "KV.Compact",
            "Lease.LeaseGrant",
            "Lease.LeaseRevoke",
            "Maintenance.Alarm, to get",
        ],
        &["nobody"],
    ),
    (
        &[
            "Lease.LeaseKeepAlive",
            "Lease.LeaseLeases",
            "Cluster.MemberList",
            "Maintenance.Status",
        ],
        &["nobody", "a stranger"],
    ),
    // Served to users who do not administer.
    (
        &["Maintenance.MoveLeader", "Maintenance.Downgrade"],
        &["nobody", "a stranger", "ann"],
    ),
    (&["Maintenance.Alarm, to disarm"], &["nobody", "ann"]),
    (&["KV.Compact"], &["ann"]),
    // Refused with no code.
    (
        &[
            "Maintenance.Defragment",
            "Maintenance.Hash",
            "Maintenance.HashKV",
            "Maintenance.Snapshot",
        ],
        &["nobody", "a stranger", "ann"],
    ),
    (
        &[
            "Lock.Lock",
            "Lock.Unlock",
            "Election.Campaign",
            "Election.Proclaim",
            "Election.Leader",
            "Election.Resign",
        ],
        &["nobody", "a stranger"],
    ),
];

fn etcd_answers_otherwise(who: &str, call: &str) -> bool {
    OTHERWISE
        .iter()
        .any(|(calls, callers)| calls.contains(&call) && callers.contains(&who))
}

fn served<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => "served".to_owned(),
        Err(refused) => show::status(&refused),
    }
}

/// The first message of a stream counts.
async fn streamed<T: std::fmt::Debug>(
    answer: Result<Response<Streaming<T>>, Status>,
    first: impl Fn(&T) -> String,
) -> String {
    let mut stream = match answer {
        Ok(stream) => stream.into_inner(),
        Err(refused) => return show::status(&refused),
    };
    match tokio::time::timeout(PATIENCE, stream.message()).await {
        Ok(Ok(Some(message))) => first(&message),
        Ok(Ok(None)) => "the end".to_owned(),
        Ok(Err(refused)) => show::status(&refused),
        Err(_) => "silence".to_owned(),
    }
}

/// A stream of one request that stays open.
fn one<T: Send + 'static>(request: T) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    tokio_stream::iter([request]).chain(tokio_stream::pending())
}

/// What a client is answered, call by call. None of them changes what the next client is answered.
async fn keys_and_leases(client: &mut Client) -> Vec<(&'static str, String)> {
    let lease = LeaseGrantRequest { id: 0, ttl: 600 };
    let keys_of = LeaseTimeToLiveRequest { id: 7, keys: true };
    let compact = CompactionRequest {
        revision: 1000,
        physical: false,
    };
    let create = |key: &str, range_end: &str| {
        let create = WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            ..Default::default()
        };
        one(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        })
    };
    let created = |answer: &WatchResponse| {
        format!(
            "id={} created={} canceled={} {}",
            answer.watch_id, answer.created, answer.canceled, answer.cancel_reason
        )
    };
    let stays = one(LeaseKeepAliveRequest { id: 99 });
    let ttl = |answer: &LeaseKeepAliveResponse| format!("ttl={}", answer.ttl);
    vec![
        ("KV.Range", served(client.kv.range(range("secret")).await)),
        ("KV.Put", served(client.kv.put(put("secret", "x")).await)),
        (
            "KV.DeleteRange",
            served(client.kv.delete_range(delete("gone")).await),
        ),
        ("KV.Txn", served(client.kv.txn(TxnRequest::default()).await)),
        ("KV.Compact", served(client.kv.compact(compact).await)),
        ("Lease.LeaseGrant", served(client.lease.lease_grant(lease).await)),
        (
            "Lease.LeaseRevoke",
            served(client.lease.lease_revoke(LeaseRevokeRequest { id: 99 }).await),
        ),
        (
            "Lease.LeaseKeepAlive",
            streamed(client.lease.lease_keep_alive(stays).await, ttl).await,
        ),
        (
            "Lease.LeaseTimeToLive",
            served(client.lease.lease_time_to_live(keys_of).await),
        ),
        (
            "Lease.LeaseLeases",
            served(client.lease.lease_leases(LeaseLeasesRequest {}).await),
        ),
        (
            "Watch.Watch of what may be read",
            streamed(client.watch.watch(create("r", "")).await, created).await,
        ),
        (
            "Watch.Watch of what may not",
            streamed(client.watch.watch(create("secret", "")).await, created).await,
        ),
        (
            "Watch.Watch of everything",
            streamed(client.watch.watch(create("", "\0")).await, created).await,
        ),
    ]
}

async fn cluster_and_maintenance(client: &mut Client) -> Vec<(&'static str, String)> {
    let update = MemberUpdateRequest {
        id: 1,
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
    };
    let alarm = |action| AlarmRequest {
        action,
        member_id: 1,
        alarm: 1,
    };
    let cancel = DowngradeRequest {
        action: 2,
        version: String::new(),
    };
    let blob = |_: &SnapshotResponse| "served".to_owned();
    let maintenance = &mut client.maintenance;
    vec![
        (
            "Cluster.MemberList",
            served(client.cluster.member_list(MemberListRequest::default()).await),
        ),
        (
            "Cluster.MemberRemove",
            served(client.cluster.member_remove(MemberRemoveRequest { id: 1 }).await),
        ),
        (
            "Cluster.MemberUpdate",
            served(client.cluster.member_update(update).await),
        ),
        (
            "Cluster.MemberPromote",
            served(
                client
                    .cluster
                    .member_promote(MemberPromoteRequest { id: 1 })
                    .await,
            ),
        ),
        (
            "Maintenance.Alarm, to get",
            served(maintenance.alarm(alarm(0)).await),
        ),
        (
            "Maintenance.Alarm, to disarm",
            served(maintenance.alarm(alarm(2)).await),
        ),
        (
            "Maintenance.Status",
            served(maintenance.status(StatusRequest {}).await),
        ),
        (
            "Maintenance.Defragment",
            served(maintenance.defragment(DefragmentRequest {}).await),
        ),
        ("Maintenance.Hash", served(maintenance.hash(HashRequest {}).await)),
        (
            "Maintenance.HashKV",
            served(maintenance.hash_kv(HashKvRequest { revision: 0 }).await),
        ),
        (
            "Maintenance.Snapshot",
            streamed(maintenance.snapshot(SnapshotRequest {}).await, blob).await,
        ),
        (
            "Maintenance.MoveLeader",
            served(maintenance.move_leader(MoveLeaderRequest { target_id: 1 }).await),
        ),
        (
            "Maintenance.Downgrade",
            served(maintenance.downgrade(cancel).await),
        ),
    ]
}

async fn locks_and_elections(client: &mut Client, lease: i64) -> Vec<(&'static str, String)> {
    let name = || bytes::Bytes::from_static(b"secret");
    let lock = LockRequest { name: name(), lease };
    let unlock = UnlockRequest {
        key: "secret/7".into(),
    };
    let campaign = CampaignRequest {
        name: name(),
        lease,
        value: "x".into(),
    };
    let leader = || {
        Some(LeaderKey {
            name: name(),
            key: "secret/7".into(),
            rev: 1,
            lease,
        })
    };
    let proclaim = ProclaimRequest {
        leader: leader(),
        value: "x".into(),
    };
    let resign = ResignRequest { leader: leader() };
    vec![
        ("Lock.Lock", served(client.lock.lock(lock).await)),
        ("Lock.Unlock", served(client.lock.unlock(unlock).await)),
        (
            "Election.Campaign",
            served(client.election.campaign(campaign).await),
        ),
        (
            "Election.Proclaim",
            served(client.election.proclaim(proclaim).await),
        ),
        (
            "Election.Leader",
            served(client.election.leader(LeaderRequest { name: name() }).await),
        ),
        ("Election.Resign", served(client.election.resign(resign).await)),
    ]
}

/// Users root and ann, who reads `r` and writes `w`; `secret` is on lease 7; auth is on.
async fn prepare(client: &mut Client) {
    let user = |name: &str| AuthUserAddRequest {
        name: name.to_owned(),
        password: name.to_owned(),
        ..Default::default()
    };
    let member = |user: &str, role: &str| AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let auth = &mut client.auth;
    auth.user_add(user("root")).await.expect("root");
    auth.user_grant_role(member("root", "root"))
        .await
        .expect("root's role");
    auth.user_add(user("ann")).await.expect("ann");
    auth.role_add(AuthRoleAddRequest { name: "role".into() })
        .await
        .expect("a role");
    for (kind, key) in [(Read, "r"), (Write, "w")] {
        let perm = Some(Permission {
            perm_type: kind.into(),
            key: key.into(),
            ..Default::default()
        });
        let grant = AuthRoleGrantPermissionRequest {
            name: "role".into(),
            perm,
        };
        auth.role_grant_permission(grant).await.expect("a permission");
    }
    auth.user_grant_role(member("ann", "role"))
        .await
        .expect("ann's role");
    let grant = LeaseGrantRequest { id: 7, ttl: 6000 };
    client.lease.lease_grant(grant).await.expect("a lease");
    let secret = PutRequest {
        lease: 7,
        ..put("secret", "1")
    };
    client.kv.put(secret).await.expect("a key");
    client
        .auth
        .auth_enable(AuthEnableRequest {})
        .await
        .expect("auth is on");
}

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 1).start().await;
    let mut nobody = cluster.client(0);
    prepare(&mut nobody).await;
    let clients = [
        ("nobody", nobody.clone()),
        ("a stranger", nobody.with_token("bad")),
        ("ann", nobody.log_in("ann", "ann").await.expect("ann logs in")),
        ("root", nobody.log_in("root", "root").await.expect("root logs in")),
    ];
    let mut transcript = Transcript::default();
    for (who, mut client) in clients {
        let mut answers = keys_and_leases(&mut client).await;
        answers.extend(cluster_and_maintenance(&mut client).await);
        answers.extend(locks_and_elections(&mut client, 7).await);
        for (call, answer) in answers {
            if !etcd_answers_otherwise(who, call) {
                transcript.push(&format!("{who}: {call}"), &answer);
            } else if subject.is_etcd() {
                transcript.push(&format!("etcd: {who}: {call}"), &answer);
            } else {
                let expected = match who {
                    "nobody" => show::status(&Status::new(
                        Code::InvalidArgument,
                        "etcdserver: user name is empty",
                    )),
                    "a stranger" => show::status(&Status::new(
                        Code::Unauthenticated,
                        "etcdserver: invalid auth token",
                    )),
                    _ => show::status(&Status::new(
                        Code::PermissionDenied,
                        "etcdserver: permission denied",
                    )),
                };
                assert_eq!(answer, expected, "{who}: {call}");
            }
        }
    }
    transcript.check(subject.name(), "semantics/auth_guarded.txt", subject.is_etcd());
}

tests::on_both!(check);
