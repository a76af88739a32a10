//! Restarts: clean ones, kills, and damage.

use std::fs;
use std::path::Path;

use proto::etcdserverpb::RangeRequest;

use super::fixture::{Fixture, options};
use super::{compact, delete, put, range};
use crate::backend::{Backend, Batch};
use crate::mvcc::Revision;
use crate::schema;
use crate::state_machine::{OpenStoreError, StateMachine};

#[test]
fn a_restart_changes_nothing() {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2, 3]);
    let big = "x".repeat(100_000);
    fixture.apply_all([
        put("a", "1"),
        put("big", &big),
        put("a", "2"),
        delete("a", ""),
        put("b", "3"),
    ]);
    fixture.apply_all([compact(4)]);
    let seen = |fixture: &Fixture| {
        (
            fixture.store.applied(),
            fixture.store.membership(),
            fixture.store.hash_kv(0).unwrap(),
            fixture
                .store
                .range(&RangeRequest {
                    revision: 4,
                    ..range("\0", "\0")
                })
                .unwrap()
                .kvs,
            fixture.store.size_bytes().1,
        )
    };
    let before = seen(&fixture);
    let fixture = fixture.reopen();
    assert_eq!(seen(&fixture), before);
    assert_eq!(seen(&fixture.reopen()), before);
}

#[test]
fn compacted_history_is_gone_from_the_disk_in_the_end() {
    let mut fixture = Fixture::new();
    for n in 0..2_500 {
        fixture.apply_all([put("k", &n.to_string()), put("big", &"y".repeat(5_000))]);
    }
    let revision = fixture.store.revision();
    fixture.apply_all([compact(revision)]);
    // Closing stops the sweeper wherever it is; opening goes on.
    for _ in 0..2 {
        fixture = fixture.reopen();
    }
    let state = fixture.machine.shared.state();
    state.sweeper.finish();
    let left = state.backend.scan(schema::records(0, i64::MAX)).count();
    assert_eq!(left, 4, "the two live records, one with two pieces");
}

/// Copies the store's files as a kill would leave them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_kill_leaves_a_whole_prefix_and_the_log_completes_it() {
    let mut fixture = Fixture::new();
    let ops: Vec<_> = (0..400)
        .map(|n| match n % 10 {
            9 => delete("0", "5"),
            _ => put(&format!("{}", n % 7), &"v".repeat(n * 20)),
        })
        .collect();
    // The hash after each entry, by applied index.
    let mut hashes = vec![fixture.store.hash_kv(0).unwrap()];
    let mut seen_indexes = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        fixture.apply(op.clone());
        hashes.push(fixture.store.hash_kv(0).unwrap());
        if n % 40 != 39 {
            continue;
        }
        let killed = tempfile::tempdir().unwrap();
        copy(fixture.path(), killed.path());
        let mut survivor = Fixture::open(killed);
        let applied = survivor
            .store
            .applied()
            .map_or(0, |id| usize::try_from(id.index()).unwrap());
        assert!(applied <= n + 1);
        assert_eq!(
            survivor.store.hash_kv(0).unwrap(),
            hashes[applied],
            "applied {applied}"
        );
        survivor.apply_all(ops[applied..=n].iter().cloned());
        assert_eq!(survivor.store.hash_kv(0).unwrap(), hashes[n + 1]);
        seen_indexes.push(applied);
    }
    assert_eq!(seen_indexes.len(), 10);
}

fn state_folders(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("state-"))
        .collect();
    names.sort();
    names
}

/// Damages a store that is closed: a record that makes no sense.
pub(super) fn damage(dir: &Path) {
    let backend = Backend::open(&dir.join("state-1"), 1 << 20).unwrap();
    let mut batch = Batch::default();
    batch.put(schema::record(Revision { main: 2, sub: 0 }), b"\xff");
    backend.write(batch).unwrap();
}

#[test]
fn a_damaged_store_without_a_snapshot_starts_empty() {
    let mut fixture = Fixture::new();
    fixture.apply_all([put("a", "1")]);
    let dir = fixture.close();
    damage(dir.path());
    let fixture = Fixture::open(dir);
    assert_eq!((fixture.store.applied(), fixture.store.revision()), (None, 1));
    assert_eq!(state_folders(fixture.path()), ["state-2"]);
}

/// sled may cut a broken log short without a word: then it is an older state, never a mixed one.
#[test]
fn overwritten_bytes_leave_a_whole_prefix_or_nothing() {
    for offset in [20_000, 60_000, 100_000, 150_000] {
        let mut fixture = Fixture::new();
        let mut hashes = vec![fixture.store.hash_kv(0).unwrap()];
        for n in 0..200 {
            fixture.apply(put(&format!("{n}"), &"v".repeat(1_000)));
            hashes.push(fixture.store.hash_kv(0).unwrap());
        }
        let dir = fixture.close();
        let db = dir.path().join("state-1/db");
        let mut bytes = fs::read(&db).unwrap();
        bytes[offset..offset + 64].fill(0xa5);
        fs::write(&db, bytes).unwrap();
        let fixture = Fixture::open(dir);
        let applied = fixture
            .store
            .applied()
            .map_or(0, |id| usize::try_from(id.index()).unwrap());
        assert_eq!(
            fixture.store.hash_kv(0).unwrap(),
            hashes[applied],
            "offset {offset}, applied {applied}"
        );
    }
}

#[test]
fn a_later_format_is_left_alone() {
    let fixture = Fixture::new();
    let dir = fixture.close();
    let backend = Backend::open(&dir.path().join("state-1"), 1 << 20).unwrap();
    let mut batch = Batch::default();
    batch.put(schema::META_FORMAT, 2_u32.to_be_bytes());
    backend.write(batch).unwrap();
    drop(backend);
    let error = StateMachine::open(options(dir.path())).unwrap_err();
    assert!(
        matches!(error, OpenStoreError::NewerFormat { found: 2, .. }),
        "{error}"
    );
    assert_eq!(state_folders(dir.path()), ["state-1"]);
}

#[test]
fn a_store_in_use_is_not_taken_for_damage() {
    let fixture = Fixture::new();
    let error = StateMachine::open(options(fixture.path())).unwrap_err();
    assert!(matches!(error, OpenStoreError::Io { .. }), "{error}");
    assert_eq!(state_folders(fixture.path()), ["state-1"]);
}
