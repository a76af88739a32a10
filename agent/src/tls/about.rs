//! What a certificate says of itself, for people and for comparisons; and who signed it. Pure.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::X509Certificate;

use super::holder::Holder;
use super::issuer::Validity;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Of the certificate, DER.
    pub sha256: [u8; 32],
    /// Hexadecimal, without colons.
    pub serial: String,
    /// The common name of its subject.
    pub holder: String,
    /// The common name of who issued it.
    pub issuer: String,
    pub validity: Validity,
}

impl About {
    /// `None`: it is unreadable.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<About> {
        let parsed = parse(certificate)?;
        let issuer = parsed.issuer().iter_common_name().next();
        let issuer = issuer.and_then(|name| name.as_str().ok()).unwrap_or_default();
        Some(About {
            sha256: Sha256::digest(certificate).into(),
            serial: format!("{:x}", parsed.tbs_certificate.serial),
            holder: Holder::of(certificate).shown().to_owned(),
            issuer: issuer.to_owned(),
            validity: Validity::of(certificate)?,
        })
    }

    #[must_use]
    pub fn has_ended(&self, now: SystemTime) -> bool {
        now >= self.validity.ends
    }
}

/// Whether this authority has signed it. That the authority may, and when, is not looked at.
#[must_use]
pub fn is_signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let (Some(certificate), Some(authority)) = (parse(certificate), parse(authority)) else {
        return false;
    };
    certificate.issuer() == authority.subject()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Whether the first of a chain was issued by this authority, directly or through the others.
#[must_use]
pub fn leads_to(chain: &[CertificateDer<'_>], authority: &CertificateDer<'_>) -> bool {
    let Some((mut last, between)) = chain.split_first() else {
        return false;
    };
    for next in between {
        if !is_signed_by(last, next) {
            break;
        }
        last = next;
    }
    last == authority || is_signed_by(last, authority)
}

/// Whether both are about the same name and the same key.
#[must_use]
pub(super) fn are_of_one_holder(one: &CertificateDer<'_>, other: &CertificateDer<'_>) -> bool {
    let (Some(one), Some(other)) = (parse(one), parse(other)) else {
        return false;
    };
    one.subject() == other.subject() && one.public_key().raw == other.public_key().raw
}

/// Whether it is an authority's, and signed by itself.
#[must_use]
pub(super) fn is_root(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_some_and(|parsed| parsed.is_ca()) && is_signed_by(certificate, certificate)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed)
}
