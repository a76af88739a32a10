//! A client with a certificate: as it connects anew each time with the files as they are, and as it looks at what a
//! port shows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::tls::about::About;
use agent::tls::files::PemFile;
use agent::tls::peer::{PeerTls, PeerTlsFiles};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tests::client::Client;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;

/// Whom to trust, and who one is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Of the pair `NAME.pem` and `NAME.key` of a folder, beside its `ca.pem`.
    pub(crate) fn of(folder: &Path, name: &str) -> Identity {
        Identity {
            ca: folder.join("ca.pem"),
            cert: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    /// Of a member at its peers.
    pub(crate) fn peer(&self, member: &str) -> PeerTls {
        let files = PeerTlsFiles {
            cert: file(&self.cert),
            key: file(&self.key),
            trusted_ca: file(&self.ca),
            issuer: None,
        };
        PeerTls::load(&files, member).expect("a member's certificate")
    }

    /// Connects when it is first used, and again whenever it must.
    pub(crate) fn client(&self, url: &str) -> Client {
        let address = address(url).to_owned();
        let identity = self.clone();
        let connector = tower::service_fn(move |_| {
            let (identity, address) = (identity.clone(), address.clone());
            async move { connect(identity.config()?, &address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(url.replace("https://", "http://")).expect("a URL");
        Client::of(endpoint.tcp_nodelay(true).connect_with_connector_lazy(connector))
    }

    /// What a client port shows now.
    pub(crate) async fn shown(&self, url: &str) -> io::Result<About> {
        shown(self.config()?, url).await
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let roots = file(&self.ca).roots().map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                file(&self.cert).certificates().map_err(io::Error::other)?,
                file(&self.key).private_key().map_err(io::Error::other)?,
            )
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// What is shown at a port now.
pub(crate) async fn shown(config: Arc<ClientConfig>, url: &str) -> io::Result<About> {
    let stream = connect(config, address(url)).await?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let about = certificate.and_then(About::of);
    about.ok_or_else(|| io::Error::other("no certificate"))
}

async fn connect(config: Arc<ClientConfig>, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (host, _) = address.split_once(':').unwrap_or((address, ""));
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn address(url: &str) -> &str {
    url.trim_start_matches("https://")
}

fn file(path: &Path) -> PemFile {
    PemFile {
        flag: "a file",
        path: path.to_owned(),
    }
}
