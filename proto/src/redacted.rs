//! How messages with a secret show themselves: by what is no secret. A log line or a panic may print any message.

use std::fmt::{Debug, Formatter, Result};

use crate::agent::v1::{EntrustRequest, JoinTicket};
use crate::authpb::User;
use crate::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
};
use crate::peer::{IssuerAnswer, JoinRequest, SecretsKeyAnswer};
use crate::replicated::auth_change::{self, Change};
use crate::replicated::{AuthChange, AuthSettings, AuthUser};

/// Shows the named fields of a message, and that there are more.
macro_rules! redacted {
    ($($message:ty { $($field:ident),* })*) => {
        $(impl Debug for $message {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        })*
    };
}

redacted! {
    AuthUserAddRequest { name, options }
    AuthUserChangePasswordRequest { name }
    AuthenticateRequest { name }
    AuthenticateResponse { header }
    AuthChange { change }
    AuthSettings { enabled, revision }
    AuthUser { name, roles, no_password, changed_revision }
    User { name, roles, options }
    JoinRequest { cluster_id, token_id, host }
    IssuerAnswer {}
    SecretsKeyAnswer {}
    EntrustRequest { authorities }
    JoinTicket { cluster_id, token_id, host, endpoints }
    auth_change::Enable {}
    auth_change::UserAdd { name, no_password }
    auth_change::UserPassword { name }
    auth_change::UserRole { user, role }
    auth_change::RolePermission { role, permission }
}

impl Debug for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Change::Enable(_) => f.write_str("Enable"),
            Change::Disable(_) => f.write_str("Disable"),
            Change::UserAdd(change) => change.fmt(f),
            Change::UserDelete(name) => write!(f, "UserDelete({name:?})"),
            Change::UserChangePassword(change) => change.fmt(f),
            Change::UserGrantRole(change) => write!(f, "Grant({change:?})"),
            Change::UserRevokeRole(change) => write!(f, "Revoke({change:?})"),
            Change::RoleAdd(name) => write!(f, "RoleAdd({name:?})"),
            Change::RoleDelete(name) => write!(f, "RoleDelete({name:?})"),
            Change::RoleGrantPermission(change) => write!(f, "Grant({change:?})"),
            Change::RoleRevokePermission(change) => write!(f, "Revoke({change:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let secret = || "hunter2".to_owned();
        let add = auth_change::UserAdd {
            name: "ann".into(),
            password_hash: secret().into(),
            no_password: false,
        };
        let password = auth_change::UserPassword {
            name: "ann".into(),
            password_hash: secret().into(),
        };
        let enable = auth_change::Enable {
            token_key: secret().into(),
        };
        let change = |change| AuthChange { change: Some(change) };
        let shown = format!(
            "{:?}",
            (
                (
                    AuthUserAddRequest {
                        name: "ann".into(),
                        password: secret(),
                        hashed_password: secret(),
                        options: None
                    },
                    AuthUserChangePasswordRequest {
                        name: "ann".into(),
                        password: secret(),
                        hashed_password: secret()
                    },
                    AuthenticateRequest {
                        name: "ann".into(),
                        password: secret()
                    },
                    AuthenticateResponse {
                        header: None,
                        token: secret()
                    },
                ),
                change(Change::UserAdd(add)),
                change(Change::UserChangePassword(password)),
                change(Change::Enable(enable)),
                AuthUser {
                    name: "ann".into(),
                    password_hash: secret().into(),
                    ..AuthUser::default()
                },
                AuthSettings {
                    token_key: secret().into(),
                    ..AuthSettings::default()
                },
                User {
                    name: "ann".into(),
                    password: secret().into(),
                    ..User::default()
                },
                (
                    JoinRequest {
                        secret: secret().into(),
                        ..JoinRequest::default()
                    },
                    IssuerAnswer { issuer: secret() },
                    EntrustRequest {
                        issuer: secret(),
                        ..Default::default()
                    },
                    JoinTicket {
                        secret: secret().into(),
                        ..JoinTicket::default()
                    },
                ),
            )
        );
        assert!(shown.contains("ann") && !shown.contains(&secret()), "{shown}");
        // Bytes may also be shown as numbers.
        assert!(!shown.contains("104, 117"), "{shown}");
    }
}
