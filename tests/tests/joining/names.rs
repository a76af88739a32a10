//! What strangers and newcomers would like a certificate to say.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent::join::ticket;
use agent::peer::join;
use agent::tls::any_name::AnyName;
use agent::tls::pinned::Pin;
use bytes::Bytes;
use proto::peer::JoinRequest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::GeneralName;

use crate::site::Site;

/// CVE-2023-32187: k3s took every name that anybody asked for into its certificate, which grew until nothing could be served.
#[tokio::test]
async fn cve_2023_32187_a_certificate_has_the_names_that_the_cluster_chose() {
    let mut site = Site::found(1);
    site.start(0);
    site.serves(0).await;

    // By the names under which a port is asked for.
    let before = [
        shown(&site.hosts[0].client_url, "localhost").await,
        shown(&site.hosts[0].peer_url, "localhost").await,
    ];
    for i in 0..200 {
        let name = format!("n{i}.example.org");
        let now = [
            shown(&site.hosts[0].client_url, &name).await,
            shown(&site.hosts[0].peer_url, &name).await,
        ];
        assert!(now == before, "another certificate is shown for {name}");
    }

    // By what a host that joins asks for.
    let i = site.place("m1");
    let token = site.token(0, i, &[]);
    let answer = ask(&site, &token, 3000).await;
    let refused = answer.expect_err("a request of that size");
    assert!(refused.to_string().contains("too large"), "{refused}");
    let answer = ask(&site, &token, 50).await.expect("the token is good");
    let own = site.hosts[i].client_url.trim_start_matches("https://");
    let own = own.split(':').next().unwrap_or_default();
    assert_eq!(names(&answer.peer_certificate), set(["m1.peer.agent.internal"]));
    assert_eq!(
        names(&answer.server_certificate),
        set(["localhost", "127.0.0.1", "::1", own])
    );
}

/// Asks host 0 to let the host of a token in, by certificate requests that ask for so many names, and for more.
async fn ask(
    site: &Site,
    token: &str,
    names: usize,
) -> Result<proto::peer::JoinAnswer, agent::peer::JoinError> {
    let ticket = ticket::read(token).expect("a token");
    let pin: Pin = ticket.ca_sha256.as_ref().try_into().expect("a pin");
    let request = JoinRequest {
        cluster_id: ticket.cluster_id,
        token_id: ticket.token_id,
        secret: ticket.secret,
        host: ticket.host,
        peer_csr: stuffed(names),
        server_csr: stuffed(names),
    };
    join(&site.hosts[0].peer_url, pin, request).await
}

fn stuffed(names: usize) -> Bytes {
    let mut wanted: Vec<String> = (0..names).map(|i| format!("n{i}.example.org")).collect();
    wanted.push("m0.peer.agent.internal".to_owned());
    let mut params = CertificateParams::new(wanted).expect("names");
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let request = params.serialize_request(&key).expect("a request");
    request.der().to_vec().into()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Every name in the first certificate of a text, which must be nobody's authority and not root's.
fn names(pem: &str) -> BTreeSet<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    assert!(!parsed.is_ca());
    assert!(
        !parsed.subject().to_string().contains("root"),
        "{}",
        parsed.subject()
    );
    let names = parsed
        .subject_alternative_name()
        .expect("readable names")
        .expect("names");
    let names = names.value.general_names.iter();
    names
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(bytes) => std::net::IpAddr::from(bytes).to_string(),
                Err(_) => {
                    std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).expect("an address")).to_string()
                }
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

/// What a port shows to whoever asks for a name.
async fn shown(url: &str, name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName::unverified()))
        .with_no_client_auth();
    let stream = TcpStream::connect(url.trim_start_matches("https://"))
        .await
        .expect("a connection");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    // What comes of it when no certificate is shown to the port is not looked at: the port's own is seen before that.
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("a handshake");
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    certificate.expect("a certificate").to_vec()
}
