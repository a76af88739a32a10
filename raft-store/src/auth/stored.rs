//! Users and roles in the backend and in snapshots.

use std::sync::Arc;

use prost::Message;
use proto::authpb;
use proto::replicated::{AuthSettings, AuthUser};

use super::users::{Auth, Record, Role, User};
use crate::backend::{Backend, BackendError};
use crate::schema;

/// Everything of `auth`, as the backend holds it.
pub(crate) fn entries(auth: &Auth) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let users = auth.users.keys().cloned().map(Record::User);
    let roles = auth.roles.keys().cloned().map(Record::Role);
    std::iter::once(Record::Settings)
        .chain(users)
        .chain(roles)
        .filter_map(|kind| {
            let (key, value) = record(auth, &kind);
            value.map(|value| (key, value))
        })
}

/// The key of a record, and its value where there is one.
pub(crate) fn record(auth: &Auth, kind: &Record) -> (Vec<u8>, Option<Vec<u8>>) {
    match kind {
        Record::Settings => {
            let settings = AuthSettings {
                enabled: auth.enabled,
                revision: auth.revision,
                token_key: auth.token_key.clone(),
            };
            (schema::META_AUTH.to_vec(), Some(settings.encode_to_vec()))
        }
        Record::User(name) => {
            let stored = auth.users.get(name).map(|user| AuthUser {
                name: name.clone(),
                password_hash: user.password_hash.clone(),
                no_password: user.no_password,
                roles: user.roles.clone(),
                changed_revision: user.changed_revision,
            });
            (schema::user(name), stored.map(|user| user.encode_to_vec()))
        }
        Record::Role(name) => {
            let stored = auth.roles.get(name).map(|role| authpb::Role {
                name: name.clone().into(),
                key_permission: role.permissions.clone(),
            });
            (schema::role(name), stored.map(|role| role.encode_to_vec()))
        }
    }
}

/// Reads it back. A store without any of it is one whose auth was never touched.
pub(crate) fn load(backend: &Backend) -> Result<Auth, BackendError> {
    let mut auth = Auth::default();
    if let Some(bytes) = backend.get(schema::META_AUTH)? {
        let settings =
            AuthSettings::decode(bytes).map_err(|_| backend.damaged("the auth settings are unreadable"))?;
        auth.enabled = settings.enabled;
        auth.revision = settings.revision;
        auth.token_key = settings.token_key;
    }
    for entry in backend.scan(schema::users()) {
        let (_, value) = entry?;
        let stored = AuthUser::decode(value).map_err(|_| backend.damaged("a user is unreadable"))?;
        let user = User {
            password_hash: stored.password_hash,
            no_password: stored.no_password,
            roles: stored.roles,
            changed_revision: stored.changed_revision,
        };
        auth.users.insert(stored.name, Arc::new(user));
    }
    for entry in backend.scan(schema::roles()) {
        let (_, value) = entry?;
        let damaged = || backend.damaged("a role is unreadable");
        let stored = authpb::Role::decode(value).map_err(|_| damaged())?;
        let name = String::from_utf8(stored.name.to_vec()).map_err(|_| damaged())?;
        let role = Role {
            permissions: stored.key_permission,
        };
        auth.roles.insert(name, Arc::new(role));
    }
    Ok(auth)
}
