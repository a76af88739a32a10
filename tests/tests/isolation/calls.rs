//! Calls: etcd's, and our own. Each must be refused for want of permission.

use std::time::Duration;

use proto::agent::v1::attach_request::Request as Attached;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::*;
use proto::authpb::Permission;
use proto::authpb::permission::Type::Readwrite;
use proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::*;
use proto::{v3electionpb as election, v3lockpb as lock};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming};

use crate::{LEASE_OF_B, LOCK_OF_B, OTHERS, PASSWORD, PEOPLE, found, not_of_a};

const OWN: &str = "/tenants/a/desired/instances/web";
const OF_B: &str = "/tenants/b/desired/instances/web";
const PATIENCE: Duration = Duration::from_secs(20);

/// What was tried, and what came of it.
type Rows = Vec<(String, Result<(), Status>)>;

/// One row for each call.
macro_rules! rows {
    ($($what:literal: $call:expr),* $(,)?) => {
        vec![$(($what.to_owned(), $call.await.map(drop))),*]
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_people_call_in_vain() {
    let builder = Cluster::builder(&Subject::agent(), 1)
        .with_secrets()
        .arg("--bcrypt-cost", "4");
    let mut cluster = builder.start().await;
    let mut root = found(&mut cluster).await;
    let granted = LeaseGrantRequest {
        id: LEASE_OF_B,
        ttl: 6000,
    };
    root.lease.lease_grant(granted).await.expect("b's lease");
    for key in OTHERS {
        if !key.ends_with("/tenants/b") {
            root.put(key, b"of another").await.expect("root writes");
        }
    }
    root.kv.put(put(LOCK_OF_B, LEASE_OF_B)).await.expect("b's lock");
    let before = not_of_a(&mut root).await;
    let users = root.auth.user_list(AuthUserListRequest {}).await;
    let users = users.expect("users").into_inner().users;

    let mut let_through = String::new();
    for who in PEOPLE {
        let mut client = cluster.client(0).log_in(who, PASSWORD).await.expect("a login");
        let mut all = reads(&mut client).await;
        all.extend(writes(&mut client).await);
        all.extend(transactions(&mut client).await);
        all.extend(watches(&client).await);
        all.extend(leases_and_locks(&mut client).await);
        all.extend(administration(&mut client).await);
        all.extend(users_and_roles(&mut client).await);
        all.extend(hosts(&mut client).await);
        assert!(all.len() > 100, "{} rows", all.len());
        for (what, answer) in all {
            match answer {
                Err(status) if is_denied(&status) => {}
                answer => let_through.push_str(&format!("{who}: {what}: {answer:?}\n")),
            }
        }
    }
    assert!(let_through.is_empty(), "\n{let_through}");
    assert_eq!(not_of_a(&mut root).await, before);
    let still = root.auth.user_list(AuthUserListRequest {}).await;
    assert_eq!(still.expect("users").into_inner().users, users);
}

/// Locks and elections say it without a code, as in etcd.
fn is_denied(status: &Status) -> bool {
    match status.code() {
        Code::PermissionDenied => true,
        Code::Unknown => status.message() == "etcdserver: permission denied",
        _ => false,
    }
}

/// A tenant that renews a stranger's lease would keep a dead holder's lock. It is told that there is no such lease.
#[tokio::test]
async fn a_strangers_lease_is_not_kept_alive() {
    let builder = Cluster::builder(&Subject::agent(), 1).arg("--bcrypt-cost", "4");
    let mut cluster = builder.start().await;
    let mut root = found(&mut cluster).await;
    for id in [LEASE_OF_B, LEASE_OF_B + 1] {
        let granted = LeaseGrantRequest { id, ttl: 6000 };
        root.lease.lease_grant(granted).await.expect("a lease");
    }
    root.kv.put(put(LOCK_OF_B, LEASE_OF_B)).await.expect("b's lock");
    root.kv.put(put(OWN, LEASE_OF_B + 1)).await.expect("a's key");
    for (who, own_ttl) in [("admin", 6000), ("operator", 6000), ("viewer", 0)] {
        let mut client = cluster.client(0).log_in(who, PASSWORD).await.expect("a login");
        // Both on one stream: a refusal does not end it for the other.
        let requests = [LEASE_OF_B, LEASE_OF_B + 1].map(|id| LeaseKeepAliveRequest { id });
        let answers = client.lease.lease_keep_alive(tokio_stream::iter(requests)).await;
        let mut answers = answers.expect("a stream").into_inner();
        let mut ttl = async || {
            answers
                .message()
                .await
                .expect("an answer")
                .map(|answer| answer.ttl)
        };
        assert_eq!((ttl().await, ttl().await), (Some(0), Some(own_ttl)), "{who}");
    }
}

fn put(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: "forged".into(),
        lease,
        ..Default::default()
    }
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

/// What makes another kind of range of it.
type Change = fn(&mut RangeRequest);

async fn reads(client: &mut Client) -> Rows {
    let mut all = Rows::new();
    for key in OTHERS {
        all.push((
            format!("range of {key}"),
            client.kv.range(range(key, "")).await.map(drop),
        ));
    }
    for (from, to) in [
        ("/tenants/b/", "/tenants/b0"),
        // Own keys first, and then more.
        ("/tenants/a/", "\0"),
        ("/tenants/a/", "/tenants/b0"),
        ("/tenants/a/", "/tenants/a0\0"),
        ("/tenants/a", "/tenants/a0"),
        ("/tenants/", "/tenants0"),
        ("\0", "\0"),
        ("/hosts/", "/hosts0"),
        ("/cluster/", "/cluster0"),
        ("/tenants/b0", "/tenants/a"),
    ] {
        let what = format!("range of [{from:?}, {to:?})");
        all.push((what, client.kv.range(range(from, to)).await.map(drop)));
    }
    let kinds: [(&str, Change); 5] = [
        ("count", |range| range.count_only = true),
        ("keys", |range| range.keys_only = true),
        ("serializable", |range| range.serializable = true),
        ("limited", |range| range.limit = 1),
        ("of the past", |range| range.revision = 2),
    ];
    for (what, change) in kinds {
        for (from, to) in [(OF_B, ""), ("/tenants/a/", "\0")] {
            let mut range = range(from, to);
            change(&mut range);
            let what = format!("range, {what}, of [{from:?}, {to:?})");
            all.push((what, client.kv.range(range).await.map(drop)));
        }
    }
    all
}

async fn writes(client: &mut Client) -> Rows {
    let mut all = Rows::new();
    // A host's word, where an instance is put, and the tenant itself are not a tenant's to say either.
    let forged = [
        "/tenants/a/status/instances/web/m0",
        "/tenants/a/bindings/instances/web",
        "/cluster/desired/tenants/a",
    ];
    for key in OTHERS.iter().chain(&forged) {
        all.push((format!("put {key}"), client.kv.put(put(key, 0)).await.map(drop)));
        let delete = DeleteRangeRequest {
            key: (*key).into(),
            ..Default::default()
        };
        all.push((
            format!("delete {key}"),
            client.kv.delete_range(delete).await.map(drop),
        ));
    }
    let delete = |from: &'static str, to: &'static str, prev_kv| DeleteRangeRequest {
        key: from.into(),
        range_end: to.into(),
        prev_kv,
    };
    let previous = PutRequest {
        prev_kv: true,
        ..put(OF_B, 0)
    };
    let only_lease = PutRequest {
        value: Default::default(),
        ignore_value: true,
        ..put(OF_B, 0)
    };
    let compact = CompactionRequest {
        revision: 2,
        physical: false,
    };
    all.extend(rows! {
        "put with the value before": client.kv.put(previous),
        "put that keeps the value": client.kv.put(only_lease),
        "delete with the value before": client.kv.delete_range(delete(OF_B, "", true)),
        "delete b": client.kv.delete_range(delete("/tenants/b/", "/tenants/b0", false)),
        "delete a and all behind it": client.kv.delete_range(delete("/tenants/a/desired/", "\0", false)),
        "delete everything": client.kv.delete_range(delete("\0", "\0", false)),
        "compact": client.kv.compact(compact),
    });
    all
}

async fn transactions(client: &mut Client) -> Rows {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let read = || op(Op::RequestRange(range(OF_B, "")));
    let write = || op(Op::RequestPut(put(OF_B, 0)));
    let txn = |success: Vec<RequestOp>, failure: Vec<RequestOp>| TxnRequest {
        compare: Vec::new(),
        success,
        failure,
    };
    let nested = |op: RequestOp| RequestOp {
        request: Some(Op::RequestTxn(TxnRequest {
            success: vec![op],
            ..Default::default()
        })),
    };
    let compared = |key: &'static str, range_end: &'static str| TxnRequest {
        compare: vec![Compare {
            target: CompareTarget::Version.into(),
            key: key.into(),
            range_end: range_end.into(),
            target_union: Some(TargetUnion::Version(1)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let delete = DeleteRangeRequest {
        key: OF_B.into(),
        prev_kv: true,
        ..Default::default()
    };
    let leased = op(Op::RequestPut(put(OWN, LEASE_OF_B)));
    rows! {
        "txn that reads": client.kv.txn(txn(vec![read()], vec![])),
        "txn that reads where it fails": client.kv.txn(txn(vec![], vec![read()])),
        "txn that writes": client.kv.txn(txn(vec![write()], vec![])),
        "txn that writes where it fails": client.kv.txn(txn(vec![], vec![write()])),
        "txn that deletes": client.kv.txn(txn(vec![op(Op::RequestDeleteRange(delete))], vec![])),
        "txn in a txn that reads": client.kv.txn(txn(vec![nested(read())], vec![])),
        "txn in a txn that writes": client.kv.txn(txn(vec![nested(write())], vec![])),
        "txn in a txn in a txn": client.kv.txn(txn(vec![nested(nested(read()))], vec![])),
        "txn in a branch not taken": client.kv.txn(txn(vec![], vec![nested(write())])),
        "txn that compares": client.kv.txn(compared(OF_B, "")),
        "txn that compares a range": client.kv.txn(compared("/tenants/a/", "\0")),
        "txn with b's lease": client.kv.txn(txn(vec![leased], vec![])),
    }
}

/// A watch is refused by the first answer of its stream.
async fn watches(client: &Client) -> Rows {
    let mut all = Rows::new();
    for (from, to) in [
        (OF_B, ""),
        ("/tenants/b/", "/tenants/b0"),
        ("/tenants/a/", "\0"),
        ("/tenants/", "/tenants/a/zzz"),
        ("\0", "\0"),
        ("/hosts/m0/alive", ""),
        ("/tenants/b/secrets/", "/tenants/b/secrets0"),
    ] {
        let create = WatchCreateRequest {
            key: from.into(),
            range_end: to.into(),
            start_revision: 1,
            prev_kv: true,
            ..Default::default()
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
        let opened = client.watch.clone().watch(requests).await.expect("a stream");
        let first = message(&mut opened.into_inner()).await;
        let answer = match first {
            Ok(Some(answer)) if answer.canceled && answer.cancel_reason.contains("permission denied") => {
                Err(Status::permission_denied(answer.cancel_reason))
            }
            Ok(answer) => {
                assert!(
                    answer.is_none_or(|answer| answer.events.is_empty()),
                    "events of {from}"
                );
                Ok(())
            }
            Err(status) => Err(status),
        };
        all.push((format!("watch of [{from:?}, {to:?})"), answer));
    }
    all
}

async fn message<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("an answer in time")
}

async fn leases_and_locks(client: &mut Client) -> Rows {
    let name = || -> bytes::Bytes { LOCK_OF_B.into() };
    let keys = LeaseTimeToLiveRequest {
        id: LEASE_OF_B,
        keys: true,
    };
    let revoke = LeaseRevokeRequest { id: LEASE_OF_B };
    let leader = || election::LeaderKey {
        name: name(),
        key: name(),
        rev: 2,
        lease: LEASE_OF_B,
    };
    let locked = lock::LockRequest {
        name: name(),
        lease: 0,
    };
    let campaign = election::CampaignRequest {
        name: name(),
        lease: LEASE_OF_B,
        value: "forged".into(),
    };
    let proclaim = election::ProclaimRequest {
        leader: Some(leader()),
        value: "forged".into(),
    };
    let resign = election::ResignRequest {
        leader: Some(leader()),
    };
    let observed = async {
        let opened = client
            .election
            .clone()
            .observe(election::LeaderRequest { name: name() })
            .await?;
        message(&mut opened.into_inner()).await
    }
    .await;
    let mut all = rows! {
        "put on b's lease": client.kv.put(put(OWN, LEASE_OF_B)),
        "revoke b's lease": client.lease.lease_revoke(revoke),
        "keys on b's lease": client.lease.lease_time_to_live(keys),
        "lock b's name": client.lock.lock(locked),
        "unlock b's lock": client.lock.unlock(lock::UnlockRequest { key: name() }),
        "campaign in b's election": client.election.campaign(campaign),
        "proclaim as b's leader": client.election.proclaim(proclaim),
        "who is b's leader": client.election.leader(election::LeaderRequest { name: name() }),
        "resign for b's leader": client.election.resign(resign),
    };
    all.push(("observe b's election".to_owned(), observed.map(drop)));
    all
}

async fn administration(client: &mut Client) -> Rows {
    let alarm = |action: i32| AlarmRequest {
        action,
        member_id: 1,
        alarm: 1,
    };
    let add = MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: true,
    };
    let update = MemberUpdateRequest {
        id: 1,
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
    };
    let token = CreateTokenRequest {
        host: "mine".to_owned(),
        ttl_seconds: 60,
        secret_sha256: vec![7; 32].into(),
        ..Default::default()
    };
    let moved = MoveLeaderRequest { target_id: 1 };
    let snapshot = async {
        let opened = client.maintenance.clone().snapshot(SnapshotRequest {}).await?;
        message(&mut opened.into_inner()).await
    }
    .await;
    let mut all = rows! {
        "add a member": client.cluster.member_add(add),
        "remove a member": client.cluster.member_remove(MemberRemoveRequest { id: 1 }),
        "update a member": client.cluster.member_update(update),
        "promote a member": client.cluster.member_promote(MemberPromoteRequest { id: 1 }),
        "raise an alarm": client.maintenance.alarm(alarm(1)),
        "lift an alarm": client.maintenance.alarm(alarm(2)),
        "hand over leadership": client.maintenance.move_leader(moved),
        "hash": client.maintenance.hash(HashRequest {}),
        "hash of keys": client.maintenance.hash_kv(HashKvRequest { revision: 0 }),
        "defragment": client.maintenance.defragment(DefragmentRequest {}),
        "make a join token": client.trust.create_token(token),
        "list join tokens": client.trust.list_tokens(ListTokensRequest {}),
        "revoke a join token": client.trust.revoke_token(RevokeTokenRequest { id: 1 }),
    };
    all.push(("snapshot".to_owned(), snapshot.map(drop)));
    all
}

async fn users_and_roles(client: &mut Client) -> Rows {
    let auth = &mut client.auth;
    let (user, role) = ("stranger".to_owned(), "tenant:b:admin".to_owned());
    let add = AuthUserAddRequest {
        name: "accomplice".to_owned(),
        password: PASSWORD.to_owned(),
        ..Default::default()
    };
    let password = |name: &str| AuthUserChangePasswordRequest {
        name: name.to_owned(),
        password: "stolen".to_owned(),
        ..Default::default()
    };
    let grant = |user: &str, role: &str| AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let permission = |role: &str| AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: Readwrite.into(),
            key: "\0".into(),
            range_end: "\0".into(),
        }),
    };
    let revoke = AuthRoleRevokePermissionRequest {
        role: role.clone(),
        key: "/tenants/b/".into(),
        range_end: "/tenants/b0".into(),
    };
    let revoke_role = AuthUserRevokeRoleRequest {
        name: user.clone(),
        role: role.clone(),
    };
    rows! {
        "auth off": auth.auth_disable(AuthDisableRequest {}),
        "auth on": auth.auth_enable(AuthEnableRequest {}),
        "auth's status": auth.auth_status(AuthStatusRequest {}),
        "list users": auth.user_list(AuthUserListRequest {}),
        "get b's admin": auth.user_get(AuthUserGetRequest { name: user.clone() }),
        "get root": auth.user_get(AuthUserGetRequest { name: "root".to_owned() }),
        "add a user": auth.user_add(add),
        "delete b's admin": auth.user_delete(AuthUserDeleteRequest { name: user.clone() }),
        "delete root": auth.user_delete(AuthUserDeleteRequest { name: "root".to_owned() }),
        "b's admin's password": auth.user_change_password(password("stranger")),
        "root's password": auth.user_change_password(password("root")),
        "own password": auth.user_change_password(password("viewer")),
        "oneself root": auth.user_grant_role(grant("viewer", "root")),
        "oneself b's admin": auth.user_grant_role(grant("viewer", "tenant:b:admin")),
        "b's admin no admin": auth.user_revoke_role(revoke_role),
        "list roles": auth.role_list(AuthRoleListRequest {}),
        "get b's role": auth.role_get(AuthRoleGetRequest { role: role.clone() }),
        "add a role": auth.role_add(AuthRoleAddRequest { name: "mine".to_owned() }),
        "own role more": auth.role_grant_permission(permission("tenant:a:admin")),
        "b's role more": auth.role_grant_permission(permission("tenant:b:admin")),
        "b's role less": auth.role_revoke_permission(revoke),
        "delete b's role": auth.role_delete(AuthRoleDeleteRequest { role }),
    }
}

/// Of our own service: everything on b's instance, and on those of the operators.
async fn hosts(client: &mut Client) -> Rows {
    let mut all = Rows::new();
    for tenant in [
        "b",
        "default",
        "a/../b",
        "a/desired/instances/web/../../../../b",
        "",
    ] {
        let instance = || {
            Some(InstanceRef {
                tenant: tenant.to_owned(),
                name: "web".to_owned(),
                host: "m0".to_owned(),
            })
        };
        let mut of_it = on_instance(client, instance).await;
        for (what, answer) in &mut of_it {
            *what = format!("{what} of tenant {tenant:?}");
            // What is no tenant's name is refused as such, where nobody is asked for anything.
            if tenant.contains('/') || tenant.is_empty() {
                let refused = answer.as_ref().is_err_and(|status| {
                    matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied)
                });
                *answer = if refused {
                    Err(Status::permission_denied("no such tenant"))
                } else {
                    answer.clone()
                };
            }
        }
        all.extend(of_it);
    }
    let document = |key: &str| DocumentText {
        key: key.to_owned(),
        text: "kind: instance".into(),
    };
    let plan = |documents: Vec<DocumentText>, deleted: &[&str]| PlanRequest {
        documents,
        deleted_keys: deleted.iter().map(|key| (*key).to_owned()).collect(),
        host: String::new(),
    };
    let claim = |kind: &str, tenant: &str| ClaimRequest {
        kind: kind.to_owned(),
        tenant: tenant.to_owned(),
        name: "web".to_owned(),
        host: "m0".to_owned(),
    };
    let live = |kind: &str, tenant: &str| ReadLiveRequest {
        kind: kind.to_owned(),
        tenant: tenant.to_owned(),
        name: "web".to_owned(),
        host: String::new(),
    };
    let hosts = &mut client.hosts;
    all.extend(rows! {
        "plan b's document": hosts.plan(plan(vec![document(OWN), document(OF_B)], &[])),
        "plan the deletion of b's": hosts.plan(plan(vec![], &[OF_B])),
        "plan the cluster's": hosts.plan(plan(vec![document("/cluster/desired/networks/n")], &[])),
        "adopt b's instance": hosts.claim(claim("instance", "b")),
        "adopt b's volume": hosts.claim(claim("volume", "b")),
        "adopt a network": hosts.claim(claim("network", "")),
        "look at b's instance": hosts.read_live(live("instance", "b")),
        "look at b's profile": hosts.read_live(live("profile", "b")),
        "look at a network": hosts.read_live(live("network", "")),
        "look at the server": hosts.read_live(live("incus", "")),
    });
    all
}

async fn on_instance(client: &mut Client, instance: impl Fn() -> Option<InstanceRef>) -> Rows {
    let hosts = &mut client.hosts;
    let switch = |action: switch_instance_request::Action| SwitchInstanceRequest {
        instance: instance(),
        action: action.into(),
        force: true,
        timeout_seconds: 1,
    };
    let snapshot = CreateSnapshotRequest {
        instance: instance(),
        snapshot: "s".to_owned(),
    };
    let restore = RestoreSnapshotRequest {
        instance: instance(),
        snapshot: "s".to_owned(),
    };
    let backup = BackUpRequest {
        instance: instance(),
        to: vec!["m0".to_owned()],
    };
    let restore_backup = RestoreBackupRequest {
        instance: instance(),
        ..Default::default()
    };
    let mut all = rows! {
        "start": hosts.switch_instance(switch(switch_instance_request::Action::Start)),
        "stop": hosts.switch_instance(switch(switch_instance_request::Action::Stop)),
        "restart": hosts.switch_instance(switch(switch_instance_request::Action::Restart)),
        "snapshot": hosts.create_snapshot(snapshot),
        "list snapshots": hosts.list_snapshots(ListSnapshotsRequest { instance: instance() }),
        "restore a snapshot": hosts.restore_snapshot(restore),
        "back up": hosts.back_up(backup),
        "restore a backup": hosts.restore_backup(restore_backup),
    };
    let command = vec!["sh".to_owned()];
    let sessions = [
        (
            "exec",
            What::Exec(Exec {
                command,
                ..Default::default()
            }),
        ),
        ("console", What::Console(Console::default())),
        ("tunnel", What::Tunnel(Tunnel { port: 22 })),
    ];
    for (what, session) in sessions {
        let start = AttachRequest {
            request: Some(Attached::Start(AttachStart {
                instance: instance(),
                what: Some(session),
            })),
        };
        let requests = tokio_stream::iter([start]).chain(tokio_stream::pending());
        let answer = match hosts.attach(requests).await {
            Ok(opened) => message(&mut opened.into_inner()).await.map(drop),
            Err(status) => Err(status),
        };
        all.push((what.to_owned(), answer));
    }
    all
}
