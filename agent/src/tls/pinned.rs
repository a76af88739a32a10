//! A joiner's look at the member that it was sent to: it knows nothing yet but the hash of the authority's certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, Error};
use sha2::{Digest, Sha256};

use super::any_name::AnyName;
use super::provider;

/// SHA-256 of an authority's certificate, DER.
pub type Pin = [u8; 32];

#[must_use]
pub fn pin_of(certificate: &CertificateDer<'_>) -> Pin {
    Sha256::digest(certificate).into()
}

/// For a connection without a certificate of one's own, to a member of the authority that is pinned. Another one gets
/// nothing but the beginning of a handshake.
///
/// # Errors
/// When TLS 1.3 is not to be had.
pub fn client(pin: Pin) -> Result<ClientConfig, Error> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName::pinned(pin)))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    Ok(client)
}
