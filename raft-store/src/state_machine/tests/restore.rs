//! A new cluster from a saved snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmType, LeaseGrantRequest, RangeRequest};
use proto::replicated::{PublishMember, request::Op};

use super::fixture::{options, put_request};
use super::{Fixture, compact, put, range};
use crate::raft_types::Membership;
use crate::restore::{RestoreOptions, inspect, restore};
use crate::state_machine::StateMachine;
use crate::store::{HashKv, ReadError};
use crate::wal::Identity;
use crate::{LogStore, Node};

fn to(members: &[u64], bump_revision: u64, mark_compacted: bool) -> RestoreOptions {
    let nodes: BTreeMap<u64, Node> = members.iter().map(|id| (*id, Node::default())).collect();
    RestoreOptions {
        identity: Identity {
            cluster_id: 99,
            member_id: members[0],
        },
        membership: Membership::new(vec![members.iter().copied().collect()], nodes).unwrap(),
        bump_revision,
        mark_compacted,
    }
}

/// A store with a lease, an alarm, a member and some history, saved.
async fn saved(fixture: &mut Fixture, path: &Path) {
    fixture.apply_membership(&[1]);
    fixture.done(Op::LeaseGrant(LeaseGrantRequest { id: 5, ttl: 60 }));
    let mut leased = put_request("leased", "x");
    leased.lease = 5;
    fixture.apply_all([
        put("a", "1"),
        put("a", "2"),
        Op::Put(leased),
        put("a", "3"),
        compact(3),
    ]);
    fixture.done(Op::Alarm(AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: 1,
        alarm: AlarmType::Nospace.into(),
    }));
    fixture.done(Op::PublishMember(PublishMember {
        id: 1,
        name: "old".into(),
        client_urls: vec![],
    }));
    // What is compacted is gone from the disk, and so from the file.
    fixture.machine.shared.state().sweeper.finish();
    let exported = fixture.store.export_snapshot().await.unwrap();
    fs::copy(exported.path(), path).unwrap();
}

#[tokio::test]
async fn keys_and_leases_stay_revisions_go_up_and_the_old_cluster_is_gone() {
    let mut fixture = Fixture::new();
    let file = fixture.path().join("saved");
    saved(&mut fixture, &file).await;
    let summary = inspect(&file).unwrap();
    assert_eq!((summary.revision, summary.total_keys), (5, 3));

    let mut hashes: Vec<HashKv> = Vec::new();
    for member in [7, 8] {
        let dir = fixture.path().join(format!("m{member}"));
        let mut options_of_member = to(&[7, 8], 1_000, true);
        options_of_member.identity.member_id = member;
        let restored = restore(&file, &dir, &options_of_member).unwrap();
        assert_eq!(restored.revision, 1_005);
        let wal = LogStore::identity(&dir.join("wal")).unwrap();
        assert_eq!(wal, Some(options_of_member.identity));

        let (_machine, store) = StateMachine::open(options(&dir.join("store"))).unwrap();
        assert_eq!((store.revision(), store.compacted_revision()), (1_005, 1_005));
        let found = store.range(&range("\0", "\0")).unwrap();
        let values: Vec<&[u8]> = found.kvs.iter().map(|kv| kv.value.as_ref()).collect();
        assert_eq!(values, [b"3".as_slice(), b"x"]);
        assert_eq!(store.lease_keys(5), ["leased"]);
        assert_eq!((store.alarms(), store.member_attributes(1)), (vec![], None));
        let voters: Vec<u64> = store.membership().membership().voter_ids().collect();
        assert_eq!(voters, [7, 8]);
        let old = RangeRequest {
            revision: 4,
            ..range("a", "")
        };
        assert_eq!(store.range(&old).unwrap_err(), ReadError::Compacted);
        hashes.push(store.hash_kv(0).unwrap());
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[tokio::test]
async fn without_a_bump_the_history_stays_too() {
    let mut fixture = Fixture::new();
    let file = fixture.path().join("saved");
    saved(&mut fixture, &file).await;
    let dir = fixture.path().join("m");
    restore(&file, &dir, &to(&[7], 0, false)).unwrap();
    let (_machine, store) = StateMachine::open(options(&dir.join("store"))).unwrap();
    assert_eq!((store.revision(), store.compacted_revision()), (5, 3));
    assert_eq!(store.hash_kv(0), fixture.store.hash_kv(0));
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_nothing_is_made() {
    let mut fixture = Fixture::new();
    let file = fixture.path().join("saved");
    saved(&mut fixture, &file).await;
    let good = fs::read(&file).unwrap();
    let dir = fixture.path().join("m");
    let entries = || fs::read_dir(fixture.path()).unwrap().count();
    let before = entries() + 1;
    let wrong = fixture.path().join("wrong");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut bbolt = vec![0; 4096];
    bbolt[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    for (bytes, said) in [
        (flipped, "is damaged, or no snapshot"),
        (good[..good.len() - 1].to_vec(), "is damaged, or no snapshot"),
        (good[..100].to_vec(), "is damaged, or no snapshot"),
        (Vec::new(), "is damaged, or no snapshot"),
        (b"hello, this is a text".to_vec(), "is damaged, or no snapshot"),
        (bbolt, "of an etcd"),
    ] {
        fs::write(&wrong, bytes).unwrap();
        let error = restore(&wrong, &dir, &to(&[7], 0, false))
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(entries(), before);
    }
    let error = restore(&file, &dir, &to(&[7], u64::MAX, true))
        .unwrap_err()
        .to_string();
    assert!(error.contains("would not fit"), "{error}");
    assert_eq!(entries(), before);

    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("kept"), "kept").unwrap();
    let error = restore(&file, &dir, &to(&[7], 0, false)).unwrap_err().to_string();
    assert!(
        error.ends_with("exists: a restore never writes over anything"),
        "{error}"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}
