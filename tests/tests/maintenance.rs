//! What keeps a store within its bounds, and what brings one back: the quota, hash checks, compaction by itself,
//! snapshots, and new clusters from them.

use std::path::Path;
use std::process::Output;

use proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, RangeRequest,
    WatchCreateRequest, WatchRequest, watch_request,
};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::load::Load;
use tests::{notes, tools, wait};
use tokio::process::Command;
use tonic::Code;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_lifts_itself() {
    const QUOTA_BYTES: u64 = 4 << 20;
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .arg("--quota-backend-bytes", &QUOTA_BYTES.to_string())
        .start()
        .await;
    // A follower: it refuses before it forwards.
    let mut client = cluster.client(cluster.follower().await);
    let value = vec![b'x'; 64 << 10];
    let mut taken = 0_u64;
    let refused = loop {
        match client.put(&format!("k{taken:04}"), &value).await {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 100, "more was taken than the quota has room for");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, NO_SPACE)
    );
    assert!(
        taken * (64 << 10) < QUOTA_BYTES && taken > 50,
        "{taken} were taken"
    );

    // The alarm makes every member refuse, and says why.
    for i in 0..cluster.len() {
        let said = wait::until("the alarm at every member", async || {
            let status = cluster.client(i).status().await.ok()?;
            status.errors.into_iter().find(|error| error.contains("NOSPACE"))
        });
        said.await;
        let refused = cluster.client(i).put("small", b"").await.expect_err("no space");
        assert_eq!(refused.message(), NO_SPACE);
        let lease = LeaseGrantRequest { id: 0, ttl: 60 };
        let refused = cluster
            .client(i)
            .lease
            .lease_grant(lease)
            .await
            .expect_err("no space");
        assert_eq!(refused.message(), NO_SPACE);
    }
    assert_eq!(
        client.get_prefix("k", false).await.expect("reads work").count as u64,
        taken
    );

    // A leader that comes later goes on with the alarm.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.start(leader);
    cluster.ready().await;

    let mut client = cluster.client(cluster.follower().await);
    let all = DeleteRangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv: false,
    };
    let deleted = client
        .kv
        .delete_range(all)
        .await
        .expect("deletes work")
        .into_inner();
    assert_eq!(deleted.deleted as u64, taken);
    let compact = CompactionRequest {
        revision: deleted.header.map_or(0, |header| header.revision),
        physical: true,
    };
    client.kv.compact(compact).await.expect("compaction works");
    let put_again = async || cluster.client(0).put("small", b"").await.ok();
    wait::until("puts to be taken again", put_again).await;
    let alarms = client
        .maintenance
        .alarm(AlarmRequest::default())
        .await
        .expect("alarms");
    assert!(alarms.get_ref().alarms.is_empty(), "{alarms:?}");
}

/// One value is changed in one member's store while it is stopped: the alarm names that member, on all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_value_is_found_and_its_member_named() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .arg("--corrupt-check-time", "1s")
        .start()
        .await;
    let victim = cluster.follower().await;
    let victim_id = cluster
        .client(victim)
        .status()
        .await
        .expect("status")
        .header
        .expect("a header")
        .member_id;
    let mut client = cluster.client(cluster.leader().await);
    client.put("kept", b"the right value").await.expect("put");
    for i in 0..100 {
        client.put(&format!("other/{i}"), b"x").await.expect("put");
    }
    wait::until("the follower to have it", async || {
        let range = cluster
            .client(victim)
            .get_within("kept", wait::PATIENCE)
            .await
            .ok()?;
        (range.count == 1).then_some(())
    })
    .await;
    assert!(cluster.terminate(victim).await.success());
    flip(
        &cluster.member(victim).data_dir.join("store"),
        b"the right value",
        b"the wrong value",
    );
    cluster.start(victim);

    for i in 0..cluster.len() {
        let named = wait::until("the alarm", async || {
            let mut client = cluster.client(i);
            let alarms = client
                .maintenance
                .alarm(AlarmRequest::default())
                .await
                .ok()?
                .into_inner()
                .alarms;
            (!alarms.is_empty()).then_some(alarms)
        })
        .await;
        let named: Vec<_> = named
            .iter()
            .map(|alarm| (alarm.member_id, alarm.alarm()))
            .collect();
        assert_eq!(named, [(victim_id, AlarmType::Corrupt)]);
    }
    let refused = cluster.client(0).put("more", b"").await.expect_err("corrupt");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::DataLoss, "etcdserver: corrupt cluster")
    );
    let said: Vec<String> = (0..cluster.len()).map(|i| cluster.member(i).log()).collect();
    assert!(
        said.iter()
            .any(|log| log.contains(&format!("{victim_id:x}")) && log.contains("differs")),
        "the leader says what to do"
    );
}

/// Changes one value in the store of a stopped member, and nothing else.
fn flip(store: &Path, from: &[u8], to: &[u8]) {
    let current = std::fs::read_to_string(store.join("CURRENT")).expect("the store in force");
    let db = sled::open(store.join(current.trim())).expect("open the stopped member's store");
    let mut flipped = 0;
    for entry in db.iter() {
        let (key, value) = entry.expect("an entry");
        if let Some(at) = value.windows(from.len()).position(|window| window == from) {
            let mut changed = value.to_vec();
            changed[at..at + from.len()].copy_from_slice(to);
            db.insert(key, changed).expect("change it");
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "the value is there once");
    db.flush().expect("flush");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_compacts_itself_on_etcd() {
    match Subject::etcd() {
        Some(etcd) => history_compacts_itself(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_compacts_itself_on_agent() {
    history_compacts_itself(&Subject::agent()).await;
}

async fn history_compacts_itself(subject: &Subject) {
    let cluster = Cluster::builder(subject, 3)
        .arg("--auto-compaction-retention", "1s")
        .start()
        .await;
    let mut client = cluster.client(cluster.follower().await);
    let first = client.put("a", b"1").await.expect("put");
    client.put("a", b"2").await.expect("put");
    for i in 0..cluster.len() {
        wait::until("the first revision to be compacted", async || {
            let old = RangeRequest {
                key: "a".into(),
                revision: first,
                serializable: true,
                ..Default::default()
            };
            let refused = cluster.client(i).kv.range(old).await.err()?;
            assert_eq!(
                (refused.code(), refused.message()),
                (
                    Code::OutOfRange,
                    "etcdserver: mvcc: required revision has been compacted"
                )
            );
            Some(())
        })
        .await;
    }
    let now = client.get_within("a", wait::PATIENCE).await.expect("get");
    assert_eq!(now.kvs[0].value, "2");
}

async fn agentctl(arguments: &[&str]) -> Output {
    let output = Command::new(tools::agentctl()).args(arguments).output().await;
    output.expect("run agentctl")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Saved while writers write, restored as another cluster of three, which is then written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_back_from_a_snapshot_taken_under_load() {
    const BUMP: i64 = 1_000_000_000;
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("saved");
    let file = file.to_str().expect("a path");
    let old = Cluster::builder(&Subject::agent(), 3).start().await;
    let mut client = old.client(0);
    let before = client.put("before", b"yes").await.expect("put");
    let grant = LeaseGrantRequest { id: 77, ttl: 600 };
    client.lease.lease_grant(grant).await.expect("grant");
    let early = Load::start("early", &old.endpoints(), 4);
    early.progress(200).await;
    let early = early.stop().await;
    let late = Load::start("late", &old.endpoints(), 4);
    late.progress(50).await;
    let saved = agentctl(&["--endpoints", old.endpoint(1), "snapshot", "save", file]).await;
    assert!(saved.status.success(), "{}", text(&saved));
    late.progress(50).await;
    late.stop().await.check_order();
    drop(old);

    let status = agentctl(&["snapshot", "status", file, "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let saved_revision = status["revision"].as_i64().expect("a revision");
    assert!(saved_revision > early.acknowledged.len() as i64, "{status}");

    let mut new = Cluster::builder(&Subject::agent(), 3).token("restored").prepare();
    let members: Vec<String> = new
        .members()
        .iter()
        .map(|m| format!("{}={}", m.name, m.peer_url))
        .collect();
    let members = members.join(",");
    for member in new.members() {
        let data_dir = member.data_dir.to_str().expect("a path");
        let arguments = [
            "snapshot",
            "restore",
            file,
            "--data-dir",
            data_dir,
            "--name",
            &member.name,
            "--initial-cluster",
            &members,
            "--initial-cluster-token",
            "restored",
            "--initial-advertise-peer-urls",
            &member.peer_url,
        ];
        let restored = agentctl(&arguments).await;
        assert!(restored.status.success(), "{}", text(&restored));
        // Never over what is there.
        let again = agentctl(&arguments).await;
        assert_eq!(again.status.code(), Some(1));
        assert!(
            text(&again).contains("never writes over anything"),
            "{}",
            text(&again)
        );
    }
    for i in 0..3 {
        new.start(i);
    }
    new.ready().await;
    let mut hashes = Vec::new();
    for i in 0..3 {
        let mut client = new.client(i);
        let kept = client.get_within("before", wait::PATIENCE).await.expect("get");
        assert_eq!(
            (kept.kvs[0].value.as_ref(), kept.kvs[0].mod_revision),
            (b"yes".as_slice(), before)
        );
        let found = client.get_prefix("early/", false).await.expect("get");
        early.check_in(&found);
        let hash = client.hash_kv(saved_revision + BUMP).await.expect("hash");
        hashes.push((hash.hash, hash.compact_revision));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let mut client = new.client(0);
    assert_eq!(
        client.put("after", b"yes").await.expect("put"),
        saved_revision + BUMP + 1
    );
    assert_eq!(compacted_at(&mut client, before).await, saved_revision + BUMP);
    let leases = client
        .lease
        .lease_leases(proto::etcdserverpb::LeaseLeasesRequest {})
        .await
        .expect("leases");
    assert_eq!(
        leases
            .get_ref()
            .leases
            .iter()
            .map(|lease| lease.id)
            .collect::<Vec<_>>(),
        [77]
    );

    // It is a cluster like any other: members come and go.
    let leader = new.leader().await;
    new.kill(leader);
    let other = (leader + 1) % 3;
    wait::until("a write without the first leader", async || {
        new.client(other).put("x", b"").await.ok()
    })
    .await;
    new.start(leader);
    new.ready().await;
}

/// Where a watch from an old revision is told to start instead.
async fn compacted_at(client: &mut Client, start_revision: i64) -> i64 {
    let create = WatchCreateRequest {
        key: "before".into(),
        start_revision,
        ..Default::default()
    };
    let request = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut answers = client.watch.watch(requests).await.expect("watch").into_inner();
    loop {
        let answer = tokio::time::timeout(wait::PATIENCE, answers.message())
            .await
            .expect("in time");
        let answer = answer.expect("an answer").expect("no end");
        if answer.canceled {
            return answer.compact_revision;
        }
    }
}

#[tokio::test]
async fn a_wrong_file_is_refused_in_clear_words() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    cluster.client(0).put("a", &[b'x'; 100_000]).await.expect("put");
    let saved = agentctl(&[
        "--endpoints",
        cluster.endpoint(0),
        "snapshot",
        "save",
        &path("good"),
    ])
    .await;
    assert!(saved.status.success(), "{}", text(&saved));
    let good = std::fs::read(path("good")).expect("read it");
    let mut flipped = good.clone();
    flipped[50_000] ^= 1;
    std::fs::write(path("flipped"), flipped).expect("write");
    std::fs::write(path("short"), &good[..good.len() / 2]).expect("write");
    let mut cases = vec![
        ("flipped", "is damaged"),
        ("short", "is damaged"),
        ("none", "no such file"),
    ];
    if let Some(etcd) = Subject::etcd() {
        let etcd = Cluster::builder(&etcd, 1).start().await;
        let saved = agentctl(&["--endpoints", etcd.endpoint(0), "snapshot", "save", &path("etcd")]).await;
        assert!(saved.status.success(), "{}", text(&saved));
        cases.push(("etcd", "is a snapshot of an etcd"));
    }
    for (name, said) in cases {
        for words in [
            vec!["snapshot", "status", &path(name)],
            vec!["snapshot", "restore", &path(name), "--data-dir", &path("made")],
        ] {
            let refused = agentctl(&words).await;
            assert_eq!(refused.status.code(), Some(1), "{words:?}");
            assert!(
                text(&refused).to_lowercase().contains(said),
                "{words:?}: {}",
                text(&refused)
            );
        }
        assert!(!Path::new(&path("made")).exists(), "{name} left something behind");
    }
}

#[tokio::test]
async fn agentctl_shows_and_clears_alarms() {
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let raise = AlarmRequest {
        action: proto::etcdserverpb::alarm_request::AlarmAction::Activate.into(),
        member_id: 7,
        alarm: AlarmType::Nospace.into(),
    };
    cluster.client(0).maintenance.alarm(raise).await.expect("raise");
    for (command, shown) in [
        ("list", "memberID:7 alarm:NOSPACE \n"),
        ("disarm", "memberID:7 alarm:NOSPACE \n"),
        ("list", ""),
        ("disarm", ""),
    ] {
        let output = agentctl(&["--endpoints", cluster.endpoint(0), "alarm", command]).await;
        assert_eq!(text(&output), shown, "{command}");
    }
}

/// Measured once, for the documentation: what a folder keeps of 500 MiB that were deleted and compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: run it by name"]
async fn what_stays_on_disk_after_a_large_delete() {
    const VALUES: usize = 500;
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let mut client = cluster.client(0);
    let sizes = async |client: &mut Client, what: &str| {
        let status = client.status().await.expect("status");
        notes::measured(&format!(
            "{what}: dbSize {} MiB, dbSizeInUse {} MiB",
            status.db_size >> 20,
            status.db_size_in_use >> 20
        ));
    };
    let mut value = vec![0_u8; 1 << 20];
    for round in 0..2 {
        for i in 0..VALUES {
            value
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = ((at * (i + 7)) >> 3) as u8);
            client.put(&format!("k{i}"), &value).await.expect("put");
        }
        sizes(&mut client, &format!("round {round}, put")).await;
        let all = DeleteRangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            prev_kv: false,
        };
        let deleted = client.kv.delete_range(all).await.expect("delete").into_inner();
        let revision = deleted.header.map_or(0, |header| header.revision);
        let compact = CompactionRequest {
            revision,
            physical: true,
        };
        client.kv.compact(compact).await.expect("compact");
        sizes(&mut client, &format!("round {round}, deleted and compacted")).await;
    }
}
