//! From a step to the request that it sends.

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

use crate::op::{Compact, Compare, Delete, Place, Put, Range, Txn, TxnOp, Watch, With};

/// One byte for each character. Characters above 255 are no part of any generated text.
pub(crate) fn bytes(text: &str) -> Bytes {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

impl Range {
    pub(crate) fn request(&self, place: Place) -> RangeRequest {
        RangeRequest {
            key: bytes(&self.key),
            range_end: bytes(&self.range_end),
            limit: self.limit,
            revision: self.revision.at(place),
            sort_order: self.sort_order,
            sort_target: self.sort_target,
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_revision.at(place),
            max_mod_revision: self.max_mod_revision.at(place),
            min_create_revision: self.min_create_revision.at(place),
            max_create_revision: self.max_create_revision.at(place),
        }
    }
}

impl Put {
    pub(crate) fn request(&self) -> PutRequest {
        PutRequest {
            key: bytes(&self.key),
            value: bytes(&self.value),
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        }
    }
}

impl Delete {
    pub(crate) fn request(&self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: bytes(&self.key),
            range_end: bytes(&self.range_end),
            prev_kv: self.prev_kv,
        }
    }
}

impl Txn {
    pub(crate) fn request(&self, place: Place) -> TxnRequest {
        let ops = |ops: &[TxnOp]| ops.iter().map(|op| op.request(place)).collect();
        TxnRequest {
            compare: self
                .compare
                .iter()
                .map(|compare| compare.request(place))
                .collect(),
            success: ops(&self.success),
            failure: ops(&self.failure),
        }
    }
}

impl TxnOp {
    fn request(&self, place: Place) -> RequestOp {
        let request = match self {
            TxnOp::Range(range) => Some(Request::RequestRange(range.request(place))),
            TxnOp::Put(put) => Some(Request::RequestPut(put.request())),
            TxnOp::Delete(delete) => Some(Request::RequestDeleteRange(delete.request())),
            TxnOp::Txn(txn) => Some(Request::RequestTxn(txn.request(place))),
            TxnOp::Nothing => None,
        };
        RequestOp { request }
    }
}

impl Compare {
    fn request(&self, place: Place) -> proto::etcdserverpb::Compare {
        let target_union = match &self.with {
            With::Nothing => None,
            With::Version(version) => Some(TargetUnion::Version(*version)),
            With::Create(revision) => Some(TargetUnion::CreateRevision(revision.at(place))),
            With::Mod(revision) => Some(TargetUnion::ModRevision(revision.at(place))),
            With::Value(value) => Some(TargetUnion::Value(bytes(value))),
            With::Lease(id) => Some(TargetUnion::Lease(*id)),
        };
        proto::etcdserverpb::Compare {
            result: self.result,
            target: self.target,
            key: bytes(&self.key),
            range_end: bytes(&self.range_end),
            target_union,
        }
    }
}

impl Compact {
    pub(crate) fn request(&self, place: Place) -> CompactionRequest {
        CompactionRequest {
            revision: self.revision.at(place),
            physical: self.physical,
        }
    }
}

impl Watch {
    pub(crate) fn request(&self, place: Place) -> WatchCreateRequest {
        WatchCreateRequest {
            key: bytes(&self.key),
            range_end: bytes(&self.range_end),
            start_revision: self.start_revision.at(place),
            progress_notify: self.progress_notify,
            filters: self.filters.clone(),
            prev_kv: self.prev_kv,
            watch_id: self.watch_id,
            fragment: self.fragment,
        }
    }
}
