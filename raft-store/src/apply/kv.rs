//! Put and DeleteRange, alone and as steps of a Txn.

use proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse};
use proto::replicated::Refusal;

use super::lease::LeaseWriter;
use super::{Applier, ApplyError};
use crate::lease::LeaseChange;
use crate::mvcc::{KeyRange, ReadFailure, View, WriteTxn};

impl Applier {
    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, ApplyError> {
        let view = self.writer.view();
        // Of two reasons etcd names the lease first; in a Txn, the key.
        let refusal = missing_lease(&self.leases, request).or_else(|| missing_key(view, request));
        if let Some(refusal) = refusal {
            return Err(ApplyError::Refused(refusal));
        }
        let mut txn = self.writer.begin(&mut self.batch);
        let response = put(&mut txn, &mut self.leases, request)
            .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        txn.finish();
        Ok(response)
    }

    pub(super) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ApplyError> {
        let mut txn = self.writer.begin(&mut self.batch);
        let response = delete_range(&mut txn, &mut self.leases, request)
            .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        txn.finish();
        Ok(response)
    }
}

/// Why a put on a Txn's path cannot be done in `view`, which is the state before the whole request.
pub(super) fn check_put_in_txn(
    view: View<'_>,
    leases: &LeaseWriter,
    request: &PutRequest,
) -> Option<Refusal> {
    missing_key(view, request).or_else(|| missing_lease(leases, request))
}

fn missing_key(view: View<'_>, request: &PutRequest) -> Option<Refusal> {
    let keeps = request.ignore_value || request.ignore_lease;
    (keeps && view.visible(&request.key).is_none()).then_some(Refusal::KeyNotFound)
}

fn missing_lease(leases: &LeaseWriter, request: &PutRequest) -> Option<Refusal> {
    let missing = request.lease != 0 && !leases.table().contains(request.lease);
    missing.then_some(Refusal::LeaseNotFound)
}

pub(super) fn put(
    txn: &mut WriteTxn<'_>,
    leases: &mut LeaseWriter,
    request: &PutRequest,
) -> Result<PutResponse, ReadFailure> {
    let key = &request.key;
    let before = if request.prev_kv || request.ignore_value {
        txn.view().current(key)?
    } else {
        None
    };
    let value = match &before {
        Some(before) if request.ignore_value => before.value.clone(),
        _ => request.value.clone(),
    };
    let lease = if request.ignore_lease {
        leases.table().lease_of(key)
    } else {
        request.lease
    };
    txn.put(key, value, lease)?;
    if lease != leases.table().lease_of(key) {
        let key = key.clone();
        leases.change(match lease {
            0 => LeaseChange::Detach { key },
            id => LeaseChange::Attach { key, id },
        });
    }
    Ok(PutResponse {
        header: None,
        prev_kv: before.filter(|_| request.prev_kv),
    })
}

pub(super) fn delete_range(
    txn: &mut WriteTxn<'_>,
    leases: &mut LeaseWriter,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, ReadFailure> {
    let keys = txn.view().keys(KeyRange::new(&request.key, &request.range_end));
    let mut response = DeleteRangeResponse::default();
    for (key, visible) in keys {
        if request.prev_kv {
            response.prev_kvs.push(txn.view().fetch(visible.modified, true)?);
        }
        txn.delete(&key)?;
        if leases.table().lease_of(&key) != 0 {
            leases.change(LeaseChange::Detach { key });
        }
        response.deleted += 1;
    }
    Ok(response)
}
