//! One test for each hole that etcd once had, named by it.

use std::path::Path;

use proto::etcdserverpb::request_op::Request as Step;
use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::wait;
use tonic::{Code, Status};

use crate::watching::{DENIED, next, watch};
use crate::{
    ANN_PASSWORD, Guarded, ROOT_PASSWORD, change_password, delete, denied, grant, members, on_lease, put,
    range, refused, txn,
};

#[tokio::test]
async fn cve_2026_33343_a_nested_txn_is_checked() {
    let Guarded { mut ann, cluster, .. } = Guarded::start(members(1)).await;
    for step in [
        Step::RequestRange(range("secret")),
        Step::RequestPut(put("secret")),
        Step::RequestDeleteRange(delete("secret")),
    ] {
        let mut nested = txn(vec![], vec![step]);
        for _ in 0..4 {
            denied(ann.kv.txn(nested.clone()).await);
            nested = txn(vec![Step::RequestTxn(nested)], vec![]);
        }
    }
    let kept = cluster
        .client(0)
        .kv
        .range(range("secret"))
        .await
        .expect("root reads");
    assert_eq!(kept.get_ref().kvs[0].version, 1);
}

#[tokio::test]
async fn cve_2026_44283_previous_values_and_leases_in_a_txn_are_checked() {
    let Guarded {
        mut ann,
        mut root,
        cluster: _cluster,
    } = Guarded::start(members(1)).await;
    let previous_of_put = PutRequest {
        prev_kv: true,
        ..put("w")
    };
    let previous_of_delete = DeleteRangeRequest {
        prev_kv: true,
        ..delete("w")
    };
    for step in [
        Step::RequestPut(previous_of_put),
        Step::RequestPut(on_lease("w", 7)),
        Step::RequestDeleteRange(previous_of_delete),
    ] {
        let nested = Step::RequestTxn(txn(vec![step.clone()], vec![]));
        for (success, failure) in [
            (vec![step.clone()], vec![]),
            (vec![], vec![step.clone()]),
            (vec![nested], vec![]),
        ] {
            denied(ann.kv.txn(txn(success, failure)).await);
        }
    }
    // With all that it takes the very same is served.
    grant(&mut root, proto::authpb::permission::Type::Readwrite, "w", "").await;
    let previous = PutRequest {
        prev_kv: true,
        ..put("w")
    };
    let allowed = txn(vec![Step::RequestPut(previous)], vec![]);
    ann.kv.txn(allowed).await.expect("served");
}

#[tokio::test]
async fn cve_2023_32082_a_leases_keys_are_not_told() {
    let Guarded {
        mut ann,
        mut root,
        cluster: _cluster,
    } = Guarded::start(members(1)).await;
    let keys_of = |id| LeaseTimeToLiveRequest { id, keys: true };
    denied(ann.lease.lease_time_to_live(keys_of(7)).await);
    let told = root
        .lease
        .lease_time_to_live(keys_of(7))
        .await
        .expect("root is told");
    assert_eq!(told.get_ref().keys, [b"secret".as_slice()]);
    // One key that is hidden hides all.
    let lease = LeaseGrantRequest { id: 8, ttl: 600 };
    ann.lease.lease_grant(lease).await.expect("a lease");
    root.kv.put(on_lease("r", 8)).await.expect("a key");
    let told = ann
        .lease
        .lease_time_to_live(keys_of(8))
        .await
        .expect("ann may read it");
    assert_eq!(told.get_ref().keys, [b"r".as_slice()]);
    root.kv.put(on_lease("other", 8)).await.expect("another key");
    denied(ann.lease.lease_time_to_live(keys_of(8)).await);
}

/// Calls that etcd 3.5 served without asking who it is; each is answered a refusal.
async fn unguarded(client: &mut Client) -> Vec<(&'static str, Result<(), Status>)> {
    let alarm = |action| AlarmRequest {
        action,
        member_id: 1,
        alarm: 1,
    };
    let keep = tokio_stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let add = MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: true,
    };
    let compact = CompactionRequest {
        revision: 1,
        physical: false,
    };
    let list = MemberListRequest::default();
    vec![
        ("list", client.cluster.member_list(list).await.map(drop)),
        ("add", client.cluster.member_add(add).await.map(drop)),
        ("alarm", client.maintenance.alarm(alarm(0)).await.map(drop)),
        ("raise", client.maintenance.alarm(alarm(1)).await.map(drop)),
        (
            "status",
            client.maintenance.status(StatusRequest {}).await.map(drop),
        ),
        (
            "move",
            client
                .maintenance
                .move_leader(MoveLeaderRequest { target_id: 1 })
                .await
                .map(drop),
        ),
        (
            "grant",
            client
                .lease
                .lease_grant(LeaseGrantRequest { id: 0, ttl: 60 })
                .await
                .map(drop),
        ),
        (
            "revoke",
            client
                .lease
                .lease_revoke(LeaseRevokeRequest { id: 7 })
                .await
                .map(drop),
        ),
        (
            "leases",
            client.lease.lease_leases(LeaseLeasesRequest {}).await.map(drop),
        ),
        (
            "time to live",
            client
                .lease
                .lease_time_to_live(LeaseTimeToLiveRequest { id: 7, keys: false })
                .await
                .map(drop),
        ),
        ("keep alive", client.lease.lease_keep_alive(keep).await.map(drop)),
        ("compact", client.kv.compact(compact).await.map(drop)),
        (
            "snapshot",
            client.maintenance.snapshot(SnapshotRequest {}).await.map(drop),
        ),
    ]
}

#[tokio::test]
async fn cve_2026_33413_strangers_get_nothing() {
    let guarded = Guarded::start(members(1)).await;
    for (call, answer) in unguarded(&mut guarded.nobody_at(0)).await {
        let status = answer.expect_err(call);
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "etcdserver: user name is empty"),
            "{call}"
        );
    }
    // A user may look, and not administer.
    let administers = ["add", "raise", "move", "revoke", "compact", "snapshot"];
    for (call, answer) in unguarded(&mut guarded.ann.clone()).await {
        let expected = if administers.contains(&call) {
            Err(Code::PermissionDenied)
        } else {
            Ok(())
        };
        assert_eq!(answer.map_err(|status| status.code()), expected, "{call}");
    }
}

#[tokio::test]
async fn cve_2026_73499_an_open_ended_watch_is_checked() {
    let Guarded { ann, cluster, .. } = Guarded::start(members(1)).await;
    for (key, range_end) in [("r", "\0"), ("\0", "\0"), ("", "\0"), ("secret", ""), ("r", "s")] {
        let answer = next(&mut watch(&ann, key, range_end).await)
            .await
            .expect("an answer");
        assert_eq!(
            (
                answer.watch_id,
                answer.created,
                answer.canceled,
                answer.cancel_reason.as_str()
            ),
            (-1, true, true, DENIED),
            "{key:?}"
        );
    }
    let answer = next(&mut watch(&ann, "r", "").await).await.expect("an answer");
    assert!(answer.created && !answer.canceled);
    drop(cluster);
}

/// Etcd 3.5 forgets to ask once an alarm is raised (etcd#22386).
#[tokio::test]
async fn an_alarm_lifts_no_permission() {
    let Guarded {
        mut ann,
        mut root,
        cluster,
    } = Guarded::start(members(1)).await;
    let raise = AlarmRequest {
        action: 1,
        member_id: 1,
        alarm: AlarmType::Nospace.into(),
    };
    root.maintenance.alarm(raise).await.expect("raised");
    denied(ann.kv.delete_range(delete("secret")).await);
    denied(ann.lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await);
    denied(ann.auth.auth_disable(AuthDisableRequest {}).await);
    let nobody = Client::new(cluster.endpoint(0))
        .kv
        .delete_range(delete("secret"))
        .await;
    refused(nobody, Code::InvalidArgument, "etcdserver: user name is empty");
}

fn files(folder: &Path, found: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
}

async fn over_http(cluster: &Cluster, path: &str, body: &str) -> String {
    let url = format!("{}{path}", cluster.endpoint(0));
    let request = reqwest::Client::new().post(url).body(body.to_owned());
    let answer = request.send().await.expect("an answer");
    answer.text().await.expect("text")
}

#[tokio::test]
async fn cve_2021_28235_passwords_hashes_and_tokens_stay_out_of_files_and_logs() {
    let Guarded {
        mut cluster,
        mut root,
        ann,
    } = Guarded::start(members(1).arg("--log-level", "debug")).await;
    change_password(&mut root, "ann", "other-password").await;
    let _ = ann
        .log_in("ann", "wrong-password")
        .await
        .expect_err("it does not fit");
    let body = r#"{"name":"ann","password":"other-password"}"#;
    let answer = over_http(&cluster, "/v3/auth/authenticate", body).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let gateway_token = answer["token"].as_str().expect("a token").to_owned();
    // What cannot be read is not printed either.
    let broken = r#"{"name":"ann","password":"other-password","options":7"#;
    let answer = over_http(&cluster, "/v3/auth/user/add", broken).await;
    assert!(!answer.contains("other-password"), "{answer}");

    cluster.terminate(0).await;
    let mut found = Vec::new();
    files(cluster.folder(), &mut found);
    let (mut logged, mut stored) = (0, 0);
    for (path, bytes) in &found {
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let passwords = [ROOT_PASSWORD, ANN_PASSWORD, "other-password", "wrong-password"];
        for secret in passwords
            .into_iter()
            .chain([root.token(), ann.token(), &gateway_token])
        {
            assert!(!holds(secret), "{secret} is in {}", path.display());
        }
        if path.extension().is_some_and(|extension| extension == "log") {
            assert!(
                !holds("$2b$") && !holds("$2a$"),
                "a hash is in {}",
                path.display()
            );
            assert!(holds("DEBUG") && holds("UserAdd"), "nothing was logged");
            logged += 1;
        } else {
            stored += usize::from(holds("$2b$"));
        }
    }
    assert!(logged == 1 && stored > 0, "not all was looked at");
}

/// A lease that runs out takes keys along, whoever they belong to: the cluster itself asks nobody.
#[tokio::test]
async fn the_cluster_itself_goes_on_with_auth_on() {
    let Guarded {
        mut root, cluster, ..
    } = Guarded::start(members(3)).await;
    let lease = LeaseGrantRequest { id: 8, ttl: 1 };
    root.lease.lease_grant(lease).await.expect("a lease");
    root.kv.put(on_lease("short", 8)).await.expect("a key");
    wait::until("the lease to run out", async || {
        let found = cluster.client(1).kv.range(range("short")).await.ok()?;
        found.get_ref().kvs.is_empty().then_some(())
    })
    .await;
    let hashes = wait::until("the same hash on all members", async || {
        let mut hashes = Vec::new();
        for member in 0..3 {
            hashes.push(cluster.client(member).hash_kv(0).await.ok()?.hash);
        }
        Some(hashes)
    });
    let hashes = hashes.await;
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
