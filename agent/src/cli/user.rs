//! `agentctl user`: who may log in, and with which roles.

use clap::{ArgAction, Args, Subcommand};
use proto::authpb::UserAddOptions;
use proto::etcdserverpb as pb;

use super::client::Secret;
use super::error::CliError;
use super::password;
use super::role;
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make a user; asks for the password twice
    #[command(
        after_help = "Examples:\n  agentctl user add eva\n  agentctl user add eva:secret\n  \
                            agentctl user add eva --interactive=false < password-file\n  \
                            agentctl user add host-a --no-password"
    )]
    Add(AddArgs),
    /// Show a user's roles
    #[command(after_help = "Example:\n  agentctl user get eva --detail")]
    Get(GetArgs),
    /// All users
    #[command(after_help = "Example:\n  agentctl user list")]
    List,
    /// Delete a user
    #[command(after_help = "Example:\n  agentctl user delete eva")]
    Delete(NameArgs),
    /// Change a user's password; asks for the new one twice
    #[command(after_help = "Example:\n  agentctl user passwd eva")]
    Passwd(PasswdArgs),
    /// Give a user a role
    #[command(after_help = "Example:\n  agentctl user grant-role eva shop")]
    GrantRole(RoleArgs),
    /// Take a role from a user
    #[command(after_help = "Example:\n  agentctl user revoke-role eva shop")]
    RevokeRole(RoleArgs),
}

// The id `user` is the global option's.
#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The user
    #[arg(id = "name", value_name = "USER")]
    user: String,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// The user; with :PASSWORD nobody is asked
    #[arg(id = "name", value_name = "USER[:PASSWORD]")]
    user: String,
    /// The password, which others on this machine may see
    #[arg(long, value_name = "PASSWORD", conflicts_with = "no_password")]
    new_user_password: Option<String>,
    /// A user without a password, who logs in by the name in a client certificate
    #[arg(long)]
    no_password: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args, Debug)]
pub(super) struct PasswdArgs {
    /// The user
    #[arg(id = "name", value_name = "USER")]
    user: String,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args, Debug)]
struct HowArgs {
    /// Ask at the terminal; with =false the password is the first line of standard input
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true)]
    interactive: bool,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The user
    #[arg(id = "name", value_name = "USER")]
    user: String,
    /// Show what the roles allow, too
    #[arg(long)]
    detail: bool,
}

#[derive(Args, Debug)]
pub(super) struct RoleArgs {
    /// The user
    #[arg(id = "name", value_name = "USER")]
    user: String,
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,
}

impl UserCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Add(args) => args.run(session).await,
            Self::Get(args) => args.run(session).await,
            Self::List => list(session).await,
            Self::Delete(args) => delete(session, args.user).await,
            Self::Passwd(args) => args.run(session).await,
            Self::GrantRole(args) => args.grant(session).await,
            Self::RevokeRole(args) => args.revoke(session).await,
        }
    }
}

impl HowArgs {
    fn password(&self, user: &str) -> Result<Secret, CliError> {
        if self.interactive {
            password::ask_new(user)
        } else {
            password::from_stdin()
        }
    }
}

impl AddArgs {
    /// Reads the password, from the terminal or standard input too.
    fn request(self) -> Result<pb::AuthUserAddRequest, CliError> {
        let (name, password) = if self.no_password {
            (self.user, Secret::new(""))
        } else if let Some(password) = self.new_user_password {
            (self.user, Secret::new(password))
        } else if let Some((name, password)) = self.user.split_once(':') {
            (name.to_owned(), Secret::new(password))
        } else {
            let password = self.how.password(&self.user)?;
            (self.user, password)
        };
        if name.is_empty() {
            return Err(CliError::usage("the user's name is empty"));
        }
        Ok(pb::AuthUserAddRequest {
            name,
            password: password.expose().to_owned(),
            options: Some(UserAddOptions {
                no_password: self.no_password,
            }),
            ..Default::default()
        })
    }

    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = self.request()?;
        let answer = session
            .client
            .change_auth(async |mut auth| auth.user_add(request.clone()).await)
            .await?;
        session.show_done(
            &answer,
            answer.header.as_ref(),
            &format!("User {} created", request.name),
        )
    }
}

impl PasswdArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let password = self.how.password(&self.user)?;
        let request = pb::AuthUserChangePasswordRequest {
            name: self.user,
            password: password.expose().to_owned(),
            ..Default::default()
        };
        let answer = session
            .client
            .change_auth(async |mut auth| auth.user_change_password(request.clone()).await)
            .await?;
        session.show_done(&answer, answer.header.as_ref(), "Password updated")
    }
}

impl GetArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let request = pb::AuthUserGetRequest {
            name: self.user.clone(),
        };
        let answer = session
            .client
            .ask_auth(async |mut auth| auth.user_get(request.clone()).await)
            .await?;
        let mut text = format!("User: {}\n", self.user).into_bytes();
        if self.detail {
            for name in &answer.roles {
                // The role root has no permissions to show: it may do everything, and need not even be stored.
                text.push(b'\n');
                if name == "root" {
                    text.extend_from_slice(b"Role root\nEverything\n");
                } else {
                    text.extend_from_slice(&role::describe(
                        name,
                        &role::read(&session.client, name).await?.perm,
                    ));
                }
            }
        } else {
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            text.extend_from_slice(format!("Roles:{roles}\n").as_bytes());
        }
        session.show_names(
            &answer,
            answer.header.as_ref(),
            ("roles", "Roles"),
            &answer.roles,
            &text,
        )
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let answer = session
        .client
        .ask_auth(async |mut auth| auth.user_list(pb::AuthUserListRequest {}).await)
        .await?;
    let lines: String = answer.users.iter().map(|user| format!("{user}\n")).collect();
    session.show_names(
        &answer,
        answer.header.as_ref(),
        ("users", "Users"),
        &answer.users,
        lines.as_bytes(),
    )
}

async fn delete(session: &Session, user: String) -> Result<(), CliError> {
    let line = format!("User {user} deleted");
    let request = pb::AuthUserDeleteRequest { name: user };
    let answer = session
        .client
        .change_auth(async |mut auth| auth.user_delete(request.clone()).await)
        .await?;
    session.show_done(&answer, answer.header.as_ref(), &line)
}

impl RoleArgs {
    async fn grant(self, session: &Session) -> Result<(), CliError> {
        let line = format!("Role {} is granted to user {}", self.role, self.user);
        let request = pb::AuthUserGrantRoleRequest {
            user: self.user,
            role: self.role,
        };
        let answer = session
            .client
            .change_auth(async |mut auth| auth.user_grant_role(request.clone()).await)
            .await?;
        session.show_done(&answer, answer.header.as_ref(), &line)
    }

    async fn revoke(self, session: &Session) -> Result<(), CliError> {
        let line = format!("Role {} is revoked from user {}", self.role, self.user);
        let request = pb::AuthUserRevokeRoleRequest {
            name: self.user,
            role: self.role,
        };
        let answer = session
            .client
            .change_auth(async |mut auth| auth.user_revoke_role(request.clone()).await)
            .await?;
        session.show_done(&answer, answer.header.as_ref(), &line)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        add: AddArgs,
    }

    fn request(args: &[&str]) -> (String, String, bool) {
        let line = Line::try_parse_from(["add"].iter().chain(args)).unwrap();
        let request = line.add.request().unwrap();
        let no_password = request.options.is_some_and(|options| options.no_password);
        (request.name, request.password, no_password)
    }

    #[test]
    fn passwords_come_from_where_they_are_given() {
        assert_eq!(request(&["eva:a:b"]), ("eva".into(), "a:b".into(), false));
        assert_eq!(
            request(&["eva", "--new-user-password", "pw"]),
            ("eva".into(), "pw".into(), false)
        );
        assert_eq!(
            request(&["eva", "--no-password"]),
            ("eva".into(), String::new(), true)
        );
    }
}
