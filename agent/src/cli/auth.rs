//! `agentctl auth`: must users log in?

use clap::Subcommand;
use proto::etcdserverpb as pb;

use super::error::CliError;
use super::format::{fields, json};
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum AuthCommand {
    /// From now on everybody has to log in; needs a user root with the role root
    #[command(
        after_help = "Example:\n  agentctl user add root\n  agentctl user grant-role root root\n  agentctl auth enable"
    )]
    Enable,
    /// From now on nobody has to; users and roles are kept
    #[command(after_help = "Example:\n  agentctl --user root auth disable")]
    Disable,
    /// Is it on, and how often were users, roles or permissions changed?
    #[command(after_help = "Example:\n  agentctl auth status")]
    Status,
}

impl AuthCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = &session.client;
        match self {
            Self::Enable => {
                let answer = client
                    .change_auth(async |mut auth| auth.auth_enable(pb::AuthEnableRequest {}).await)
                    .await?;
                session.show_done(&answer, answer.header.as_ref(), "Authentication Enabled")
            }
            Self::Disable => {
                let answer = client
                    .change_auth(async |mut auth| auth.auth_disable(pb::AuthDisableRequest {}).await)
                    .await?;
                session.show_done(&answer, answer.header.as_ref(), "Authentication Disabled")
            }
            Self::Status => {
                let answer = client
                    .ask_auth(async |mut auth| auth.auth_status(pb::AuthStatusRequest {}).await)
                    .await?;
                let line = format!(
                    "Authentication Status: {}\nAuthRevision: {}",
                    answer.enabled, answer.auth_revision
                );
                session.show_line(&answer, json::auth_status, fields::auth_status, &line)
            }
        }
    }
}
