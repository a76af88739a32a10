//! A host that has a token, and the member that lets it in: both ends of the one call without a certificate.
//!
//! The joiner shows nothing before it has seen the authority that its token pins. The member looks at nothing of a request
//! but keys and the token: names, addresses and roles are what the token was made for. Whoever fails often waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::peer::joining_client::JoiningClient;
use proto::peer::joining_server::{Joining, JoiningServer};
use proto::peer::{JoinAnswer, JoinRequest, KnownMember};
use proto::replicated::JoinToken;
use proto::replicated::join_token_change::Use;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use super::dialer::Explained;
use super::reason;
use crate::node::{JoinRefusal, Node};
use crate::tls::authority::Role;
use crate::tls::holder::{Holder, server_names};
use crate::tls::peer::PeerTls;
use crate::tls::pinned::{self, Pin};
use crate::tls::trouble::explained;

/// A request holds two small certificate requests and a secret.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// What a token's secret has at least. Its hash says nothing of that: whoever makes one may have made it of a word.
const SECRET_BYTES: usize = 32;
/// Hosts that are let in side by side: each may wait for the membership.
const UNDER_WAY: usize = 4;
/// Wrong tokens of one address, and of all, within [`WINDOW`].
const FAILURES: u32 = 10;
const ALL_FAILURES: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);
/// How long a joiner waits for a connection, and for an answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where a joiner comes from: an extension of each of its requests, put there by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinerAddress(pub IpAddr);

/// What a host that joins is told beside its certificates.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    pub cluster_token: String,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
}

/// Lets hosts in.
#[derive(Clone, Debug)]
pub struct JoinServer {
    node: Node,
    tls: PeerTls,
    options: JoinOptions,
    under_way: Arc<Semaphore>,
    failures: Arc<Mutex<Failures>>,
}

impl JoinServer {
    #[must_use]
    pub fn new(node: Node, tls: PeerTls, options: JoinOptions) -> JoinServer {
        JoinServer {
            node,
            tls,
            options,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
            failures: Arc::default(),
        }
    }

    #[must_use]
    pub fn service(self) -> JoiningServer<JoinServer> {
        JoiningServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn let_in(&self, request: &JoinRequest) -> Result<JoinAnswer, Status> {
        if request.cluster_id != self.node.cluster_id() {
            return Err(Status::failed_precondition(format!(
                "the join token is for cluster {:x}, and this is {:x}",
                request.cluster_id,
                self.node.cluster_id()
            )));
        }
        if request.secret.len() < SECRET_BYTES {
            return Err(refused(JoinRefusal::Unknown(request.host.clone())));
        }
        let issuer = self.tls.issuer().map_err(broken)?;
        let issuer = issuer.ok_or_else(|| {
            Status::unavailable("this member cannot issue certificates yet: it has no --peer-issuer-file")
        })?;
        let wanted = Use {
            id: request.token_id,
            secret_sha256: Sha256::digest(&request.secret).to_vec().into(),
            key_sha256: Sha256::digest(key_of(&request.peer_csr)?).to_vec().into(),
        };
        let token = self.node.let_in(&request.host, wanted).await.map_err(refused)?;
        let now = SystemTime::now();
        let issue = |role, csr: &[u8]| issuer.certify(role, csr, now).map_err(broken);
        let names = server_names(address_of(&token.client_url));
        let server = Role::Server {
            host: &token.host,
            names: &names,
        };
        let authorities = self.tls.files().trusted_ca.text_if_there().map_err(broken)?;
        Ok(JoinAnswer {
            peer_certificate: issue(Role::Member { name: &token.host }, &request.peer_csr)?,
            server_certificate: issue(server, &request.server_csr)?,
            authorities: authorities.unwrap_or_default(),
            members: self.others(&token),
            cluster_token: self.options.cluster_token.clone(),
            peer_url: token.peer_url,
            client_url: token.client_url,
            heartbeat_interval_ms: millis(self.options.heartbeat_interval),
            election_timeout_ms: millis(self.options.election_timeout),
        })
    }

    /// Whom the new member asks who it is to be.
    fn others(&self, token: &JoinToken) -> Vec<KnownMember> {
        let members = self.node.members().into_iter();
        members
            .filter(|member| !member.name.is_empty() && !member.peer_ur_ls.contains(&token.peer_url))
            .map(|member| KnownMember {
                id: member.id,
                name: member.name,
                peer_urls: member.peer_ur_ls,
                started: true,
            })
            .collect()
    }
}

#[tonic::async_trait]
impl Joining for JoinServer {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let address = request.extensions().get::<JoinerAddress>().copied();
        // A member has no need of this.
        let JoinerAddress(address) = address.ok_or_else(|| {
            Status::failed_precondition("this call is for hosts that have no certificate yet")
        })?;
        if self.failures.lock().too_many(address, Instant::now()) {
            return Err(Status::resource_exhausted(
                "too many wrong join tokens lately: try again in a moment",
            ));
        }
        let Ok(_place) = self.under_way.try_acquire() else {
            return Err(Status::unavailable("other hosts are just being let in"));
        };
        let request = request.into_inner();
        let answer = self.let_in(&request).await;
        match &answer {
            Ok(_) => tracing::info!(host = request.host, %address, "a host is let in"),
            Err(refusal) => {
                if refusal.code() == Code::Unauthenticated {
                    self.failures.lock().note(address, Instant::now());
                }
                tracing::warn!(host = ?request.host, %address, reason = refusal.message(), "a host is not let in");
            }
        }
        answer.map(Response::new)
    }
}

/// Wrong tokens lately. Bounded by [`ALL_FAILURES`].
#[derive(Debug, Default)]
struct Failures {
    since: Option<Instant>,
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl Failures {
    fn too_many(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.since.is_some_and(|since| now - since >= WINDOW) {
            *self = Failures::default();
        }
        let own = self.by_address.get(&address.to_canonical()).copied();
        self.all >= ALL_FAILURES || own.unwrap_or(0) >= FAILURES
    }

    fn note(&mut self, address: IpAddr, now: Instant) {
        self.since.get_or_insert(now);
        self.all += 1;
        *self.by_address.entry(address.to_canonical()).or_default() += 1;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn refused(refusal: JoinRefusal) -> Status {
    let words = refusal.to_string();
    match refusal {
        JoinRefusal::NotNow(_) => Status::unavailable(words),
        JoinRefusal::Taken { .. } | JoinRefusal::UrlTaken { .. } => Status::failed_precondition(words),
        JoinRefusal::Unknown(_)
        | JoinRefusal::Expired(_)
        | JoinRefusal::Used(_)
        | JoinRefusal::Revoked(_)
        | JoinRefusal::OtherHost { .. } => Status::unauthenticated(words),
    }
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this member cannot issue certificates: {error}"))
}

/// The public key of a certificate request.
fn key_of(csr: &[u8]) -> Result<Vec<u8>, Status> {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let (_, request) = X509CertificationRequest::from_der(csr)
        .map_err(|_| Status::invalid_argument("the certificate request is unreadable"))?;
    Ok(request.certification_request_info.subject_pki.raw.to_vec())
}

/// The host of a URL, without brackets.
pub(super) fn address_of(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a member did not let this host in.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JoinError {
    /// Nobody will, until a person has done something.
    #[error("{0}")]
    Refused(String),
    /// Another member may, or this one later.
    #[error("{0}")]
    NotNow(String),
}

/// Asks the member at a peer URL to let this host in.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(url: &str, pin: Pin, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
    let not_now = |words: String| JoinError::NotNow(format!("{url}: {words}"));
    let authority = url
        .strip_prefix("https://")
        .ok_or_else(|| JoinError::Refused(format!("{url} is no https URL")))?
        .to_owned();
    let config = pinned::client(pin).map_err(|error| JoinError::Refused(error.to_string()))?;
    let config = Arc::new(config);
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|_| JoinError::Refused(format!("{url} is no URL")))?
        .connect_timeout(CONNECT_LIMIT)
        .timeout(ANSWER_LIMIT);
    let connector = tower::service_fn(move |_| {
        let (authority, config) = (authority.clone(), config.clone());
        async move { open(&authority, config).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| not_now(bottom(&error)))?;
    let answer = JoiningClient::new(channel).join(request).await;
    answer
        .map(Response::into_inner)
        .map_err(|status| match status.code() {
            Code::Unauthenticated | Code::FailedPrecondition | Code::InvalidArgument => {
                JoinError::Refused(status.message().to_owned())
            }
            _ => not_now(reason(&status)),
        })
}

async fn open(authority: &str, config: Arc<ClientConfig>) -> std::io::Result<Explained> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("peer.agent.internal").map_err(std::io::Error::other)?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(explained)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let holder = certificate.map(Holder::of).unwrap_or_default();
    if holder.member.is_none() {
        return Err(std::io::Error::other(format!(
            "the certificate there ({}) is no member's: is it the port for peers?",
            holder.shown()
        )));
    }
    Ok(Explained(stream))
}

/// What lies at the bottom of an error: the transport's own words are about itself.
fn bottom(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fails_often_waits() {
        let mut failures = Failures::default();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Instant::now();
        for _ in 0..FAILURES {
            assert!(!failures.too_many(one, start));
            failures.note(one, start);
        }
        assert!(failures.too_many(one, start) && !failures.too_many(other, start));
        for _ in FAILURES..ALL_FAILURES {
            failures.note(one, start);
        }
        assert!(failures.too_many(other, start));
        assert!(!failures.too_many(one, start + WINDOW));
    }

    #[test]
    fn the_host_of_a_url_is_a_name_in_a_certificate() {
        assert_eq!(address_of("https://51.0.0.10:2380"), "51.0.0.10");
        assert_eq!(address_of("https://[fd00::1]:2380"), "fd00::1");
        assert_eq!(address_of("https://a.example.org:1"), "a.example.org");
    }
}
