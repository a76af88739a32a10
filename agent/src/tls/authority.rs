//! A cluster's own authority: what it issues, and to whom. Pure but for the keys, which are random: files and clocks
//! are the caller's.
//!
//! Each certificate has one role: a member's among members, a server's towards clients, a client's. Beside the authority
//! itself only the members' issuer may issue, and nobody below that one.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::holder::{Holder, member_dns_name};

/// Clocks of hosts that have just been made differ by as much.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("the authority's certificate is unreadable")]
    Certificate,
    #[error("the authority's key is unreadable: {0}")]
    Key(String),
    #[error("the authority's certificate and key do not belong together")]
    Pair,
    #[error("the certificate request is unreadable, or not signed with its own key")]
    Request,
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Among members, at both ends of a connection.
    Member { name: &'a str },
    /// Towards clients, who reach the host by these names and addresses.
    Server { host: &'a str, names: &'a [String] },
    /// Of the user of this name.
    Client { user: &'a str },
}

/// Signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority's certificate and key.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn found(name: &str, now: SystemTime, lifetime: Duration) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        // It lets the members' issuer issue, and nobody below that.
        let mut params = params_of_authority(name, 1);
        set_lifetime(&mut params, now, lifetime);
        Ok(Issued {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A certificate and key by which the members let hosts join and renew their own certificates, while the authority's
    /// own key stays away from every host.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn found_issuer(
        &self,
        name: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params_of_authority(&format!("{name} members"), 0);
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, now, lifetime);
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Another authority's certificate, issued by this one: its word that the other may be trusted as it is.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn approve(
        &self,
        next: &Issued,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, AuthorityError> {
        let (name, key) = open(&next.certificate, &next.key)?;
        let mut params = params_of_authority(&name, 0);
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, now, lifetime);
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }

    /// Opens what [`Authority::found`] or [`Authority::found_issuer`] made. Both may be in one text.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn open(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let (name, key) = open(certificate, key)?;
        Ok(Authority {
            issuer: Issuer::new(params_of_authority(&name, 0), key),
        })
    }

    /// A certificate for the key of a request, as PEM. Nothing else of the request is looked at: the names are the
    /// issuer's to choose.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn certify(
        &self,
        role: Role<'_>,
        request: &[u8],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, AuthorityError> {
        let mut params = params_of(role)?;
        set_lifetime(&mut params, now, lifetime);
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|_| AuthorityError::Request)?;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }

    /// A certificate with a key of its own.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue(
        &self,
        role: Role<'_>,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params_of(role)?;
        set_lifetime(&mut params, now, lifetime);
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The name in an authority's certificate, and its key.
fn open(certificate: &str, key: &str) -> Result<(String, KeyPair), AuthorityError> {
    let der =
        CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| AuthorityError::Certificate)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| AuthorityError::Certificate)?;
    let unreadable = |error: &dyn std::fmt::Display| AuthorityError::Key(error.to_string());
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unreadable(&error))?;
    let key = KeyPair::try_from(&key).map_err(|error| unreadable(&error))?;
    if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
        return Err(AuthorityError::Pair);
    }
    let name = Holder::of(&der).common_name.ok_or(AuthorityError::Certificate)?;
    Ok((name, key))
}

/// `below`: how many authorities there may be between it and a certificate.
fn params_of_authority(name: &str, below: u8) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params_of(role: Role<'_>) -> Result<CertificateParams, rcgen::Error> {
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let (common_name, names, usages) = match role {
        Role::Member { name } => (name, vec![member_dns_name(name)], vec![server, client]),
        Role::Server { host, names } => (host, names.to_vec(), vec![server]),
        Role::Client { user } => (user, Vec::new(), vec![client]),
    };
    let mut params = named(common_name);
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.extended_key_usages = usages;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn set_lifetime(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetime).into();
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::UnixTime;
    use rustls::server::WebPkiClientVerifier;
    use std::sync::Arc;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn der(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn what_it_issues_is_believed_in_its_role_only() {
        let now = SystemTime::now();
        let root = Authority::found("prod", now, 10 * DAY).unwrap();
        let authority = Authority::open(&root.certificate, &root.key).unwrap();
        let issue = |role| authority.issue(role, now, DAY).unwrap();
        let member = issue(Role::Member { name: "ovh" });
        let names = ["51.0.0.10".to_owned(), "localhost".to_owned()];
        let server = issue(Role::Server {
            host: "ovh",
            names: &names,
        });
        let client = issue(Role::Client { user: "root" });
        let holder = |issued: &Issued| Holder::of(&der(issued));
        assert_eq!(holder(&member).member.as_deref(), Some("ovh"));
        assert_eq!(holder(&server).member, None);
        assert_eq!(holder(&client).common_name.as_deref(), Some("root"));

        let mut roots = RootCertStore::empty();
        roots.add(der(&root)).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::super::provider())
            .build()
            .unwrap();
        let believed = |issued: &Issued, at: SystemTime| {
            let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            verifier
                .verify_client_cert(&der(issued), &[], UnixTime::since_unix_epoch(at))
                .is_ok()
        };
        assert!(believed(&member, now) && believed(&client, now));
        assert!(!believed(&server, now), "a server's certificate opens nothing");
        assert!(!believed(&member, now + 2 * DAY), "it ends");
        let stranger = Authority::found("prod", now, DAY).unwrap();
        let stranger = Authority::open(&stranger.certificate, &stranger.key).unwrap();
        let forged = stranger.issue(Role::Member { name: "ovh" }, now, DAY).unwrap();
        assert!(!believed(&forged, now), "a name alone is nothing");
    }

    #[test]
    fn an_authority_is_opened_with_its_own_key() {
        let now = SystemTime::now();
        let [one, other] = ["a", "b"].map(|name| Authority::found(name, now, DAY).unwrap());
        let failed =
            |certificate: &str, key: &str| Authority::open(certificate, key).unwrap_err().to_string();
        assert!(failed(&one.certificate, &other.key).contains("do not belong together"));
        assert!(failed("", &one.key).contains("certificate is unreadable"));
        assert!(failed(&one.certificate, "").contains("key is unreadable"));
    }
}
