//! `agentctl role`: what those who have a role may read and write.

use clap::{Args, Subcommand, ValueEnum};
use proto::authpb;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;

use super::client::Client;
use super::error::CliError;
use super::format::{fields, json};
use super::range::{KeyRange, RangeArgs};
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// Make a role, without permissions yet
    #[command(after_help = "Example:\n  agentctl role add shop")]
    Add(NameArgs),
    /// Show a role's permissions
    #[command(after_help = "Example:\n  agentctl role get shop")]
    Get(NameArgs),
    /// All roles
    #[command(after_help = "Example:\n  agentctl role list")]
    List,
    /// Delete a role; users who had it lose what it allowed
    #[command(after_help = "Example:\n  agentctl role delete shop")]
    Delete(NameArgs),
    /// Allow a role to read, to write, or both
    #[command(
        after_help = "Examples:\n  agentctl role grant-permission shop readwrite /tenants/shop/ --prefix\n  \
                      agentctl role grant-permission shop read greeting"
    )]
    GrantPermission(GrantArgs),
    /// Take a permission back; its range must be named as it was granted
    #[command(after_help = "Example:\n  agentctl role revoke-permission shop /tenants/shop/ --prefix")]
    RevokePermission(RevokeArgs),
}

#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,
}

#[derive(Args, Debug)]
pub(super) struct GrantArgs {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,
    /// What it may do there
    #[arg(value_name = "PERMISSION", value_enum)]
    permission: Permission,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Permission {
    Read,
    Write,
    Readwrite,
}

impl RoleCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Add(args) => add(session, args.role).await,
            Self::Get(args) => get(session, args.role).await,
            Self::List => list(session).await,
            Self::Delete(args) => delete(session, args.role).await,
            Self::GrantPermission(args) => args.run(session).await,
            Self::RevokePermission(args) => args.run(session).await,
        }
    }
}

async fn add(session: &Session, role: String) -> Result<(), CliError> {
    let line = format!("Role {role} created");
    let request = pb::AuthRoleAddRequest { name: role };
    let answer = session
        .client
        .change_auth(async |mut auth| auth.role_add(request.clone()).await)
        .await?;
    session.show_done(&answer, answer.header.as_ref(), &line)
}

async fn get(session: &Session, role: String) -> Result<(), CliError> {
    let answer = read(&session.client, &role).await?;
    session.show(&answer, json::role_get, fields::role_get, |out, answer, _| {
        out.extend_from_slice(&describe(&role, &answer.perm));
    })
}

pub(super) async fn read(client: &Client, role: &str) -> Result<pb::AuthRoleGetResponse, CliError> {
    let request = pb::AuthRoleGetRequest {
        role: role.to_owned(),
    };
    client
        .ask_auth(async |mut auth| auth.role_get(request.clone()).await)
        .await
}

async fn list(session: &Session) -> Result<(), CliError> {
    let answer = session
        .client
        .ask_auth(async |mut auth| auth.role_list(pb::AuthRoleListRequest {}).await)
        .await?;
    let lines: String = answer.roles.iter().map(|role| format!("{role}\n")).collect();
    session.show_names(
        &answer,
        answer.header.as_ref(),
        ("roles", "Roles"),
        &answer.roles,
        lines.as_bytes(),
    )
}

async fn delete(session: &Session, role: String) -> Result<(), CliError> {
    let line = format!("Role {role} deleted");
    let request = pb::AuthRoleDeleteRequest { role };
    let answer = session
        .client
        .change_auth(async |mut auth| auth.role_delete(request.clone()).await)
        .await?;
    session.show_done(&answer, answer.header.as_ref(), &line)
}

impl GrantArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let range = self.range.range()?;
        let kind = match self.permission {
            Permission::Read => Type::Read,
            Permission::Write => Type::Write,
            Permission::Readwrite => Type::Readwrite,
        };
        let line = format!("Role {} updated", self.role);
        let request = pb::AuthRoleGrantPermissionRequest {
            name: self.role,
            perm: Some(authpb::Permission {
                perm_type: kind.into(),
                key: range.key,
                range_end: range.range_end,
            }),
        };
        let answer = session
            .client
            .change_auth(async |mut auth| auth.role_grant_permission(request.clone()).await)
            .await?;
        session.show_done(&answer, answer.header.as_ref(), &line)
    }
}

impl RevokeArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let range = self.range.range()?;
        let line = revoked(&self.role, &range);
        let request = pb::AuthRoleRevokePermissionRequest {
            role: self.role,
            key: range.key,
            range_end: range.range_end,
        };
        let answer = session
            .client
            .change_auth(async |mut auth| auth.role_revoke_permission(request.clone()).await)
            .await?;
        session.show_done(&answer, answer.header.as_ref(), &line)
    }
}

fn revoked(role: &str, range: &KeyRange) -> String {
    let key = String::from_utf8_lossy(&range.key);
    match range.range_end.as_ref() {
        b"" => format!("Permission of key {key} is revoked from role {role}"),
        b"\0" => format!("Permission of range [{key}, <open ended> is revoked from role {role}"),
        end => format!(
            "Permission of range [{key}, {}) is revoked from role {role}",
            String::from_utf8_lossy(end)
        ),
    }
}

/// etcdctl's way: what may be read, then what may be written.
pub(super) fn describe(role: &str, permissions: &[authpb::Permission]) -> Vec<u8> {
    let mut out = format!("Role {role}\n").into_bytes();
    let kinds = [("KV Read:\n", Type::Read), ("KV Write:\n", Type::Write)];
    for (heading, kind) in kinds {
        out.extend_from_slice(heading.as_bytes());
        let of_kind = |permission: &&authpb::Permission| {
            permission.perm_type() == kind || permission.perm_type() == Type::Readwrite
        };
        for permission in permissions.iter().filter(of_kind) {
            out.push(b'\t');
            describe_range(&mut out, permission);
            out.push(b'\n');
        }
    }
    out
}

fn describe_range(out: &mut Vec<u8>, permission: &authpb::Permission) {
    let (key, end) = (&permission.key, permission.range_end.as_ref());
    match end {
        b"" => out.extend_from_slice(key),
        b"\0" => {
            out.push(b'[');
            out.extend_from_slice(key);
            out.extend_from_slice(b", <open ended>");
        }
        end => {
            out.push(b'[');
            out.extend_from_slice(key);
            out.extend_from_slice(b", ");
            out.extend_from_slice(end);
            out.push(b')');
            if KeyRange::prefix(key).range_end.as_ref() == end {
                out.extend_from_slice(b" (prefix ");
                out.extend_from_slice(key);
                out.push(b')');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn permission(kind: Type, key: &'static str, end: &'static str) -> authpb::Permission {
        authpb::Permission {
            perm_type: kind.into(),
            key: key.into(),
            range_end: end.into(),
        }
    }

    #[test]
    fn a_role_is_described_as_etcdctl_does() {
        let permissions = [
            permission(Type::Write, "bar", "baz"),
            permission(Type::Read, "foo", ""),
            permission(Type::Readwrite, "kk", "\0"),
            permission(Type::Readwrite, "pre", "prf"),
        ];
        let text = String::from_utf8(describe("shop", &permissions)).unwrap();
        expect![[r"
            Role shop
            KV Read:
            	foo
            	[kk, <open ended>
            	[pre, prf) (prefix pre)
            KV Write:
            	[bar, baz)
            	[kk, <open ended>
            	[pre, prf) (prefix pre)
        "]]
        .assert_eq(&text);
    }

    #[test]
    fn what_was_revoked_is_said_as_etcdctl_does() {
        let range = |key: &'static str, end: &'static str| KeyRange {
            key: key.into(),
            range_end: end.into(),
        };
        assert_eq!(
            revoked("r", &range("foo", "")),
            "Permission of key foo is revoked from role r"
        );
        assert_eq!(
            revoked("r", &range("a", "b")),
            "Permission of range [a, b) is revoked from role r"
        );
        assert_eq!(
            revoked("r", &range("a", "\0")),
            "Permission of range [a, <open ended> is revoked from role r"
        );
    }
}
