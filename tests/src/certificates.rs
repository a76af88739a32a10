//! A certificate authority for one test, and what it issues.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Issues certificates, and writes them into folders as PEM.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    #[must_use]
    pub fn new(name: &str) -> Authority {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        Authority { issuer }
    }

    /// Writes `ca.pem`.
    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("ca.pem"), self.issuer.pem()).expect("write a certificate");
    }

    /// Writes `server.pem` and `server.key`, for a server at `address`.
    pub fn write_server(&self, folder: &Path, address: &str) {
        let mut params = named("server");
        let names = [address.to_owned(), "localhost".to_owned()];
        params.subject_alt_names = CertificateParams::new(names).expect("names").subject_alt_names;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(folder, "server", &params);
    }

    /// Writes `NAME.pem` and `NAME.key`, for a client whose common name is `NAME`.
    pub fn write_client(&self, folder: &Path, name: &str) {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(folder, name, &params);
    }

    /// Writes `peer-NAME.pem` and `peer-NAME.key`, for the member called `NAME`.
    pub fn write_peer(&self, folder: &Path, name: &str) {
        self.issue(folder, &format!("peer-{name}"), &peer(name));
    }

    /// As [`Authority::write_peer`], of a certificate that has expired.
    pub fn write_expired_peer(&self, folder: &Path, name: &str) {
        let mut params = peer(name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.issue(folder, &format!("peer-{name}"), &params);
    }

    fn issue(&self, folder: &Path, name: &str, params: &CertificateParams) {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        // The key first: who sees the new certificate finds the key that belongs to it.
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("write a key");
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("write a certificate");
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn peer(name: &str) -> CertificateParams {
    let names = [format!("{name}.peer.agent.internal")];
    let mut params = named(name);
    params.subject_alt_names = CertificateParams::new(names).expect("names").subject_alt_names;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
