//! The first failure is the last operation.

use std::fs;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use raft_store::{TypeConfig, Vote};

use crate::fixture::{Fixture, append, contents, entry, log_id};

#[tokio::test]
async fn a_failed_write_ends_the_log_and_loses_nothing() {
    let fixture = Fixture::new(512, 1 << 20);
    let mut log = fixture.open();
    let mut failed = log.failed();
    append(&mut log, [entry(1, 0, b"kept")]).await.unwrap();
    let kept = fixture.copy();

    // The next segment has nowhere to go.
    fs::remove_dir_all(fixture.dir()).unwrap();
    let error = append(&mut log, [entry(1, 1, &[0; 600])]).await.unwrap_err();
    let cause = failed.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(error.to_string(), cause);
    assert!(cause.starts_with("cannot create a segment as "), "{cause}");
    assert!(cause.contains("0000000000000002.wal"), "{cause}");

    // The directory is there again, and still nothing is tried again.
    fs::create_dir(fixture.dir()).unwrap();
    let error = log.save_vote(&Vote::new(2, 2)).await.unwrap_err();
    assert_eq!(error.to_string(), cause);
    append(&mut log, [entry(1, 2, b"no")]).await.unwrap_err();
    log.save_committed(None).await.unwrap_err();
    log.truncate_after(None).await.unwrap_err();
    log.purge(log_id(1, 0)).await.unwrap_err();

    assert_eq!(contents(&mut kept.open()).await.entries, [entry(1, 0, b"kept")]);
}

/// Everyone who waits when it happens is told, in the batch and behind it.
#[tokio::test]
async fn all_who_wait_are_told() {
    let fixture = Fixture::new(512, 1 << 20);
    let mut log = fixture.open();
    fs::remove_dir_all(fixture.dir()).unwrap();
    let (done, waiting): (Vec<_>, Vec<_>) = (0..20).map(|_| TypeConfig::oneshot()).unzip();
    for (index, done) in (0..).zip(done) {
        let callback = IOFlushed::signal(done);
        if log.append([entry(1, index, &[0; 600])], callback).await.is_err() {
            break;
        }
    }
    for waiting in waiting {
        // A callback that was refused with its append has no sender any more.
        let answer = waiting.await;
        assert!(!matches!(answer, Ok(Ok(()))), "{answer:?}");
    }
}
