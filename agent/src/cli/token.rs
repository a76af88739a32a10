//! `agentctl token`: tokens by which hosts join.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::agent::v1::{
    CreateTokenRequest, JoinTicket, ListTokensRequest, RevokeTokenRequest, TokenInfo, token_info,
};
use sha2::{Digest, Sha256};

use super::Session;
use super::duration;
use super::error::CliError;
use super::format;
use super::format::columns::columns;
use super::trust::SiteHost;
use crate::join::ticket;

const SECRET_BYTES: usize = 32;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token by which one host may join
    Create(CreateArgs),
    /// Show the tokens that were made, and what became of them
    #[command(after_help = "Example:\n  agentctl token list")]
    List,
    /// Make a token useless
    #[command(after_help = "Example:\n  agentctl token revoke 9f2c4e1a0b3d5f67")]
    Revoke {
        /// As `agentctl token list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Args, Debug)]
#[command(
    after_help = "On the new host: agent join TOKEN. The token is good for that host, once; it pins the cluster's authority, so that\n\
                  the host shows it to nobody else. With --replace the member of that name, which is lost, is removed first.\n\n\
                  Examples:\n  agentctl token create --host liquidweb --address 67.0.0.30\n  \
                  agentctl token create --host ovh --replace --ttl 2h"
)]
pub(super) struct CreateArgs {
    /// The name that the host will have
    #[arg(long, value_name = "NAME")]
    host: String,
    /// Where the others and clients will reach it [default: where they reached the member of that name]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Where it is reached by the other members
    #[arg(long, value_name = "PORT", default_value_t = 2380)]
    peer_port: u16,
    /// Where it is reached by clients
    #[arg(long, value_name = "PORT", default_value_t = 2379)]
    client_port: u16,
    /// How long the token is good
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration::parse)]
    ttl: Duration,
    /// The member of that name is lost for good: it is removed when the new host comes
    #[arg(long)]
    replace: bool,
}

impl TokenCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Create(args) => args.run(session).await,
            Self::List => {
                let listed = session.client.list_tokens(ListTokensRequest {}).await?;
                format::write(table(&listed.tokens).as_bytes())
            }
            Self::Revoke { id } => {
                let id = u64::from_str_radix(&id, 16).map_err(|_| {
                    CliError::usage(format!("`{id}` is no token's id"))
                        .hint("`agentctl token list` shows them: not the token itself")
                })?;
                session.client.revoke_token(RevokeTokenRequest { id }).await?;
                format::write(format!("token {id:016x} is revoked\n").as_bytes())
            }
        }
    }
}

impl CreateArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let (peer_url, client_url) = self.urls(session).await?;
        let secret: [u8; SECRET_BYTES] = rand::random();
        let made = session
            .client
            .create_token(CreateTokenRequest {
                host: self.host.clone(),
                peer_url,
                client_url,
                ttl_seconds: self.ttl.as_secs(),
                replace: self.replace,
                secret_sha256: Sha256::digest(secret).to_vec().into(),
            })
            .await?;
        let text = ticket::write(&JoinTicket {
            cluster_id: made.cluster_id,
            token_id: made.id,
            ca_sha256: made.ca_sha256,
            secret: secret.to_vec().into(),
            host: self.host,
            endpoints: made.endpoints,
        });
        format::write(format!("{text}\n").as_bytes())
    }

    async fn urls(&self, session: &Session) -> Result<(String, String), CliError> {
        if let Some(address) = &self.address {
            let host = SiteHost::parse(&format!("{}={address}", self.host)).map_err(CliError::usage)?;
            return Ok((host.url(self.peer_port), host.url(self.client_port)));
        }
        let members = session.client.member_list().await?.members.into_iter();
        let mut known = members.filter(|member| member.name == self.host);
        let urls = known.next().and_then(|member| {
            let peer = member.peer_ur_ls.into_iter().next()?;
            let mut clients = member.client_ur_ls.into_iter();
            Some((peer, clients.find(|url| url.starts_with("https://"))?))
        });
        urls.ok_or_else(|| {
            CliError::usage(format!("no member {} says where it is reached", self.host))
                .hint("say where the host will be: --address ADDRESS")
        })
    }
}

fn table(tokens: &[TokenInfo]) -> String {
    if tokens.is_empty() {
        return "no join tokens\n".to_owned();
    }
    let row = |token: &TokenInfo| {
        let state = match token.state() {
            token_info::State::Open => "open",
            token_info::State::Used => "used",
            token_info::State::Expired => "expired",
            token_info::State::Revoked => "revoked",
        };
        let left = match token.state() {
            token_info::State::Open => format!("{} min", token.seconds_left.div_ceil(60)),
            _ => "-".to_owned(),
        };
        let note = if token.replace { "replaces" } else { "" };
        [
            format!("{:016x}", token.id),
            token.host.clone(),
            state.to_owned(),
            left,
            note.to_owned(),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    columns(["ID", "HOST", "STATE", "LEFT", ""], &rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn tokens_are_listed_without_their_secrets() {
        let token = |id, host: &str, state: token_info::State, replace| TokenInfo {
            id,
            host: host.to_owned(),
            state: state.into(),
            seconds_left: 100,
            replace,
        };
        let tokens = [
            token(1, "ovh", token_info::State::Open, true),
            token(2, "ionos", token_info::State::Used, false),
        ];
        expect![[r#"
            ID                HOST   STATE  LEFT
            0000000000000001  ovh    open   2 min  replaces
            0000000000000002  ionos  used   -
        "#]]
        .assert_eq(&table(&tokens));
    }
}
