//! The hub as its callers see it, over a store in memory.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::task::Poll;

use expect_test::{Expect, expect};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use super::fake_store::*;
use super::*;

/// Receives until nothing more comes; a line for each delivery.
fn received(watcher: &mut Watcher) -> String {
    let mut lines = String::new();
    loop {
        match recv_now(watcher) {
            Poll::Pending => return lines,
            Poll::Ready(None) => return lines + "end\n",
            Poll::Ready(Some(WatchOutput::Compacted { compact_revision })) => {
                writeln!(lines, "compacted {compact_revision}").unwrap();
            }
            Poll::Ready(Some(WatchOutput::Events { revision, events })) => {
                let shown: Vec<String> = events.iter().map(shown).collect();
                writeln!(lines, "{revision}: {}", shown.join(", ")).unwrap();
            }
        }
    }
}

/// `put key=value@revision (was previous)`; for a delete, whatever its kv holds beyond key and revision.
fn shown(event: &Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let key = String::from_utf8_lossy(&kv.key);
    let mut line = if event.r#type == EventType::Delete as i32 {
        let bare = KeyValue {
            key: kv.key.clone(),
            mod_revision: kv.mod_revision,
            ..KeyValue::default()
        };
        assert_eq!(kv, &bare);
        format!("delete {key}@{}", kv.mod_revision)
    } else {
        format!(
            "put {key}={}@{}",
            String::from_utf8_lossy(&kv.value),
            kv.mod_revision
        )
    };
    if let Some(prev) = &event.prev_kv {
        write!(line, " (was {})", String::from_utf8_lossy(&prev.value)).unwrap();
    }
    line
}

fn check(watcher: &mut Watcher, expected: &Expect) {
    expected.assert_eq(&received(watcher));
}

#[test]
fn start_zero_means_after_the_current_revision() {
    let mut store = FakeStore::new(16);
    store.put("a", "1");
    let mut watcher = store.hub.watch(options("a", ""));
    assert_eq!(watcher.created_revision(), 2);
    assert_eq!(watcher.progress(), Some(2));
    check(&mut watcher, &expect![""]);
    store.put("a", "2");
    assert_eq!(watcher.progress(), None);
    check(
        &mut watcher,
        &expect![[r#"
        3: put a=2@3
    "#]],
    );
    assert_eq!(watcher.progress(), Some(3));
}

#[test]
fn a_write_that_was_readable_before_the_watch_is_not_an_event() {
    let mut store = FakeStore::new(16);
    let (revision, events) = store.write_unpublished(&[("a", Some("1"))]);
    let mut watcher = store.hub.watch(options("a", ""));
    assert_eq!(watcher.created_revision(), 2);
    assert_eq!(watcher.progress(), None);
    store.publish(revision, events, false);
    assert_eq!(watcher.progress(), Some(2));
    store.put("a", "2");
    check(
        &mut watcher,
        &expect![[r#"
        3: put a=2@3
    "#]],
    );
}

#[test]
fn a_past_start_is_read_from_history_and_joins_the_present() {
    let mut store = FakeStore::new(16);
    store.put("a", "1");
    store.put("b", "1");
    store.write(&[("a", None), ("b", Some("2"))]);
    let mut watcher = store.hub.watch(WatchOptions {
        start_revision: 2,
        ..options("a", "z")
    });
    assert_eq!(watcher.created_revision(), 4);
    assert_eq!(watcher.progress(), None);
    store.put("c", "1");
    check(
        &mut watcher,
        &expect![[r#"
        5: put a=1@2, put b=1@3, delete a@4, put b=2@4, put c=1@5
    "#]],
    );
    let reads = store.history.reads.load(Ordering::SeqCst);
    store.put("d", "1");
    check(
        &mut watcher,
        &expect![[r#"
        6: put d=1@6
    "#]],
    );
    assert_eq!(
        store.history.reads.load(Ordering::SeqCst),
        reads,
        "a synced watcher reads no history"
    );
}

#[test]
fn a_future_start_delivers_nothing_before_it_and_no_progress() {
    let mut store = FakeStore::new(16);
    let mut watcher = store.hub.watch(WatchOptions {
        start_revision: 4,
        ..options("a", "")
    });
    store.put("a", "2");
    assert_eq!(watcher.progress(), None);
    check(&mut watcher, &expect![""]);
    store.put("a", "3");
    assert_eq!(watcher.progress(), Some(3));
    store.put("a", "4");
    check(
        &mut watcher,
        &expect![[r#"
        4: put a=4@4
    "#]],
    );
}

#[test]
fn below_the_compacted_revision_the_watcher_ends() {
    let mut store = FakeStore::new(16);
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    store.compact(3);
    let mut watcher = store.hub.watch(WatchOptions {
        start_revision: 2,
        ..options("a", "")
    });
    check(
        &mut watcher,
        &expect![[r#"
        compacted 3
        end
    "#]],
    );
    assert_eq!(watcher.progress(), None);
}

#[test]
fn a_delete_at_the_compacted_revision_is_delivered() {
    let mut store = FakeStore::new(16);
    store.put("a", "1");
    store.write(&[("a", None)]);
    store.put("b", "1");
    store.compact(3);
    let options = WatchOptions {
        start_revision: 3,
        prev_kv: true,
        ..options("a", "")
    };
    check(
        &mut store.hub.watch(options),
        &expect![[r#"
            4: delete a@3
        "#]],
    );
}

#[test]
fn compaction_overtakes_a_watcher_that_is_behind() {
    let mut store = FakeStore::new(2);
    let mut watcher = store.hub.watch(options("a", ""));
    for value in ["1", "2", "3", "4", "5"] {
        store.put("a", value);
    }
    store.compact(5);
    check(
        &mut watcher,
        &expect![[r#"
        3: put a=1@2, put a=2@3
        compacted 5
        end
    "#]],
    );
}

#[test]
fn prev_kv_only_if_asked_even_when_the_writer_did_not_know() {
    let mut store = FakeStore::new(16);
    store.put("a", "1");
    assert!(!store.publisher().wants_prev_kv());
    let mut without = store.hub.watch(options("a", ""));
    // The watcher arrives between the writer's question and its publishing.
    let wanted = store.publisher().wants_prev_kv();
    let (revision, events) = store.write_unpublished(&[("a", Some("2")), ("b", Some("1"))]);
    let asked = WatchOptions {
        prev_kv: true,
        start_revision: 3,
        ..options("a", "z")
    };
    let mut with = store.hub.watch(asked.clone());
    store.publish(revision, events, wanted);
    assert!(store.publisher().wants_prev_kv());
    store.write(&[("a", None)]);
    check(
        &mut with,
        &expect![[r#"
        4: put a=2@3 (was 1), put b=1@3, delete a@4 (was 2)
    "#]],
    );
    check(
        &mut without,
        &expect![[r#"
        4: put a=2@3, delete a@4
    "#]],
    );
    drop(with);
    assert!(!store.publisher().wants_prev_kv());
}

#[test]
fn filters_leave_events_out_and_never_deliver_an_empty_batch() {
    let mut store = FakeStore::new(16);
    store.put("a", "1");
    let no_put = WatchOptions {
        no_put: true,
        ..options("a", "")
    };
    let mut synced = store.hub.watch(no_put.clone());
    let mut behind = store.hub.watch(WatchOptions {
        start_revision: 2,
        ..no_put
    });
    let mut neither = store.hub.watch(WatchOptions {
        no_put: true,
        no_delete: true,
        start_revision: 2,
        ..options("a", "")
    });
    store.put("a", "2");
    assert_eq!(synced.progress(), Some(3));
    check(&mut behind, &expect![""]);
    assert_eq!(behind.progress(), Some(3));
    store.write(&[("a", None)]);
    for watcher in [&mut synced, &mut behind] {
        check(
            watcher,
            &expect![[r#"
            4: delete a@4
        "#]],
        );
    }
    check(&mut neither, &expect![""]);
    assert_eq!(neither.progress(), Some(4));
}

#[test]
fn a_revision_larger_than_the_buffer_arrives_whole() {
    let mut store = FakeStore::new(2);
    let mut watcher = store.hub.watch(options("a", "z"));
    store.put("b", "0");
    store.write(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    store.put("d", "1");
    check(
        &mut watcher,
        &expect![[r#"
        2: put b=0@2
        4: put a=1@3, put b=1@3, put c=1@3, put d=1@4
    "#]],
    );
    assert_eq!(watcher.progress(), Some(4));
}

#[test]
fn a_snapshot_replaces_the_store_and_watchers_read_what_they_missed() {
    let mut store = FakeStore::new(16);
    let mut watcher = store.hub.watch(options("a", ""));
    let mut later = store.hub.watch(WatchOptions {
        start_revision: 5,
        ..options("a", "")
    });
    store.put("a", "2");
    for value in ["3", "4", "5"] {
        let _ = store.write_unpublished(&[("a", Some(value))]);
    }
    store.publisher().reset(5);
    check(
        &mut watcher,
        &expect![[r#"
        2: put a=2@2
        5: put a=3@3, put a=4@4, put a=5@5
    "#]],
    );
    check(
        &mut later,
        &expect![[r#"
        5: put a=5@5
    "#]],
    );
    assert_eq!(watcher.progress(), Some(5));
}

#[test]
fn skipped_revisions_are_read_from_history() {
    let mut store = FakeStore::new(16);
    let mut watcher = store.hub.watch(options("a", ""));
    let _ = store.write_unpublished(&[("a", Some("2"))]);
    store.put("a", "3");
    check(
        &mut watcher,
        &expect![[r#"
        3: put a=2@2, put a=3@3
    "#]],
    );
}

#[test]
fn watchers_end_with_the_store_after_what_is_queued() {
    let mut store = FakeStore::new(16);
    let mut synced = store.hub.watch(options("a", ""));
    let mut behind = store.hub.watch(WatchOptions {
        start_revision: 2,
        ..options("a", "")
    });
    store.put("a", "1");
    store.stop();
    for watcher in [&mut synced, &mut behind, &mut store.hub.watch(options("a", ""))] {
        let lines = received(watcher);
        assert!(lines.ends_with("end\n"), "{lines}");
    }
    let mut failing = FakeStore::new(16);
    failing.put("a", "1");
    failing.history.fails.store(true, Ordering::SeqCst);
    let options = WatchOptions {
        start_revision: 2,
        ..options("a", "")
    };
    check(
        &mut failing.hub.watch(options),
        &expect![[r#"
        end
    "#]],
    );
}

#[test]
fn compaction_during_a_read_of_history_is_noticed_after_it() {
    let mut store = FakeStore::new(16);
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    store.history.compact_in_next_read.store(4, Ordering::SeqCst);
    let options = WatchOptions {
        start_revision: 2,
        ..options("a", "")
    };
    check(
        &mut store.hub.watch(options),
        &expect![[r#"
        compacted 4
        end
    "#]],
    );
}

#[test]
fn batches_end_between_revisions() {
    let mut store = FakeStore::new(10_000);
    let mut synced = store.hub.watch(options("a", "z"));
    for _ in 0..900 {
        store.write(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    }
    let mut behind = store.hub.watch(WatchOptions {
        start_revision: 2,
        ..options("a", "z")
    });
    for watcher in [&mut synced, &mut behind] {
        let mut sizes = Vec::new();
        while let Poll::Ready(Some(WatchOutput::Events { events, .. })) = recv_now(watcher) {
            sizes.push(events.len());
        }
        assert_eq!(sizes, [1002, 1002, 696]);
    }
}

#[test]
fn what_a_watcher_pins_in_memory_is_bounded_in_bytes_too() {
    let mut store = FakeStore::new(10_000);
    let mut watcher = store.hub.watch(options("a", ""));
    let value = "x".repeat(1 << 20);
    for _ in 0..20 {
        store.put("a", &value);
    }
    let (mut queued, mut last) = (0, 1);
    while let Poll::Ready(Some(WatchOutput::Events { revision, events })) = recv_now(&mut watcher) {
        assert_eq!(events.len(), 1, "a batch of a megabyte is full");
        assert_eq!(revision, last + 1);
        last = revision;
        if store.history.reads.load(Ordering::SeqCst) == 0 {
            queued += 1;
        }
    }
    assert_eq!((queued, last), (7, 21));
}

#[test]
fn many_watchers_of_other_keys_cost_a_put_nothing() {
    let mut store = FakeStore::new(4);
    let mut others: Vec<Watcher> = (0..10_000)
        .map(|n| store.hub.watch(options(&format!("other/{n}"), "")))
        .collect();
    let mut watcher = store.hub.watch(options("mine", ""));
    for _ in 0..100 {
        store.put("mine", "1");
    }
    assert_eq!(received(&mut watcher).matches("put mine").count(), 100);
    store.put("other/5000", "1");
    check(
        &mut others[5000],
        &expect![[r#"
        102: put other/5000=1@102
    "#]],
    );
}

/// One slow watcher among many fast ones, on real threads: everyone gets every revision once and in order, no
/// revision is split, and progress is never ahead of what was received.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_among_fast_ones_loses_nothing() {
    const REVISIONS: i64 = 3_000;
    let mut store = FakeStore::new(32);
    store.history.scan_limit.store(50, Ordering::SeqCst);
    let hub = store.hub.clone();
    let tasks: Vec<_> = (0..20_usize)
        .map(|n| {
            let mut watcher = hub.watch(WatchOptions {
                prev_kv: n % 2 == 0,
                ..options("a", "z")
            });
            tokio::spawn(async move {
                let mut last = 1;
                while last < REVISIONS {
                    if n == 0 {
                        // Slow without a clock: others run first, many times.
                        for _ in 0..200 {
                            tokio::task::yield_now().await;
                        }
                    }
                    let Some(WatchOutput::Events { revision, events }) = watcher.recv().await else {
                        panic!("watcher {n} ended after {last}");
                    };
                    for pair in events.chunks(2) {
                        let revisions: Vec<i64> = pair
                            .iter()
                            .map(|event| event.kv.as_ref().unwrap().mod_revision)
                            .collect();
                        assert_eq!(revisions, [last + 1, last + 1], "watcher {n}");
                        last += 1;
                    }
                    assert_eq!(revision, last);
                    assert!(
                        watcher.progress().is_none_or(|progress| progress == last),
                        "watcher {n}"
                    );
                }
            })
        })
        .collect();
    let writer = tokio::task::spawn_blocking(move || {
        while store.revision() < REVISIONS {
            store.write(&[("a", Some("x")), ("b", Some("y"))]);
        }
        store
    });
    let _store = writer.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
}
