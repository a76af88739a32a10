//! Range, put, delete and compaction.

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};

use crate::ask::Ask::{Compact, Delete, Put, Range};
use crate::ask::{Row, compact, delete, delete_to, put, range, range_to, table};

mod writing {
    super::table!("kv-writing", super::writing);
}
mod ranges {
    super::table!("kv-ranges", super::ranges);
}
mod sorting {
    super::table!("kv-sorting", super::sorting);
}
mod compaction {
    super::table!("kv-compaction", super::compaction);
}

fn writing() -> Vec<Row> {
    vec![
        ("a fresh store is at revision 1", Range(range("a"))),
        (
            "a delete that deletes nothing leaves the revision",
            Delete(delete("a")),
        ),
        ("the first write is revision 2", Put(put("a", "1"))),
        ("an empty key cannot be put", Put(put("", "1"))),
        ("an empty key cannot be read", Range(range(""))),
        ("an empty key cannot be deleted", Delete(delete(""))),
        ("an empty value is a value", Put(put("empty", ""))),
        ("and is read back", Range(range("empty"))),
        ("version counts the puts", Put(put("a", "2"))),
        ("from the creation on", Range(range("a"))),
        (
            "the value before",
            Put(PutRequest {
                prev_kv: true,
                ..put("a", "3")
            }),
        ),
        (
            "no value before",
            Put(PutRequest {
                prev_kv: true,
                ..put("b", "1")
            }),
        ),
        (
            "the value is kept",
            Put(PutRequest {
                ignore_value: true,
                ..put("a", "")
            }),
        ),
        ("as it was", Range(range("a"))),
        (
            "the value of a missing key cannot be kept",
            Put(PutRequest {
                ignore_value: true,
                ..put("c", "")
            }),
        ),
        (
            "a value kept and given",
            Put(PutRequest {
                ignore_value: true,
                ..put("a", "x")
            }),
        ),
        (
            "the lease is kept",
            Put(PutRequest {
                ignore_lease: true,
                ..put("a", "4")
            }),
        ),
        (
            "the lease of a missing key cannot be kept",
            Put(PutRequest {
                ignore_lease: true,
                ..put("c", "")
            }),
        ),
        (
            "a lease kept and given",
            Put(PutRequest {
                ignore_lease: true,
                lease: 5,
                ..put("a", "")
            }),
        ),
        (
            "a lease that is not",
            Put(PutRequest {
                lease: 5,
                ..put("a", "5")
            }),
        ),
        ("none of them changed anything", Range(range_to("a", "z"))),
        (
            "a delete answers what was",
            Delete(DeleteRangeRequest {
                prev_kv: true,
                ..delete("a")
            }),
        ),
        ("gone", Range(range("a"))),
        ("a key that comes back begins anew", Put(put("a", "6"))),
        ("at version 1", Range(range("a"))),
        ("a range is deleted in one revision", Delete(delete_to("a", "c"))),
        ("up to its end", Range(range_to("\0", "\0"))),
        ("every key is deleted", Delete(delete_to("\0", "\0"))),
        ("none is left", Range(range_to("\0", "\0"))),
        ("a delete of an empty range", Delete(delete_to("z", "a"))),
        (
            "a request above the limit",
            Put(put("large", &"x".repeat(1_600 * 1024))),
        ),
        ("one below it", Put(put("large", &"x".repeat(1_500 * 1024)))),
    ]
}

fn ranges() -> Vec<Row> {
    let of_all = || range_to("\0", "\0");
    vec![
        ("a", Put(put("a", "1"))),
        ("a/1", Put(put("a/1", "2"))),
        ("a/2", Put(put("a/2", "3"))),
        ("b", Put(put("b", "4"))),
        ("b again", Put(put("b", "5"))),
        (
            "\\xff",
            Put(PutRequest {
                key: vec![0xff].into(),
                ..put("", "6")
            }),
        ),
        ("without an end, one key", Range(range("a"))),
        ("half open", Range(range_to("a", "b"))),
        ("end \\0: every key from there", Range(range_to("a/2", "\0"))),
        ("key and end \\0: all", Range(of_all())),
        ("the end before the key: none", Range(range_to("b", "a"))),
        ("the end at the key: none", Range(range_to("a", "a"))),
        ("a limit", Range(RangeRequest { limit: 2, ..of_all() })),
        (
            "a limit that all fit",
            Range(RangeRequest { limit: 5, ..of_all() }),
        ),
        ("a limit above", Range(RangeRequest { limit: 6, ..of_all() })),
        (
            "keys only",
            Range(RangeRequest {
                keys_only: true,
                ..of_all()
            }),
        ),
        (
            "count only",
            Range(RangeRequest {
                count_only: true,
                ..of_all()
            }),
        ),
        (
            "count only ignores the limit",
            Range(RangeRequest {
                count_only: true,
                limit: 1,
                ..of_all()
            }),
        ),
        (
            "at an earlier revision",
            Range(RangeRequest {
                revision: 3,
                ..of_all()
            }),
        ),
        (
            "at the first revision",
            Range(RangeRequest {
                revision: 1,
                ..of_all()
            }),
        ),
        (
            "at the current revision",
            Range(RangeRequest {
                revision: 7,
                ..of_all()
            }),
        ),
        (
            "at a future revision",
            Range(RangeRequest {
                revision: 8,
                ..of_all()
            }),
        ),
        (
            "at a negative revision",
            Range(RangeRequest {
                revision: -1,
                ..of_all()
            }),
        ),
        (
            "a negative limit",
            Range(RangeRequest {
                limit: -1,
                ..of_all()
            }),
        ),
        (
            "min mod revision",
            Range(RangeRequest {
                min_mod_revision: 4,
                ..of_all()
            }),
        ),
        (
            "max mod revision",
            Range(RangeRequest {
                max_mod_revision: 4,
                ..of_all()
            }),
        ),
        (
            "min create revision",
            Range(RangeRequest {
                min_create_revision: 5,
                ..of_all()
            }),
        ),
        (
            "max create revision",
            Range(RangeRequest {
                max_create_revision: 5,
                ..of_all()
            }),
        ),
        (
            "a filter and a limit",
            Range(RangeRequest {
                min_mod_revision: 3,
                limit: 2,
                ..of_all()
            }),
        ),
        (
            "serializable",
            Range(RangeRequest {
                serializable: true,
                ..range("a")
            }),
        ),
    ]
}

fn sorting() -> Vec<Row> {
    let of_all = || range_to("\0", "\0");
    let mut rows = vec![
        ("c, with the least value", Put(put("c", "1"))),
        ("a", Put(put("a", "3"))),
        ("b", Put(put("b", "2"))),
        ("a again", Put(put("a", "4"))),
    ];
    let orders = [
        ("none", SortOrder::None),
        ("ascending", SortOrder::Ascend),
        ("descending", SortOrder::Descend),
    ];
    let targets = [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ];
    for (_, order) in orders {
        for target in targets {
            for limit in [0, 2] {
                let name = format!("{order:?} by {target:?} limit {limit}");
                rows.push((
                    name.leak(),
                    Range(RangeRequest {
                        sort_order: order.into(),
                        sort_target: target.into(),
                        limit,
                        ..of_all()
                    }),
                ));
            }
        }
    }
    rows
}

fn compaction() -> Vec<Row> {
    let at = |revision| {
        Range(RangeRequest {
            revision,
            ..range_to("\0", "\0")
        })
    };
    vec![
        ("revision 2", Put(put("a", "1"))),
        ("revision 3", Put(put("a", "2"))),
        ("revision 4", Put(put("b", "1"))),
        ("revision 5", Delete(delete("b"))),
        ("revision 6", Put(put("b", "2"))),
        ("revision 7", Put(put("a", "3"))),
        ("a future revision cannot be compacted", compact(8)),
        ("zero", compact(0)),
        ("negative", compact(-1)),
        ("history up to 5", compact(5)),
        ("the same again", compact(5)),
        ("an earlier one", compact(4)),
        ("below the compacted revision nothing is readable", at(4)),
        (
            "the compacted revision itself is, a tombstone at it hides the key",
            at(5),
        ),
        ("and above", at(6)),
        ("the current state is as it was", at(0)),
        (
            "the current revision may be compacted",
            Compact(CompactionRequest {
                revision: 7,
                physical: true,
            }),
        ),
        ("and be read", at(7)),
        ("and no other", at(6)),
        (
            "writes go on",
            Put(PutRequest {
                prev_kv: true,
                ..put("a", "4")
            }),
        ),
        ("versions too", Range(range("a"))),
    ]
}
