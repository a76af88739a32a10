//! TLS towards the members: whom to trust, and who we are.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::error::{CliError, os_text};
use crate::tls::any_name::AnyName;
use crate::tls::provider;

/// What the command line says about TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
    /// Endpoints without a scheme speak TLS even if nothing else was said.
    pub(crate) required: bool,
}

/// How to speak TLS.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// Made when the first member wants TLS; until then, and without a word about it, none is needed.
    config: Option<Arc<ClientConfig>>,
    wanted: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; `needed` says that some endpoint is `https://`.
    pub(crate) fn read(files: &TlsFiles, needed: bool) -> Result<Self, CliError> {
        let wanted = files.required
            || files.cacert.is_some()
            || files.cert.is_some()
            || files.key.is_some()
            || files.insecure_skip_verify;
        if !wanted && !needed {
            return Ok(Self::default());
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| CliError::failed(error.to_string()))?;
        let builder = if files.insecure_skip_verify {
            let anybody = Arc::new(AnyName::unverified());
            builder.dangerous().with_custom_certificate_verifier(anybody)
        } else {
            builder.with_root_certificates(trusted(files.cacert.as_deref())?)
        };
        let mut config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| CliError::failed(format!("{}: {error}", cert.display())))?,
            (Some(_), None) => return Err(CliError::usage("--cert needs its key: --key FILE")),
            (None, Some(_)) => return Err(CliError::usage("--key needs its certificate: --cert FILE")),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            config: Some(Arc::new(config)),
            wanted,
        })
    }

    /// Was anything said about TLS?
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Shakes hands with the member at `host`: a name, or an address, that its certificate must hold.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.shake_hands(host, stream, self.config()?).await
    }

    /// The same, for plain HTTP.
    pub(super) async fn connect_http1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let mut config = ClientConfig::clone(&*self.config()?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.shake_hands(host, stream, Arc::new(config)).await
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        self.config.clone().ok_or_else(|| io::Error::other("no TLS"))
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
        config: Arc<ClientConfig>,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }

    #[cfg(test)]
    pub(crate) fn unverified() -> Self {
        let files = TlsFiles {
            insecure_skip_verify: true,
            ..Default::default()
        };
        Self::read(&files, false).unwrap()
    }
}

/// The given authority, else those that this machine trusts.
fn trusted(cacert: Option<&Path>) -> Result<RootCertStore, CliError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = cacert {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(CliError::failed("this machine trusts no authority").hint("name yours: --cacert FILE"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(
            CliError::failed(format!("{}: holds no certificate", path.display()))
                .hint("it begins with -----BEGIN CERTIFICATE-----"),
        ),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CliError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        CliError::failed(format!("{}: holds no private key", path.display()))
            .hint("it begins with -----BEGIN PRIVATE KEY-----, and has no passphrase")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path).map_err(|error| CliError::failed(format!("{}: {}", path.display(), os_text(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_and_key_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        let error = |files: &TlsFiles| Tls::read(files, false).unwrap_err().to_string();
        assert_eq!(
            error(&TlsFiles {
                insecure_skip_verify: true,
                cert: Some("a".into()),
                ..Default::default()
            }),
            "--cert needs its key: --key FILE"
        );
        assert_eq!(
            error(&TlsFiles {
                cacert: Some(empty.clone()),
                ..Default::default()
            }),
            format!("{}: holds no certificate", empty.display())
        );
    }

    #[test]
    fn without_a_word_about_tls_nothing_is_read() {
        assert!(!Tls::read(&TlsFiles::default(), false).unwrap().wanted());
    }
}
