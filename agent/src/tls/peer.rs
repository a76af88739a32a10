//! TLS between members: one certificate for both ends, read again when its files change.
//!
//! Both sides verify that the other's certificate is of a trusted authority, and made for its end. Whose certificate
//! it is comes out of the handshake; whether that one may be there is for `crate::peer` to decide.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};

use super::any_name::AnyName;
use super::files::{LOOK_AGAIN_AFTER, PemFile, Stamps, TlsFileError};
use super::holder::{Holder, member_dns_name};
use super::issuer::Issuer;
use super::pinned::{Pin, pin_of};
use super::provider;

/// Where a member's own certificate and its authorities are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsFiles {
    pub cert: PemFile,
    pub key: PemFile,
    pub trusted_ca: PemFile,
    /// What members issue certificates with. Where it is not there yet, another member is asked for it.
    pub issuer: Option<PemFile>,
}

impl PeerTlsFiles {
    fn paths(&self) -> [&Path; 3] {
        [&self.cert.path, &self.key.path, &self.trusted_ca.path]
    }
}

/// Cloneable: all clones are renewed at once.
#[derive(Clone)]
pub struct PeerTls(Arc<Inner>);

struct Inner {
    files: PeerTlsFiles,
    member: String,
    loaded: ArcSwap<Loaded>,
}

/// What was read together.
#[derive(Clone)]
struct Loaded {
    server: Arc<ServerConfig>,
    joining: Arc<ServerConfig>,
    pin: Pin,
    client: Arc<ClientConfig>,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerTls").field(&self.0.files).finish()
    }
}

impl PeerTls {
    /// Reads the files, whose certificate must be that of `member`.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn load(files: &PeerTlsFiles, member: &str) -> Result<PeerTls, TlsFileError> {
        Ok(PeerTls(Arc::new(Inner {
            loaded: ArcSwap::from_pointee(load(files, member)?),
            files: files.clone(),
            member: member.to_owned(),
        })))
    }

    /// For the next connection from another member.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.0.loaded.load().server.clone()
    }

    /// As [`PeerTls::server`], and for a host without a certificate, too. The authorities are shown beside the member's own
    /// certificate, for whoever knows no more than the hash of one.
    #[must_use]
    pub fn joining(&self) -> Arc<ServerConfig> {
        self.0.loaded.load().joining.clone()
    }

    /// The hash of the first authority that is trusted.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.0.loaded.load().pin
    }

    #[must_use]
    pub fn files(&self) -> &PeerTlsFiles {
        &self.0.files
    }

    /// What members issue certificates with. `None`: this member was not told where to keep it, or has not got it yet.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn issuer(&self) -> Result<Option<Issuer>, TlsFileError> {
        let Some(file) = &self.0.files.issuer else {
            return Ok(None);
        };
        let Some(text) = file.text_if_there()? else {
            return Ok(None);
        };
        let issuer = Issuer::read(&text).map_err(|error| file.unfit(error.to_string()))?;
        Ok(Some(issuer))
    }

    /// For the next connection to another member.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.0.loaded.load().client.clone()
    }

    /// The certificate that is shown, with those between it and its authority.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.loaded.load().chain.clone()
    }

    /// Whose members are believed.
    #[must_use]
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.0.loaded.load().authorities.clone()
    }

    /// What takes up files that change.
    #[must_use]
    pub fn renewal(&self) -> RenewalTask {
        RenewalTask {
            seen: Stamps::of(self.0.files.paths()),
            tls: self.clone(),
        }
    }
}

/// Looks at the files, and reads them again when they have changed. Files that cannot be used are logged, and the
/// former ones used on.
#[derive(Debug)]
pub struct RenewalTask {
    tls: PeerTls,
    seen: Stamps,
}

impl RenewalTask {
    /// Runs for as long as it is let.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let Inner {
                files,
                member,
                loaded,
            } = &*self.tls.0;
            let stamps = Stamps::of(files.paths());
            if stamps == self.seen {
                continue;
            }
            self.seen = stamps;
            match load(files, member) {
                Ok(renewed) => {
                    tracing::info!(peer_cert_file = %files.cert.path.display(), "peer certificates read again");
                    loaded.store(Arc::new(renewed));
                }
                Err(error) => tracing::error!(%error, "the former peer certificates are used on"),
            }
        }
    }
}

fn load(files: &PeerTlsFiles, member: &str) -> Result<Loaded, TlsFileError> {
    let chain = files.cert.certificates()?;
    let named = chain.first().and_then(|own| Holder::of(own).member);
    if !named.is_some_and(|named| named.eq_ignore_ascii_case(member)) {
        let name = member_dns_name(member);
        return Err(files.cert.unfit(format!(
            "it is not the certificate of member {member}: that has the DNS name {name}, and none of another member"
        )));
    }
    let roots = Arc::new(files.trusted_ca.roots()?);
    let authorities = files.trusted_ca.certificates()?;
    let pair = |error: rustls::Error| TlsFileError::Pair {
        flag: files.cert.flag,
        cert: files.cert.path.clone(),
        key: files.key.path.clone(),
        reason: error.to_string(),
    };
    let unfit = |error: VerifierBuilderError| files.trusted_ca.unfit(error.to_string());
    let members = || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
    let server = |clients, chain| {
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, files.key.private_key()?)
            .map_err(pair)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is resumed would skip the look at the other's certificate.
        server.send_tls13_tickets = 0;
        Ok(Arc::new(server))
    };
    let joiners = members().allow_unauthenticated().build().map_err(unfit)?;
    let joining = server(joiners, [chain.clone(), authorities.clone()].concat())?;
    let pin = authorities.first().map(|first| pin_of(first)).unwrap_or_default();
    let server = server(members().build().map_err(unfit)?, chain.clone())?;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(pair)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName::trusting(roots)))
        .with_client_auth_cert(chain.clone(), files.key.private_key()?)
        .map_err(pair)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Loaded {
        server,
        joining,
        pin,
        client: Arc::new(client),
        chain,
        authorities,
    })
}
