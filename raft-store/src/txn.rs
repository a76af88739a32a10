//! What a Txn means, wherever it is evaluated: which path its compares choose, and what a path that only reads answers.
//!
//! Apply runs the path it chose here; a Txn that only reads is evaluated here as a whole, at one revision, without a
//! place in the log. There is one meaning of a comparison.

use std::ops::ControlFlow;

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use proto::mvccpb::KeyValue;

use crate::mvcc::{KeyRange, ReadFailure, View, Visible};

/// The operations that a Txn's compares chose.
pub(crate) struct Path<'a> {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step<'a>>,
}

pub(crate) enum Step<'a> {
    Op(&'a request_op::Request),
    Nested(Path<'a>),
}

/// Chooses the path by every compare on the way, nested ones too, all against `view`: the state before the request.
pub(crate) fn choose<'a>(view: View<'_>, request: &'a TxnRequest) -> Result<Path<'a>, ReadFailure> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(view, compare)? {
            succeeded = false;
            break;
        }
    }
    let chosen = if succeeded {
        &request.success
    } else {
        &request.failure
    };
    let mut steps = Vec::with_capacity(chosen.len());
    for RequestOp { request } in chosen {
        match request {
            Some(request_op::Request::RequestTxn(nested)) => steps.push(Step::Nested(choose(view, nested)?)),
            Some(op) => steps.push(Step::Op(op)),
            // An operation of a kind that this version does not know has no response; etcd's has none either.
            None => {}
        }
    }
    Ok(Path { succeeded, steps })
}

/// The revisions that the path reads at can be read.
pub(crate) fn check_ranges(view: View<'_>, path: &Path<'_>) -> Result<(), ReadFailure> {
    for step in &path.steps {
        match step {
            Step::Op(request_op::Request::RequestRange(range)) => {
                view.readable_in_txn(range.revision)?;
            }
            Step::Op(_) => {}
            Step::Nested(nested) => check_ranges(view, nested)?,
        }
    }
    Ok(())
}

/// Every range of a Txn on any path, nested ones too; `None` if it does anything but read.
pub(crate) fn ranges_only(request: &TxnRequest) -> Option<Vec<&RangeRequest>> {
    let mut ranges = Vec::new();
    for RequestOp { request } in request.success.iter().chain(&request.failure) {
        match request {
            Some(request_op::Request::RequestRange(range)) => ranges.push(range),
            Some(request_op::Request::RequestTxn(nested)) => ranges.extend(ranges_only(nested)?),
            _ => return None,
        }
    }
    Some(ranges)
}

/// Answers a Txn that only reads.
pub(crate) fn read(view: View<'_>, request: &TxnRequest) -> Result<TxnResponse, ReadFailure> {
    let path = choose(view, request)?;
    check_ranges(view, &path)?;
    read_path(view, &path)
}

fn read_path(view: View<'_>, path: &Path<'_>) -> Result<TxnResponse, ReadFailure> {
    let mut responses = Vec::with_capacity(path.steps.len());
    for step in &path.steps {
        let response = match step {
            Step::Op(request_op::Request::RequestRange(range)) => {
                let found = view.range(range)?;
                response_op::Response::ResponseRange(RangeResponse {
                    header: None,
                    kvs: found.kvs,
                    more: found.more,
                    count: found.count,
                })
            }
            Step::Nested(nested) => response_op::Response::ResponseTxn(read_path(view, nested)?),
            // Not in a Txn that only reads.
            Step::Op(_) => continue,
        };
        responses.push(ResponseOp {
            response: Some(response),
        });
    }
    Ok(TxnResponse {
        header: None,
        succeeded: path.succeeded,
        responses,
    })
}

/// Whether every key of the compare's range passes. A range without keys is compared as one key of zeros, which has
/// no value to compare.
fn holds(view: View<'_>, compare: &Compare) -> Result<bool, ReadFailure> {
    let mut empty = true;
    let mut outcome = Ok(true);
    view.index.visit(
        KeyRange::new(&compare.key, &compare.range_end),
        view.revision,
        |_, visible| {
            empty = false;
            outcome = subject(view, compare, visible).map(|kv| passes(compare, &kv));
            match outcome {
                Ok(true) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        },
    );
    if empty {
        let value = compare.target == i32::from(CompareTarget::Value);
        return Ok(!value && passes(compare, &KeyValue::default()));
    }
    outcome
}

/// As much of a key-value as the compare looks at: the index knows most of it.
fn subject(view: View<'_>, compare: &Compare, visible: Visible) -> Result<KeyValue, ReadFailure> {
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => view.fetch(visible.modified, true),
        Ok(CompareTarget::Lease) => view.fetch(visible.modified, false),
        _ => Ok(KeyValue {
            version: visible.version,
            create_revision: visible.created,
            mod_revision: visible.modified.main,
            ..KeyValue::default()
        }),
    }
}

/// A compare whose operand is missing, or of another kind than its target, compares with zero, as in etcd.
fn passes(compare: &Compare, kv: &KeyValue) -> bool {
    let operand = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match operand {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create_revision.cmp(&match operand {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.mod_revision.cmp(&match operand {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&match operand {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv.value.as_ref().cmp(match operand {
            Some(TargetUnion::Value(value)) => value.as_ref(),
            _ => &[],
        }),
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
