//! Our own service for who may become a member: join tokens, made, listed and revoked by root, and
//! what a member shows and trusts.
//!
//! The secret of a token never comes here: whoever asks for one makes it, and sends its hash.

use std::sync::Arc;
use std::time::Duration;

use proto::agent::v1::trust_server::Trust;
use proto::agent::v1::{
    CreateTokenRequest, CreateTokenResponse, EntrustRequest, EntrustResponse, ListCertificatesRequest,
    ListCertificatesResponse, ListTokensRequest, ListTokensResponse, RevokeRequest, RevokeResponse,
    RevokeTokenRequest, RevokeTokenResponse, TokenInfo, token_info,
};
use proto::replicated::request::Op;
use proto::replicated::revocation::What;
use proto::replicated::revocation_change::Change;
use proto::replicated::{JoinToken, Refusal, RevocationChange, reply};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use super::Api;
use super::certificates;
use super::interceptor::Needs;
use super::status::ApiError;
use crate::node::identity::is_base_url;
use crate::node::join_tokens::now;
use crate::tls::own::Entrusted;
use crate::tls::revoked::Shown;

/// How long a token may be good, in seconds.
const LONGEST: u64 = 24 * 60 * 60;
/// A member that is asked whether it answers may itself wait for its leader's word first.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
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
        let revocations = api.node.store().revocations();
        let shown = certificates::shown(api.node.name(), tls, &revocations);
        Ok(Response::new(shown))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let TrustService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let own = request.extensions().get::<Shown>().cloned();
        let RevokeRequest {
            revoked,
            restore,
            force,
        } = request.into_inner();
        let revocation = certificates::revocation(revoked.ok_or(ApiError::RevocationShape)?, now())?;
        api.read_index().await?;
        let answering = match &revocation.what {
            Some(What::Member(_)) if !restore && !force => Some(api.node.answering(ANSWER_LIMIT).await),
            _ => None,
        };
        let quorum = certificates::Quorum::with(&api.node, &revocation, restore, answering.as_ref());
        let change = match restore {
            true => Change::Restore(revocation),
            false => {
                let tls = api.tls.as_ref().map(|tls| &tls.peer);
                let refusal = certificates::harm(&revocation, own.as_ref(), tls, &quorum);
                if let Some(reason) = refusal {
                    return Err(Status::failed_precondition(reason));
                }
                Change::Revoke(revocation)
            }
        };
        let change = RevocationChange { change: Some(change) };
        let reply = api.node.propose_as(caller.author(), Op::Revocation(change)).await;
        match reply.map_err(ApiError::from)?.result {
            Some(reply::Result::Revocation(_)) => Ok(Response::new(quorum.answer())),
            Some(reply::Result::Refused(refusal)) => {
                Err(ApiError::from(Refusal::try_from(refusal).unwrap_or_default()).into())
            }
            _ => Err(ApiError::UnexpectedReply.into()),
        }
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

fn check(request: &CreateTokenRequest) -> Result<(), ApiError> {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let host_fits = (1..=63).contains(&request.host.len()) && request.host.bytes().all(label);
    let urls_fit = [&request.peer_url, &request.client_url]
        .into_iter()
        .all(|url| url.len() <= URL_BYTES && url.starts_with("https://") && is_base_url(url));
    let of_nothing = Sha256::digest([]);
    let hash_fits =
        request.secret_sha256.len() == of_nothing.len() && request.secret_sha256 != of_nothing[..];
    match host_fits && urls_fit && hash_fits && (1..=LONGEST).contains(&request.ttl_seconds) {
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
