//! How much a request may add to the store: what a quota is checked by.

use proto::etcdserverpb::{RequestOp, TxnRequest, request_op};
use proto::replicated::request::Op;

use crate::mvcc::record;

/// What etcd counts for a lease.
const LEASE_BYTES: u64 = 64;

/// The bytes that a request may add to the live data; 0 for one that only reads, deletes or administers. Of a Txn
/// it is the larger branch.
#[must_use]
pub fn growth_bytes(op: &Op) -> u64 {
    match op {
        Op::Put(request) => u64::from(record::quota_bytes(&request.key, &request.value)),
        Op::Txn(request) => txn(request),
        Op::LeaseGrant(_) => LEASE_BYTES,
        _ => 0,
    }
}

fn txn(request: &TxnRequest) -> u64 {
    branch(&request.success).max(branch(&request.failure))
}

fn branch(ops: &[RequestOp]) -> u64 {
    let growth = |op: &RequestOp| match &op.request {
        Some(request_op::Request::RequestPut(put)) => u64::from(record::quota_bytes(&put.key, &put.value)),
        Some(request_op::Request::RequestTxn(nested)) => txn(nested),
        _ => 0,
    };
    ops.iter().map(growth).sum()
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

    use super::*;

    fn step(request: request_op::Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put(value: usize) -> PutRequest {
        PutRequest {
            key: "k".into(),
            value: vec![0; value].into(),
            ..PutRequest::default()
        }
    }

    #[test]
    fn a_txn_counts_its_larger_branch() {
        let one = growth_bytes(&Op::Put(put(1_000)));
        let nested = TxnRequest {
            failure: vec![step(request_op::Request::RequestPut(put(1_000)))],
            ..TxnRequest::default()
        };
        let txn = TxnRequest {
            success: vec![
                step(request_op::Request::RequestPut(put(1_000))),
                step(request_op::Request::RequestTxn(nested)),
            ],
            failure: vec![step(request_op::Request::RequestPut(put(1)))],
            ..TxnRequest::default()
        };
        assert_eq!(growth_bytes(&Op::Txn(txn)), 2 * one);
    }

    #[test]
    fn reads_and_deletes_add_nothing() {
        let txn = TxnRequest {
            success: vec![step(request_op::Request::RequestRange(RangeRequest::default()))],
            failure: vec![step(request_op::Request::RequestDeleteRange(
                DeleteRangeRequest::default(),
            ))],
            ..TxnRequest::default()
        };
        assert_eq!(growth_bytes(&Op::Txn(txn)), 0);
        assert_eq!(growth_bytes(&Op::DeleteRange(DeleteRangeRequest::default())), 0);
    }
}
