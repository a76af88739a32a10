//! Range, Put, DeleteRange, Compact.

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use proto::replicated::{Refusal, Request, reply, request::Op};

use super::fixture::{bytes, put_request};
use super::{Fixture, compact, delete, put, range};
use crate::raft_types::Command;
use crate::store::ReadError;

#[test]
fn a_fresh_store_is_at_revision_one_and_the_first_write_is_two() {
    let mut fixture = Fixture::new();
    assert_eq!(
        (fixture.store.revision(), fixture.store.compacted_revision()),
        (1, 0)
    );
    assert_eq!(
        fixture.apply(delete("a", "\0")).revision,
        1,
        "nothing deleted, nothing counted"
    );
    assert_eq!(fixture.apply(put("a", "1")).revision, 2);
    assert_eq!(fixture.apply(delete("a", "")).revision, 3);
    assert_eq!(fixture.shown(0), "");
    assert_eq!(fixture.shown(2), "a=1");
}

#[test]
fn a_key_counts_its_generation() {
    let mut fixture = Fixture::new();
    let ops = [put("k", "1"), put("k", "2"), delete("k", ""), put("k", "3")];
    fixture.apply_all(ops);
    let at = |revision| {
        let found = fixture
            .store
            .range(&RangeRequest {
                revision,
                ..range("k", "")
            })
            .unwrap();
        found
            .kvs
            .first()
            .map(|kv| (kv.create_revision, kv.mod_revision, kv.version))
    };
    assert_eq!(
        [at(2), at(3), at(4), at(5)],
        [Some((2, 2, 1)), Some((2, 3, 2)), None, Some((5, 5, 1))]
    );
}

/// Reads five keys with some options: the keys, `more`, `count`.
#[track_caller]
fn check_range(change: impl FnOnce(&mut RangeRequest), expect: &str) {
    let mut fixture = Fixture::new();
    // Modified 2.. in this order; e twice, so that its version is 2.
    fixture.apply_all([
        put("e", "x"),
        put("d", "1"),
        put("c", "5"),
        put("b", "2"),
        put("a", "3"),
        put("e", "4"),
    ]);
    let mut request = range("a", "\0");
    change(&mut request);
    let found = fixture.store.range(&request).unwrap();
    let keys: Vec<_> = found
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect();
    assert_eq!(
        format!("{} {} {}", keys.join(""), found.more, found.count),
        expect
    );
    assert_eq!(found.revision, 7);
    for kv in &found.kvs {
        assert_eq!(kv.value.is_empty(), request.keys_only);
    }
}

#[test]
fn ranges() {
    let sort = |order: SortOrder, target: SortTarget| {
        move |r: &mut RangeRequest| {
            r.set_sort_order(order);
            r.set_sort_target(target);
        }
    };
    check_range(|_| (), "abcde false 5");
    check_range(|r| r.limit = 2, "ab true 5");
    check_range(|r| r.limit = 5, "abcde false 5");
    check_range(|r| r.keys_only = true, "abcde false 5");
    check_range(|r| (r.count_only, r.limit) = (true, 2), " false 5");
    check_range(|r| r.range_end = bytes("c"), "ab false 2");
    check_range(|r| r.range_end = bytes("Z"), " false 0");
    check_range(|r| r.range_end.clear(), "a false 1");
    check_range(|r| (r.revision, r.limit) = (4, 2), "cd true 3");
    check_range(sort(SortOrder::Descend, SortTarget::Key), "edcba false 5");
    check_range(sort(SortOrder::Ascend, SortTarget::Create), "edcba false 5");
    check_range(sort(SortOrder::Descend, SortTarget::Mod), "eabcd false 5");
    check_range(sort(SortOrder::Descend, SortTarget::Version), "eabcd false 5");
    check_range(sort(SortOrder::Ascend, SortTarget::Value), "dbaec false 5");
    check_range(
        |r| (r.min_mod_revision, r.max_mod_revision) = (4, 6),
        "abc false 5",
    );
    check_range(
        |r| (r.min_create_revision, r.max_create_revision) = (2, 3),
        "de false 5",
    );
    check_range(|r| (r.max_mod_revision, r.limit) = (5, 1), "b true 5");
    // The limit cuts after an order that is asked for...
    check_range(
        |r| {
            sort(SortOrder::Ascend, SortTarget::Create)(r);
            r.limit = 1;
        },
        "e true 5",
    );
    // ...and one key after it where only a target is named.
    check_range(
        |r| {
            sort(SortOrder::None, SortTarget::Create)(r);
            r.limit = 1;
        },
        "b true 5",
    );
    check_range(
        |r| {
            sort(SortOrder::Ascend, SortTarget::Value)(r);
            r.keys_only = true;
        },
        "dbaec false 5",
    );
}

#[test]
fn put_answers_and_keeps_what_it_is_told_to_keep() {
    let mut fixture = Fixture::new();
    let put_with = |change: fn(&mut PutRequest)| {
        let mut request = put_request("k", "new");
        change(&mut request);
        Op::Put(request)
    };
    assert_eq!(
        fixture.refused(put_with(|r| r.ignore_value = true)),
        Refusal::KeyNotFound
    );
    assert_eq!(
        fixture.refused(put_with(|r| r.ignore_lease = true)),
        Refusal::KeyNotFound
    );
    assert_eq!(fixture.refused(put_with(|r| r.lease = 9)), Refusal::LeaseNotFound);
    let reply::Result::Put(first) = fixture.done(put_with(|r| r.prev_kv = true)) else {
        panic!()
    };
    assert_eq!(first.prev_kv, None);
    let keep = put_with(|r| (r.ignore_value, r.prev_kv, r.value) = (true, true, bytes("")));
    let reply::Result::Put(second) = fixture.done(keep) else {
        panic!()
    };
    assert_eq!(second.prev_kv.map(|kv| kv.mod_revision), Some(2));
    assert_eq!(fixture.shown(0), "k=new");
}

#[test]
fn delete_answers_with_what_it_deleted() {
    let mut fixture = Fixture::new();
    fixture.apply_all([put("a", "1"), put("b", "2"), put("c", "3")]);
    let request = DeleteRangeRequest {
        key: bytes("a"),
        range_end: bytes("c"),
        prev_kv: true,
    };
    let reply::Result::DeleteRange(deleted) = fixture.done(Op::DeleteRange(request)) else {
        panic!()
    };
    assert_eq!(deleted.deleted, 2);
    assert_eq!(
        deleted
            .prev_kvs
            .iter()
            .map(|kv| kv.value.clone())
            .collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert_eq!(
        (fixture.store.revision(), fixture.shown(0)),
        (5, "c=3".to_owned())
    );
}

#[test]
fn compaction_gives_up_what_is_below() {
    let mut fixture = Fixture::new();
    fixture.apply_all([put("a", "1"), put("a", "2"), put("a", "3")]);
    assert_eq!(fixture.refused(compact(5)), Refusal::FutureRevision);
    fixture.done(compact(3));
    assert_eq!(fixture.store.compacted_revision(), 3);
    assert_eq!(fixture.refused(compact(3)), Refusal::Compacted);
    assert_eq!(fixture.refused(compact(2)), Refusal::Compacted);
    let read = |revision| {
        fixture
            .store
            .range(&RangeRequest {
                revision,
                ..range("a", "")
            })
            .map(|r| r.count)
    };
    assert_eq!(read(2), Err(ReadError::Compacted));
    assert_eq!((read(3), read(4)), (Ok(1), Ok(1)));
    assert_eq!(read(5), Err(ReadError::FutureRevision));
    assert_eq!(fixture.shown(3), "a=2");
    assert_eq!(fixture.store.hash_kv(2), Err(ReadError::Compacted));
    assert_eq!(fixture.store.hash_kv(5), Err(ReadError::FutureRevision));
}

#[test]
fn what_this_version_does_not_know_is_refused_by_all() {
    let mut fixture = Fixture::new();
    for unknown in [
        vec![0xff],
        vec![0xfa, 0x3f, 0x00],
        prost::Message::encode_to_vec(&Request::default()),
    ] {
        let entry = fixture.entry(openraft::EntryPayload::Normal(Command(unknown.into())));
        let reply = fixture.apply_entries(&[entry]).remove(0);
        assert_eq!(
            reply.result,
            Some(reply::Result::Refused(Refusal::UnknownRequest.into()))
        );
    }
    assert_eq!(fixture.store.revision(), 1);
}
