//! Grant, revoke and checkpoint of leases.

use proto::etcdserverpb::{
    LeaseCheckpointRequest, LeaseCheckpointResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseRevokeRequest, LeaseRevokeResponse,
};
use proto::replicated::Refusal;

use super::{Applier, ApplyError};
use crate::lease::{LeaseChange, Leases};
use crate::schema;
use crate::state;

/// Apply's own table of leases, ahead of the readers' by the changes of the chunk.
#[derive(Debug)]
pub(super) struct LeaseWriter {
    table: Leases,
    changes: Vec<LeaseChange>,
}

impl LeaseWriter {
    pub(super) fn new(table: Leases) -> LeaseWriter {
        LeaseWriter {
            table,
            changes: Vec::new(),
        }
    }

    pub(super) fn table(&self) -> &Leases {
        &self.table
    }

    pub(super) fn change(&mut self, change: LeaseChange) {
        self.table.change(&change);
        self.changes.push(change);
    }

    /// The chunk is written: what the readers' table has to follow.
    pub(super) fn take_changes(&mut self) -> Vec<LeaseChange> {
        std::mem::take(&mut self.changes)
    }
}

/// Whether there are other leases after a change. Not a checkpoint: it comes from the one who would be told.
pub(super) fn changes_the_set(change: &LeaseChange) -> bool {
    matches!(change, LeaseChange::Grant { .. } | LeaseChange::Revoke { .. })
}

impl Applier {
    /// The TTL is taken as it is: raising or refusing it is the proposer's.
    pub(super) fn lease_grant(
        &mut self,
        request: &LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, ApplyError> {
        if self.leases.table().contains(request.id) {
            return Err(ApplyError::Refused(Refusal::LeaseExists));
        }
        self.leases.change(LeaseChange::Grant {
            id: request.id,
            ttl_seconds: request.ttl,
        });
        self.store_lease(request.id);
        Ok(LeaseGrantResponse {
            id: request.id,
            ttl: request.ttl,
            ..LeaseGrantResponse::default()
        })
    }

    /// Deletes the lease's keys in one revision, in key order.
    pub(super) fn lease_revoke(
        &mut self,
        request: &LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, ApplyError> {
        if !self.leases.table().contains(request.id) {
            return Err(ApplyError::Refused(Refusal::LeaseNotFound));
        }
        let keys = self.leases.table().keys(request.id);
        let mut txn = self.writer.begin(&mut self.batch);
        for key in &keys {
            txn.delete(key)
                .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        }
        txn.finish();
        self.leases.change(LeaseChange::Revoke { id: request.id });
        self.batch.delete(schema::lease(request.id));
        Ok(LeaseRevokeResponse { header: None })
    }

    /// Leases that are gone meanwhile are passed over.
    pub(super) fn lease_checkpoint(&mut self, request: &LeaseCheckpointRequest) -> LeaseCheckpointResponse {
        for checkpoint in &request.checkpoints {
            if self.leases.table().contains(checkpoint.id) {
                self.leases.change(LeaseChange::Checkpoint {
                    id: checkpoint.id,
                    remaining_ttl_seconds: checkpoint.remaining_ttl,
                });
                self.store_lease(checkpoint.id);
            }
        }
        LeaseCheckpointResponse { header: None }
    }

    fn store_lease(&mut self, id: i64) {
        if let Some(lease) = self.leases.table().get(id) {
            self.batch.put(schema::lease(id), state::encode_lease(&lease));
        }
    }
}
