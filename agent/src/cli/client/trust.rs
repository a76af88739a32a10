//! The questions to our own service about who may become a member.

use proto::agent::v1::trust_client::TrustClient;
use proto::agent::v1::{
    CreateTokenRequest, CreateTokenResponse, EntrustRequest, EntrustResponse, ListCertificatesRequest,
    ListCertificatesResponse, ListTokensRequest, ListTokensResponse, RevokeRequest, RevokeResponse,
    RevokeTokenRequest, RevokeTokenResponse,
};

use super::{Client, Repeat};
use crate::cli::error::CliError;

impl Client {
    pub(crate) async fn create_token(
        &self,
        request: CreateTokenRequest,
    ) -> Result<CreateTokenResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            TrustClient::new(link).create_token(request.clone()).await
        })
        .await
    }

    pub(crate) async fn list_tokens(
        &self,
        request: ListTokensRequest,
    ) -> Result<ListTokensResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            TrustClient::new(link).list_tokens(request).await
        })
        .await
    }

    pub(crate) async fn list_certificates(&self) -> Result<ListCertificatesResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            TrustClient::new(link)
                .list_certificates(ListCertificatesRequest {})
                .await
        })
        .await
    }

    /// Harmless to repeat.
    pub(crate) async fn revoke_certificates(
        &self,
        request: RevokeRequest,
    ) -> Result<RevokeResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            TrustClient::new(link).revoke(request.clone()).await
        })
        .await
    }

    /// Harmless to repeat. To be sent to the member that it is for.
    pub(crate) async fn entrust(&self, request: EntrustRequest) -> Result<EntrustResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            TrustClient::new(link).entrust(request.clone()).await
        })
        .await
    }

    /// Harmless to repeat.
    pub(crate) async fn revoke_token(
        &self,
        request: RevokeTokenRequest,
    ) -> Result<RevokeTokenResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            TrustClient::new(link).revoke_token(request).await
        })
        .await
    }
}
