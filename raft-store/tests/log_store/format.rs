//! The bytes on disk, version 1. A change here needs a new format version and a way up from this one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use expect_test::expect;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use raft_store::{Entry, Membership, Node, Vote};

use crate::fixture::{Fixture, append, contents, entry, log_id, records, settle};

#[tokio::test]
async fn golden_segment() {
    let fixture = Fixture::new(4096, 1 << 20);
    let mut log = fixture.open();
    log.save_vote(&Vote::new(2, 0x3e)).await.unwrap();
    log.save_vote(&Vote::new_committed(3, 0x3e)).await.unwrap();
    append(
        &mut log,
        [Entry {
            log_id: log_id(0, 0),
            payload: EntryPayload::Blank,
        }],
    )
    .await
    .unwrap();
    append(&mut log, [entry(3, 1, b"hello"), entry(3, 2, b"world!")])
        .await
        .unwrap();
    let node = Node {
        name: "ovh".to_owned(),
        peer_urls: vec!["http://[::1]:2380".to_owned()],
        to_be_voter: false,
    };
    let membership = Membership::new(vec![[0x3e].into()], BTreeMap::from([(0x3e, node)])).unwrap();
    let membership = Entry {
        log_id: log_id(3, 3),
        payload: EntryPayload::Membership(membership),
    };
    append(&mut log, [membership]).await.unwrap();
    log.truncate_after(Some(log_id(3, 3))).await.unwrap();
    settle(&mut log).await;
    log.purge(log_id(3, 1)).await.unwrap();
    settle(&mut log).await;
    log.save_committed(Some(log_id(3, 2))).await.unwrap();
    settle(&mut log).await;
    log.truncate_after(None).await.unwrap();
    settle(&mut log).await;
    let before = contents(&mut log).await;
    drop(log);

    let segment = fixture.segment();
    expect!["0000000000000001.wal"].assert_eq(&segment.file_name().unwrap().to_string_lossy());
    let bytes = fs::read(&segment).unwrap();
    let mut text = hex(&bytes[..40]);
    for record in records(&segment) {
        text.push_str(&hex(&bytes[record]));
    }
    expect![[r#"
        6167656e 7477616c 01000000 c1000000 00000000 3e000000 00000000 01000000 00000000 f8b0d753
        18000000 c42201f4 01000000 00000000 01010000 0802103e
        1a000000 582582bb 02000000 00000000 01010000 0803103e 1801
        1a000000 7248ac4b 03000000 00000000 02010000 0a021007 1200
        23000000 f80909e0 04000000 00000000 02010000 0a060803 10071801 1a056865 6c6c6f
        24000000 21479812 05000000 00000000 02000000 0a060803 10071802 1a06776f 726c6421
        41000000 e1934c32 06000000 00000000 02010000 0a060803 10071803 22230a03 0a013e12 1c083e12 180a036f 76681211 68747470 3a2f2f5b 3a3a315d 3a323338 30
        1b000000 4060694f 07000000 00000000 03010000 01080310 071803
        1b000000 48fb20be 08000000 00000000 04010000 01080310 071801
        1b000000 9ab33a83 09000000 00000000 05010000 01080310 071802
        14000000 8afa2316 0a000000 00000000 03010000
    "#]].assert_eq(&text);

    assert_eq!(contents(&mut fixture.open()).await, before);
}

/// One line for every record, so that a difference shows which.
fn hex(bytes: &[u8]) -> String {
    let mut line = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let separator = if at > 0 && at % 4 == 0 { " " } else { "" };
        write!(line, "{separator}{byte:02x}").unwrap();
    }
    line + "\n"
}
