//! Txn: what its compares see, what its operations see, and what a refusal leaves.

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, request_op, response_op};
use proto::replicated::{Refusal, reply, request::Op};

use super::fixture::{bytes, put_request, step};
use super::{Fixture, compact, delete, op_delete, op_get, op_put, put, range};
use crate::store::{ReadError, Store};

fn compare(key: &str, result: CompareResult, operand: TargetUnion) -> Compare {
    let target = match operand {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        key: bytes(key),
        result: result.into(),
        target: target.into(),
        target_union: Some(operand),
        range_end: bytes(""),
    }
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        compare,
        success,
        failure,
    }
}

/// Whether a compare holds, on a store with `a` = 5 (put twice), `b` = 6.
#[track_caller]
fn check(key: &str, end: &str, result: CompareResult, operand: TargetUnion, expect: bool) {
    let mut fixture = Fixture::new();
    fixture.apply_all([
        put("a", "4"),
        put("a", "5"),
        put("b", "6"),
        put("c", "7"),
        delete("c", ""),
    ]);
    let compare = Compare {
        range_end: bytes(end),
        ..compare(key, result, operand)
    };
    let reply::Result::Txn(response) = fixture.done(Op::Txn(txn(vec![compare.clone()], vec![], vec![])))
    else {
        panic!()
    };
    assert_eq!(response.succeeded, expect);
    let (read, _) = fixture
        .store
        .read_txn(&txn(vec![compare], vec![], vec![]))
        .unwrap();
    assert_eq!(read.succeeded, expect, "outside of the log as in it");
    assert_eq!(
        fixture.store.revision(),
        6,
        "a txn that writes nothing is no revision"
    );
}

#[test]
fn compares() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
    check("a", "", Equal, Version(2), true);
    check("a", "", Equal, CreateRevision(2), true);
    check("a", "", Equal, ModRevision(3), true);
    check("a", "", Greater, ModRevision(3), false);
    check("a", "", Less, ModRevision(4), true);
    check("a", "", NotEqual, ModRevision(3), false);
    check("a", "", Equal, Value(bytes("5")), true);
    check("a", "", Greater, Value(bytes("4")), true);
    check("a", "", Equal, Lease(0), true);
    // An absent key is all zeros, and has no value whatever the operator.
    for absent in ["c", "x"] {
        check(absent, "", Equal, Version(0), true);
        check(absent, "", Equal, CreateRevision(0), true);
        check(absent, "", Less, ModRevision(1), true);
        check(absent, "", NotEqual, Value(bytes("5")), false);
        check(absent, "", Equal, Value(bytes("")), false);
    }
    // Every key of a range must hold.
    check("a", "c", Greater, ModRevision(2), true);
    check("a", "c", Greater, ModRevision(3), false);
    check("a", "\0", Greater, Value(bytes("4")), true);
    check("x", "z", Equal, Version(0), true);
}

#[test]
fn compares_see_the_state_before_and_reads_what_came_before_them() {
    let mut fixture = Fixture::new();
    fixture.done(put("a", "1"));
    let absent = |key| compare(key, CompareResult::Equal, TargetUnion::CreateRevision(0));
    let nested = txn(
        vec![absent("b")],
        vec![op_get("b"), op_delete("a", "")],
        vec![op_put("x", "x")],
    );
    let request = txn(
        vec![absent("b")],
        vec![
            op_get("b"),
            op_put("b", "2"),
            step(request_op::Request::RequestTxn(nested)),
            op_get("a"),
        ],
        vec![],
    );
    let reply::Result::Txn(response) = fixture.done(Op::Txn(request)) else {
        panic!()
    };
    let counts: Vec<i64> = response
        .responses
        .iter()
        .flat_map(|response| match response.response.as_ref().unwrap() {
            response_op::Response::ResponseRange(range) => vec![range.count],
            response_op::Response::ResponsePut(_) => vec![],
            response_op::Response::ResponseDeleteRange(delete) => vec![100 + delete.deleted],
            response_op::Response::ResponseTxn(nested) => {
                assert!(nested.succeeded, "its compare was evaluated before b was put");
                let Some(response_op::Response::ResponseRange(range)) = &nested.responses[0].response else {
                    panic!()
                };
                assert_eq!(
                    range.kvs[0].mod_revision, 3,
                    "the read sees the put of this very txn"
                );
                vec![range.count]
            }
        })
        .collect();
    assert_eq!(counts, [0, 1, 0]);
    assert_eq!(
        (fixture.store.revision(), fixture.shown(0), fixture.shown(2)),
        (3, "b=2".into(), "a=1".into())
    );
}

#[test]
fn a_refused_txn_leaves_no_trace() {
    let mut fixture = Fixture::new();
    fixture.apply_all([put("a", "1"), put("a", "2"), compact(3)]);
    let mut check = |last: RequestOp, expect: Refusal| {
        let inner = txn(vec![], vec![op_put("n", "n"), last.clone()], vec![]);
        let nested = step(request_op::Request::RequestTxn(inner));
        for last in [last, nested] {
            let ops = vec![op_put("b", "1"), op_delete("a", ""), last];
            assert_eq!(fixture.refused(Op::Txn(txn(vec![], ops.clone(), vec![]))), expect);
            // The same on the path that is not taken does no harm.
            let never = compare("a", CompareResult::Equal, TargetUnion::Version(99));
            fixture.done(Op::Txn(txn(vec![never], ops, vec![])));
        }
    };
    let read = |revision| {
        step(request_op::Request::RequestRange(RangeRequest {
            revision,
            ..range("a", "")
        }))
    };
    let mut with_lease = put_request("c", "3");
    with_lease.lease = 77;
    let mut keep_value = put_request("c", "");
    keep_value.ignore_value = true;
    check(
        step(request_op::Request::RequestPut(with_lease)),
        Refusal::LeaseNotFound,
    );
    check(
        step(request_op::Request::RequestPut(keep_value)),
        Refusal::KeyNotFound,
    );
    check(read(2), Refusal::Compacted);
    check(read(4), Refusal::FutureRevision);
    assert_eq!(fixture.shown(0), "a=2");
}

#[test]
fn a_txn_that_only_reads_answers_outside_of_the_log_as_in_it() {
    let mut fixture = Fixture::new();
    fixture.apply_all([put("a", "1"), put("b", "2"), put("a", "3"), put("c", "4")]);
    let at = |revision, mut range: RangeRequest| {
        range.revision = revision;
        step(request_op::Request::RequestRange(range))
    };
    let nested = |request| step(request_op::Request::RequestTxn(request));
    let is_3 = || vec![compare("a", CompareResult::Equal, TargetUnion::Value(bytes("3")))];
    let is_1 = || vec![compare("a", CompareResult::Equal, TargetUnion::Value(bytes("1")))];
    let inner = txn(is_1(), vec![op_get("a")], vec![at(2, range("a", "\0"))]);
    let requests = [
        txn(vec![], vec![], vec![]),
        txn(is_3(), vec![op_get("b"), op_get("none")], vec![]),
        txn(
            is_1(),
            vec![op_get("b")],
            vec![at(3, range("a", "")), op_get("c")],
        ),
        txn(is_3(), vec![nested(inner), at(0, range("\0", "\0"))], vec![]),
    ];
    for request in requests {
        assert!(Store::ranges_only(&request).is_some());
        let (read, revision) = fixture.store.read_txn(&request).unwrap();
        let reply = fixture.apply(Op::Txn(request));
        assert_eq!(
            (Some(reply::Result::Txn(read)), revision),
            (reply.result, reply.revision)
        );
    }
    fixture.done(compact(4));
    let old = |revision| txn(vec![], vec![at(revision, range("a", ""))], vec![]);
    assert_eq!(fixture.store.read_txn(&old(3)), Err(ReadError::Compacted));
    assert_eq!(fixture.store.read_txn(&old(9)), Err(ReadError::FutureRevision));
    // A path that is not taken is not read.
    assert!(
        fixture
            .store
            .read_txn(&txn(is_1(), vec![at(3, range("a", ""))], vec![]))
            .is_ok()
    );
    for writes in [
        op_put("a", "1"),
        op_delete("a", ""),
        nested(txn(vec![], vec![], vec![op_put("a", "1")])),
    ] {
        assert_eq!(
            Store::ranges_only(&txn(vec![], vec![op_get("a")], vec![writes])),
            None
        );
    }
}
