//! Tokens: what a client shows instead of its password once it has logged in.
//!
//! [`simple`] tokens are ours, signed with a key that only members know; [`jwt`]s are signed with the operator's. Any
//! member verifies either without asking another, and no login writes to the log. A signature is verified once, and then
//! [`proven`]. The clock is read here.

mod jwt;
mod proven;
mod simple;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use raft_store::auth::{Auth, User};

use super::interceptor::Identity;
use jwt::Jwt;
use simple::Simple;

pub use jwt::{JwtOptions, JwtOptionsError};

/// Which tokens are given.
#[derive(Clone, Debug)]
pub enum TokenOptions {
    /// They live this long after they were last seen.
    Simple {
        ttl: Duration,
    },
    Jwt(JwtOptions),
}

/// Why a caller is not taken for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It says nothing of who it is.
    Nobody,
    Invalid,
    /// Made by a member that knows more of users than this one.
    Newer,
}

/// Gives tokens, and reads them.
#[derive(Debug)]
pub(super) enum Tokens {
    Simple(Simple),
    Jwt(Jwt),
}

impl Tokens {
    pub(super) fn new(options: &TokenOptions) -> Tokens {
        match options {
            TokenOptions::Simple { ttl } => Tokens::Simple(Simple::new(*ttl)),
            TokenOptions::Jwt(options) => Tokens::Jwt(Jwt::new(options.clone())),
        }
    }

    /// A token for a user who has just proved to be one. `None`: this member can only read them.
    pub(super) fn issue(&self, name: &str, user: &User, auth: &Auth) -> Option<String> {
        match self {
            Tokens::Simple(simple) => Some(simple.issue(name, user, auth, now())),
            Tokens::Jwt(jwt) => jwt.issue(name, auth, now()),
        }
    }

    pub(super) fn verify(&self, token: &str, auth: &Auth) -> Result<Identity, Rejected> {
        match self {
            Tokens::Simple(simple) => simple.verify(token, auth, now()),
            Tokens::Jwt(jwt) => jwt.verify(token, auth, now()),
        }
    }
}

/// Since the epoch. Members' clocks agree well enough for lives of minutes.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
