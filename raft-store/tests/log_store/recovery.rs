//! What a start makes of a log that was interrupted, or damaged.

use std::fs::OpenOptions;
use std::path::Path;

use openraft::storage::RaftLogStorage;
use raft_store::{OpenLogError, Vote};

use crate::fixture::{
    Contents, Fixture, SEGMENT_HEADER_BYTES, append, change, contents, entry, log_id, records, settle,
};

/// A log of one segment: a vote, and entries of which the last is `last`.
async fn written(fixture: &Fixture, last: &[u8]) -> Contents {
    let mut log = fixture.open();
    log.save_vote(&Vote::new_committed(1, 0x3e)).await.unwrap();
    append(
        &mut log,
        [entry(1, 0, b"zero"), entry(1, 1, b"one"), entry(1, 2, b"a value")],
    )
    .await
    .unwrap();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    append(&mut log, [entry(1, 3, last)]).await.unwrap();
    contents(&mut log).await
}

/// Checks that a start finds `expected`, that the log goes on from there, and that another start finds all of
/// it.
async fn check_goes_on(fixture: &Fixture, expected: &Contents) {
    let mut log = fixture.open();
    assert_eq!(contents(&mut log).await, *expected);
    let next = expected.last.map_or(0, |last| last.index() + 1);
    append(&mut log, [entry(2, next, b"after")]).await.unwrap();
    let after = contents(&mut log).await;
    drop(log);
    assert_eq!(contents(&mut fixture.open()).await, after);
}

fn without_last(mut contents: Contents) -> Contents {
    contents.entries.pop();
    contents.last = contents.entries.last().map(|entry| entry.log_id);
    contents
}

fn check_corrupt(fixture: &Fixture, file: &Path, at: usize) -> String {
    let before = std::fs::read(file).unwrap();
    let error = fixture.try_open().unwrap_err();
    let OpenLogError::Corrupt {
        file: named,
        offset,
        reason,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((named.as_path(), *offset), (file, at as u64), "{reason}");
    assert_eq!(
        std::fs::read(file).unwrap(),
        before,
        "a refused log is not changed"
    );
    reason.clone()
}

#[tokio::test]
async fn a_write_torn_at_any_byte_is_cut() {
    let fixture = Fixture::new(4096, 1 << 20);
    let whole = written(&fixture, b"the last value").await;
    let last = records(&fixture.segment()).pop().unwrap();
    for end in last.clone() {
        // The rest of the record never reached the disk: the file holds its preallocated zeroes there.
        let torn = fixture.copy();
        change(&torn.segment(), |bytes| bytes[end..last.end].fill(0));
        check_goes_on(&torn, &without_last(whole.clone())).await;
        // The same in a file that ends there.
        let torn = fixture.copy();
        OpenOptions::new()
            .write(true)
            .open(torn.segment())
            .unwrap()
            .set_len(end as u64)
            .unwrap();
        check_goes_on(&torn, &without_last(whole.clone())).await;
    }
    check_goes_on(&fixture, &whole).await;
}

#[tokio::test]
async fn what_a_cut_leaves_is_never_taken_for_a_record() {
    let fixture = Fixture::new(4096, 1 << 20);
    let whole = written(&fixture, &[b'x'; 200]).await;
    let segment = fixture.segment();
    let last = records(&segment).pop().unwrap();
    change(&segment, |bytes| bytes[last.start + 20] ^= 1);
    drop(fixture.open());
    let bytes = std::fs::read(&segment).unwrap();
    assert!(
        bytes[last.start..].iter().all(|byte| *byte == 0),
        "the cut is not zeroed"
    );
    check_goes_on(&fixture, &without_last(whole)).await;
}

/// Every byte of the segment in turn, a bit flipped.
#[tokio::test]
async fn a_flipped_bit_is_refused_or_cuts_only_the_last_record() {
    let fixture = Fixture::new(1024, 1 << 20);
    let whole = written(&fixture, b"the last value").await;
    let records = records(&fixture.segment());
    let last = records.last().unwrap().clone();
    for offset in 0..1024 {
        let flipped = fixture.copy();
        change(&flipped.segment(), |bytes| bytes[offset] ^= 0x10);
        if offset < SEGMENT_HEADER_BYTES {
            flipped.try_open().unwrap_err();
        } else if let Some(record) = records.iter().find(|record| record.contains(&offset)) {
            if *record == last {
                check_goes_on(&flipped, &without_last(whole.clone())).await;
            } else {
                let reason = check_corrupt(&flipped, &flipped.segment(), record.start);
                assert!(
                    reason.contains("and a valid record follows at offset"),
                    "{reason}"
                );
            }
        } else {
            check_goes_on(&flipped, &whole).await;
        }
    }
}

#[tokio::test]
async fn a_zeroed_record_before_a_valid_one_is_refused() {
    let fixture = Fixture::new(4096, 1 << 20);
    written(&fixture, b"last").await;
    let segment = fixture.segment();
    let second = records(&segment)[1].clone();
    change(&segment, |bytes| bytes[second.clone()].fill(0));
    check_corrupt(&fixture, &segment, second.start);
}

/// A value may hold what looks like a record of this very log, one that would follow even.
#[tokio::test]
async fn a_record_inside_a_value_is_no_record() {
    let donor = Fixture::new(4096, 1 << 20);
    written(&donor, b"last").await;
    let last = records(&donor.segment()).pop().unwrap();
    let record = std::fs::read(donor.segment()).unwrap()[last].to_vec();

    // The same bytes in another segment of the same log: the one that starts later.
    let fixture = Fixture::new(400, 1 << 20);
    let mut log = fixture.open();
    append(&mut log, [entry(1, 0, &[0; 300])]).await.unwrap();
    append(&mut log, [entry(1, 1, &record.repeat(3))]).await.unwrap();
    drop(log);
    let segment = fixture.segments().pop().unwrap();
    let torn = records(&segment).pop().unwrap();
    change(&segment, |bytes| bytes[torn.start + 4] ^= 1);
    assert_eq!(contents(&mut fixture.open()).await.last, Some(log_id(1, 0)));
}

/// Some full segments and an active one.
async fn several(fixture: &Fixture) -> Contents {
    let mut log = fixture.open();
    log.save_vote(&Vote::new(1, 0x3e)).await.unwrap();
    for index in 0..12 {
        append(&mut log, [entry(1, index, &[b'v'; 60])]).await.unwrap();
    }
    contents(&mut log).await
}

#[tokio::test]
async fn an_invalid_end_of_an_earlier_segment_is_refused() {
    let fixture = Fixture::new(400, 1 << 20);
    several(&fixture).await;
    let segments = fixture.segments();
    assert!(segments.len() > 2, "{segments:?}");
    let last = records(&segments[0]).pop().unwrap();
    change(&segments[0], |bytes| bytes[last.end - 1] ^= 1);
    let reason = check_corrupt(&fixture, &segments[0], last.start);
    assert!(
        reason.contains("a record whose checksum does not match, and the next segment starts"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    for missing in [0, 1] {
        let fixture = Fixture::new(400, 1 << 20);
        several(&fixture).await;
        std::fs::remove_file(&fixture.segments()[missing]).unwrap();
        let error = fixture.try_open().unwrap_err();
        assert!(matches!(error, OpenLogError::Corrupt { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_segment_of_another_name_is_refused() {
    let fixture = Fixture::new(400, 1 << 20);
    several(&fixture).await;
    let last = fixture.segments().pop().unwrap();
    let name = last.with_file_name("00000000000000ff.wal");
    std::fs::rename(&last, &name).unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, OpenLogError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_segment_that_was_never_finished_is_removed() {
    let fixture = Fixture::new(400, 1 << 20);
    let whole = several(&fixture).await;
    let half_made = fixture.dir().join("00000000000000ff.wal.tmp");
    std::fs::write(&half_made, [0; 100]).unwrap();
    assert_eq!(contents(&mut fixture.open()).await, whole);
    assert!(!half_made.exists());
}

#[tokio::test]
async fn a_new_segment_without_records_is_the_end() {
    let fixture = Fixture::new(400, 1 << 20);
    let whole = several(&fixture).await;
    let segment = fixture.segments().pop().unwrap();
    change(&segment, |bytes| bytes[SEGMENT_HEADER_BYTES..].fill(0));
    let log = &mut fixture.open();
    let found = contents(log).await;
    assert!(found.entries.len() < whole.entries.len());
    assert_eq!(found.entries[..], whole.entries[..found.entries.len()]);
    assert_eq!(found.vote, whole.vote);
}

/// What a kill leaves behind while a commit that nobody waits for is the last thing written.
#[tokio::test]
async fn a_commit_is_kept_without_a_sync_of_its_own() {
    let fixture = Fixture::new(4096, 1 << 20);
    let mut log = fixture.open();
    append(&mut log, [entry(1, 0, b"a"), entry(1, 1, b"b")])
        .await
        .unwrap();
    let syncs = log.syncs();
    log.save_committed(Some(log_id(1, 0))).await.unwrap();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    assert_eq!(log.syncs(), syncs);
    drop(log);
    let mut log = fixture.open();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
    log.save_committed(None).await.unwrap();
    settle(&mut log).await;
    assert_eq!(contents(&mut fixture.copy().open()).await.committed, None);
}
