//! Txn: compares, then one of two lists of operations, all at one revision.
//!
//! Three passes. First every compare on the way, nested ones too, against the state before the request: that fixes
//! the path. Then the path is checked for what would be refused. Only then does it run.

use std::ops::ControlFlow;

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{
    Compare, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op, response_op,
};
use proto::mvccpb::KeyValue;
use proto::replicated::Refusal;

use super::lease::LeaseWriter;
use super::{Applier, ApplyError, kv};
use crate::mvcc::{KeyRange, ReadFailure, View, Visible, WriteTxn};

impl Applier {
    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, ApplyError> {
        let path = choose(self.writer.view(), request)
            .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        if let Some(refusal) = self.check_puts(&path) {
            return Err(ApplyError::Refused(refusal));
        }
        check_ranges(self.writer.view(), &path)
            .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        let mut txn = self.writer.begin(&mut self.batch);
        let response = execute(&mut txn, &mut self.leases, &path)
            .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        txn.finish();
        Ok(response)
    }

    /// The first put on the path that cannot be done.
    fn check_puts(&self, path: &Path<'_>) -> Option<Refusal> {
        path.steps.iter().find_map(|step| match step {
            Step::Op(request_op::Request::RequestPut(put)) => {
                kv::check_put(self.writer.view(), &self.leases, put)
            }
            Step::Op(_) => None,
            Step::Nested(nested) => self.check_puts(nested),
        })
    }
}

/// The operations that a Txn's compares chose.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(&'a request_op::Request),
    Nested(Path<'a>),
}

fn choose<'a>(view: View<'_>, request: &'a TxnRequest) -> Result<Path<'a>, ReadFailure> {
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
fn check_ranges(view: View<'_>, path: &Path<'_>) -> Result<(), ReadFailure> {
    for step in &path.steps {
        match step {
            Step::Op(request_op::Request::RequestRange(range)) => {
                view.readable(range.revision)?;
            }
            Step::Op(_) => {}
            Step::Nested(nested) => check_ranges(view, nested)?,
        }
    }
    Ok(())
}

fn execute(
    txn: &mut WriteTxn<'_>,
    leases: &mut LeaseWriter,
    path: &Path<'_>,
) -> Result<TxnResponse, ReadFailure> {
    let mut responses = Vec::with_capacity(path.steps.len());
    for step in &path.steps {
        let response = match step {
            Step::Op(request_op::Request::RequestRange(range)) => {
                let found = txn.view().range(range)?;
                response_op::Response::ResponseRange(RangeResponse {
                    header: None,
                    kvs: found.kvs,
                    more: found.more,
                    count: found.count,
                })
            }
            Step::Op(request_op::Request::RequestPut(put)) => {
                response_op::Response::ResponsePut(kv::put(txn, leases, put)?)
            }
            Step::Op(request_op::Request::RequestDeleteRange(delete)) => {
                response_op::Response::ResponseDeleteRange(kv::delete_range(txn, leases, delete)?)
            }
            // Chosen above: a nested Txn is never a plain operation.
            Step::Op(request_op::Request::RequestTxn(_)) => continue,
            Step::Nested(nested) => response_op::Response::ResponseTxn(execute(txn, leases, nested)?),
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
