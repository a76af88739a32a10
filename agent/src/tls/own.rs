//! What a member shows and trusts, and how it comes to trust another authority while it runs.
//!
//! Files are the truth: what is handed over is written to them, and taken up from there like any change. An authority
//! that is new must be approved by one that is trusted already, and none goes on which the member's own certificates
//! depend: who may merely call cannot make a cluster believe strangers, nor lock it out.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::about::{are_of_one_holder, is_root, is_signed_by, leads_to};
use super::files::{TlsFileError, write_private};
use super::issuer::Issuer;
use super::peer::PeerTls;
use super::server::ServerTls;

/// Authorities that may be trusted at once, and bytes of one.
const AUTHORITIES: usize = 4;
const AUTHORITY_BYTES: usize = 8 << 10;

/// Why a member does not take what it is handed.
#[derive(Debug, Error)]
pub enum EntrustError {
    #[error("this member has no --peer-issuer-file: whoever made its certificates changes its authority")]
    NotOurs,
    #[error(
        "1 to {AUTHORITIES} authorities of at most {AUTHORITY_BYTES} bytes can be trusted, each signed by itself"
    )]
    Shape,
    #[error("an authority that is trusted already must have approved the new one")]
    NotApproved,
    #[error(
        "the certificate that this member shows to {whom} is of an authority that would be forgotten: the step before is \
         not done here"
    )]
    StillShown { whom: &'static str },
    #[error("the members' issuer is none of an authority that is trusted here")]
    Issuer,
    #[error("{0}: {1}")]
    Write(PathBuf, io::Error),
    #[error(transparent)]
    File(#[from] TlsFileError),
}

/// What is handed over.
#[derive(Debug, Default)]
pub struct Entrusted {
    /// All that are trusted from now on, the one that issues first; none: as they are.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The new one's certificate again, issued by one that is trusted already.
    pub approval: Option<CertificateDer<'static>>,
    /// The members' issuer from now on, as PEM; `None`: as it is.
    pub issuer: Option<String>,
}

/// A member's certificates: among members, and towards clients where that is TLS.
#[derive(Clone, Debug)]
pub struct OwnTls {
    pub peer: PeerTls,
    pub server: Option<ServerTls>,
}

impl OwnTls {
    /// Checks what is handed over, and writes it to this member's files.
    ///
    /// # Errors
    /// See [`EntrustError`]. Nothing is written then, or, if the disk fails, part of it.
    pub fn entrust(&self, entrusted: &Entrusted) -> Result<(), EntrustError> {
        let files = self.peer.files();
        let issuer_file = files.issuer.as_ref().ok_or(EntrustError::NotOurs)?;
        let trusted = files.trusted_ca.certificates()?;
        if !entrusted.authorities.is_empty() {
            check(&trusted, entrusted)?;
            self.check_own(&trusted, &entrusted.authorities)?;
        }
        if let Some(issuer) = &entrusted.issuer {
            let next = match entrusted.authorities.as_slice() {
                [] => &trusted,
                next => next,
            };
            check_issuer(issuer, next)?;
        }
        if !entrusted.authorities.is_empty() {
            let text: String = entrusted.authorities.iter().map(|one| pem(one)).collect();
            for path in self.authority_files(&trusted) {
                write(&path, &text)?;
            }
        }
        if let Some(issuer) = &entrusted.issuer {
            write(&issuer_file.path, issuer)?;
        }
        Ok(())
    }

    /// Where members' authorities are kept. Clients may have others, which are left to whoever chose them.
    fn authority_files(&self, trusted: &[CertificateDer<'static>]) -> Vec<PathBuf> {
        let peers = self.peer.files().trusted_ca.path.clone();
        let server = self.server.as_ref();
        let clients =
            server.and_then(|server| Some((server.files().trusted_ca.clone()?, server.authorities())));
        match clients {
            Some((path, authorities)) if path != peers => {
                if authorities.iter().all(|one| trusted.contains(one)) {
                    return vec![peers, path];
                }
                tracing::warn!(trusted_ca_file = %path.display(), "clients have authorities of their own, which stay");
                vec![peers]
            }
            _ => vec![peers],
        }
    }

    /// Nothing that this member shows is of an authority that is dropped.
    fn check_own(
        &self,
        trusted: &[CertificateDer<'static>],
        next: &[CertificateDer<'static>],
    ) -> Result<(), EntrustError> {
        let dropped = |chain: &[CertificateDer<'static>]| {
            let mut dropped = trusted.iter().filter(|one| !next.contains(one));
            dropped.any(|one| leads_to(chain, one))
        };
        if dropped(&self.peer.chain()) {
            return Err(EntrustError::StillShown {
                whom: "other members",
            });
        }
        match &self.server {
            Some(server) if dropped(&server.chain()) => Err(EntrustError::StillShown { whom: "clients" }),
            _ => Ok(()),
        }
    }
}

fn check(trusted: &[CertificateDer<'static>], entrusted: &Entrusted) -> Result<(), EntrustError> {
    let next = &entrusted.authorities;
    if next.len() > AUTHORITIES
        || next
            .iter()
            .any(|one| one.len() > AUTHORITY_BYTES || !is_root(one))
    {
        return Err(EntrustError::Shape);
    }
    let approved = |one: &CertificateDer<'static>| {
        entrusted.approval.as_ref().is_some_and(|approval| {
            are_of_one_holder(approval, one) && trusted.iter().any(|former| is_signed_by(approval, former))
        })
    };
    match next.iter().all(|one| trusted.contains(one) || approved(one)) {
        true => Ok(()),
        false => Err(EntrustError::NotApproved),
    }
}

fn check_issuer(text: &str, authorities: &[CertificateDer<'static>]) -> Result<(), EntrustError> {
    let issuer = Issuer::read(text).map_err(|_| EntrustError::Issuer)?;
    let certificate = issuer.certificate().ok_or(EntrustError::Issuer)?;
    match authorities.iter().any(|one| is_signed_by(&certificate, one)) {
        true => Ok(()),
        false => Err(EntrustError::Issuer),
    }
}

fn write(path: &Path, text: &str) -> Result<(), EntrustError> {
    write_private(path, text).map_err(|error| EntrustError::Write(path.to_owned(), error))
}

/// A certificate as text.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::authority::{Authority, Issued};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn found(name: &str) -> (Issued, Authority) {
        let issued = Authority::found(name, SystemTime::now(), DAY).unwrap();
        let authority = Authority::open(&issued.certificate, &issued.key).unwrap();
        (issued, authority)
    }

    fn der(text: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_new_authority_needs_the_word_of_a_former_one() {
        let now = SystemTime::now();
        let (former, authority) = found("prod");
        let (next, _) = found("prod 2");
        let (stranger, strange) = found("prod 2");
        let [former, next_der, stranger] = [&former, &next, &stranger].map(|issued| der(&issued.certificate));
        let approval = der(&authority.approve(&next, now, DAY).unwrap());
        let trusted = [former.clone()];
        let outcome = |authorities: &[&CertificateDer<'static>],
                       approval: Option<&CertificateDer<'static>>| {
            let entrusted = Entrusted {
                authorities: authorities.iter().map(|one| (*one).clone()).collect(),
                approval: approval.cloned(),
                issuer: None,
            };
            check(&trusted, &entrusted)
        };
        assert!(outcome(&[&former, &next_der], Some(&approval)).is_ok());
        assert!(outcome(&[&former], None).is_ok());
        let refused = |outcome| matches!(outcome, Err(EntrustError::NotApproved));
        assert!(refused(outcome(&[&former, &next_der], None)));
        // The same name, another key.
        assert!(refused(outcome(&[&former, &stranger], Some(&approval))));
        // Approved by itself.
        let own = der(&strange.approve(&next, now, DAY).unwrap());
        assert!(refused(outcome(&[&former, &next_der], Some(&own))));
        let leaf = authority
            .issue(crate::tls::authority::Role::Client { user: "a" }, now, DAY)
            .unwrap();
        assert!(matches!(
            outcome(&[&der(&leaf.certificate)], None),
            Err(EntrustError::Shape)
        ));
    }

    #[test]
    fn an_issuer_is_of_a_trusted_authority() {
        let now = SystemTime::now();
        let (root, authority) = found("prod");
        let (other, _) = found("prod");
        let issuer = authority.found_issuer("prod", now, DAY).unwrap();
        let text = format!("{}{}", issuer.certificate, issuer.key);
        assert!(check_issuer(&text, &[der(&root.certificate)]).is_ok());
        assert!(check_issuer(&text, &[der(&other.certificate)]).is_err());
        assert!(check_issuer("", &[der(&root.certificate)]).is_err());
        let member = der(&issuer.certificate);
        assert!(leads_to(std::slice::from_ref(&member), &der(&root.certificate)));
        assert!(!leads_to(&[member], &der(&other.certificate)));
        assert_eq!(
            pem(&der(&root.certificate)),
            root.certificate.replace("\r\n", "\n")
        );
    }
}
