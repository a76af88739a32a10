//! The cluster at a glance: every member, asked by itself, beside what its host says of itself.
//!
//! Reading is thin; [`table`] is pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use proto::etcdserverpb as pb;
use serde::Deserialize;

use super::Session;
use super::duration::round_trip;
use super::error::CliError;
use super::format::columns::{columns, thousands};
use super::range::KeyRange;

const CONCURRENCY: usize = 8;
const HOSTS_PREFIX: &str = "/hosts/";
/// A cluster has a handful of members: more hosts than this are somebody else's.
const HOSTS_LIMIT: usize = 100;

/// Every member with its answer.
#[derive(Debug)]
pub(super) struct Overview {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    member: pb::Member,
    alive: Option<Alive>,
    answer: Result<(pb::StatusResponse, Duration), String>,
}

/// What a host keeps at `/hosts/HOST/alive`. Anything else is left for later versions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Alive {
    version: String,
    provider: String,
    incus_version: Option<String>,
}

impl Overview {
    pub(super) async fn read(session: &Session) -> Result<Self, CliError> {
        let members = session.client.member_list().await?.members;
        let mut alive = alive(session).await;
        let rows = stream::iter(members)
            .map(async |member| {
                let answer = ask(session, &member).await;
                (member, answer)
            })
            .buffered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        let rows = rows.into_iter().map(|(member, answer)| {
            let alive = alive.remove(&member.name);
            Row {
                member,
                alive,
                answer,
            }
        });
        Ok(Self { rows: rows.collect() })
    }

    pub(super) fn all_answer(&self) -> bool {
        self.rows.iter().all(|row| row.answer.is_ok())
    }
}

async fn ask(session: &Session, member: &pb::Member) -> Result<(pb::StatusResponse, Duration), String> {
    let url = member.client_ur_ls.first().ok_or("has not started yet")?;
    let client = session.client.only(url).map_err(|error| error.to_string())?;
    // The first call makes the connection: the second one shows the way there and back.
    client.status().await.map_err(|error| error.to_string())?;
    let started = Instant::now();
    let status = client.status().await.map_err(|error| error.to_string())?;
    Ok((status, started.elapsed()))
}

/// What hosts say of themselves. An etcd that is not ours, or one without a quorum, says nothing, and that is no
/// failure: what is known is shown.
async fn alive(session: &Session) -> BTreeMap<String, Alive> {
    let mut hosts = BTreeMap::new();
    let mut from = Some(HOSTS_PREFIX.to_owned());
    for _ in 0..HOSTS_LIMIT {
        let Some(start) = from.take() else { break };
        let Some(host) = next_host(session, start).await else {
            break;
        };
        let range = KeyRange::one(format!("{HOSTS_PREFIX}{host}/alive"));
        if let Some(kv) = first(session, range).await
            && let Ok(alive) = serde_json::from_slice(&kv.value)
        {
            hosts.insert(host.clone(), alive);
        }
        // A host's inventory may be large: the next one is looked for behind all of it.
        from = Some(format!("{HOSTS_PREFIX}{host}0"));
    }
    hosts
}

/// The host of the first key from `start` on.
async fn next_host(session: &Session, start: String) -> Option<String> {
    let range = KeyRange {
        key: start.into(),
        range_end: KeyRange::prefix(HOSTS_PREFIX.as_bytes()).range_end,
    };
    let kv = first(session, range).await?;
    let rest = std::str::from_utf8(&kv.key).ok()?.strip_prefix(HOSTS_PREFIX)?;
    Some(rest.split('/').next()?.to_owned())
}

async fn first(session: &Session, range: KeyRange) -> Option<proto::mvccpb::KeyValue> {
    let request = pb::RangeRequest {
        key: range.key,
        range_end: range.range_end,
        limit: 1,
        serializable: true,
        ..Default::default()
    };
    session.client.range(request).await.ok()?.kvs.into_iter().next()
}

/// The hosts that say they are alive.
pub(super) async fn hosts_alive(session: &Session) -> Vec<String> {
    alive(session).await.into_keys().collect()
}

/// One line for each host, and what its loss means under it.
pub(super) fn table(overview: &Overview) -> String {
    let rows: Vec<[String; 8]> = overview.rows.iter().map(cells).collect();
    let headings = [
        "HOST", "PROVIDER", "ROLE", "VERSION", "RTT", "RAFT", "INCUS", "ERRORS",
    ];
    let mut text = columns(headings, &rows);
    if let Some(remark) = quorum_remark(&overview.rows) {
        text.push_str(&remark);
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let alive = row.alive.clone().unwrap_or_default();
    let name = if row.member.name.is_empty() {
        format!("{:x}", row.member.id)
    } else {
        row.member.name.clone()
    };
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let incus = alive.incus_version.unwrap_or_default();
    match &row.answer {
        Ok((status, rtt)) => {
            let version = if alive.version.is_empty() {
                status.version.clone()
            } else {
                alive.version
            };
            let raft = thousands(status.raft_applied_index);
            let errors = status.errors.join(", ");
            [
                name,
                alive.provider,
                role(&row.member, status).into(),
                version,
                round_trip(*rtt),
                raft,
                incus,
                errors,
            ]
        }
        Err(why) => {
            let version = dash(alive.version);
            [
                name,
                alive.provider,
                "lost".into(),
                version,
                "-".into(),
                "-".into(),
                incus,
                why.clone(),
            ]
        }
    }
}

fn role(member: &pb::Member, status: &pb::StatusResponse) -> &'static str {
    if status.leader == member.id {
        "leader"
    } else if member.is_learner || status.is_learner {
        "learner"
    } else if status.leader == 0 {
        "no leader"
    } else {
        "voter"
    }
}

/// What the voters that do not answer mean; nothing when all do.
fn quorum_remark(rows: &[Row]) -> Option<String> {
    let voters: Vec<&Row> = rows.iter().filter(|row| !row.member.is_learner).collect();
    let left = voters.iter().filter(|row| row.answer.is_ok()).count();
    let (all, majority) = (voters.len(), voters.len() / 2 + 1);
    if left == all {
        return None;
    }
    let consequence = if left < majority {
        format!("{majority} must agree on edits, so there are none now; what runs goes on running")
    } else {
        match left - majority {
            0 => "edits still work; one more loss stops them".to_owned(),
            spare => format!("edits still work; {} more losses stop them", spare + 1),
        }
    };
    Some(format!("{left} of {all} voters answer: {consequence}\n"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn row(id: u64, name: &str, provider: &str, answers: bool) -> Row {
        let status = pb::StatusResponse {
            version: "3.5.13".into(),
            leader: 1,
            raft_applied_index: 1_024,
            ..Default::default()
        };
        let alive = Alive {
            version: "0.3.0".into(),
            provider: provider.into(),
            incus_version: Some("6.0.4".into()),
        };
        let lost = "no member answers at 67.0.0.30:2379 (connection refused)".to_owned();
        Row {
            member: pb::Member {
                id,
                name: name.into(),
                ..Default::default()
            },
            alive: (!provider.is_empty()).then_some(alive),
            answer: if answers {
                Ok((status, Duration::from_millis(16)))
            } else {
                Err(lost)
            },
        }
    }

    fn check(rows: Vec<Row>, expected: &Expect) {
        expected.assert_eq(&table(&Overview { rows }));
    }

    #[test]
    fn a_cluster_in_health() {
        check(
            vec![
                row(1, "ovh", "OVH", true),
                row(2, "ionos", "IONOS", true),
                row(3, "liquidweb", "LiquidWeb", true),
            ],
            &expect![[r#"
                HOST       PROVIDER   ROLE    VERSION  RTT    RAFT   INCUS
                ovh        OVH        leader  0.3.0    16 ms  1,024  6.0.4
                ionos      IONOS      voter   0.3.0    16 ms  1,024  6.0.4
                liquidweb  LiquidWeb  voter   0.3.0    16 ms  1,024  6.0.4
            "#]],
        );
    }

    #[test]
    fn a_provider_is_gone() {
        check(
            vec![
                row(1, "ovh", "OVH", true),
                row(2, "ionos", "IONOS", true),
                row(3, "liquidweb", "", false),
            ],
            &expect![[r#"
                HOST       PROVIDER  ROLE    VERSION  RTT    RAFT   INCUS  ERRORS
                ovh        OVH       leader  0.3.0    16 ms  1,024  6.0.4
                ionos      IONOS     voter   0.3.0    16 ms  1,024  6.0.4
                liquidweb            lost    -        -      -             no member answers at 67.0.0.30:2379 (connection refused)
                2 of 3 voters answer: edits still work; one more loss stops them
            "#]],
        );
    }

    #[test]
    fn the_majority_is_gone() {
        let remark = quorum_remark(&[
            row(1, "a", "", true),
            row(2, "b", "", false),
            row(3, "c", "", false),
        ]);
        assert_eq!(
            remark.unwrap(),
            "1 of 3 voters answer: 2 must agree on edits, so there are none now; what runs goes on running\n"
        );
    }
}
