//! `agentctl cluster grant|revoke|people`: who may do what with the cluster as a whole.

use clap::Args;
use serde_json::json;

use super::{Level, NewUser, People, Reach};
use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::columns::columns;
use crate::cli::format::{self, Format};

#[derive(Args, Debug)]
#[command(
    after_help = "An admin is etcd's root. An operator writes every document, and with that decides what runs as\n\
                  root on the hosts; a viewer reads them. Neither makes users, tokens or members.\n\n\
                  Example:\n  agentctl cluster grant eva operator"
)]
pub(in crate::cli) struct GrantArgs {
    /// The user; made, if there is none of the name
    #[arg(id = "name", value_name = "USER")]
    user: String,
    /// What the user may do
    #[arg(value_enum)]
    level: Level,
    /// A user that is made has no password: it logs in by the name in a client certificate
    #[arg(long)]
    no_password: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl cluster revoke eva")]
pub(in crate::cli) struct RevokeArgs {
    /// The user, who stays a user
    #[arg(id = "name", value_name = "USER")]
    user: String,
}

impl GrantArgs {
    pub(in crate::cli) async fn run(self, session: &Session) -> Result<(), CliError> {
        let people = [(&self.user, self.level)];
        let made = grant(session, &Reach::Cluster, &people, &[], self.no_password).await?;
        super::warn_without_auth(&session.client).await;
        say(session, &Reach::Cluster, &self.user, self.level, &made)
    }
}

impl RevokeArgs {
    pub(in crate::cli) async fn run(self, session: &Session) -> Result<(), CliError> {
        revoke(session, &Reach::Cluster, &self.user).await
    }
}

/// `agentctl cluster people`.
pub(in crate::cli) async fn show(session: &Session) -> Result<(), CliError> {
    let users = super::users(&session.client).await?;
    let people = super::people(&users, &Reach::Cluster);
    if session.format == Some(Format::Json) {
        return format::write_json(&json!({"people": as_json(&people)}));
    }
    format::write(table(&people).as_bytes())
}

/// Makes users and roles where they are missing, and gives each user its level. Returns who was made.
pub(in crate::cli) async fn grant(
    session: &Session,
    reach: &Reach,
    people: &[(&String, Level)],
    hosts: &[String],
    no_password: bool,
) -> Result<Vec<NewUser>, CliError> {
    let client = &session.client;
    let users = super::users(client).await?;
    let names: Vec<&String> = people.iter().map(|(name, _)| *name).collect();
    let made = super::new_users(&names, &users, no_password)?;
    super::settle(client, reach, people, &users, &made, hosts).await?;
    Ok(made)
}

pub(in crate::cli) async fn revoke(session: &Session, reach: &Reach, user: &str) -> Result<(), CliError> {
    let client = &session.client;
    let users = super::users(client).await?;
    let has = users.get(user).ok_or_else(|| {
        CliError::failed(format!("there is no user {user}")).hint("`agentctl user list` shows them")
    })?;
    let taken = super::take_away(client, reach, user, has).await?;
    if session.format == Some(Format::Json) {
        return format::write_json(&json!({"user": user, "taken": taken}));
    }
    let text = match taken.as_slice() {
        [] => format!("{user} had no part in {}\n", reach.words()),
        taken => format!(
            "{user} has no part in {} any more ({})\n",
            reach.words(),
            taken.join(", ")
        ),
    };
    format::write(text.as_bytes())
}

pub(in crate::cli) fn say(
    session: &Session,
    reach: &Reach,
    user: &str,
    level: Level,
    made: &[NewUser],
) -> Result<(), CliError> {
    if session.format == Some(Format::Json) {
        return format::write_json(&json!({"user": user, "level": level.word(), "role": reach.role(level)}));
    }
    let made = if made.is_empty() { "" } else { ", a new user," };
    let text = format!("{user}{made} is {} of {}\n", level.word(), reach.words());
    format::write(text.as_bytes())
}

pub(in crate::cli) fn table(people: &People) -> String {
    if people.is_empty() {
        return "nobody\n".to_owned();
    }
    let rows: Vec<_> = people
        .iter()
        .map(|(name, level)| [name.clone(), level.word().to_owned()])
        .collect();
    columns(["USER", "MAY"], &rows)
}

pub(in crate::cli) fn as_json(people: &People) -> serde_json::Value {
    let all = people
        .iter()
        .map(|(name, level)| json!({"user": name, "level": level.word()}));
    all.collect()
}
