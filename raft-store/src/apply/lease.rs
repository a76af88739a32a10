//! Grant, revoke and checkpoint of leases.

use proto::etcdserverpb::{
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseCheckpointResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseRevokeRequest, LeaseRevokeResponse,
};
use proto::replicated::{Empty, LeaseCheckpoints, LeaseExpire, Refusal};

use super::{Applier, ApplyError};
use crate::lease::{LeaseChange, LeaseEvent, Leases};
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

/// What the keeper of deadlines is told. Not a checkpoint: it comes from the one who would be told.
pub(super) fn event(change: &LeaseChange) -> Option<LeaseEvent> {
    match change {
        LeaseChange::Grant { id, ttl_seconds } => Some(LeaseEvent::Granted {
            id: *id,
            ttl_seconds: *ttl_seconds,
        }),
        LeaseChange::Revoke { id } => Some(LeaseEvent::Gone { id: *id }),
        LeaseChange::Checkpoint { .. } | LeaseChange::Attach { .. } | LeaseChange::Detach { .. } => None,
    }
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
        self.revoke(request.id)?;
        Ok(LeaseRevokeResponse { header: None })
    }

    /// Revokes what has run out in this term, each lease in a revision of its own.
    pub(super) fn lease_expire(&mut self, request: &LeaseExpire) -> Result<Empty, ApplyError> {
        if self.term() == request.term {
            for &id in &request.ids {
                if self.leases.table().contains(id) {
                    self.revoke(id)?;
                }
            }
        }
        Ok(Empty {})
    }

    fn revoke(&mut self, id: i64) -> Result<(), ApplyError> {
        let keys = self.leases.table().keys(id);
        let mut txn = self.writer.begin(&mut self.batch);
        for key in &keys {
            txn.delete(key)
                .map_err(|failure| ApplyError::from_read(failure, &self.state))?;
        }
        txn.finish();
        self.leases.change(LeaseChange::Revoke { id });
        self.batch.delete(schema::lease(id));
        Ok(())
    }

    /// Leases that are gone meanwhile are passed over.
    pub(super) fn lease_checkpoint(&mut self, request: &LeaseCheckpointRequest) -> LeaseCheckpointResponse {
        self.checkpoint(&request.checkpoints);
        LeaseCheckpointResponse { header: None }
    }

    pub(super) fn lease_checkpoints(&mut self, request: &LeaseCheckpoints) -> Empty {
        if self.term() == request.term {
            self.checkpoint(&request.checkpoints);
        }
        Empty {}
    }

    fn checkpoint(&mut self, checkpoints: &[LeaseCheckpoint]) {
        for checkpoint in checkpoints {
            if self.leases.table().contains(checkpoint.id) {
                self.leases.change(LeaseChange::Checkpoint {
                    id: checkpoint.id,
                    remaining_ttl_seconds: checkpoint.remaining_ttl,
                });
                self.store_lease(checkpoint.id);
            }
        }
    }

    /// In which the entry that is being applied was proposed.
    fn term(&self) -> u64 {
        self.applied
            .map_or(0, |applied| applied.committed_leader_id().term)
    }

    fn store_lease(&mut self, id: i64) {
        if let Some(lease) = self.leases.table().get(id) {
            self.batch.put(schema::lease(id), state::encode_lease(&lease));
        }
    }
}
