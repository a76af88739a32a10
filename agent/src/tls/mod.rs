//! What the agent's listeners and its connections to peers have in common of TLS: certificates out of files, who a
//! certificate is about, and words for what goes wrong.
//!
//! [`any_name`] verifies a server without its name, [`authority`] issues certificates and [`issuer`] does in the name of
//! the members, [`files`] reads PEM, [`holder`] says whom a verified certificate names, [`peer`] is TLS between members,
//! both ends of it, [`server`] TLS towards clients, [`own`] both together and how another authority comes in, [`about`] what a
//! certificate says, [`revoked`] whom nobody accepts any more, [`pinned`] a joiner's end, and [`trouble`] turns the library's alerts into what a person can act on. It opens no connection and decides nothing about members:
//! `crate::peer` does.

pub mod about;
pub mod any_name;
pub mod authority;
pub mod files;
pub mod holder;
pub mod issuer;
pub mod own;
pub mod peer;
pub mod pinned;
pub mod revoked;
pub mod server;
pub mod trouble;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one implementation of cryptography that is linked.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
