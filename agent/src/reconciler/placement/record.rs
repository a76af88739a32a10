//! One binding put in the place of the one that was read.

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use proto::replicated::{Refusal, reply, request::Op};
use thiserror::Error;

use crate::document::{Binding, DesiredKey, binding_key};
use crate::node::{Node, NodeError};

#[derive(Debug, Error)]
pub(super) enum RecordError {
    #[error("the cluster does not take it")]
    Node(#[from] NodeError),
    #[error("refused by the store: {}", .0.as_str_name())]
    Refused(Refusal),
}

/// Whether it was put: not where the binding is no more what it was at `revision`.
pub(super) async fn replace(
    node: &Node,
    instance: &DesiredKey,
    revision: i64,
    binding: &Binding,
) -> Result<bool, RecordError> {
    let key = Bytes::from(binding_key(instance));
    let txn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key,
                value: serde_json::to_vec(binding).unwrap_or_default().into(),
                ..PutRequest::default()
            })),
        }],
        failure: Vec::new(),
    };
    match node.propose(Op::Txn(txn)).await?.result {
        Some(reply::Result::Txn(answer)) => Ok(answer.succeeded),
        Some(reply::Result::Refused(refusal)) => Err(RecordError::Refused(
            Refusal::try_from(refusal).unwrap_or_default(),
        )),
        _ => Ok(false),
    }
}
