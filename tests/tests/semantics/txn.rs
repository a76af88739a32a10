//! Transactions.

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::ask::Ask::{Put, Range, Txn};
use crate::ask::{Row, compact, delete, delete_to, grant, put, range, range_to, table};

mod comparing {
    super::table!("txn-comparing", super::comparing);
}
mod evaluation {
    super::table!("txn-evaluation", super::evaluation);
}
mod refusals {
    super::table!("txn-refusals", super::refusals);
}

fn compare(key: &str, target: CompareTarget, result: CompareResult, union: TargetUnion) -> Compare {
    Compare {
        key: key.to_owned().into(),
        target: target.into(),
        result: result.into(),
        target_union: Some(union),
        range_end: bytes::Bytes::new(),
    }
}

fn value_is(key: &str, value: &str) -> Compare {
    compare(
        key,
        CompareTarget::Value,
        CompareResult::Equal,
        TargetUnion::Value(value.to_owned().into()),
    )
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn get(key: &str) -> RequestOp {
    op(Request::RequestRange(range(key)))
}

fn set(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn remove(key: &str, end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete_to(key, end)))
}

fn nested(txn: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(txn))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..Default::default()
    }
}

fn when(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        compare,
        success,
        failure,
    }
}

/// Every target with every operator, on a key that is and on one that is not.
fn comparing() -> Vec<Row> {
    let mut rows = vec![
        ("a lease", grant(77, 600)),
        ("the key, version 1", Put(put("key", "b"))),
        (
            "the key, version 2, on the lease",
            Put(PutRequest {
                lease: 77,
                ..put("key", "b")
            }),
        ),
    ];
    let results = [
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ];
    let unions = [
        (CompareTarget::Version, [0, 1, 2, 3].map(TargetUnion::Version)),
        (
            CompareTarget::Create,
            [0, 1, 2, 3].map(TargetUnion::CreateRevision),
        ),
        (CompareTarget::Mod, [0, 2, 3, 4].map(TargetUnion::ModRevision)),
        (CompareTarget::Lease, [0, 76, 77, 78].map(TargetUnion::Lease)),
        (
            CompareTarget::Value,
            ["", "a", "b", "c"].map(|value| TargetUnion::Value(value.into())),
        ),
    ];
    for (target, unions) in unions {
        for union in unions {
            for key in ["key", "missing"] {
                for result in results {
                    let rule = format!("{key}: {target:?} {result:?} {union:?}");
                    let compare = compare(key, target, result, union.clone());
                    rows.push((rule.leak(), Txn(when(vec![compare], vec![], vec![]))));
                }
            }
        }
    }
    let over = |end: &str, compare: Compare| Compare {
        range_end: end.to_owned().into(),
        ..compare
    };
    let version = |result, version| {
        compare(
            "key",
            CompareTarget::Version,
            result,
            TargetUnion::Version(version),
        )
    };
    rows.extend([
        ("another key in the range", Put(put("key2", "b"))),
        (
            "over a range every key must hold, and does",
            Txn(when(
                vec![over("kez", version(CompareResult::Greater, 0))],
                vec![],
                vec![],
            )),
        ),
        (
            "over a range every key must hold, and one does not",
            Txn(when(
                vec![over("kez", version(CompareResult::Greater, 1))],
                vec![],
                vec![],
            )),
        ),
        (
            "over a range without keys: against zeros",
            Txn(when(
                vec![over("key0", version(CompareResult::Greater, 9))],
                vec![],
                vec![],
            )),
        ),
        (
            "a missing union is zero",
            Txn(when(
                vec![Compare {
                    target_union: None,
                    ..version(CompareResult::Greater, 0)
                }],
                vec![],
                vec![],
            )),
        ),
        (
            "all compares must hold",
            Txn(when(
                vec![value_is("key", "b"), value_is("key", "x")],
                vec![],
                vec![],
            )),
        ),
        ("no compare holds", Txn(TxnRequest::default())),
    ]);
    rows
}

fn evaluation() -> Vec<Row> {
    vec![
        ("a", Put(put("a", "1"))),
        (
            "only reads: no revision of its own",
            Txn(then(vec![get("a"), get("b")])),
        ),
        (
            "reads see the writes before them, all at one revision",
            Txn(then(vec![
                get("a"),
                set("a", "2"),
                get("a"),
                set("b", "1"),
                get("b"),
            ])),
        ),
        ("with the revision of the transaction", Range(range_to("a", "z"))),
        (
            "compares see the state before",
            Txn(when(
                vec![value_is("a", "2")],
                vec![set("a", "3")],
                vec![set("a", "wrong")],
            )),
        ),
        (
            "the other branch",
            Txn(when(
                vec![value_is("a", "2")],
                vec![set("a", "wrong")],
                vec![set("a", "4"), get("a")],
            )),
        ),
        (
            "nested compares see the state before the whole",
            Txn(then(vec![
                set("c", "new"),
                nested(when(
                    vec![value_is("a", "4")],
                    vec![set("d", "yes")],
                    vec![set("d", "no")],
                )),
                nested(when(
                    vec![value_is("c", "new")],
                    vec![set("e", "yes")],
                    vec![set("e", "no")],
                )),
            ])),
        ),
        ("as they should", Range(range_to("c", "f"))),
        (
            "a delete, then a read",
            Txn(then(vec![
                remove("c", "f"),
                op(Request::RequestRange(range_to("a", "z"))),
            ])),
        ),
        (
            "deletes may overlap",
            Txn(then(vec![remove("a", "b"), remove("a", "c")])),
        ),
        (
            "a delete of nothing: no revision",
            Txn(then(vec![remove("x", "z")])),
        ),
        (
            "put with the value before, delete with the values before",
            Txn(then(vec![
                op(Request::RequestPut(PutRequest {
                    prev_kv: true,
                    ..put("p", "1")
                })),
                op(Request::RequestDeleteRange(DeleteRangeRequest {
                    prev_kv: true,
                    ..delete("q")
                })),
            ])),
        ),
        (
            "and when there are some",
            Txn(then(vec![
                op(Request::RequestPut(PutRequest {
                    prev_kv: true,
                    ..put("p", "2")
                })),
                op(Request::RequestDeleteRange(DeleteRangeRequest {
                    prev_kv: true,
                    ..delete("a")
                })),
            ])),
        ),
        (
            "an operation without a request",
            Txn(then(vec![RequestOp { request: None }])),
        ),
        (
            "a read at an earlier revision",
            Txn(then(vec![op(Request::RequestRange(RangeRequest {
                revision: 2,
                ..range("a")
            }))])),
        ),
        (
            "create if absent, as locks do",
            Txn(when(
                vec![compare(
                    "lock",
                    CompareTarget::Create,
                    CompareResult::Equal,
                    TargetUnion::CreateRevision(0),
                )],
                vec![set("lock", "mine")],
                vec![get("lock")],
            )),
        ),
    ]
}

fn refusals() -> Vec<Row> {
    let gets = |n| vec![get("a"); n];
    let compares = |n| vec![value_is("a", "x"); n];
    vec![
        ("a", Put(put("a", "1"))),
        (
            "128 operations",
            Txn(then((0..128).map(|i| set(&format!("k{i}"), "")).collect())),
        ),
        ("129 operations", Txn(then(gets(129)))),
        ("129 compares", Txn(when(compares(129), vec![], vec![]))),
        (
            "129 operations in the other branch",
            Txn(when(vec![], vec![], gets(129))),
        ),
        (
            "nested: 100 within 28",
            Txn(then([gets(27), vec![nested(then(gets(100)))]].concat())),
        ),
        (
            "nested: 101 within 28",
            Txn(then([gets(27), vec![nested(then(gets(101)))]].concat())),
        ),
        ("one key put twice", Txn(then(vec![set("x", "1"), set("x", "2")]))),
        (
            "one key put in both branches",
            Txn(when(vec![], vec![set("x", "1")], vec![set("x", "2")])),
        ),
        (
            "put within a range the same path deletes",
            Txn(then(vec![remove("x", "z"), set("y", "1")])),
        ),
        (
            "the other way round",
            Txn(then(vec![set("y", "1"), remove("x", "z")])),
        ),
        (
            "put twice, once nested",
            Txn(then(vec![set("x", "1"), nested(then(vec![set("x", "2")]))])),
        ),
        (
            "put in both branches of a nested transaction",
            Txn(then(vec![nested(when(
                vec![],
                vec![set("x", "1")],
                vec![set("x", "2")],
            ))])),
        ),
        (
            "put in two nested transactions",
            Txn(then(vec![
                nested(then(vec![set("x", "1")])),
                nested(then(vec![set("x", "2")])),
            ])),
        ),
        (
            "put and nested delete",
            Txn(then(vec![set("x", "1"), nested(then(vec![remove("w", "y")]))])),
        ),
        ("an empty key in a put", Txn(then(vec![set("", "1")]))),
        (
            "an empty key in a compare",
            Txn(when(vec![value_is("", "1")], vec![], vec![])),
        ),
        (
            "an empty key in the other branch",
            Txn(when(vec![], vec![], vec![get("")])),
        ),
        (
            "an empty key nested",
            Txn(then(vec![nested(then(vec![get("")]))])),
        ),
        (
            "a value both kept and given",
            Txn(then(vec![op(Request::RequestPut(PutRequest {
                ignore_value: true,
                ..put("a", "x")
            }))])),
        ),
        (
            "a lease that is not, on the path taken",
            Txn(then(vec![
                set("y", "1"),
                op(Request::RequestPut(PutRequest {
                    lease: 9,
                    ..put("x", "1")
                })),
            ])),
        ),
        (
            "a lease that is not, on the path not taken",
            Txn(when(
                vec![],
                vec![get("a")],
                vec![op(Request::RequestPut(PutRequest {
                    lease: 9,
                    ..put("x", "1")
                }))],
            )),
        ),
        (
            "the value of a missing key kept",
            Txn(then(vec![op(Request::RequestPut(PutRequest {
                ignore_value: true,
                ..put("none", "")
            }))])),
        ),
        (
            "a read at a future revision",
            Txn(then(vec![op(Request::RequestRange(RangeRequest {
                revision: 999,
                ..range("a")
            }))])),
        ),
        ("compacted", compact(2)),
        (
            "a read at a compacted revision",
            Txn(then(vec![op(Request::RequestRange(RangeRequest {
                revision: 1,
                ..range("a")
            }))])),
        ),
        ("nothing was changed by any of them", Range(range_to("l", "\0"))),
    ]
}
