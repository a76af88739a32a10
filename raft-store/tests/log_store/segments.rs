//! Segments come and go; what the log says does not change by it.

use openraft::storage::{RaftLogReader, RaftLogStorage};
use raft_store::{Entry, Vote};

use crate::fixture::{Fixture, append, contents, entry, log_id, settle};

#[tokio::test]
async fn purged_segments_go_and_the_rest_says_all() {
    let fixture = Fixture::new(512, 0);
    let mut log = fixture.open();
    log.save_vote(&Vote::new(1, 0x3e)).await.unwrap();
    for index in 0..40 {
        append(&mut log, [entry(1, index, &[b'v'; 60])]).await.unwrap();
        log.save_committed(Some(log_id(1, index))).await.unwrap();
    }
    settle(&mut log).await;
    let segments = fixture.segments();
    assert!(segments.len() > 5, "{segments:?}");
    assert_eq!(log.size_bytes(), 512 * segments.len() as u64);

    log.purge(log_id(1, 30)).await.unwrap();
    settle(&mut log).await;
    // Segments are deleted after the answer; the next answer comes after that.
    settle(&mut log).await;
    let left = fixture.segments();
    assert!(left.len() < segments.len() - 3, "{left:?}");
    assert!(segments.ends_with(&left), "only the oldest may go: {left:?}");
    assert_eq!(log.size_bytes(), 512 * left.len() as u64);

    let before = contents(&mut log).await;
    assert_eq!(before.purged, Some(log_id(1, 30)));
    assert_eq!(before.entries.len(), 9);
    drop(log);
    assert_eq!(contents(&mut fixture.open()).await, before);
}

#[tokio::test]
async fn the_active_segment_stays_when_all_is_purged() {
    let fixture = Fixture::new(512, 0);
    let mut log = fixture.open();
    log.save_vote(&Vote::new(1, 0x3e)).await.unwrap();
    for index in 0..20 {
        append(&mut log, [entry(1, index, &[b'v'; 60])]).await.unwrap();
    }
    // Past the end, as after a snapshot of the leader.
    log.purge(log_id(2, 100)).await.unwrap();
    settle(&mut log).await;
    settle(&mut log).await;
    assert_eq!(fixture.segments().len(), 1);
    append(&mut log, [entry(2, 101, b"next")]).await.unwrap();
    let before = contents(&mut log).await;
    assert_eq!((before.purged, before.entries.len()), (Some(log_id(2, 100)), 1));
    drop(log);
    assert_eq!(contents(&mut fixture.open()).await, before);
}

#[tokio::test]
async fn an_entry_larger_than_a_segment_gets_a_segment_of_its_size() {
    let fixture = Fixture::new(256, 0);
    let mut log = fixture.open();
    log.save_vote(&Vote::new(1, 0x3e)).await.unwrap();
    append(
        &mut log,
        [
            entry(1, 0, b"small"),
            entry(1, 1, &[7; 5000]),
            entry(1, 2, b"small"),
        ],
    )
    .await
    .unwrap();
    let before = contents(&mut log).await;
    drop(log);
    assert_eq!(contents(&mut fixture.open()).await, before);
}

#[tokio::test]
async fn replication_takes_a_bounded_part_but_at_least_one_entry() {
    for cache_bytes in [0, 64 << 20] {
        let fixture = Fixture::new(1 << 20, cache_bytes);
        let mut log = fixture.open();
        append(
            &mut log,
            (0..10).map(|index| entry(1, index, &vec![b'v'; 300 << 10])),
        )
        .await
        .unwrap();
        append(&mut log, [entry(1, 10, &vec![b'v'; 3 << 20])])
            .await
            .unwrap();
        let indexes =
            |entries: Vec<Entry>| -> Vec<u64> { entries.iter().map(|entry| entry.log_id.index()).collect() };
        assert_eq!(
            indexes(log.limited_get_log_entries(2, 9).await.unwrap()),
            [2, 3, 4]
        );
        assert_eq!(indexes(log.limited_get_log_entries(10, 11).await.unwrap()), [10]);
        assert_eq!(
            indexes(log.try_get_log_entries(2..9).await.unwrap()),
            [2, 3, 4, 5, 6, 7, 8]
        );
    }
}

#[tokio::test]
async fn a_stream_reads_all_of_a_long_range_and_not_what_comes_later() {
    use futures::{StreamExt, TryStreamExt};
    let fixture = Fixture::new(1 << 20, 0);
    let mut log = fixture.open();
    append(
        &mut log,
        (0..40).map(|index| entry(1, index, &vec![b'v'; 100 << 10])),
    )
    .await
    .unwrap();
    let mut reader = log.get_log_reader().await;
    let mut stream = reader.entries_stream(3..100).await;
    assert_eq!(stream.next().await.unwrap().unwrap().log_id, log_id(1, 3));
    append(&mut log, [entry(1, 40, b"later")]).await.unwrap();
    let rest: Vec<Entry> = stream.try_collect().await.unwrap();
    assert_eq!(rest.len(), 36);
    assert_eq!(rest.last().unwrap().log_id, log_id(1, 39));
}

#[tokio::test]
async fn a_hole_is_refused_and_changes_nothing() {
    let fixture = Fixture::new(4096, 1 << 20);
    let mut log = fixture.open();
    append(&mut log, [entry(1, 0, b"a")]).await.unwrap();
    let error = append(&mut log, [entry(1, 1, b"b"), entry(1, 3, b"d")])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "entry 3 appended where entry 2 belongs");
    append(&mut log, [entry(1, 1, b"b")]).await.unwrap();
    assert_eq!(contents(&mut log).await.last, Some(log_id(1, 1)));
}

/// What was damaged on disk after it was read at the start is not handed to a follower.
#[tokio::test]
async fn a_damaged_entry_is_not_read() {
    let fixture = Fixture::new(4096, 0);
    let mut log = fixture.open();
    append(&mut log, [entry(1, 0, b"a"), entry(1, 1, b"b")])
        .await
        .unwrap();
    let last = crate::fixture::records(&fixture.segment()).pop().unwrap();
    crate::fixture::change(&fixture.segment(), |bytes| bytes[last.end - 1] ^= 1);
    log.try_get_log_entries(0..1).await.unwrap();
    let error = log.try_get_log_entries(0..2).await.unwrap_err();
    assert!(
        error.to_string().contains("is not what was written there"),
        "{error}"
    );
}

/// Found by `model`: the first segment has no record yet, and its successor has the same name.
#[tokio::test]
async fn an_empty_segment_is_replaced_by_one_with_room() {
    let fixture = Fixture::new(100, 0);
    let mut log = fixture.open();
    append(&mut log, [entry(1, 0, &[7; 100])]).await.unwrap();
    assert_eq!(fixture.segments().len(), 1);
    assert_eq!(
        log.size_bytes(),
        std::fs::metadata(fixture.segment()).unwrap().len()
    );
    log.purge(log_id(1, 0)).await.unwrap();
    settle(&mut log).await;
    append(&mut log, [entry(1, 1, &[7; 100])]).await.unwrap();
    settle(&mut log).await;
    let before = contents(&mut log).await;
    drop(log);
    assert_eq!(fixture.segments().len(), 1);
    assert_eq!(contents(&mut fixture.open()).await, before);
}
