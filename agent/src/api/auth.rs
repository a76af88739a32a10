//! etcd's Auth service: users, roles, and logging in.
//!
//! Changes are replicated, and refused by apply. Passwords are hashed here, before they are proposed: nothing behind
//! this file ever holds one.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proto::authpb::Permission;
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
    ResponseHeader,
};
use proto::replicated::auth_change::{Change, Enable, RolePermission, UserAdd, UserPassword, UserRole};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use proto::replicated::{AuthChange, Empty};
use raft_store::auth::{Auth as Users, Permissions};
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::{Caller, Needs};
use super::status::ApiError;

/// How often a login starts again because its user changed under it.
const LOGIN_ATTEMPTS: usize = 3;

const TOKEN_KEY_BYTES: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct AuthService(pub(super) Arc<Api>);

impl AuthService {
    /// Replicates a change that only root may make.
    async fn change(&self, caller: &Caller, change: Change) -> Result<Option<ResponseHeader>, ApiError> {
        // Who changed what is an operator's to know later; the text has no secret in it.
        let shown = format!("{change:?}");
        let change = AuthChange { change: Some(change) };
        match self.0.propose(caller, Op::Auth(change)).await? {
            (header, Outcome::Auth(_)) => {
                tracing::info!(
                    by = caller.author().user(),
                    change = shown,
                    "users or roles changed"
                );
                Ok(header)
            }
            _ => Err(ApiError::UnexpectedReply),
        }
    }

    /// The newest users and roles, for one who is root by them.
    async fn read_as_root(&self, caller: &Caller) -> Result<Arc<Users>, ApiError> {
        let AuthService(api) = self;
        api.read_index().await?;
        let read = || std::future::ready(Ok(api.node.store().auth()));
        api.authorised(caller, Permissions::is_root, read).await
    }

    /// Tries a password at the newest users there are. The token is made of the very user that it fitted.
    async fn log_in(&self, name: &str, password: &str) -> Result<String, ApiError> {
        let AuthService(api) = self;
        api.read_index().await?;
        for _ in 0..LOGIN_ATTEMPTS {
            let auth = api.node.store().auth();
            if !auth.is_enabled() {
                return Err(ApiError::AuthNotEnabled);
            }
            let user = auth.user(name);
            let hash = user.map(|user| user.password_hash().to_vec());
            let fits = api.passwords.fits(password.to_owned(), hash).await?;
            let Some(user) = user else {
                return Err(ApiError::AuthFailed);
            };
            if user.has_no_password() {
                return Err(ApiError::NoPasswordUser);
            }
            if !fits {
                tracing::info!(user = name, "a login was refused: the password does not fit");
                return Err(ApiError::AuthFailed);
            }
            let now = api.node.store().auth();
            if now.is_enabled() && now.user(name) == Some(user) {
                return api.tokens.issue(name, user, &now).ok_or(ApiError::NotCapable);
            }
        }
        Err(ApiError::AuthOldRevision)
    }

    /// What a change of password stores. As in etcd, a ready hash counts only where no password is given.
    async fn new_hash(&self, request: AuthUserChangePasswordRequest) -> Result<Bytes, ApiError> {
        let AuthService(api) = self;
        if !request.password.is_empty() {
            return api.passwords.hash(request.password).await.map(Bytes::from);
        }
        let auth = api.node.store().auth();
        match (STANDARD.decode(request.hashed_password), auth.user(&request.name)) {
            (Ok(hash), _) => Ok(hash.into()),
            // Apply says that there is no such user, or leaves its password alone.
            (Err(_), None) => Ok(Bytes::new()),
            (Err(_), Some(user)) if user.has_no_password() => Ok(Bytes::new()),
            (Err(_), Some(_)) => Err(ApiError::NoPasswordUser),
        }
    }
}

/// Admits root's call to change something, makes the change, and answers its header.
macro_rules! change {
    ($service:ident, $request:ident, $response:ident, $change:expr) => {{
        let caller = $service.0.admit(&$request, Needs::Root).await?;
        let make: fn(_) -> Change = $change;
        let header = $service.change(&caller, make($request.into_inner())).await?;
        Ok(Response::new($response { header }))
    }};
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        change!(self, request, AuthEnableResponse, |_| {
            let key: [u8; TOKEN_KEY_BYTES] = rand::random();
            Change::Enable(Enable {
                token_key: Bytes::copy_from_slice(&key),
            })
        })
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        change!(self, request, AuthDisableResponse, |_| Change::Disable(Empty {}))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let auth = self.read_as_root(&caller).await?;
        Ok(Response::new(AuthStatusResponse {
            header: api.header_now(),
            enabled: auth.is_enabled(),
            auth_revision: auth.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let AuthService(api) = self;
        api.admit(&request, Needs::Anyone).await?;
        let AuthenticateRequest { name, password } = request.into_inner();
        let token = self.log_in(&name, &password).await?;
        let header = api.header_now();
        Ok(Response::new(AuthenticateResponse { header, token }))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let request = request.into_inner();
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password_hash = if no_password {
            Bytes::new()
        } else {
            // As etcd, which overwrites a hash that the request brings.
            api.passwords.hash(request.password).await?.into()
        };
        let add = UserAdd {
            name: request.name,
            password_hash,
            no_password,
        };
        let header = self.change(&caller, Change::UserAdd(add)).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let name = request.into_inner().name;
        let asks_of_itself = caller.author().user() == name;
        api.read_index().await?;
        let allowed = |permissions: &Permissions| permissions.is_root() || asks_of_itself;
        let read = || {
            let auth = api.node.store().auth();
            let roles = auth.user(&name).map(|user| user.roles().to_vec());
            std::future::ready(roles.ok_or(ApiError::UserNotFound))
        };
        let roles = api.authorised(&caller, allowed, read).await?;
        let header = api.header_now();
        Ok(Response::new(AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let auth = self.read_as_root(&caller).await?;
        let users = auth.user_names().map(str::to_owned).collect();
        let header = api.header_now();
        Ok(Response::new(AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        change!(
            self,
            request,
            AuthUserDeleteResponse,
            |user: AuthUserDeleteRequest| { Change::UserDelete(user.name) }
        )
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let request = request.into_inner();
        let password = UserPassword {
            name: request.name.clone(),
            password_hash: self.new_hash(request).await?,
        };
        let header = self.change(&caller, Change::UserChangePassword(password)).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        change!(
            self,
            request,
            AuthUserGrantRoleResponse,
            |AuthUserGrantRoleRequest { user, role }| Change::UserGrantRole(UserRole { user, role })
        )
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        change!(
            self,
            request,
            AuthUserRevokeRoleResponse,
            |AuthUserRevokeRoleRequest { name, role }| Change::UserRevokeRole(UserRole { user: name, role })
        )
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        change!(self, request, AuthRoleAddResponse, |role: AuthRoleAddRequest| {
            Change::RoleAdd(role.name)
        })
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let role = request.into_inner().role;
        api.read_index().await?;
        let allowed = |permissions: &Permissions| {
            let auth = api.node.store().auth();
            let caller = auth.user(caller.author().user());
            permissions.is_root() || caller.is_some_and(|caller| caller.roles().contains(&role))
        };
        let read = || {
            let auth = api.node.store().auth();
            let permissions = auth.role(&role).map(<[Permission]>::to_vec);
            std::future::ready(permissions.ok_or(ApiError::RoleNotFound))
        };
        let perm = api.authorised(&caller, allowed, read).await?;
        let header = api.header_now();
        Ok(Response::new(AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let AuthService(api) = self;
        let caller = api.admit(&request, Needs::Root).await?;
        let auth = self.read_as_root(&caller).await?;
        let roles = auth.role_names().map(str::to_owned).collect();
        let header = api.header_now();
        Ok(Response::new(AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleDeleteResponse,
            |role: AuthRoleDeleteRequest| { Change::RoleDelete(role.role) }
        )
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleGrantPermissionResponse,
            |granted: AuthRoleGrantPermissionRequest| Change::RoleGrantPermission(RolePermission {
                role: granted.name,
                permission: granted.perm,
            })
        )
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleRevokePermissionResponse,
            |revoked: AuthRoleRevokePermissionRequest| {
                let range = Permission {
                    key: revoked.key,
                    range_end: revoked.range_end,
                    ..Permission::default()
                };
                Change::RoleRevokePermission(RolePermission {
                    role: revoked.role,
                    permission: Some(range),
                })
            }
        )
    }
}
