//! Whom a certificate names.
//!
//! A member's certificate has exactly one DNS name below [`MEMBERS`]: `ovh.peer.agent.internal` is the member on host
//! `ovh`. That name is the role, too: who has it is a member and nothing else, who has none is no member.
//! `.internal` belongs to nobody, so that no public authority issues such a name.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// Below which members have their names.
pub const MEMBERS: &str = ".peer.agent.internal";

/// The DNS name in the certificate of a member.
#[must_use]
pub fn member_dns_name(member: &str) -> String {
    format!("{member}{MEMBERS}")
}

/// What clients may call the server of a host: from elsewhere, and on the host itself.
#[must_use]
pub fn server_names(address: &str) -> Vec<String> {
    let names = ["localhost", "127.0.0.1", "::1", address];
    names.into_iter().map(ToOwned::to_owned).collect()
}

/// Who a certificate is about. It says nothing of who signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The member whose certificate it is.
    pub member: Option<String>,
    /// The first common name of the subject, unless that is empty.
    pub common_name: Option<String>,
}

impl Holder {
    /// Reads a certificate; of one that is unreadable nothing is known.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Holder {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
            return Holder::default();
        };
        let common_name = certificate.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        Holder {
            member: member_of(&certificate),
            common_name: common_name.filter(|name| !name.is_empty()).map(ToOwned::to_owned),
        }
    }

    /// For a message.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.common_name.as_deref().unwrap_or("without a name")
    }
}

/// `None` for no member, and for one that would be two.
fn member_of(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut members = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => member_in(name),
        _ => None,
    });
    let member = members.next()?;
    members.next().is_none().then_some(member)
}

fn member_in(dns_name: &str) -> Option<String> {
    let lower = dns_name.to_ascii_lowercase();
    let member = lower.strip_suffix(MEMBERS)?;
    // A wildcard is everybody.
    let plain = !member.is_empty() && !member.contains('*');
    plain.then(|| member.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(common_name: &str, dns_names: &[&str]) -> Holder {
        let names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        Holder::of(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_member_is_named_once() {
        let member = |names: &[&str]| holder("x", names).member;
        assert_eq!(member(&["ovh.peer.agent.internal"]).as_deref(), Some("ovh"));
        assert_eq!(
            member(&["localhost", "A.b.Peer.agent.internal"]).as_deref(),
            Some("a.b")
        );
        for none in [
            &["localhost"][..],
            &["peer.agent.internal"],
            &["*.peer.agent.internal"],
            &["ovh.peer.agent.internal", "ionos.peer.agent.internal"],
            &["ovh.peer.agent.internal.example.org"],
        ] {
            assert_eq!(member(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_unreadable_names_nobody() {
        let nobody = Holder::of(&CertificateDer::from(b"no certificate".to_vec()));
        assert_eq!(nobody, Holder::default());
        assert_eq!(holder("", &[]).shown(), "without a name");
        assert_eq!(holder("alice", &[]).shown(), "alice");
    }
}
