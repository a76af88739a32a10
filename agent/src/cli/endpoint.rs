//! `agentctl endpoint`: how the members are.
//!
//! `-w simple` and `-w json` are etcdctl's and look at the endpoints given; without `-w`, or with `-w table`, `status`
//! shows the whole cluster, host by host.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use futures::StreamExt;
use futures::stream;
use proto::etcdserverpb as pb;
use serde_json::{Value, json};

use super::Session;
use super::cluster::{self, Overview};
use super::error::CliError;
use super::format::columns::{columns, size};
use super::format::fields::{self, Fields};
use super::format::{self, Format, json};

/// How many members are asked at once.
const CONCURRENCY: usize = 8;
/// What etcdctl reads to see whether a member can answer.
const HEALTH_KEY: &[u8] = b"health";

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// Each member's role, version, round-trip time and Raft position
    #[command(
        after_help = "-w simple, json and fields show etcdctl's figures of the endpoints given; a size is in bytes \
                      unless it has a unit.\n\nExamples:\n  agentctl endpoint status\n  \
                      agentctl endpoint status --cluster -w json"
    )]
    Status(WhichArgs),
    /// Can each member answer?
    #[command(after_help = "Example:\n  agentctl endpoint health --cluster")]
    Health(WhichArgs),
    /// A checksum of each member's store: equal on all at one revision
    #[command(after_help = "Example:\n  agentctl endpoint hashkv --cluster --rev 1024")]
    Hashkv(HashArgs),
}

#[derive(Args, Clone, Debug)]
pub(super) struct WhichArgs {
    /// Every member of the cluster, not only the endpoints given
    #[arg(long)]
    cluster: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct HashArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The store as it was at this revision; 0 for now
    #[arg(long, value_name = "REVISION", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
}

/// What one endpoint answered, and how soon.
struct Answer<T> {
    endpoint: String,
    took: Duration,
    result: Result<T, CliError>,
}

impl EndpointCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Status(which) => status(session, &which).await,
            Self::Health(which) => health(session, &which).await,
            Self::Hashkv(args) => hash_kv(session, &args).await,
        }
    }
}

impl WhichArgs {
    /// Those given, or every member's first client URL.
    pub(super) async fn endpoints(&self, session: &Session) -> Result<Vec<String>, CliError> {
        if !self.cluster {
            return Ok(session.client.endpoints().to_vec());
        }
        let members = session.client.member_list().await?.members;
        Ok(members
            .into_iter()
            .filter_map(|member| member.client_ur_ls.into_iter().next())
            .collect())
    }
}

/// Asks all endpoints at once; the answers are in the endpoints' order.
async fn ask<T>(
    session: &Session,
    endpoints: &[String],
    question: impl AsyncFn(&super::client::Client) -> Result<T, CliError>,
) -> Vec<Answer<T>> {
    let question = &question;
    stream::iter(endpoints)
        .map(async |endpoint| {
            let started = Instant::now();
            let result = match session.client.only(endpoint) {
                Ok(client) => question(&client).await,
                Err(error) => Err(error),
            };
            Answer {
                endpoint: endpoint.clone(),
                took: started.elapsed(),
                result,
            }
        })
        .buffered(CONCURRENCY)
        .collect()
        .await
}

/// Fails when any did, after every answer was shown.
fn all_answered<T>(answers: &[Answer<T>]) -> Result<(), CliError> {
    for answer in answers {
        if let Err(error) = &answer.result {
            eprint!("{}", error.text());
        }
    }
    if answers.iter().all(|answer| answer.result.is_ok()) {
        Ok(())
    } else {
        Err(CliError::already_said())
    }
}

async fn status(session: &Session, which: &WhichArgs) -> Result<(), CliError> {
    if matches!(session.format, None | Some(Format::Table)) {
        let overview = Overview::read(session).await?;
        format::write(cluster::table(&overview).as_bytes())?;
        return if overview.all_answer() {
            Ok(())
        } else {
            Err(CliError::already_said())
        };
    }
    let answers = ask(session, &which.endpoints(session).await?, async |client| {
        client.status().await
    })
    .await;
    if session.format == Some(Format::Fields) {
        let mut out = Fields::default();
        for (endpoint, status) in answered(&answers) {
            fields::status(&mut out, endpoint, status);
        }
        format::write(&out.into_bytes())?;
    } else if session.format == Some(Format::Json) {
        let values: Vec<Value> = answered(&answers)
            .map(|(endpoint, status)| json!({"Endpoint": endpoint, "Status": json::status(status)}))
            .collect();
        format::write_json(&values.into())?;
    } else {
        let lines: String = answered(&answers)
            .map(|(endpoint, status)| status_line(endpoint, status))
            .collect();
        format::write(lines.as_bytes())?;
    }
    all_answered(&answers)
}

fn answered<T>(answers: &[Answer<T>]) -> impl Iterator<Item = (&str, &T)> {
    answers
        .iter()
        .filter_map(|answer| Some((answer.endpoint.as_str(), answer.result.as_ref().ok()?)))
}

/// etcdctl's columns: endpoint, id, version, size, leader, learner, term, index, applied index, errors.
fn status_line(endpoint: &str, status: &pb::StatusResponse) -> String {
    let id = status.header.map_or(0, |header| header.member_id);
    format!(
        "{endpoint}, {id:x}, {}, {}, {}, {}, {}, {}, {}, {}\n",
        status.version,
        size(status.db_size),
        status.leader == id && id != 0,
        status.is_learner,
        status.raft_term,
        status.raft_index,
        status.raft_applied_index,
        status.errors.join(", "),
    )
}

async fn health(session: &Session, which: &WhichArgs) -> Result<(), CliError> {
    let endpoints = which.endpoints(session).await?;
    let answers = ask(session, &endpoints, async |client| {
        let request = pb::RangeRequest {
            key: HEALTH_KEY.into(),
            ..Default::default()
        };
        // A linearizable read: the member must have a leader, and the leader a majority.
        let read = client.range(request).await;
        if read.as_ref().is_err_and(CliError::is_permission_denied) {
            // Whoever may not read has the majority's answer all the same; alarms are then not for this user either.
            return Ok(());
        }
        read?;
        match client.alarms().await?.alarms.first() {
            Some(alarm) => Err(CliError::failed(format!("alarm {}", alarm.alarm().as_str_name()))),
            None => Ok(()),
        }
    })
    .await;
    match session.format {
        Some(Format::Json) => {
            let values: Vec<Value> = answers.iter().map(health_json).collect();
            format::write_json(&values.into())?;
        }
        Some(Format::Fields) => format::write(&health_fields(&answers).into_bytes())?,
        Some(Format::Simple) => format::write(health_lines(&answers).as_bytes())?,
        _ => format::write(health_table(&answers).as_bytes())?,
    }
    if answers.iter().all(|answer| answer.result.is_ok()) {
        Ok(())
    } else {
        Err(CliError::already_said())
    }
}

fn health_json(answer: &Answer<()>) -> Value {
    let took = format!("{:?}", answer.took);
    match &answer.result {
        Ok(()) => json!({"endpoint": answer.endpoint, "health": true, "took": took}),
        Err(error) => {
            json!({"endpoint": answer.endpoint, "health": false, "took": took, "error": error.to_string()})
        }
    }
}

fn health_fields(answers: &[Answer<()>]) -> Fields {
    let mut out = Fields::default();
    for answer in answers {
        out.quoted("Endpoint", answer.endpoint.as_bytes());
        out.plain("Health", answer.result.is_ok());
        out.plain("Took", format!("{:?}", answer.took));
        let error = answer.result.as_ref().err().map(ToString::to_string);
        out.plain("Error", error.unwrap_or_default());
        out.gap();
    }
    out
}

fn health_lines(answers: &[Answer<()>]) -> String {
    let line = |answer: &Answer<()>| match &answer.result {
        Ok(()) => format!(
            "{} is healthy: successfully committed proposal: took = {:?}\n",
            answer.endpoint, answer.took
        ),
        Err(error) => format!(
            "{} is unhealthy: failed to commit proposal: {error}\n",
            answer.endpoint
        ),
    };
    answers.iter().map(line).collect()
}

fn health_table(answers: &[Answer<()>]) -> String {
    let row = |answer: &Answer<()>| {
        let took = super::duration::round_trip(answer.took);
        match &answer.result {
            Ok(()) => [answer.endpoint.clone(), "healthy".into(), took, String::new()],
            Err(error) => [
                answer.endpoint.clone(),
                "unhealthy".into(),
                took,
                error.to_string(),
            ],
        }
    };
    let rows: Vec<_> = answers.iter().map(row).collect();
    columns(["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &rows)
}

async fn hash_kv(session: &Session, args: &HashArgs) -> Result<(), CliError> {
    let endpoints = args.which.endpoints(session).await?;
    let answers = ask(session, &endpoints, async |client| client.hash_kv(args.rev).await).await;
    match session.format {
        Some(Format::Json) => {
            let values: Vec<Value> = answered(&answers)
                .map(|(endpoint, answer)| json!({"Endpoint": endpoint, "HashKV": json::hash_kv(answer)}))
                .collect();
            format::write_json(&values.into())?;
        }
        Some(Format::Fields) => {
            let mut out = Fields::default();
            for (endpoint, answer) in answered(&answers) {
                fields::hash_kv(&mut out, endpoint, answer);
            }
            format::write(&out.into_bytes())?;
        }
        Some(Format::Table) => {
            let rows: Vec<_> = answered(&answers)
                .map(|(endpoint, answer)| [endpoint.to_owned(), answer.hash.to_string()])
                .collect();
            format::write(columns(["ENDPOINT", "HASH"], &rows).as_bytes())?;
        }
        _ => {
            let lines: String = answered(&answers)
                .map(|(endpoint, answer)| format!("{endpoint}, {}\n", answer.hash))
                .collect();
            format::write(lines.as_bytes())?;
        }
    }
    all_answered(&answers)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_status_line_is_etcdctls() {
        let status = pb::StatusResponse {
            header: Some(pb::ResponseHeader {
                member_id: 0xc3b4,
                ..Default::default()
            }),
            version: "3.5.13".into(),
            db_size: 20_480,
            leader: 0xc3b4,
            raft_index: 15,
            raft_term: 2,
            raft_applied_index: 14,
            ..Default::default()
        };
        assert_eq!(
            status_line("127.0.0.1:2379", &status),
            "127.0.0.1:2379, c3b4, 3.5.13, 20 kB, true, false, 2, 15, 14, \n"
        );
    }

    #[test]
    fn health_says_who_is_not_well() {
        let answers = [
            Answer {
                endpoint: "ovh:2379".into(),
                took: Duration::from_millis(16),
                result: Ok(()),
            },
            Answer {
                endpoint: "ionos:2379".into(),
                took: Duration::from_secs(2),
                result: Err(CliError::failed(
                    "no member answers at ionos:2379 (connection refused)",
                )),
            },
        ];
        expect![[r#"
            ENDPOINT    HEALTH     TOOK   ERROR
            ovh:2379    healthy    16 ms
            ionos:2379  unhealthy  2.0 s  no member answers at ionos:2379 (connection refused)
        "#]]
        .assert_eq(&health_table(&answers));
        expect![[r#"
            ovh:2379 is healthy: successfully committed proposal: took = 16ms
            ionos:2379 is unhealthy: failed to commit proposal: no member answers at ionos:2379 (connection refused)
        "#]]
        .assert_eq(&health_lines(&answers));
    }
}
