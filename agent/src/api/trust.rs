//! Our own service for who may become a member: join tokens, made, listed and revoked by root, and
//! what a member shows and trusts.
//!
//! The secret of a token never comes here: whoever asks for one makes it, and sends its hash.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::agent::v1::trust_server::Trust;
use proto::agent::v1::{
    Certificate, CreateTokenRequest, CreateTokenResponse, EntrustRequest, EntrustResponse,
    ListCertificatesRequest, ListCertificatesResponse, ListTokensRequest, ListTokensResponse,
    RevokeTokenRequest, RevokeTokenResponse, TokenInfo, token_info,
};
use proto::replicated::JoinToken;
use rustls::pki_types::CertificateDer;
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::status::ApiError;
use crate::node::identity::is_base_url;
use crate::node::join_tokens::now;
use crate::tls::about::{About, leads_to};
use crate::tls::own::{Entrusted, OwnTls};
use crate::tls::server::ServerTls;

/// How long a token may be good, in seconds.
const LONGEST: u64 = 24 * 60 * 60;
const SHA256_BYTES: usize = 32;
const URL_BYTES: usize = 300;

#[derive(Clone, Debug)]
pub(super) struct TrustService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Trust for TrustService {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let TrustService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let request = request.into_inner();
        check(&request)?;
        let tls = api.tls.as_ref().ok_or(ApiError::JoinNeedsCertificates)?;
        if !matches!(tls.peer.issuer(), Ok(Some(_))) {
            return Err(ApiError::JoinNeedsCertificates.into());
        }
        let token = JoinToken {
            id: rand::random(),
            host: request.host,
            peer_url: request.peer_url,
            client_url: request.client_url,
            secret_sha256: request.secret_sha256,
            replace: request.replace,
            ..JoinToken::default()
        };
        let made = api
            .node
            .create_join_token(caller.author(), token, request.ttl_seconds)
            .await
            .map_err(ApiError::from)?;
        let members = api.node.members().into_iter();
        let endpoints = members
            .filter_map(|member| member.peer_ur_ls.into_iter().next())
            .filter(|url| url.starts_with("https://") && *url != made.peer_url);
        Ok(Response::new(CreateTokenResponse {
            id: made.id,
            cluster_id: api.node.cluster_id(),
            ca_sha256: tls.peer.pin().to_vec().into(),
            endpoints: endpoints.collect(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let TrustService(api) = self;
        api.admit(&request, Needs::Root).await?;
        api.read_index().await?;
        let tokens = api.node.store().join_tokens();
        let tokens = tokens.iter().map(|token| info(token, now())).collect();
        Ok(Response::new(ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let TrustService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let revoked = api
            .node
            .revoke_join_token(caller.author(), request.into_inner().id)
            .await;
        revoked.map_err(ApiError::from)?;
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let TrustService(api) = self;
        api.admit(&request, Needs::RootAtAnyMember).await?;
        let tls = api.tls.as_ref().ok_or(ApiError::JoinNeedsCertificates)?;
        Ok(Response::new(shown(api.node.name(), tls)))
    }

    async fn entrust(&self, request: Request<EntrustRequest>) -> Result<Response<EntrustResponse>, Status> {
        let TrustService(api) = self;
        api.admit(&request, Needs::RootAtAnyMember).await?;
        let tls = api.tls.as_ref().ok_or(ApiError::JoinNeedsCertificates)?;
        let request = request.into_inner();
        let der = |bytes: bytes::Bytes| CertificateDer::from(bytes.to_vec());
        let entrusted = Entrusted {
            authorities: request.authorities.into_iter().map(der).collect(),
            approval: Some(request.approval).filter(|bytes| !bytes.is_empty()).map(der),
            issuer: Some(request.issuer).filter(|text| !text.is_empty()),
        };
        tls.entrust(&entrusted)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        tracing::info!(
            authorities = entrusted.authorities.len(),
            issuer = entrusted.issuer.is_some(),
            "this member is handed what to trust"
        );
        Ok(Response::new(EntrustResponse {}))
    }
}

/// What the member shows and trusts.
fn shown(host: &str, tls: &OwnTls) -> ListCertificatesResponse {
    let peer_authorities = tls.peer.authorities();
    let client_authorities = tls
        .server
        .as_ref()
        .map(ServerTls::authorities)
        .unwrap_or_default();
    let first = |chain: Vec<CertificateDer<'static>>| {
        let mut known = peer_authorities.iter().chain(&client_authorities);
        let authority = known.find(|one| leads_to(&chain, one)).and_then(About::of);
        Some(Certificate {
            authority_sha256: authority
                .map(|about| about.sha256.to_vec().into())
                .unwrap_or_default(),
            ..certificate(chain.first()?)?
        })
    };
    let all = |authorities: &[CertificateDer<'static>]| authorities.iter().filter_map(certificate).collect();
    let issuer = tls.peer.issuer().ok().flatten();
    let issuer = issuer.and_then(|issuer| issuer.certificate());
    ListCertificatesResponse {
        host: host.to_owned(),
        peer: first(tls.peer.chain()),
        server: tls.server.as_ref().and_then(|server| first(server.chain())),
        issuer: issuer.and_then(|issuer| first(vec![issuer])),
        peer_authorities: all(&peer_authorities),
        client_authorities: all(&client_authorities),
    }
}

fn certificate(der: &CertificateDer<'static>) -> Option<Certificate> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    About::of(der).map(|about| Certificate {
        sha256: about.sha256.to_vec().into(),
        serial: about.serial,
        holder: about.holder,
        issuer: about.issuer,
        begins: seconds(about.validity.begins),
        ends: seconds(about.validity.ends),
        ..Certificate::default()
    })
}

fn check(request: &CreateTokenRequest) -> Result<(), ApiError> {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let host_fits = (1..=63).contains(&request.host.len()) && request.host.bytes().all(label);
    let urls_fit = [&request.peer_url, &request.client_url]
        .into_iter()
        .all(|url| url.len() <= URL_BYTES && url.starts_with("https://") && is_base_url(url));
    let rest_fits =
        (1..=LONGEST).contains(&request.ttl_seconds) && request.secret_sha256.len() == SHA256_BYTES;
    match host_fits && urls_fit && rest_fits {
        true => Ok(()),
        false => Err(ApiError::JoinTokenShape),
    }
}

fn info(token: &JoinToken, now: u64) -> TokenInfo {
    let state = match token {
        token if token.revoked => token_info::State::Revoked,
        token if !token.used_by_sha256.is_empty() => token_info::State::Used,
        token if now >= token.expires => token_info::State::Expired,
        _ => token_info::State::Open,
    };
    TokenInfo {
        id: token.id,
        host: token.host.clone(),
        state: state.into(),
        seconds_left: token.expires.saturating_sub(now),
        replace: token.replace,
    }
}
