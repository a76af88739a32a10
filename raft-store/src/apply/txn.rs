//! Txn: compares, then one of two lists of operations, all at one revision.
//!
//! Three passes. First [`crate::txn`] chooses the path by the compares, against the state before the request. Then the
//! path is checked for what would be refused. Only then does it run.

use proto::etcdserverpb::{RangeResponse, ResponseOp, TxnRequest, TxnResponse, request_op, response_op};
use proto::replicated::Refusal;

use super::lease::LeaseWriter;
use super::{Applier, ApplyError, kv};
use crate::mvcc::{ReadFailure, WriteTxn};
use crate::txn::{Path, Step, check_ranges, choose};

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
                kv::check_put_in_txn(self.writer.view(), &self.leases, put)
            }
            Step::Op(_) => None,
            Step::Nested(nested) => self.check_puts(nested),
        })
    }
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
