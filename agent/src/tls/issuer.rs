//! The members' issuer: a file with its certificate and its key, and certificates for the keys of others.
//!
//! It is on every member of a cluster with certificates, since any of them may be the one that is left to let the next
//! host in. Whoever reads that file can be any member, until the issuer is replaced: what the authority's own key can do
//! beyond that, it cannot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;

use super::authority::{Authority, AuthorityError, Role};

/// How long what it issues lasts: members renew theirs by themselves at two thirds of it.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum IssuerError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(
        "the members' issuer has ended: make a new one with `agentctl cert renew`, and copy it to the hosts"
    )]
    Ended,
    #[error("the cluster does not know yet where {0} is reached")]
    Unknown(String),
}

/// Issues in the name of the members.
#[derive(Debug)]
pub struct Issuer {
    authority: Authority,
    certificate: String,
    ends: SystemTime,
}

impl Issuer {
    /// Reads a text with the certificate and the key, as PEM.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn read(text: &str) -> Result<Issuer, AuthorityError> {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| AuthorityError::Certificate)?;
        let validity = Validity::of(&der).ok_or(AuthorityError::Certificate)?;
        // Handed out with each certificate: without the key that stands beside it.
        let certificate = certificate_part(text).ok_or(AuthorityError::Certificate)?;
        Ok(Issuer {
            authority: Authority::open(text, text)?,
            certificate: certificate.to_owned(),
            ends: validity.ends,
        })
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()
    }

    /// A certificate for the key of a request, and the issuer's own, as PEM.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn certify(&self, role: Role<'_>, request: &[u8], now: SystemTime) -> Result<String, IssuerError> {
        let left = self.ends.duration_since(now).map_err(|_| IssuerError::Ended)?;
        let certificate = self.authority.certify(role, request, now, LIFETIME.min(left))?;
        Ok(format!("{certificate}{}", self.certificate))
    }
}

fn certificate_part(text: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let start = text.find("-----BEGIN CERTIFICATE-----")?;
    let rest = text.get(start..)?;
    rest.get(..rest.find(END)? + END.len())
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub begins: SystemTime,
    pub ends: SystemTime,
}

impl Validity {
    /// `None`: it is unreadable.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Validity> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = parsed.validity();
        Some(Validity {
            begins: time(validity.not_before.timestamp()),
            ends: time(validity.not_after.timestamp()),
        })
    }

    /// Of the first certificate in a text.
    #[must_use]
    pub fn of_pem(text: &str) -> Option<Validity> {
        Validity::of(&CertificateDer::from_pem_slice(text.as_bytes()).ok()?)
    }

    /// Whether two thirds of its life are over.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let life = self.ends.duration_since(self.begins).unwrap_or_default();
        now >= self.begins + life * 2 / 3
    }
}

/// A request for a certificate for this key, DER: it names nobody.
///
/// # Errors
/// See [`AuthorityError`].
pub fn request(key: &KeyPair) -> Result<Vec<u8>, AuthorityError> {
    let request = CertificateParams::default().serialize_request(key)?;
    Ok(request.der().to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::pki_types::UnixTime;
    use rustls::server::WebPkiClientVerifier;

    use super::*;
    use crate::tls::holder::Holder;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn ders(text: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap()
    }

    #[test]
    fn what_members_issue_is_the_authoritys() {
        let now = SystemTime::now();
        let root = Authority::found("prod", now, 100 * DAY).unwrap();
        let authority = Authority::open(&root.certificate, &root.key).unwrap();
        let made = authority.found_issuer("prod", now, 10 * DAY).unwrap();
        let text = format!("{}{}", made.certificate, made.key);
        let issuer = Issuer::read(&text).unwrap();
        let key = KeyPair::generate().unwrap();
        let asked = request(&key).unwrap();
        let chain = issuer.certify(Role::Member { name: "ovh" }, &asked, now).unwrap();
        assert!(!chain.contains("PRIVATE"));
        let chain = ders(&chain);
        let [leaf, intermediate] = chain.as_slice() else {
            panic!("{} certificates", chain.len())
        };
        assert_eq!(Holder::of(leaf).member.as_deref(), Some("ovh"));
        // Never longer than the issuer itself.
        assert!(Validity::of(leaf).unwrap().ends <= Validity::of(intermediate).unwrap().ends);

        let mut roots = RootCertStore::empty();
        roots.add(ders(&root.certificate)[0].clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::super::provider())
            .build()
            .unwrap();
        let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
        let believed = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]| {
            verifier.verify_client_cert(leaf, chain, at)
        };
        believed(leaf, &chain[1..]).unwrap();
        assert!(believed(leaf, &[]).is_err(), "not without the issuer");
        // The issuer makes no issuers.
        let below = Authority::open(&text, &text).unwrap();
        let below = below.found_issuer("below", now, DAY).unwrap();
        let forged = Issuer::read(&format!("{}{}", below.certificate, below.key)).unwrap();
        let forged = forged.certify(Role::Member { name: "ovh" }, &asked, now).unwrap();
        let mut forged = ders(&forged);
        forged.push(intermediate.clone());
        assert!(believed(&forged[0], &forged[1..]).is_err());

        assert!(matches!(
            issuer.certify(Role::Member { name: "ovh" }, &asked, now + 11 * DAY),
            Err(IssuerError::Ended)
        ));
        assert!(
            issuer
                .certify(Role::Member { name: "ovh" }, b"nonsense", now)
                .is_err()
        );
    }
}
