//! Users, roles and tokens in a sequence.

use std::collections::BTreeMap;

use proto::authpb::{Permission, UserAddOptions};
use proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
};
use tests::client::Client;
use tests::show;
use tonic::{Request, Status};

use crate::op::Auth;
use crate::run::{Answer, said_header};
use crate::wire::bytes;

/// Whoever may do everything, and never changes the password.
const ROOT: &str = "root";
const ROOT_PASSWORD: &str = "root";

/// The token that each user got last.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    by_user: BTreeMap<String, String>,
    /// Any request about users or roles was made since the last clean: there may be something to take away.
    touched: bool,
}

impl Tokens {
    pub(crate) fn of(&self, user: &str) -> Option<&str> {
        self.by_user.get(user).map(String::as_str)
    }

    /// Whether the sequence has asked anything about users.
    pub(crate) fn touched(&self) -> bool {
        self.touched
    }

    /// The user whose steps are least likely refused.
    pub(crate) fn administrator(&self) -> String {
        if self.by_user.contains_key(ROOT) { ROOT } else { "" }.to_owned()
    }

    pub(crate) fn request<T>(&self, user: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = self.of(user).and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    pub(crate) async fn ask(
        &mut self,
        client: Client,
        user: &str,
        auth: &Auth,
    ) -> Result<(Answer, i64), Status> {
        self.touched = true;
        match auth {
            Auth::Login { name, password } => self.login(client, name, password).await,
            Auth::Enable | Auth::Disable | Auth::Status => self.ask_switch(client, user, auth).await,
            Auth::UserAdd { .. }
            | Auth::UserGet { .. }
            | Auth::UserList
            | Auth::UserDelete { .. }
            | Auth::UserChangePassword { .. }
            | Auth::UserGrantRole { .. }
            | Auth::UserRevokeRole { .. } => self.ask_user(client, user, auth).await,
            Auth::RoleAdd { .. }
            | Auth::RoleGet { .. }
            | Auth::RoleList
            | Auth::RoleDelete { .. }
            | Auth::RoleGrantPermission { .. }
            | Auth::RoleRevokePermission { .. } => self.ask_role(client, user, auth).await,
        }
    }

    async fn login(
        &mut self,
        mut client: Client,
        name: &str,
        password: &str,
    ) -> Result<(Answer, i64), Status> {
        let request = AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let said = client.auth.authenticate(request).await?.into_inner();
        self.by_user.insert(name.to_owned(), said.token);
        Ok(said_header("", said.header.as_ref()))
    }

    async fn ask_switch(&self, mut client: Client, user: &str, auth: &Auth) -> Result<(Answer, i64), Status> {
        Ok(match auth {
            Auth::Enable => {
                let said = client.auth.auth_enable(self.request(user, AuthEnableRequest {}));
                said_header("", said.await?.get_ref().header.as_ref())
            }
            Auth::Disable => {
                let said = client
                    .auth
                    .auth_disable(self.request(user, AuthDisableRequest {}));
                said_header("", said.await?.get_ref().header.as_ref())
            }
            _ => {
                let said = client.auth.auth_status(self.request(user, AuthStatusRequest {}));
                let said = said.await?.into_inner();
                let text = format!("enabled={} auth_revision={}", said.enabled, said.auth_revision);
                said_header(&text, said.header.as_ref())
            }
        })
    }

    async fn ask_user(&self, mut client: Client, asker: &str, auth: &Auth) -> Result<(Answer, i64), Status> {
        let client = &mut client.auth;
        Ok(match auth.clone() {
            Auth::UserAdd {
                name,
                password,
                no_password,
            } => {
                let request = AuthUserAddRequest {
                    name,
                    password,
                    options: Some(UserAddOptions { no_password }),
                    ..Default::default()
                };
                let said = client.user_add(self.request(asker, request)).await?;
                said_header("", said.get_ref().header.as_ref())
            }
            Auth::UserGet { name } => {
                let said = client
                    .user_get(self.request(asker, AuthUserGetRequest { name }))
                    .await?;
                let text = format!("roles={:?}", said.get_ref().roles);
                said_header(&text, said.get_ref().header.as_ref())
            }
            Auth::UserList => {
                let said = client
                    .user_list(self.request(asker, AuthUserListRequest {}))
                    .await?;
                let text = format!("users={:?}", said.get_ref().users);
                said_header(&text, said.get_ref().header.as_ref())
            }
            Auth::UserDelete { name } => {
                let said = client.user_delete(self.request(asker, AuthUserDeleteRequest { name }));
                said_header("", said.await?.get_ref().header.as_ref())
            }
            Auth::UserChangePassword { name, password } => {
                let request = AuthUserChangePasswordRequest {
                    name,
                    password,
                    ..Default::default()
                };
                let said = client.user_change_password(self.request(asker, request)).await?;
                said_header("", said.get_ref().header.as_ref())
            }
            Auth::UserGrantRole { user, role } => {
                let request = AuthUserGrantRoleRequest { user, role };
                let said = client.user_grant_role(self.request(asker, request)).await?;
                said_header("", said.get_ref().header.as_ref())
            }
            Auth::UserRevokeRole { name, role } => {
                let request = AuthUserRevokeRoleRequest { name, role };
                let said = client.user_revoke_role(self.request(asker, request)).await?;
                said_header("", said.get_ref().header.as_ref())
            }
            other => unreachable!("{other:?} is not about users"),
        })
    }

    async fn ask_role(&self, mut client: Client, asker: &str, auth: &Auth) -> Result<(Answer, i64), Status> {
        let client = &mut client.auth;
        Ok(match auth.clone() {
            Auth::RoleAdd { name } => {
                let said = client.role_add(self.request(asker, AuthRoleAddRequest { name }));
                said_header("", said.await?.get_ref().header.as_ref())
            }
            Auth::RoleGet { role } => {
                let said = client.role_get(self.request(asker, AuthRoleGetRequest { role }));
                let said = said.await?.into_inner();
                let perms: Vec<String> = said.perm.iter().map(permission).collect();
                said_header(&format!("perm={perms:?}"), said.header.as_ref())
            }
            Auth::RoleList => {
                let said = client
                    .role_list(self.request(asker, AuthRoleListRequest {}))
                    .await?;
                let text = format!("roles={:?}", said.get_ref().roles);
                said_header(&text, said.get_ref().header.as_ref())
            }
            Auth::RoleDelete { role } => {
                let said = client.role_delete(self.request(asker, AuthRoleDeleteRequest { role }));
                said_header("", said.await?.get_ref().header.as_ref())
            }
            Auth::RoleGrantPermission {
                name,
                perm_type,
                key,
                range_end,
            } => {
                let perm = Permission {
                    perm_type,
                    key: bytes(&key),
                    range_end: bytes(&range_end),
                };
                let request = AuthRoleGrantPermissionRequest {
                    name,
                    perm: Some(perm),
                };
                let said = client.role_grant_permission(self.request(asker, request)).await?;
                said_header("", said.get_ref().header.as_ref())
            }
            Auth::RoleRevokePermission { role, key, range_end } => {
                let request = AuthRoleRevokePermissionRequest {
                    role,
                    key: bytes(&key),
                    range_end: bytes(&range_end),
                };
                let said = client
                    .role_revoke_permission(self.request(asker, request))
                    .await?;
                said_header("", said.get_ref().header.as_ref())
            }
            other => unreachable!("{other:?} is not about roles"),
        })
    }

    /// Switches auth off, and takes every user and role away. What a sequence left may stand in the way: then the
    /// next one begins differently, which is seen.
    pub(crate) async fn clean(&mut self, mut client: Client) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        self.by_user.clear();
        if self.login(client.clone(), ROOT, ROOT_PASSWORD).await.is_ok() {
            let disable = self.request(ROOT, AuthDisableRequest {});
            let _ = client.auth.auth_disable(disable).await;
            self.by_user.clear();
        }
        if let Ok(users) = client.auth.user_list(AuthUserListRequest {}).await {
            for name in users.into_inner().users {
                let _ = client.auth.user_delete(AuthUserDeleteRequest { name }).await;
            }
        }
        if let Ok(roles) = client.auth.role_list(AuthRoleListRequest {}).await {
            for role in roles.into_inner().roles {
                let _ = client.auth.role_delete(AuthRoleDeleteRequest { role }).await;
            }
        }
    }
}

fn permission(permission: &Permission) -> String {
    format!(
        "{} {} to {}",
        permission.perm_type,
        show::bytes(&permission.key),
        show::bytes(&permission.range_end)
    )
}
