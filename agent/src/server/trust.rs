//! A member's own certificates: renewed in time, and what members issue them with fetched where it is missing. The key of
//! secrets comes the same way.
//!
//! A key stays what it is, so that only one file changes at a time and a crash never leaves two that do not belong
//! together. What was not issued by the cluster is left to whoever did.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use proto::peer::RenewRequest;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::config::RunConfig;
use crate::node::Node;
use crate::peer::certify;
use crate::secrets::{KeyFile, Keys};
use crate::tls::about::leads_to;
use crate::tls::files::{LOOK_AGAIN_AFTER, PemFile, Stamps, write_private};
use crate::tls::issuer::{self, IssuerError, Validity};
use crate::tls::peer::PeerTls;

/// Between two looks, and sooner while something is missing, or when authorities or issuer change.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Looks after a member's certificates.
#[derive(Debug)]
pub(super) struct TrustTask {
    node: Node,
    tls: PeerTls,
    server: Option<(PathBuf, PathBuf)>,
    secrets: Option<KeyFile>,
}

impl TrustTask {
    pub(super) fn new(node: Node, tls: PeerTls, config: &RunConfig) -> TrustTask {
        let server = config.client_tls.as_ref();
        TrustTask {
            node,
            tls,
            server: server.map(|files| (files.cert.clone(), files.key.clone())),
            secrets: config.secrets(),
        }
    }

    /// Runs for as long as it is let.
    pub(super) async fn run(self) {
        let Some(issuer) = self.tls.files().issuer.clone() else {
            return;
        };
        let mut said = String::new();
        loop {
            let seen = self.stamps(&issuer);
            let certificates = self.look(&issuer).await;
            let outcome = certificates.and(self.find_secrets_key().await);
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
            let until = Instant::now() + pause;
            while Instant::now() < until && self.stamps(&issuer) == seen {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        }
    }

    fn stamps(&self, issuer: &PemFile) -> Stamps {
        Stamps::of([issuer.path.as_path(), self.tls.files().trusted_ca.path.as_path()])
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

    /// Fetches what secrets are sealed with, where it is missing.
    async fn find_secrets_key(&self) -> Result<(), String> {
        let Some(file) = self.secrets.as_ref().filter(|file| !file.path().exists()) else {
            return Ok(());
        };
        let keys = self.node.ask_for_secrets_key().await;
        let keys = keys.map_err(|reason| format!("what secrets are sealed with: {reason}"))?;
        Keys::parse(&keys, file.path()).map_err(|error| error.to_string())?;
        write(file.path(), &keys)?;
        tracing::info!(secrets_key_file = %file.path().display(), "this member can open secrets now");
        Ok(())
    }

    /// A request for a certificate in the place of one that ends soon, or comes from a former authority; `None`: it is as it
    /// should be, or not the cluster's.
    fn due(&self, certificate: &Path, key: &Path) -> Result<Option<Vec<u8>>, String> {
        let unreadable = |path: &Path| format!("{} is unreadable", path.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
            .map_err(|_| unreadable(certificate))?
            .collect();
        let chain = chain.map_err(|_| unreadable(certificate))?;
        let validity = chain.first().and_then(Validity::of);
        let validity = validity.ok_or_else(|| unreadable(certificate))?;
        let authorities = self.tls.files().trusted_ca.certificates();
        let authorities = authorities.map_err(|error| error.to_string())?;
        let issuer = self.tls.issuer().map_err(|error| error.to_string())?;
        let issuer = issuer.and_then(|issuer| issuer.certificate());
        let ours = authorities.iter().chain(&issuer).any(|one| leads_to(&chain, one));
        // The first authority issues, by the issuer, once that is here.
        let former = authorities
            .first()
            .zip(issuer)
            .is_some_and(|(first, issuer)| !leads_to(&chain, first) && leads_to(&[issuer], first));
        if !ours || !(former || validity.is_due(SystemTime::now())) {
            return Ok(None);
        }
        let key_der = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|_| unreadable(key))?;
        let pair = KeyPair::try_from(&key_der).map_err(|_| unreadable(key))?;
        issuer::request(&pair)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    write_private(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
