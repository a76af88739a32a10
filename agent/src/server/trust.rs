//! A member's own certificates: renewed in time, and what members issue them with fetched where it is missing.
//!
//! A key stays what it is, so that only one file changes at a time and a crash never leaves two that do not belong
//! together. What was not issued by the cluster is left to whoever did.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::peer::RenewRequest;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::config::RunConfig;
use crate::node::Node;
use crate::peer::certify;
use crate::tls::files::{PemFile, write_private};
use crate::tls::issuer::{self, IssuerError, Validity};
use crate::tls::peer::PeerTls;

/// Between two looks, and sooner while something is missing.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Looks after a member's certificates.
#[derive(Debug)]
pub(super) struct TrustTask {
    node: Node,
    tls: PeerTls,
    server: Option<(PathBuf, PathBuf)>,
}

impl TrustTask {
    pub(super) fn new(node: Node, tls: PeerTls, config: &RunConfig) -> TrustTask {
        let server = config.client_tls.as_ref();
        TrustTask {
            node,
            tls,
            server: server.map(|files| (files.cert.clone(), files.key.clone())),
        }
    }

    /// Runs for as long as it is let.
    pub(super) async fn run(self) {
        let Some(issuer) = self.tls.files().issuer.clone() else {
            return;
        };
        let mut said = String::new();
        loop {
            let outcome = self.look(&issuer).await;
            let pause = match &outcome {
                Ok(()) => LOOK_AGAIN,
                Err(_) => TRY_AGAIN,
            };
            let now = outcome.err().unwrap_or_default();
            if now != said {
                if !now.is_empty() {
                    tracing::warn!(reason = now, "the certificates are not looked after yet");
                }
                said = now;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, issuer: &PemFile) -> Result<(), String> {
        if !issuer.path.exists() {
            let text = self.node.ask_for_issuer().await?;
            issuer::Issuer::read(&text).map_err(|error| error.to_string())?;
            write(&issuer.path, &text)?;
            tracing::info!(peer_issuer_file = %issuer.path.display(), "this member can issue certificates now");
        }
        let files = self.tls.files();
        let peer = self.due(&files.cert.path, &files.key.path)?;
        let server = match &self.server {
            Some((cert, key)) => self.due(cert, key)?,
            None => None,
        };
        if peer.is_none() && server.is_none() {
            return Ok(());
        }
        let request = RenewRequest {
            peer_csr: peer.unwrap_or_default().into(),
            server_csr: server.unwrap_or_default().into(),
        };
        let own = self.tls.issuer().map_err(|error| error.to_string())?;
        let issued = own.map(|own| certify(&self.node, &own, self.node.name(), &request));
        let answer = match issued {
            // The issuer itself may have ended here, and been replaced elsewhere.
            Some(Ok(answer)) => answer,
            Some(Err(IssuerError::Unknown(name))) => return Err(IssuerError::Unknown(name).to_string()),
            Some(Err(_)) | None => self.node.ask_for_certificates(&request).await?,
        };
        if !answer.server_certificate.is_empty()
            && let Some((cert, _)) = &self.server
        {
            write(cert, &answer.server_certificate)?;
            tracing::info!(cert_file = %cert.display(), "the certificate for clients is renewed");
        }
        if !answer.peer_certificate.is_empty() {
            write(&files.cert.path, &answer.peer_certificate)?;
            tracing::info!(peer_cert_file = %files.cert.path.display(), "the certificate for peers is renewed");
        }
        Ok(())
    }

    /// A request for a certificate in the place of one that ends soon; `None`: it does not, or it is not the cluster's.
    fn due(&self, certificate: &Path, key: &Path) -> Result<Option<Vec<u8>>, String> {
        let unreadable = |path: &Path| format!("{} is unreadable", path.display());
        let der = CertificateDer::from_pem_file(certificate).map_err(|_| unreadable(certificate))?;
        let validity = Validity::of(&der).ok_or_else(|| unreadable(certificate))?;
        if !validity.is_due(SystemTime::now()) || !self.is_ours(&der)? {
            return Ok(None);
        }
        let key_der = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|_| unreadable(key))?;
        let pair = KeyPair::try_from(&key_der).map_err(|_| unreadable(key))?;
        issuer::request(&pair)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Whether the cluster's authority or its members' issuer has issued it, by the issuer's name.
    fn is_ours(&self, certificate: &CertificateDer<'_>) -> Result<bool, String> {
        let issuers = self.tls.files().issuer.as_ref();
        let issuer = issuers.map(PemFile::certificates).transpose();
        let issuer = issuer.map_err(|error| error.to_string())?.unwrap_or_default();
        let authorities = self.tls.files().trusted_ca.certificates();
        let authorities = authorities.map_err(|error| error.to_string())?;
        let name = |certificate: &CertificateDer<'_>, of_issuer: bool| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
            let name = if of_issuer {
                parsed.issuer()
            } else {
                parsed.subject()
            };
            Some(name.to_string())
        };
        let issued_by = name(certificate, true);
        Ok(issued_by.is_some()
            && issuer
                .iter()
                .chain(&authorities)
                .any(|authority| name(authority, false) == issued_by))
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    write_private(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
