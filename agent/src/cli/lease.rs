//! `agentctl lease`.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::etcdserverpb as pb;
use tokio::time::sleep;

use super::Session;
use super::error::CliError;
use super::format::{fields, json};

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// Make a lease; prints its id
    #[command(after_help = "Example:\n  agentctl lease grant 60")]
    Grant {
        /// Seconds it lives without being renewed
        #[arg(value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..))]
        ttl: i64,
        /// Id it shall have (hexadecimal); the cluster chooses one otherwise
        #[arg(long, value_name = "ID", value_parser = parse_id, default_value = "0", hide_default_value = true)]
        id: i64,
    },
    /// End a lease now; its keys go with it
    #[command(after_help = "Example:\n  agentctl lease revoke 32695410dcc0ca06")]
    Revoke {
        /// The lease (hexadecimal)
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: i64,
    },
    /// How many seconds a lease has left
    #[command(after_help = "Example:\n  agentctl lease timetolive 32695410dcc0ca06 --keys")]
    Timetolive {
        /// The lease (hexadecimal)
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: i64,
        /// Show its keys, too
        #[arg(long)]
        keys: bool,
    },
    /// All leases
    #[command(after_help = "Example:\n  agentctl lease list")]
    List,
    /// Renew a lease until Ctrl-C
    #[command(after_help = "Example:\n  agentctl lease keep-alive 32695410dcc0ca06")]
    KeepAlive(KeepAliveArgs),
}

#[derive(Args, Debug)]
pub(super) struct KeepAliveArgs {
    /// The lease (hexadecimal)
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: i64,
    /// Renew it once only
    #[arg(long)]
    once: bool,
}

/// A lease's id, in hexadecimal as everything shows it.
pub(super) fn parse_id(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16)
        .ok()
        .filter(|id| *id >= 0)
        .ok_or_else(|| format!("`{text}` is not a lease id; it looks like 32695410dcc0ca06"))
}

impl LeaseCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = &session.client;
        match self {
            Self::Grant { ttl, id } => {
                let request = pb::LeaseGrantRequest { ttl, id };
                let granted = client.lease_grant(request).await?;
                session.show_line(
                    &granted,
                    json::lease_grant,
                    fields::lease_grant,
                    &grant_text(&granted),
                )
            }
            Self::Revoke { id } => {
                let revoked = client.lease_revoke(id).await?;
                let line = format!("lease {id:016x} revoked");
                session.show_line(&revoked, json::lease_revoke, fields::lease_revoke, &line)
            }
            Self::Timetolive { id, keys } => {
                let request = pb::LeaseTimeToLiveRequest { id, keys };
                let answer = client.lease_time_to_live(request).await?;
                let line = time_to_live_text(&answer, keys);
                session.show_line(
                    &answer,
                    json::lease_time_to_live,
                    fields::lease_time_to_live,
                    &line,
                )
            }
            Self::List => {
                let answer = client.leases().await?;
                session.show_line(&answer, json::leases, fields::leases, &list_text(&answer))
            }
            Self::KeepAlive(args) => args.run(session).await,
        }
    }
}

impl KeepAliveArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        loop {
            let answer = session.client.lease_keep_alive(self.id).await?;
            if answer.ttl <= 0 {
                return Err(
                    CliError::failed(format!("lease {:016x} expired or revoked", self.id))
                        .hint("make another: `agentctl lease grant SECONDS`"),
                );
            }
            let line = format!("lease {:016x} keepalived with TTL({})", answer.id, answer.ttl);
            session.show_line(&answer, json::lease_keep_alive, fields::lease_keep_alive, &line)?;
            if self.once {
                return Ok(());
            }
            // Two renewals may be lost before the third comes too late.
            let third = Duration::from_millis(answer.ttl.unsigned_abs().saturating_mul(1_000) / 3);
            sleep(third).await;
        }
    }
}

fn grant_text(answer: &pb::LeaseGrantResponse) -> String {
    format!("lease {:016x} granted with TTL({}s)", answer.id, answer.ttl)
}

fn time_to_live_text(answer: &pb::LeaseTimeToLiveResponse, with_keys: bool) -> String {
    if answer.ttl < 0 {
        return format!("lease {:016x} already expired", answer.id);
    }
    let keys: Vec<_> = answer
        .keys
        .iter()
        .map(|key| String::from_utf8_lossy(key))
        .collect();
    let keys = if with_keys {
        format!(", attached keys([{}])", keys.join(" "))
    } else {
        String::new()
    };
    format!(
        "lease {:016x} granted with TTL({}s), remaining({}s){keys}",
        answer.id, answer.granted_ttl, answer.ttl
    )
}

fn list_text(answer: &pb::LeaseLeasesResponse) -> String {
    let ids = answer.leases.iter().map(|lease| format!("\n{:016x}", lease.id));
    format!("found {} leases{}", answer.leases.len(), ids.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(parse_id("43f3a1fc65cf6d0e"), Ok(0x43f3_a1fc_65cf_6d0e));
        for wrong in ["", "-1", "xyz", "ffffffffffffffff", "0x1"] {
            assert!(parse_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_are_etcdctls() {
        let keys = vec!["a".into(), "b".into()];
        let alive = pb::LeaseTimeToLiveResponse {
            id: 31,
            ttl: 58,
            granted_ttl: 60,
            keys,
            ..Default::default()
        };
        assert_eq!(
            time_to_live_text(&alive, true),
            "lease 000000000000001f granted with TTL(60s), remaining(58s), attached keys([a b])"
        );
        let dead = pb::LeaseTimeToLiveResponse {
            id: 31,
            ttl: -1,
            ..Default::default()
        };
        assert_eq!(
            time_to_live_text(&dead, false),
            "lease 000000000000001f already expired"
        );
        let leases = vec![pb::LeaseStatus { id: 1 }, pb::LeaseStatus { id: 2 }];
        assert_eq!(
            list_text(&pb::LeaseLeasesResponse {
                leases,
                ..Default::default()
            }),
            "found 2 leases\n0000000000000001\n0000000000000002"
        );
    }
}
