//! Join tokens: made, revoked, used.

use std::sync::Arc;

use proto::replicated::{JoinToken, JoinTokenChange};

use super::{Applier, ApplyError};
use crate::join_tokens::JoinTokens;
use crate::schema;

impl Applier {
    pub(super) fn change_join_token(&mut self, change: JoinTokenChange) -> Result<JoinToken, ApplyError> {
        let tokens = Arc::make_mut(&mut self.join_tokens);
        let changed = tokens.change(change).map_err(ApplyError::Refused)?;
        for id in changed.gone {
            self.batch.delete(schema::join_token(id));
        }
        let (key, value) = JoinTokens::entry(&changed.token);
        self.batch.put(key, value);
        Ok(changed.token)
    }
}
