//! TLS at the port for clients: what is shown there, and whose clients are believed.
//!
//! Files are looked at again on the occasion of a new connection, so that a renewed certificate is shown without a
//! restart. Who a client is, and what it may do, is decided elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;

use super::files::{LOOK_AGAIN_AFTER, PemFile, Stamps, TlsFileError};
use super::provider;

/// What a port for clients is served with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate of one of these authorities.
    pub trusted_ca: Option<PathBuf>,
    /// Whether the common name in a client's certificate is its user.
    pub names_users: bool,
}

/// Cloneable: all clones are renewed at once.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    files: ServerTlsFiles,
    loaded: Mutex<Loaded>,
}

/// What was read together, and when to look again.
struct Loaded {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    /// Of the files when this was read, or when that last failed.
    seen: Stamps,
    look_again: Instant,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.files).finish()
    }
}

impl ServerTls {
    /// # Errors
    /// See [`TlsFileError`].
    pub fn load(files: &ServerTlsFiles) -> Result<ServerTls, TlsFileError> {
        Ok(ServerTls(Arc::new(Inner {
            loaded: Mutex::new(Loaded::read(files)?),
            files: files.clone(),
        })))
    }

    #[must_use]
    pub fn files(&self) -> &ServerTlsFiles {
        &self.0.files
    }

    /// For the next connection, with the files as they are now. Files that cannot be served are logged, and the former
    /// ones served on.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.with_current(|loaded| loaded.config.clone())
    }

    /// The certificate that is shown, with those between it and its authority.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.with_current(|loaded| loaded.chain.clone())
    }

    /// Whose clients are let in; none where no certificate is asked for.
    #[must_use]
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.with_current(|loaded| loaded.authorities.clone())
    }

    fn with_current<T>(&self, read: impl FnOnce(&Loaded) -> T) -> T {
        let Inner { files, loaded } = &*self.0;
        let mut loaded = loaded.lock();
        if Instant::now() >= loaded.look_again {
            loaded.look_again = Instant::now() + LOOK_AGAIN_AFTER;
            let stamps = stamps(files);
            if stamps != loaded.seen {
                loaded.seen = stamps;
                match Loaded::read(files) {
                    Ok(renewed) => {
                        tracing::info!(cert_file = %files.cert.display(), "certificates read again");
                        *loaded = renewed;
                    }
                    Err(error) => tracing::error!(%error, "the former certificates are served on"),
                }
            }
        }
        read(&loaded)
    }
}

impl Loaded {
    fn read(files: &ServerTlsFiles) -> Result<Loaded, TlsFileError> {
        // Before the files: what changes meanwhile is read again.
        let seen = stamps(files);
        let file = |flag, path: &Path| PemFile {
            flag,
            path: path.to_owned(),
        };
        let cert = file("--cert-file", &files.cert);
        let chain = cert.certificates()?;
        let key = file("--key-file", &files.key).private_key()?;
        let unfit = |error: rustls::Error| TlsFileError::Pair {
            flag: cert.flag,
            cert: files.cert.clone(),
            key: files.key.clone(),
            reason: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?;
        let mut authorities = Vec::new();
        let builder = match &files.trusted_ca {
            Some(path) => {
                let trusted = file("--trusted-ca-file", path);
                authorities = trusted.certificates()?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(trusted.roots()?), provider())
                        .build()
                        .map_err(|error| trusted.unfit(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain.clone(), key).map_err(unfit)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded {
            config: Arc::new(config),
            chain,
            authorities,
            seen,
            look_again: Instant::now() + LOOK_AGAIN_AFTER,
        })
    }
}

fn stamps(files: &ServerTlsFiles) -> Stamps {
    let paths = [Some(&files.cert), Some(&files.key), files.trusted_ca.as_ref()];
    Stamps::of(paths.into_iter().flatten().map(AsRef::as_ref))
}
