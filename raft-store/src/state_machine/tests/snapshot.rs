//! Snapshots: built, kept, exported, installed.

use std::fs;

use futures::StreamExt;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use proto::etcdserverpb::LeaseGrantRequest;
use proto::replicated::request::Op;

use super::fixture::Fixture;
use super::{compact, delete, put};
use crate::store::HashKv;
use crate::watch::{WatchOptions, WatchOutput};

fn filled() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2, 3]);
    let big = "x".repeat(50_000);
    fixture.apply_all([
        put("a", "1"),
        put("big", &big),
        put("a", "2"),
        put("b", "3"),
        delete("b", ""),
    ]);
    fixture.apply_all([Op::LeaseGrant(LeaseGrantRequest { id: 5, ttl: 60 }), compact(4)]);
    fixture
}

fn state(
    fixture: &Fixture,
) -> (
    Option<crate::LogId>,
    crate::StoredMembership,
    HashKv,
    Vec<crate::LeaseInfo>,
    u64,
) {
    let store = &fixture.store;
    (
        store.applied(),
        store.membership(),
        store.hash_kv(0).unwrap(),
        store.leases(),
        store.size_bytes().1,
    )
}

fn snapshot_names(fixture: &Fixture) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixture.path().join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_snapshot_makes_the_same_store_elsewhere() {
    let mut leader = filled();
    let mut builder = leader.machine.get_snapshot_builder().await;
    // It is of the moment when the builder was made.
    let before = state(&leader);
    leader.apply_all([put("later", "1"), compact(7)]);
    let snapshot = builder.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, before.0);

    // Over the wire, in pieces.
    let mut follower = Fixture::new();
    follower.apply_all([put("old", "1")]);
    let mut receiver = follower.store.receive_snapshot().unwrap();
    for piece in fs::read(snapshot.snapshot.path()).unwrap().chunks(1_000) {
        receiver.write(piece).unwrap();
    }
    let received = receiver.finish().unwrap();
    follower.install(&snapshot.meta, received).await;
    assert_eq!(state(&follower), before);
    let kept = follower.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(kept.meta, snapshot.meta);
    assert_eq!(snapshot_names(&follower).len(), 1);

    // It goes on from there, and survives a restart.
    follower.apply_all([put("later", "1"), compact(7)]);
    assert_eq!(follower.store.hash_kv(0), leader.store.hash_kv(0));
    let follower = follower.reopen();
    assert_eq!(follower.store.hash_kv(0), leader.store.hash_kv(0));
}

#[tokio::test]
async fn the_last_two_are_kept_and_one_position_is_built_once() {
    let mut fixture = filled();
    assert!(fixture.machine.get_current_snapshot().await.unwrap().is_none());
    for n in 0..3 {
        fixture.apply_all([put("n", &n.to_string())]);
        for _ in 0..2 {
            fixture.snapshot().await;
        }
    }
    let names = snapshot_names(&fixture);
    assert_eq!(names.len(), 2, "{names:?}");
    let mut fixture = fixture.reopen();
    let current = fixture.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, fixture.store.applied());
}

#[tokio::test]
async fn an_export_is_gone_with_its_handle() {
    let fixture = filled();
    let export = fixture.store.export_snapshot().await.unwrap();
    assert_eq!(export.meta().last_log_id, fixture.store.applied());
    assert!(export.path().exists());
    drop(export);
    assert_eq!(snapshot_names(&fixture), Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_store_is_rebuilt_from_the_last_snapshot() {
    let mut fixture = filled();
    fixture.snapshot().await;
    let at_snapshot = state(&fixture);
    fixture.apply_all([put("later", "1")]);
    let dir = fixture.close();
    super::recovery::damage(dir.path());
    let mut fixture = Fixture::open(dir);
    assert_eq!(state(&fixture), at_snapshot);
    fixture.apply_all([put("later", "1")]);
    assert_eq!(fixture.shown(0).split(' ').next(), Some("a=2"));
    assert!(!fixture.path().join("state-1").exists());
}

#[tokio::test]
async fn watchers_go_on_across_an_install() {
    let mut leader = filled();
    let mut follower = Fixture::new();
    let mut watcher = follower.store.watch_hub().watch(WatchOptions {
        key: "later".into(),
        ..WatchOptions::default()
    });
    leader.apply_all([put("later", "1")]);
    let snapshot = leader.snapshot().await;
    follower.install(&snapshot.meta, snapshot.snapshot).await;
    // It began below what the snapshot has compacted.
    match watcher.recv().await {
        Some(WatchOutput::Compacted { compact_revision }) => assert_eq!(compact_revision, 4),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn openraft_applies_a_stream_and_watchers_see_it() {
    let mut fixture = Fixture::new();
    let mut watcher = fixture.store.watch_hub().watch(WatchOptions {
        key: "\0".into(),
        range_end: "\0".into(),
        prev_kv: true,
        ..WatchOptions::default()
    });
    let mut source = Fixture::new();
    let entries: Vec<_> = (0..3_000)
        .map(|n| {
            let request = proto::replicated::Request {
                op: Some(put("k", &n.to_string())),
                ..Default::default()
            };
            let bytes = prost::Message::encode_to_vec(&request);
            Ok((
                source.entry(openraft::EntryPayload::Normal(crate::Command(bytes.into()))),
                None,
            ))
        })
        .collect();
    fixture
        .machine
        .apply(futures::stream::iter(entries).boxed())
        .await
        .unwrap();
    fixture.store.wait_applied(3_000).await;
    assert_eq!(fixture.store.revision(), 3_001);
    let mut next = 2;
    while next <= 3_001 {
        let Some(WatchOutput::Events { events, .. }) = watcher.recv().await else {
            panic!()
        };
        for event in events {
            let kv = event.kv.unwrap();
            assert_eq!(kv.mod_revision, next);
            assert_eq!(event.prev_kv.map_or(1, |kv| kv.mod_revision), next - 1);
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_build_that_was_overtaken_by_an_install_is_thrown_away() {
    let mut follower = Fixture::new();
    follower.apply_all([put("old", "1")]);
    let mut late = follower.machine.get_snapshot_builder().await;

    let mut leader = filled();
    let snapshot = leader.snapshot().await;
    follower.install(&snapshot.meta, snapshot.snapshot).await;

    assert_eq!(late.build_snapshot().await.unwrap().meta, snapshot.meta);
    let current = follower.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, snapshot.meta);
    assert_eq!(snapshot_names(&follower).len(), 1);
}
