//! A row of a table, and asking it.

use std::time::Duration;

use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, DowngradeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MoveLeaderRequest,
    PutRequest, RangeRequest, TxnRequest,
};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::{notes, show};
use tonic::Status;

const STREAM_TIMEOUT: Duration = Duration::from_secs(20);

/// A request of any service.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    KeepAlive(LeaseKeepAliveRequest),
    Leases,
    HashKv(HashKvRequest),
    Alarm(AlarmRequest),
    Downgrade(DowngradeRequest),
    MoveLeader(MoveLeaderRequest),
}

/// A rule, and the request that shows it.
pub(crate) type Row = (&'static str, Ask);

/// Asks a table's rows of etcd, and compares with the golden file or writes it.
pub(crate) async fn check_etcd(golden: &str, rows: Vec<Row>) {
    match Subject::etcd() {
        Some(etcd) => check(&etcd, golden, rows).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

/// Asks a table's rows of the agent, and compares with the golden file.
pub(crate) async fn check_agent(golden: &str, rows: Vec<Row>) {
    check(&Subject::agent(), golden, rows).await;
}

async fn check(subject: &Subject, golden: &str, rows: Vec<Row>) {
    let cluster = Cluster::builder(subject, 3).start().await;
    // A follower: what it forwards must be answered as by the leader.
    let mut client = cluster.client(cluster.follower().await);
    let mut transcript = Transcript::default();
    for (rule, ask) in rows {
        let answer = ask
            .ask(&mut client)
            .await
            .unwrap_or_else(|refused| show::status(&refused));
        transcript.push(rule, &answer);
    }
    transcript.check(
        subject.name(),
        &format!("semantics/{golden}.txt"),
        subject.is_etcd(),
    );
}

impl Ask {
    async fn ask(self, client: &mut Client) -> Result<String, Status> {
        Ok(match self {
            Ask::Range(request) => show::range(client.kv.range(request).await?.get_ref()),
            Ask::Put(request) => {
                let answer = client.kv.put(request).await?.into_inner();
                format!(
                    "{}{}",
                    show::header(answer.header.as_ref()),
                    show::previous(answer.prev_kv.as_slice())
                )
            }
            Ask::Delete(request) => {
                let answer = client.kv.delete_range(request).await?.into_inner();
                let header = show::header(answer.header.as_ref());
                format!(
                    "{header} deleted={}{}",
                    answer.deleted,
                    show::previous(&answer.prev_kvs)
                )
            }
            Ask::Txn(request) => show::txn(client.kv.txn(request).await?.get_ref()),
            Ask::Compact(request) => {
                show::header(client.kv.compact(request).await?.get_ref().header.as_ref())
            }
            // The hash itself is the store's own, and only its members' must agree.
            Ask::HashKv(request) => show::header(
                client
                    .maintenance
                    .hash_kv(request)
                    .await?
                    .get_ref()
                    .header
                    .as_ref(),
            ),
            Ask::Alarm(request) => {
                let answer = client.maintenance.alarm(request).await?.into_inner();
                let mut alarms: Vec<String> = answer
                    .alarms
                    .iter()
                    .map(|alarm| format!(" {} of {}", alarm.alarm().as_str_name(), alarm.member_id))
                    .collect();
                alarms.sort();
                format!(
                    "{} alarms={}{}",
                    show::header(answer.header.as_ref()),
                    answer.alarms.len(),
                    alarms.concat()
                )
            }
            Ask::Downgrade(request) => {
                let answer = client.maintenance.downgrade(request).await?.into_inner();
                format!("version={}", answer.version)
            }
            Ask::MoveLeader(request) => {
                client.maintenance.move_leader(request).await?;
                "moved".to_owned()
            }
            lease => lease.ask_lease(client).await?,
        })
    }

    async fn ask_lease(self, client: &mut Client) -> Result<String, Status> {
        Ok(match self {
            Ask::Grant(request) => {
                let answer = client.lease.lease_grant(request).await?.into_inner();
                let id = if request.id == 0 {
                    "chosen".to_owned()
                } else {
                    answer.id.to_string()
                };
                format!(
                    "{} id={id} ttl={}",
                    show::header(answer.header.as_ref()),
                    answer.ttl
                )
            }
            Ask::Revoke(request) => show::header(
                client
                    .lease
                    .lease_revoke(request)
                    .await?
                    .get_ref()
                    .header
                    .as_ref(),
            ),
            Ask::TimeToLive(request) => {
                let mut answer = client.lease.lease_time_to_live(request).await?.into_inner();
                answer.keys.sort();
                let keys: Vec<String> = answer.keys.iter().map(|key| show::bytes(key)).collect();
                let header = show::header(answer.header.as_ref());
                let ttl = remaining(answer.ttl, answer.granted_ttl);
                format!(
                    "{header} id={} ttl={ttl} granted={} keys={keys:?}",
                    answer.id, answer.granted_ttl
                )
            }
            Ask::KeepAlive(request) => {
                let requests = tokio_stream::iter([request]);
                let mut answers = client.lease.lease_keep_alive(requests).await?.into_inner();
                let answer = tokio::time::timeout(STREAM_TIMEOUT, answers.message()).await;
                let answer = answer.map_err(|_| Status::deadline_exceeded("no answer"))??;
                let answer = answer.ok_or_else(|| Status::unknown("the stream ended"))?;
                format!(
                    "{} id={} ttl={}",
                    show::header(answer.header.as_ref()),
                    answer.id,
                    answer.ttl
                )
            }
            Ask::Leases => {
                let answer = client
                    .lease
                    .lease_leases(LeaseLeasesRequest {})
                    .await?
                    .into_inner();
                let mut ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                format!("{} leases={ids:?}", show::header(answer.header.as_ref()))
            }
            other => unreachable!("{other:?} is no lease request"),
        })
    }
}

/// A few seconds may have gone since the grant.
fn remaining(ttl: i64, granted: i64) -> String {
    if (granted - 5..=granted).contains(&ttl) && ttl > 0 {
        "full".to_owned()
    } else {
        ttl.to_string()
    }
}

pub(crate) fn range(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn range_to(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        range_end: end.to_owned().into(),
        ..range(key)
    }
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn delete_to(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        range_end: end.to_owned().into(),
        ..delete(key)
    }
}

pub(crate) fn compact(revision: i64) -> Ask {
    Ask::Compact(CompactionRequest {
        revision,
        physical: false,
    })
}

pub(crate) fn grant(id: i64, ttl: i64) -> Ask {
    Ask::Grant(LeaseGrantRequest { id, ttl })
}

/// The tests of a table: of etcd, which may write the golden file, and of the agent.
macro_rules! table {
    ($golden:literal, $rows:path) => {
        #[tokio::test]
        async fn etcd() {
            crate::ask::check_etcd($golden, $rows()).await;
        }

        #[tokio::test]
        async fn agent() {
            crate::ask::check_agent($golden, $rows()).await;
        }
    };
}
pub(crate) use table;
