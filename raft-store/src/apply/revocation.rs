//! Revocations: made, and taken back.

use std::sync::Arc;

use proto::replicated::{Empty, RevocationChange};

use super::{Applier, ApplyError};
use crate::revocations::Changed;

impl Applier {
    pub(super) fn change_revocations(&mut self, change: RevocationChange) -> Result<Empty, ApplyError> {
        let revocations = Arc::make_mut(&mut self.revocations);
        match revocations.change(change).map_err(ApplyError::Refused)? {
            Changed::Put((key, value)) => self.batch.put(key, value),
            Changed::Gone(key) => self.batch.delete(key),
        }
        Ok(Empty {})
    }
}
