//! etcd's Auth service, while there are no users yet: it says so, in the words that clients know.

use std::sync::Arc;

use proto::etcdserverpb::auth_server::Auth;
use proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
};
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::status::{ApiError, unimplemented};

#[derive(Clone, Debug)]
pub(super) struct AuthService(pub(super) Arc<Api>);

impl AuthService {
    async fn refuse<T, R>(&self, request: &Request<T>, what: &str) -> Result<Response<R>, Status> {
        self.0.admit(request, Needs::Voter).await?;
        Err(unimplemented(what))
    }
}

/// The calls that have a place, but no answer yet: method, its messages, and what a person calls it.
macro_rules! refused {
    ($($method:ident($request:ty) -> $response:ty = $what:literal;)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            async fn auth_status(
                &self,
                request: Request<AuthStatusRequest>,
            ) -> Result<Response<AuthStatusResponse>, Status> {
                let AuthService(api) = self;
                api.admit(&request, Needs::Voter).await?;
                // A store whose auth was never touched is at auth revision 1.
                let header = api.header_now();
                Ok(Response::new(AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
            }

            async fn authenticate(
                &self,
                request: Request<AuthenticateRequest>,
            ) -> Result<Response<AuthenticateResponse>, Status> {
                self.0.admit(&request, Needs::Voter).await?;
                Err(ApiError::AuthNotEnabled.into())
            }

            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                self.refuse(&request, $what).await
            })*
        }
    };
}

refused! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse = "enabling auth";
    auth_disable(AuthDisableRequest) -> AuthDisableResponse = "disabling auth";
    user_add(AuthUserAddRequest) -> AuthUserAddResponse = "adding a user";
    user_get(AuthUserGetRequest) -> AuthUserGetResponse = "showing a user";
    user_list(AuthUserListRequest) -> AuthUserListResponse = "listing users";
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = "deleting a user";
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse = "changing a password";
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = "granting a role";
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse = "revoking a role";
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = "adding a role";
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = "showing a role";
    role_list(AuthRoleListRequest) -> AuthRoleListResponse = "listing roles";
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = "deleting a role";
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse = "granting a permission";
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse = "revoking a permission";
}
