//! How a replicated change makes the next version, refused and counted as by etcd.

use std::sync::Arc;

use proto::authpb::Permission;
use proto::replicated::auth_change::{Change, RolePermission, UserAdd, UserPassword, UserRole};
use proto::replicated::{AuthChange, Refusal};

use super::users::{Auth, ROOT, Record, Role, User};
use crate::mvcc::KeyRange;

type Touched = Result<Vec<Record>, Refusal>;

impl Auth {
    /// Makes the change, and says what to store. A refused one leaves no trace.
    ///
    /// # Errors
    /// As etcd refuses it.
    pub fn change(&mut self, change: AuthChange) -> Touched {
        match change.change.ok_or(Refusal::UnknownRequest)? {
            Change::Enable(enable) => {
                if self.enabled {
                    return Ok(Vec::new());
                }
                let root = self.users.get(ROOT).ok_or(Refusal::RootUserNotExist)?;
                if !root.has_role(ROOT) {
                    return Err(Refusal::RootRoleNotExist);
                }
                self.enabled = true;
                self.token_key = enable.token_key;
                // Not counted, as in etcd.
                Ok(vec![Record::Settings])
            }
            Change::Disable(_) => {
                if !self.enabled {
                    return Ok(Vec::new());
                }
                self.enabled = false;
                Ok(self.counted([]))
            }
            Change::UserAdd(user) => self.user_add(user),
            Change::UserDelete(name) => self.user_delete(name),
            Change::UserChangePassword(password) => self.user_change_password(password),
            Change::UserGrantRole(granted) => self.user_grant_role(granted),
            Change::UserRevokeRole(revoked) => self.user_revoke_role(revoked),
            Change::RoleAdd(name) => self.role_add(name),
            Change::RoleDelete(name) => self.role_delete(&name),
            Change::RoleGrantPermission(granted) => self.role_grant_permission(granted),
            Change::RoleRevokePermission(revoked) => self.role_revoke_permission(revoked),
        }
    }

    fn user_add(&mut self, add: UserAdd) -> Touched {
        if add.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(&add.name) {
            return Err(Refusal::UserAlreadyExists);
        }
        let user = User {
            password_hash: add.password_hash,
            no_password: add.no_password,
            roles: Vec::new(),
            changed_revision: self.revision + 1,
        };
        self.users.insert(add.name.clone(), Arc::new(user));
        Ok(self.counted([Record::User(add.name)]))
    }

    fn user_delete(&mut self, name: String) -> Touched {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(&name).ok_or(Refusal::UserNotFound)?;
        Ok(self.counted([Record::User(name)]))
    }

    fn user_change_password(&mut self, change: UserPassword) -> Touched {
        let revision = self.revision + 1;
        let user = self.user_mut(&change.name)?;
        if !user.no_password {
            user.password_hash = change.password_hash;
        }
        user.changed_revision = revision;
        Ok(self.counted([Record::User(change.name)]))
    }

    fn user_grant_role(&mut self, UserRole { user: name, role }: UserRole) -> Touched {
        let known = role == ROOT || self.roles.contains_key(&role);
        let user = self.user_mut(&name)?;
        if !known {
            return Err(Refusal::RoleNotFound);
        }
        match user.roles.binary_search(&role) {
            Ok(_) => Ok(Vec::new()),
            Err(at) => {
                user.roles.insert(at, role);
                Ok(self.counted([Record::User(name)]))
            }
        }
    }

    fn user_revoke_role(&mut self, UserRole { user: name, role }: UserRole) -> Touched {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let user = self.user_mut(&name)?;
        let at = user
            .roles
            .binary_search(&role)
            .map_err(|_| Refusal::RoleNotGranted)?;
        user.roles.remove(at);
        Ok(self.counted([Record::User(name)]))
    }

    fn role_add(&mut self, name: String) -> Touched {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(&name) {
            return Err(Refusal::RoleAlreadyExists);
        }
        self.roles.insert(name.clone(), Arc::default());
        Ok(self.counted([Record::Role(name)]))
    }

    fn role_delete(&mut self, name: &str) -> Touched {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        let mut touched = vec![Record::Role(name.to_owned())];
        for (user_name, user) in &mut self.users {
            if let Ok(at) = user.roles.binary_search_by(|role| role.as_str().cmp(name)) {
                Arc::make_mut(user).roles.remove(at);
                touched.push(Record::User(user_name.clone()));
            }
        }
        Ok(self.counted(touched))
    }

    fn role_grant_permission(&mut self, granted: RolePermission) -> Touched {
        let permission = granted.permission.ok_or(Refusal::PermissionNotGiven)?;
        let range = KeyRange::new(&permission.key, &permission.range_end);
        if permission.key.is_empty() || range.bounds().is_none() {
            return Err(Refusal::InvalidAuthManagement);
        }
        let permissions = &mut self.role_mut(&granted.role)?.permissions;
        match permissions
            .iter_mut()
            .find(|known| same_range(known, &permission))
        {
            Some(known) => known.perm_type = permission.perm_type,
            None => {
                let at = permissions.partition_point(|known| known.key <= permission.key);
                permissions.insert(at, permission);
            }
        }
        Ok(self.counted([Record::Role(granted.role)]))
    }

    fn role_revoke_permission(&mut self, revoked: RolePermission) -> Touched {
        let range = revoked.permission.unwrap_or_default();
        let permissions = &mut self.role_mut(&revoked.role)?.permissions;
        let before = permissions.len();
        permissions.retain(|known| !same_range(known, &range));
        if permissions.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        Ok(self.counted([Record::Role(revoked.role)]))
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, Refusal> {
        self.users
            .get_mut(name)
            .map(Arc::make_mut)
            .ok_or(Refusal::UserNotFound)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, Refusal> {
        self.roles
            .get_mut(name)
            .map(Arc::make_mut)
            .ok_or(Refusal::RoleNotFound)
    }

    /// A change that counts: whoever checked before has to check again.
    fn counted(&mut self, touched: impl IntoIterator<Item = Record>) -> Vec<Record> {
        self.revision += 1;
        self.forget_merged();
        touched.into_iter().chain([Record::Settings]).collect()
    }
}

impl User {
    fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|granted| granted == role)
    }
}

fn same_range(one: &Permission, other: &Permission) -> bool {
    one.key == other.key && one.range_end == other.range_end
}
