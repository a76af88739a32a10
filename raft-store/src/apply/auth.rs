//! Users, roles, and switching auth on and off.

use std::sync::Arc;

use proto::replicated::{AuthChange, Empty};

use super::{Applier, ApplyError};
use crate::auth;

impl Applier {
    pub(super) fn change_auth(&mut self, change: AuthChange) -> Result<Empty, ApplyError> {
        let touched = Arc::make_mut(&mut self.auth)
            .change(change)
            .map_err(ApplyError::Refused)?;
        for record in touched {
            match auth::record(&self.auth, &record) {
                (key, Some(value)) => self.batch.put(key, value),
                (key, None) => self.batch.delete(key),
            }
        }
        Ok(Empty {})
    }
}
