//! TLS on the client port: certificates from files, TLS 1.3, and who a client's certificate says it is.
//!
//! The files are looked at again while the member runs, so that a renewed certificate is served without a restart.
//! It owns the handshake and nothing after it: what a name may do is for the API's interceptor.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::ClientCertificate;
use crate::config::TlsFiles;

/// A client that does not finish its handshake within this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// At most this often the files are looked at, on the occasion of a new connection.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why certificates cannot be served. The text names the flag, the file and the way out.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("{flag} {path}: {source}")]
    Unreadable {
        flag: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{flag} {path}: no PEM {what} in it")]
    Missing {
        flag: &'static str,
        path: PathBuf,
        what: &'static str,
    },
    #[error("--cert-file {cert} and --key-file {key} cannot be served: {reason}")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error("--trusted-ca-file {path}: {reason}")]
    Trust { path: PathBuf, reason: String },
}

/// The certificates of a port.
pub(super) struct Certificates {
    files: TlsFiles,
    acceptor: TlsAcceptor,
    /// Of the files when `acceptor` was made, or when that last failed.
    seen: Vec<Option<(SystemTime, u64)>>,
    look_again: Instant,
}

impl Certificates {
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn load(files: &TlsFiles) -> Result<Certificates, TlsError> {
        Ok(Certificates {
            acceptor: acceptor(files)?,
            seen: stamps(files),
            look_again: Instant::now() + LOOK_AGAIN_AFTER,
            files: files.clone(),
        })
    }

    /// For the next connection: with the files as they are now. Files that cannot be served are logged, and the
    /// former ones served on.
    pub(super) fn current(&mut self) -> Handshake {
        if Instant::now() >= self.look_again {
            self.look_again = Instant::now() + LOOK_AGAIN_AFTER;
            let stamps = stamps(&self.files);
            if stamps != self.seen {
                self.seen = stamps;
                match acceptor(&self.files) {
                    Ok(renewed) => {
                        tracing::info!(cert_file = %self.files.cert.display(), "certificates read again");
                        self.acceptor = renewed;
                    }
                    Err(error) => tracing::error!(%error, "the former certificates are served on"),
                }
            }
        }
        Handshake {
            acceptor: self.acceptor.clone(),
            names_users: self.files.names_users,
        }
    }
}

/// How the next connection begins.
pub(super) struct Handshake {
    acceptor: TlsAcceptor,
    names_users: bool,
}

impl Handshake {
    /// Speaks TLS; with it comes the name in the client's verified certificate, where that is its user.
    ///
    /// # Errors
    /// The client's mistake, or its silence.
    pub(super) async fn accept(
        self,
        socket: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<ClientCertificate>)> {
        let stream = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(socket))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .filter(|_| self.names_users)
            .and_then(|chain| common_name(chain.first()?))
            .map(|common_name| ClientCertificate { common_name });
        Ok((stream, certificate))
    }
}

/// The first common name of a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str()
        .ok()
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("--cert-file", &files.cert)?;
    let key =
        PrivateKeyDer::from_pem_reader(open("--key-file", &files.key)?).map_err(|_| TlsError::Missing {
            flag: "--key-file",
            path: files.key.clone(),
            what: "private key",
        })?;
    let unfit = |error: rustls::Error| TlsError::Pair {
        cert: files.cert.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?;
    let builder = match &files.trusted_ca {
        Some(path) => {
            let untrusted = |reason: String| TlsError::Trust {
                path: path.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for root in certificates("--trusted-ca-file", path)? {
                roots.add(root).map_err(|error| untrusted(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| untrusted(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(flag, path)?).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::Missing {
            flag,
            path: path.to_owned(),
            what: "certificate",
        })
}

fn open(flag: &'static str, path: &Path) -> Result<BufReader<File>, TlsError> {
    File::open(path)
        .map(BufReader::new)
        .map_err(|source| TlsError::Unreadable {
            flag,
            path: path.to_owned(),
            source,
        })
}

/// When each file was last written, and its size. `None`: it is not there.
fn stamps(files: &TlsFiles) -> Vec<Option<(SystemTime, u64)>> {
    [Some(&files.cert), Some(&files.key), files.trusted_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}
