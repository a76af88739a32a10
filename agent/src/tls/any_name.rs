//! A client's look at a server's certificate that leaves the name out.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::pinned::{Pin, pin_of};
use super::provider;

/// Takes a server under any name, once it has proved to hold the key of its certificate.
#[derive(Debug)]
pub struct AnyName {
    whose: Whose,
    provider: Arc<CryptoProvider>,
}

/// Who must have issued the certificate.
#[derive(Debug)]
enum Whose {
    Anybody,
    Trusted(Arc<RootCertStore>),
    /// An authority that the server itself shows.
    Pinned(Pin),
}

impl AnyName {
    /// Whose certificate is of one of these authorities. Members are known by other names than their addresses: who dialled
    /// looks at that one before it sends anything.
    #[must_use]
    pub fn trusting(roots: Arc<RootCertStore>) -> AnyName {
        AnyName::of(Whose::Trusted(roots))
    }

    /// Whose certificate is of the pinned authority, which the server shows beside its own.
    pub(super) fn pinned(pin: Pin) -> AnyName {
        AnyName::of(Whose::Pinned(pin))
    }

    /// Anybody: the connection is encrypted, but to whomever.
    #[must_use]
    pub fn unverified() -> AnyName {
        AnyName::of(Whose::Anybody)
    }

    fn of(whose: Whose) -> AnyName {
        AnyName {
            whose,
            provider: provider(),
        }
    }

    fn verify(
        &self,
        roots: &RootCertStore,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.whose {
            Whose::Anybody => {}
            Whose::Trusted(roots) => self.verify(roots, end_entity, intermediates, now)?,
            Whose::Pinned(pin) => {
                let pinned = intermediates.iter().find(|shown| pin_of(shown) == *pin);
                let pinned = pinned.ok_or(CertificateError::ApplicationVerificationFailure)?;
                let mut roots = RootCertStore::empty();
                roots.add(pinned.clone())?;
                self.verify(&roots, end_entity, intermediates, now)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
