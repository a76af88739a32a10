//! Join tokens: pure data, and the rules by which a replicated change is taken or refused.
//!
//! A token is stored by the hash of its secret and is good for one host and one key of that host's; when it ends is
//! for the clock of the leader to say, whose time comes with each change. What has ended is kept for a day, so that
//! whoever still comes with it is told why it is refused.
//!
//! What it must not do: see a secret, look at a clock, or be reached by any key of a client.

use std::collections::BTreeMap;

use prost::Message;
use proto::replicated::join_token_change::{Change, Create, Use};
use proto::replicated::{JoinToken, JoinTokenChange, Refusal};

use crate::backend::{Backend, BackendError};
use crate::schema;

/// Tokens there may be, ended ones included.
const TOKENS: usize = 100;
const KEPT_SECONDS: u64 = 24 * 60 * 60;
const SHA256_BYTES: usize = 32;

/// One version of all join tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinTokens(BTreeMap<u64, JoinToken>);

/// What a change has done.
#[derive(Debug, PartialEq)]
pub(crate) struct Changed {
    /// As it is now.
    pub(crate) token: JoinToken,
    /// Forgotten by the way.
    pub(crate) gone: Vec<u64>,
}

impl JoinTokens {
    /// Ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = &JoinToken> {
        self.0.values()
    }

    /// Whether somebody may still come with a token, good or ended, at this time in seconds since 1970.
    #[must_use]
    pub fn any_known(&self, now: u64) -> bool {
        self.iter().any(|token| now < forgotten_at(token))
    }

    /// Whether a token may be used at this time by whoever has this secret and this key: what apply will say, as far as
    /// this version of the tokens goes.
    ///
    /// # Errors
    /// Why not.
    pub fn may_use(&self, wanted: &Use, now: u64) -> Result<&JoinToken, Refusal> {
        let token = self.0.get(&wanted.id).ok_or(Refusal::JoinTokenUnknown)?;
        if !same(&token.secret_sha256, &wanted.secret_sha256) {
            return Err(Refusal::JoinTokenUnknown);
        }
        if token.revoked {
            return Err(Refusal::JoinTokenRevoked);
        }
        if !token.used_by_sha256.is_empty() && token.used_by_sha256 != wanted.key_sha256 {
            return Err(Refusal::JoinTokenUsed);
        }
        if now >= token.expires {
            return Err(Refusal::JoinTokenExpired);
        }
        Ok(token)
    }

    /// Makes a change. A refused one leaves no trace.
    pub(crate) fn change(&mut self, change: JoinTokenChange) -> Result<Changed, Refusal> {
        let now = change.now;
        let token = match change.change.ok_or(Refusal::UnknownRequest)? {
            Change::Create(create) => return self.create(create, now),
            Change::Revoke(id) => {
                let token = self.0.get_mut(&id).ok_or(Refusal::JoinTokenUnknown)?;
                token.revoked = true;
                token.clone()
            }
            Change::Use(wanted) => {
                let mut token = self.may_use(&wanted, now)?.clone();
                if wanted.key_sha256.len() != SHA256_BYTES {
                    return Err(Refusal::UnknownRequest);
                }
                token.used_by_sha256 = wanted.key_sha256;
                self.0.insert(token.id, token.clone());
                token
            }
        };
        Ok(Changed {
            token,
            gone: Vec::new(),
        })
    }

    fn create(&mut self, create: Create, now: u64) -> Result<Changed, Refusal> {
        let mut token = create.token.ok_or(Refusal::UnknownRequest)?;
        if token.secret_sha256.len() != SHA256_BYTES || self.0.contains_key(&token.id) {
            return Err(Refusal::UnknownRequest);
        }
        let gone: Vec<u64> = self
            .iter()
            .filter(|token| now >= forgotten_at(token))
            .map(|token| token.id)
            .collect();
        if self.0.len() - gone.len() >= TOKENS {
            return Err(Refusal::JoinTokensTooMany);
        }
        for id in &gone {
            self.0.remove(id);
        }
        token.expires = now.saturating_add(create.ttl_seconds);
        self.0.insert(token.id, token.clone());
        Ok(Changed { token, gone })
    }

    /// Everything, as the backend holds it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.iter().map(JoinTokens::entry)
    }

    pub(crate) fn entry(token: &JoinToken) -> (Vec<u8>, Vec<u8>) {
        (schema::join_token(token.id), token.encode_to_vec())
    }

    pub(crate) fn load(backend: &Backend) -> Result<JoinTokens, BackendError> {
        let mut tokens = BTreeMap::new();
        for entry in backend.scan(schema::join_tokens()) {
            let (_, value) = entry?;
            let token =
                JoinToken::decode(value).map_err(|_| backend.damaged("a join token is unreadable"))?;
            tokens.insert(token.id, token);
        }
        Ok(JoinTokens(tokens))
    }
}

fn forgotten_at(token: &JoinToken) -> u64 {
    token.expires.saturating_add(KEPT_SECONDS)
}

/// In the same time wherever they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one
        .iter()
        .zip(other)
        .fold(0, |seen, (one, other)| seen | (one ^ other));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = KEPT_SECONDS;

    fn change(tokens: &mut JoinTokens, now: u64, change: Change) -> Result<Changed, Refusal> {
        tokens.change(JoinTokenChange {
            now,
            change: Some(change),
        })
    }

    fn create(id: u64) -> Change {
        let token = JoinToken {
            id,
            host: "ovh".into(),
            secret_sha256: vec![7; SHA256_BYTES].into(),
            ..JoinToken::default()
        };
        Change::Create(Create {
            token: Some(token),
            ttl_seconds: 60,
        })
    }

    fn used(id: u64, secret: u8, key: u8) -> Change {
        Change::Use(Use {
            id,
            secret_sha256: vec![secret; SHA256_BYTES].into(),
            key_sha256: vec![key; SHA256_BYTES].into(),
        })
    }

    #[test]
    fn a_token_is_for_one_key_and_a_time() {
        let tokens = &mut JoinTokens::default();
        let made = change(tokens, 100, create(1)).unwrap().token;
        assert_eq!((made.expires, made.used_by_sha256.len()), (160, 0));
        assert_eq!(change(tokens, 100, used(2, 7, 1)), Err(Refusal::JoinTokenUnknown));
        assert_eq!(change(tokens, 100, used(1, 8, 1)), Err(Refusal::JoinTokenUnknown));
        assert_eq!(change(tokens, 160, used(1, 7, 1)), Err(Refusal::JoinTokenExpired));
        change(tokens, 159, used(1, 7, 1)).unwrap();
        // Again by the same, never by another.
        change(tokens, 159, used(1, 7, 1)).unwrap();
        assert_eq!(change(tokens, 159, used(1, 7, 2)), Err(Refusal::JoinTokenUsed));
        // Whoever does not have the secret is not told what became of it.
        assert_eq!(change(tokens, 500, used(1, 8, 2)), Err(Refusal::JoinTokenUnknown));
        change(tokens, 100, create(3)).unwrap();
        change(tokens, 101, Change::Revoke(3)).unwrap();
        assert_eq!(change(tokens, 102, used(3, 7, 1)), Err(Refusal::JoinTokenRevoked));
    }

    #[test]
    fn tokens_are_few_and_forgotten() {
        let tokens = &mut JoinTokens::default();
        for id in 0..100 {
            change(tokens, 100, create(id)).unwrap();
        }
        assert_eq!(change(tokens, 100, create(5)), Err(Refusal::UnknownRequest));
        assert_eq!(change(tokens, 100, create(200)), Err(Refusal::JoinTokensTooMany));
        assert!(tokens.any_known(159 + DAY) && !tokens.any_known(160 + DAY));
        let made = change(tokens, 160 + DAY, create(200)).unwrap();
        assert_eq!((made.gone.len(), tokens.iter().count()), (100, 1));
    }
}
