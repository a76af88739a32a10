//! Whose a log is, and who may open it.

use openraft::storage::RaftLogStorage;
use raft_store::wal::Identity;
use raft_store::{LogStore, OpenLogError, Vote};

use crate::fixture::{Contents, Fixture, IDENTITY, change, contents};

#[tokio::test]
async fn a_fresh_log_is_empty() {
    let fixture = Fixture::new(4096, 1 << 20);
    let empty = Contents {
        vote: None,
        committed: None,
        purged: None,
        last: None,
        entries: Vec::new(),
    };
    assert_eq!(contents(&mut fixture.open()).await, empty);
    assert_eq!(contents(&mut fixture.open()).await, empty);
}

#[tokio::test]
async fn a_log_says_whose_it_is_once_it_was_opened() {
    let fixture = Fixture::new(4096, 1 << 20);
    assert_eq!(LogStore::identity(&fixture.dir()).unwrap(), None);
    std::fs::create_dir(fixture.dir()).unwrap();
    assert_eq!(LogStore::identity(&fixture.dir()).unwrap(), None);
    drop(fixture.open());
    assert_eq!(LogStore::identity(&fixture.dir()).unwrap(), Some(IDENTITY));
}

#[tokio::test]
async fn another_clusters_log_is_refused_by_name() {
    let fixture = Fixture::new(4096, 1 << 20);
    drop(fixture.open());
    let error = fixture
        .try_open_as(Identity {
            cluster_id: 0xbad,
            ..IDENTITY
        })
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpenLogError::WrongCluster {
                found: 0xc1,
                expected: 0xbad,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("belongs to cluster c1 and this member is of cluster bad"),
        "{error}"
    );
}

#[tokio::test]
async fn another_members_log_is_refused_by_name() {
    let fixture = Fixture::new(4096, 1 << 20);
    drop(fixture.open());
    let error = fixture
        .try_open_as(Identity {
            member_id: 0xbad,
            ..IDENTITY
        })
        .unwrap_err();
    assert!(
        matches!(
            error,
            OpenLogError::WrongMember {
                found: 0x3e,
                expected: 0xbad,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("belongs to member 3e and this is member bad"),
        "{error}"
    );
}

#[tokio::test]
async fn another_version_is_refused_by_number() {
    let fixture = Fixture::new(4096, 1 << 20);
    drop(fixture.open());
    change(&fixture.segment(), |bytes| bytes[8] = 2);
    let error = fixture.try_open().unwrap_err();
    assert!(
        matches!(
            error,
            OpenLogError::UnknownFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_is_open_once() {
    let fixture = Fixture::new(4096, 1 << 20);
    let mut log = fixture.open();
    let reader = log.get_log_reader().await;
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, OpenLogError::Locked { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("another agent runs on this data directory"),
        "{error}"
    );
    // Refusing the second one has not disturbed the first one.
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    drop(log);
    fixture.try_open().unwrap_err();
    drop(reader);
    assert_eq!(contents(&mut fixture.open()).await.vote, Some(Vote::new(1, 1)));
}
