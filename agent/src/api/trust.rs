//! Our own service for who may become a member: join tokens, made, listed and revoked by root.
//!
//! The secret of a token never comes here: whoever asks for one makes it, and sends its hash.

use std::sync::Arc;

use proto::agent::v1::trust_server::Trust;
use proto::agent::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse, TokenInfo, token_info,
};
use proto::replicated::JoinToken;
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::status::ApiError;
use crate::node::identity::is_base_url;
use crate::node::join_tokens::now;

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
        if !matches!(tls.issuer(), Ok(Some(_))) {
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
            ca_sha256: tls.pin().to_vec().into(),
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
