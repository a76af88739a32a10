//! Our own tokens: who, since when, of which version of that user; signed.
//!
//! ```text
//! base64url( version u8 · issued, ms since the epoch u64 · auth revision then u64 · user's changed revision u64 · user ·
//!            HMAC-SHA-256 of all before (32 bytes) )
//! ```
//! All integers are big-endian. The key is made when auth is enabled and replicated with the users: every member
//! verifies every token, restarts lose none, and disabling auth voids all. Unrelated changes of users leave a token
//! good, as in etcd; the user's own password or deletion void it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use raft_store::auth::{Auth, User};
use sha2::Sha256;

use super::Rejected;
use super::proven::Proven;
use crate::api::interceptor::Identity;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 25;
/// A shorter key is none that we made.
const MIN_KEY_BYTES: usize = 32;
/// Above what any token needs; longer ones are not even decoded.
const MAX_TOKEN_BYTES: usize = 4096;

#[derive(Debug)]
pub(in crate::api) struct Simple {
    ttl: Duration,
    /// A token that is here lives on while it is shown.
    proven: Proven<Claims>,
}

/// A token's contents.
struct Claims {
    issued: Duration,
    auth_revision: u64,
    changed_revision: u64,
    user: String,
    /// What it was signed with.
    key: Box<[u8]>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Simple {
    pub(super) fn new(ttl: Duration) -> Simple {
        Simple {
            ttl,
            proven: Proven::new(ttl),
        }
    }

    pub(super) fn issue(&self, name: &str, user: &User, auth: &Auth, now: Duration) -> String {
        let mut token = Vec::with_capacity(HEAD_BYTES + name.len() + MAC_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&u64::try_from(now.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        token.extend_from_slice(&auth.revision().to_be_bytes());
        token.extend_from_slice(&user.changed_revision().to_be_bytes());
        token.extend_from_slice(name.as_bytes());
        let seal = mac(auth, &token).finalize().into_bytes();
        token.extend_from_slice(&seal);
        URL_SAFE_NO_PAD.encode(token)
    }

    pub(super) fn verify(&self, token: &str, auth: &Auth, now: Duration) -> Result<Identity, Rejected> {
        let claims = match self.proven.show(token, now) {
            Some(claims) => claims,
            None => self.prove(token, auth, now)?,
        };
        let is_users = auth
            .user(&claims.user)
            .is_some_and(|user| user.changed_revision() == claims.changed_revision);
        // Auth may have been enabled anew meanwhile, with another key.
        if !is_users || *claims.key != *auth.token_key() {
            self.proven.forget(token);
            return Err(Rejected::Invalid);
        }
        Ok(Identity {
            user: claims.user.clone(),
            changed_revision: claims.changed_revision,
            auth_revision: auth.revision(),
        })
    }

    /// Verifies a token that is new here, or was not shown here for a whole life.
    fn prove(&self, token: &str, auth: &Auth, now: Duration) -> Result<Arc<Claims>, Rejected> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejected::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Rejected::Invalid)?;
        let (signed, seal) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(Rejected::Invalid)?;
        let claims = Claims::read(signed, auth.token_key()).ok_or(Rejected::Invalid)?;
        // Before the seal: a key that is not here yet cannot be tried. What a forger gains by it is that we catch up.
        if claims.auth_revision > auth.revision() {
            return Err(Rejected::Newer);
        }
        if auth.token_key().len() < MIN_KEY_BYTES {
            return Err(Rejected::Invalid);
        }
        mac(auth, signed)
            .verify_slice(seal)
            .map_err(|_| Rejected::Invalid)?;
        if now.saturating_sub(claims.issued) >= self.ttl {
            return Err(Rejected::Invalid);
        }
        let claims = Arc::new(claims);
        self.proven.remember(token, &claims, now);
        Ok(claims)
    }
}

impl Claims {
    fn read(bytes: &[u8], key: &[u8]) -> Option<Claims> {
        let (&version, rest) = bytes.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (auth_revision, rest) = rest.split_first_chunk()?;
        let (changed_revision, user) = rest.split_first_chunk()?;
        (version == VERSION).then_some(Claims {
            issued: Duration::from_millis(u64::from_be_bytes(*issued)),
            auth_revision: u64::from_be_bytes(*auth_revision),
            changed_revision: u64::from_be_bytes(*changed_revision),
            user: String::from_utf8(user.to_vec()).ok()?,
            key: key.into(),
        })
    }
}

/// The signature over `signed`, begun.
fn mac(auth: &Auth, signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(auth.token_key()).expect("HMAC takes keys of any length");
    mac.update(signed);
    mac
}

#[cfg(test)]
mod tests {
    use proto::replicated::AuthChange;
    use proto::replicated::auth_change::{Change, Enable, UserAdd, UserPassword, UserRole};

    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const START: Duration = Duration::from_secs(1_000_000);

    fn change(auth: &mut Auth, change: Change) {
        auth.change(AuthChange { change: Some(change) }).unwrap();
    }

    fn add(auth: &mut Auth, name: &str) {
        let user = UserAdd {
            name: name.to_owned(),
            ..UserAdd::default()
        };
        change(auth, Change::UserAdd(user));
    }

    /// With auth on, and users root and ann.
    fn auth(key: u8) -> Auth {
        let mut auth = Auth::default();
        add(&mut auth, "root");
        let root = || "root".to_owned();
        let admin = UserRole {
            user: root(),
            role: root(),
        };
        change(&mut auth, Change::UserGrantRole(admin));
        add(&mut auth, "ann");
        let token_key = vec![key; 32].into();
        change(&mut auth, Change::Enable(Enable { token_key }));
        auth
    }

    fn token(simple: &Simple, auth: &Auth, now: Duration) -> String {
        simple.issue("ann", auth.user("ann").unwrap(), auth, now)
    }

    #[test]
    fn every_member_knows_a_token_until_its_user_changes() {
        let mut auth = auth(7);
        let token = token(&Simple::new(TTL), &auth, START);
        let verify = |auth: &Auth| {
            Simple::new(TTL)
                .verify(&token, auth, START)
                .map(|identity| identity.user)
        };
        assert_eq!(verify(&auth).as_deref(), Ok("ann"));
        add(&mut auth, "zoe");
        assert_eq!(verify(&auth).as_deref(), Ok("ann"), "somebody else changed");
        let mut other_password = auth.clone();
        let password = UserPassword {
            name: "ann".to_owned(),
            password_hash: "x".into(),
        };
        change(&mut other_password, Change::UserChangePassword(password));
        assert_eq!(verify(&other_password), Err(Rejected::Invalid));
        change(&mut auth, Change::UserDelete("ann".to_owned()));
        assert_eq!(verify(&auth), Err(Rejected::Invalid));
        add(&mut auth, "ann");
        assert_eq!(verify(&auth), Err(Rejected::Invalid), "another user of that name");
    }

    #[test]
    fn what_was_proved_once_is_still_asked_of_the_users() {
        let mut auth = auth(7);
        let simple = Simple::new(TTL);
        let token = token(&simple, &auth, START);
        let verify = |auth: &Auth| simple.verify(&token, auth, START).is_ok();
        assert!(verify(&auth) && verify(&auth));
        let other_key = self::auth(8);
        assert!(!verify(&other_key), "auth was enabled anew");
        assert!(verify(&auth));
        change(&mut auth, Change::UserDelete("ann".to_owned()));
        assert!(!verify(&auth), "the user is gone");
    }

    #[test]
    fn a_forged_or_foreign_token_is_none() {
        let auth = auth(7);
        let simple = Simple::new(TTL);
        let good = token(&simple, &auth, START);
        let foreign = token(&simple, &self::auth(8), START);
        let mut forged = URL_SAFE_NO_PAD.decode(&good).unwrap();
        for at in 0..forged.len() {
            forged[at] ^= 1;
            let token = URL_SAFE_NO_PAD.encode(&forged);
            assert!(simple.verify(&token, &auth, START).is_err(), "byte {at}");
            forged[at] ^= 1;
        }
        for token in ["", "x", "a.b", foreign.as_str(), &"A".repeat(5000)] {
            assert_eq!(
                simple.verify(token, &auth, START),
                Err(Rejected::Invalid),
                "{token}"
            );
        }
        assert!(simple.verify(&good, &auth, START).is_ok());
        // Nobody signs with a key that is none.
        let keyless = {
            let mut auth = self::auth(7);
            change(&mut auth, Change::Disable(proto::replicated::Empty {}));
            change(&mut auth, Change::Enable(Enable::default()));
            auth
        };
        let token = token(&simple, &keyless, START);
        assert_eq!(simple.verify(&token, &keyless, START), Err(Rejected::Invalid));
    }

    #[test]
    fn a_token_of_a_member_that_is_ahead_is_no_forgery_yet() {
        let behind = auth(7);
        let mut ahead = behind.clone();
        add(&mut ahead, "zoe");
        let token = token(&Simple::new(TTL), &ahead, START);
        assert_eq!(
            Simple::new(TTL).verify(&token, &behind, START),
            Err(Rejected::Newer)
        );
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_seen() {
        let auth = auth(7);
        let simple = Simple::new(TTL);
        let token = token(&simple, &auth, START);
        let mut now = START;
        for _ in 0..10 {
            now += TTL * 2 / 3;
            assert!(simple.verify(&token, &auth, now).is_ok());
        }
        assert!(
            Simple::new(TTL).verify(&token, &auth, now).is_err(),
            "where nobody saw it"
        );
        now += TTL;
        assert!(simple.verify(&token, &auth, now).is_err());
        assert_eq!(simple.proven.len(), 0);
    }
}
