//! Secrets at rest: sealed by the member that receives them, before they are proposed, with a key that only members have.
//!
//! The log, the store, snapshots and every answer hold what is sealed. Only hosts open it, where a step needs the value
//! (`reconciler/secrets.rs`). The key is in one file of each member, like the issuer of certificates; it is in no store.
//!
//! Must not: know documents, or hand what was opened to anything that prints.

mod keys;
mod sealed;

pub use keys::{KeyError, KeyFile, Keys, generate};
pub use sealed::{OpenError, Sealed};

/// The largest secret, in bytes: a bundle of certificates fits, a disk image does not.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
