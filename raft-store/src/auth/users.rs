//! One version of all users and roles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use proto::authpb::Permission;
use proto::replicated::Refusal;
use proto::replicated::request::Op;

use super::Permissions;
use crate::lease::Leases;

/// The name of the user that must be there while auth is on, and of the role that may do everything.
pub const ROOT: &str = "root";

/// The auth revision of a store whose users were never touched.
const FIRST_REVISION: u64 = 1;

/// One version of users, roles, and whether they matter.
pub struct Auth {
    pub(super) enabled: bool,
    pub(super) revision: u64,
    pub(super) token_key: Bytes,
    pub(super) users: BTreeMap<String, Arc<User>>,
    pub(super) roles: BTreeMap<String, Arc<Role>>,
    /// Merged permissions of those users who asked; empty in every new version.
    merged: RwLock<BTreeMap<String, Arc<Permissions>>>,
}

/// A user, as etcd knows one.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub(super) password_hash: Bytes,
    pub(super) no_password: bool,
    /// Ascending.
    pub(super) roles: Vec<String>,
    pub(super) changed_revision: u64,
}

/// A role's permissions, ascending by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(super) permissions: Vec<Permission>,
}

/// What a change has touched, and is to be stored again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Settings,
    User(String),
    Role(String),
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            enabled: false,
            revision: FIRST_REVISION,
            token_key: Bytes::new(),
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            merged: RwLock::default(),
        }
    }
}

/// A new version, about to be changed: nothing is merged yet.
impl Clone for Auth {
    fn clone(&self) -> Auth {
        Auth {
            enabled: self.enabled,
            revision: self.revision,
            token_key: self.token_key.clone(),
            users: self.users.clone(),
            roles: self.roles.clone(),
            merged: RwLock::default(),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("enabled", &self.enabled)
            .field("revision", &self.revision)
            .field("users", &self.users.len())
            .field("roles", &self.roles.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("roles", &self.roles)
            .field("no_password", &self.no_password)
            .finish_non_exhaustive()
    }
}

impl Auth {
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts the changes. 1 when fresh.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The secret that tokens are signed with; empty before auth was ever enabled. Never to be shown.
    #[must_use]
    pub fn token_key(&self) -> &[u8] {
        &self.token_key
    }

    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(AsRef::as_ref)
    }

    /// Ascending.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Ascending.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// A role's permissions, ascending by key.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&[Permission]> {
        self.roles.get(name).map(|role| role.permissions.as_slice())
    }

    /// What a user may do; `None`: there is no such user.
    #[must_use]
    pub fn permissions(&self, user: &str) -> Option<Arc<Permissions>> {
        if let Some(merged) = self.merged.read().get(user) {
            return Some(Arc::clone(merged));
        }
        let roles = &self.users.get(user)?.roles;
        let merged = Arc::new(if roles.iter().any(|role| role == ROOT) {
            Permissions::root()
        } else {
            let granted = roles
                .iter()
                .filter_map(|role| self.roles.get(role))
                .flat_map(|role| &role.permissions);
            Permissions::merge(granted)
        });
        self.merged.write().insert(user.to_owned(), Arc::clone(&merged));
        Some(merged)
    }

    pub(super) fn forget_merged(&mut self) {
        self.merged.get_mut().clear();
    }

    /// Whether a request may be applied at this position of the log, for whom it was proposed.
    pub(crate) fn authorise(
        &self,
        user: &str,
        auth_revision: u64,
        op: &Op,
        leases: &Leases,
    ) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        match (user, auth_revision) {
            ("", 0) => return Ok(()),
            // A client's, from before auth was on.
            ("", _) => return Err(Refusal::UserEmpty),
            (_, checked) if checked < self.revision => return Err(Refusal::AuthOldRevision),
            _ => {}
        }
        match self.permissions(user) {
            Some(permissions) if permissions.may(op, leases) => Ok(()),
            _ => Err(Refusal::PermissionDenied),
        }
    }
}

impl User {
    /// What bcrypt made of the password; empty: no password fits. Never to be shown.
    #[must_use]
    pub fn password_hash(&self) -> &[u8] {
        &self.password_hash
    }

    /// Whether the user was made to have no password: it logs in by certificate.
    #[must_use]
    pub fn has_no_password(&self) -> bool {
        self.no_password
    }

    /// Ascending.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// The auth revision that made the user, or its password: older tokens are void.
    #[must_use]
    pub fn changed_revision(&self) -> u64 {
        self.changed_revision
    }
}
