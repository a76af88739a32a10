//! Who may do what with a tenant or with the cluster: users, and the roles that are made for them.
//!
//! [`reach`] says what each role allows; here it is made so. Every step may be repeated: what is there already stays.

pub(super) mod cluster;
mod reach;

use std::collections::BTreeMap;

use proto::authpb;
use proto::authpb::UserAddOptions;
use proto::etcdserverpb as pb;

pub(super) use self::reach::{Level, Reach};
use super::client::{Client, Secret};
use super::error::CliError;
use super::{password, role};

/// Users, each with the level that it has.
pub(super) type People = BTreeMap<String, Level>;

/// A user who has to be made first.
pub(super) struct NewUser {
    pub(super) name: String,
    /// `None`: it logs in by the name in a client certificate.
    password: Option<Secret>,
}

/// All users, each with its roles.
pub(super) async fn users(client: &Client) -> Result<BTreeMap<String, Vec<String>>, CliError> {
    let listed = client
        .ask_auth(async |mut auth| auth.user_list(pb::AuthUserListRequest {}).await)
        .await
        .map_err(needs_root)?;
    let mut users = BTreeMap::new();
    for name in listed.users {
        let request = pb::AuthUserGetRequest { name: name.clone() };
        let user = client
            .ask_auth(async |mut auth| auth.user_get(request.clone()).await)
            .await?;
        users.insert(name, user.roles);
    }
    Ok(users)
}

/// Those of `users` who have a level there; of several, the highest.
pub(super) fn people(users: &BTreeMap<String, Vec<String>>, reach: &Reach) -> People {
    let level = |roles: &Vec<String>| roles.iter().filter_map(|role| reach.level(role)).max();
    users
        .iter()
        .filter_map(|(name, roles)| Some((name.clone(), level(roles)?)))
        .collect()
}

/// Asks for the passwords of those who are no users yet, before anything is changed.
pub(super) fn new_users(
    names: &[&String],
    users: &BTreeMap<String, Vec<String>>,
    no_password: bool,
) -> Result<Vec<NewUser>, CliError> {
    let mut made: Vec<NewUser> = Vec::new();
    for &name in names {
        if users.contains_key(name) || made.iter().any(|user| user.name == *name) {
            continue;
        }
        if name.is_empty() || name.contains(':') {
            return Err(CliError::usage(format!("`{name}` is no user's name"))
                .hint("a name without a colon; nothing was changed"));
        }
        let password = if no_password {
            None
        } else {
            let password = password::ask_new(name).map_err(|error| {
                CliError::failed(format!("there is no user {name} yet: {error}")).hint(format!(
                    "nothing was changed; agentctl user add {name} makes one, or --no-password for who logs in by certificate"
                ))
            })?;
            Some(password)
        };
        made.push(NewUser {
            name: name.clone(),
            password,
        });
    }
    Ok(made)
}

/// Makes users and roles where they are missing, and gives each user its level.
pub(super) async fn settle(
    client: &Client,
    reach: &Reach,
    people: &[(&String, Level)],
    users: &BTreeMap<String, Vec<String>>,
    made: &[NewUser],
    hosts: &[String],
) -> Result<(), CliError> {
    make_roles(client, reach, hosts).await?;
    for user in made {
        add(client, user).await?;
    }
    for (name, level) in people {
        let has = users.get(*name).map(Vec::as_slice).unwrap_or_default();
        set_level(client, reach, name, has, *level).await?;
    }
    Ok(())
}

async fn add(client: &Client, user: &NewUser) -> Result<(), CliError> {
    let request = pb::AuthUserAddRequest {
        name: user.name.clone(),
        password: user
            .password
            .as_ref()
            .map(|password| password.expose().to_owned())
            .unwrap_or_default(),
        options: Some(UserAddOptions {
            no_password: user.password.is_none(),
        }),
        ..Default::default()
    };
    client
        .change_auth(async |mut auth| auth.user_add(request.clone()).await)
        .await
        .map(drop)
}

/// Makes the roles of a reach, with exactly what each allows.
async fn make_roles(client: &Client, reach: &Reach, hosts: &[String]) -> Result<(), CliError> {
    let known = roles(client).await?;
    for level in Level::ALL {
        let name = reach.role(level);
        if name == "root" {
            continue;
        }
        let is_new = !known.contains(&name);
        if is_new {
            let request = pb::AuthRoleAddRequest { name: name.clone() };
            client
                .change_auth(async |mut auth| auth.role_add(request.clone()).await)
                .await?;
        }
        let before = if is_new {
            Vec::new()
        } else {
            role::read(client, &name).await?.perm
        };
        let wanted = reach.permissions(level, hosts);
        for permission in wanted.iter().filter(|wanted| !before.contains(wanted)) {
            grant_permission(client, &name, permission).await?;
        }
        let is_wanted = |permission: &authpb::Permission| {
            wanted
                .iter()
                .any(|wanted| wanted.key == permission.key && wanted.range_end == permission.range_end)
        };
        for permission in before.iter().filter(|permission| !is_wanted(permission)) {
            revoke_permission(client, &name, permission).await?;
        }
    }
    Ok(())
}

pub(super) async fn roles(client: &Client) -> Result<Vec<String>, CliError> {
    let listed = client
        .ask_auth(async |mut auth| auth.role_list(pb::AuthRoleListRequest {}).await)
        .await
        .map_err(needs_root)?;
    Ok(listed.roles)
}

async fn grant_permission(
    client: &Client,
    role: &str,
    permission: &authpb::Permission,
) -> Result<(), CliError> {
    let request = pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(permission.clone()),
    };
    client
        .change_auth(async |mut auth| auth.role_grant_permission(request.clone()).await)
        .await
        .map(drop)
}

async fn revoke_permission(
    client: &Client,
    role: &str,
    permission: &authpb::Permission,
) -> Result<(), CliError> {
    let request = pb::AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    };
    client
        .change_auth(async |mut auth| auth.role_revoke_permission(request.clone()).await)
        .await
        .map(drop)
}

/// Deletes the roles of a tenant; whoever had one keeps what other roles allow.
pub(super) async fn delete_roles(client: &Client, tenant: &Reach) -> Result<(), CliError> {
    let known = roles(client).await?;
    for role in Level::ALL.map(|level| tenant.role(level)) {
        if known.contains(&role) {
            let request = pb::AuthRoleDeleteRequest { role };
            client
                .change_auth(async |mut auth| auth.role_delete(request.clone()).await)
                .await?;
        }
    }
    Ok(())
}

/// Gives a user one level there, in the place of any other.
async fn set_level(
    client: &Client,
    reach: &Reach,
    user: &str,
    has: &[String],
    level: Level,
) -> Result<(), CliError> {
    let role = reach.role(level);
    if !has.contains(&role) {
        let request = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.clone(),
        };
        client
            .change_auth(async |mut auth| auth.user_grant_role(request.clone()).await)
            .await?;
    }
    let others: Vec<String> = has.iter().filter(|has| **has != role).cloned().collect();
    take_away(client, reach, user, &others).await.map(drop)
}

/// Takes every level of the reach from a user; says which of its roles those were.
pub(super) async fn take_away(
    client: &Client,
    reach: &Reach,
    user: &str,
    has: &[String],
) -> Result<Vec<String>, CliError> {
    let mut taken = Vec::new();
    for role in has.iter().filter(|role| reach.level(role).is_some()) {
        let request = pb::AuthUserRevokeRoleRequest {
            name: user.to_owned(),
            role: role.clone(),
        };
        client
            .change_auth(async |mut auth| auth.user_revoke_role(request.clone()).await)
            .await?;
        taken.push(role.clone());
    }
    Ok(taken)
}

/// Roles hold nobody while nobody has to log in.
pub(super) async fn warn_without_auth(client: &Client) {
    let asked = client.ask_auth(async |mut auth| auth.auth_status(pb::AuthStatusRequest {}).await);
    if asked.await.is_ok_and(|status| !status.enabled) {
        eprintln!("nobody has to log in yet, so that roles keep nobody out: agentctl auth enable");
    }
}

fn needs_root(error: CliError) -> CliError {
    if error.is_permission_denied() {
        return error.hint("only root makes and reads users and roles, those of tenants too");
    }
    error
}
