//! Certificates among members: new ones in the place of those that end soon, and what members issue them with; and what
//! they seal secrets with.
//!
//! Only the connection says who asks: a member gets certificates in its own name, for the addresses at which the cluster
//! knows it, and nothing else. Without TLS nothing is served here.

use std::time::{Duration, SystemTime};

use proto::peer::trust_client::TrustClient;
use proto::peer::trust_server::Trust;
use proto::peer::{
    IssuerAnswer, IssuerRequest, RenewAnswer, RenewRequest, SecretsKeyAnswer, SecretsKeyRequest,
};
use raft_store::wal::Identity;
use tonic::{Request, Response, Status};

use super::joining::address_of;
use super::{PeerCertificate, PeerTimeouts, Stamp, Whom, reason};
use crate::node::Node;
use crate::secrets::KeyFile;
use crate::tls::authority::Role;
use crate::tls::holder::server_names;
use crate::tls::issuer::{Issuer, IssuerError};
use crate::tls::peer::PeerTls;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the other members are answered.
#[derive(Clone, Debug)]
pub(super) struct TrustServer {
    pub(super) node: Node,
    pub(super) tls: Option<PeerTls>,
    pub(super) secrets: Option<KeyFile>,
}

impl TrustServer {
    /// Whose certificate the call came with, and what it may be answered with.
    fn admit<T>(&self, request: &Request<T>) -> Result<(String, &PeerTls), Status> {
        let certificate = request.extensions().get::<PeerCertificate>();
        match (certificate, &self.tls) {
            (Some(certificate), Some(tls)) => Ok((certificate.member.clone(), tls)),
            _ => Err(Status::permission_denied(
                "certificates are for connections with certificates",
            )),
        }
    }
}

#[tonic::async_trait]
impl Trust for TrustServer {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewAnswer>, Status> {
        let (member, tls) = self.admit(&request)?;
        let issuer = tls
            .issuer()
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let issuer = issuer.ok_or_else(none_here)?;
        let answer = certify(&self.node, &issuer, &member, request.get_ref());
        let answer = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!(member, "a member's certificates are renewed");
        Ok(Response::new(answer))
    }

    async fn issuer(&self, request: Request<IssuerRequest>) -> Result<Response<IssuerAnswer>, Status> {
        let (member, tls) = self.admit(&request)?;
        let file = tls.files().issuer.as_ref().ok_or_else(none_here)?;
        let issuer = file
            .text_if_there()
            .map_err(|error| Status::unavailable(error.to_string()))?
            .ok_or_else(none_here)?;
        tracing::info!(member, "a member is given what certificates are issued with");
        Ok(Response::new(IssuerAnswer { issuer }))
    }

    async fn secrets_key(
        &self,
        request: Request<SecretsKeyRequest>,
    ) -> Result<Response<SecretsKeyAnswer>, Status> {
        let (member, _) = self.admit(&request)?;
        let none = || Status::unavailable("this member has no --secrets-key-file");
        let keys = self.secrets.as_ref().ok_or_else(none)?.text();
        let keys = keys.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!(member, "a member is given what secrets are sealed with");
        Ok(Response::new(SecretsKeyAnswer { keys }))
    }
}

fn none_here() -> Status {
    Status::unavailable("this member has no --peer-issuer-file")
}

/// New certificates for a member, by the names that the cluster knows of it.
///
/// # Errors
/// See [`IssuerError`].
pub(crate) fn certify(
    node: &Node,
    issuer: &Issuer,
    member: &str,
    request: &RenewRequest,
) -> Result<RenewAnswer, IssuerError> {
    let members = node.members().into_iter();
    let mut known = members.filter(|known| known.name.eq_ignore_ascii_case(member));
    let url = known.next().and_then(|known| known.peer_ur_ls.into_iter().next());
    // Names that are not known yet must not be left out of a certificate that lasts.
    let url = url.ok_or_else(|| IssuerError::Unknown(member.to_owned()))?;
    let names = server_names(address_of(&url));
    let now = SystemTime::now();
    let issue = |role, csr: &[u8]| match csr {
        [] => Ok(String::new()),
        csr => issuer.certify(role, csr, now),
    };
    let server = Role::Server {
        host: member,
        names: &names,
    };
    Ok(RenewAnswer {
        peer_certificate: issue(Role::Member { name: member }, &request.peer_csr)?,
        server_certificate: issue(server, &request.server_csr)?,
    })
}

impl Node {
    /// Asks the other members, one after the other, for what members issue certificates with.
    ///
    /// # Errors
    /// Why nobody gave it.
    pub(crate) async fn ask_for_issuer(&self) -> Result<String, String> {
        let ask = |mut client: Client| async move { client.issuer(IssuerRequest {}).await };
        self.ask_around(ask).await.map(|answer| answer.issuer)
    }

    /// Asks the other members, one after the other, for new certificates.
    ///
    /// # Errors
    /// Why nobody gave any.
    pub(crate) async fn ask_for_certificates(&self, request: &RenewRequest) -> Result<RenewAnswer, String> {
        let ask = |mut client: Client| {
            let request = request.clone();
            async move { client.renew(request).await }
        };
        self.ask_around(ask).await
    }

    /// Asks the other members, one after the other, for what secrets are sealed with.
    ///
    /// # Errors
    /// Why nobody gave it.
    pub(crate) async fn ask_for_secrets_key(&self) -> Result<String, String> {
        let ask = |mut client: Client| async move { client.secrets_key(SecretsKeyRequest {}).await };
        self.ask_around(ask).await.map(|answer| answer.keys)
    }

    /// The first answer that a member gives; what the last one said, where none does.
    async fn ask_around<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut why = "there is no other member".to_owned();
        for (id, name, url) in self.peers() {
            let asked = match self.trust_client(id, &name, &url) {
                Ok(client) => ask(client).await.map_err(|status| reason(&status)),
                Err(error) => Err(error),
            };
            match asked {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(reason) => why = format!("{name}: {reason}"),
            }
        }
        Err(why)
    }

    fn peers(&self) -> Vec<(u64, String, String)> {
        let members = self.members().into_iter();
        members
            .filter(|member| member.id != self.member_id() && !member.name.is_empty())
            .filter_map(|member| Some((member.id, member.name, member.peer_ur_ls.into_iter().next()?)))
            .filter(|(_, _, url)| url.starts_with("https://"))
            .collect()
    }

    fn trust_client(&self, id: u64, name: &str, url: &str) -> Result<Client, String> {
        let timeouts = PeerTimeouts {
            connect: PATIENCE,
            keep_alive: PATIENCE,
        };
        let whom = Whom::Named(name.to_owned());
        let channel = self
            .dialer()
            .channel(url, &whom, timeouts)
            .map_err(|error| error.to_string())?;
        let own = Identity {
            cluster_id: self.cluster_id(),
            member_id: self.member_id(),
        };
        Ok(TrustClient::with_interceptor(channel, Stamp::new(own, id)))
    }
}

type Client = TrustClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Stamp>>;
