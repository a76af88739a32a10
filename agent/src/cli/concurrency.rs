//! What `lock` and `elect` have in common: a key on a lease of our own, in the order of creation among those under one
//! name. The first created holds; every other waits for the one before it to go.
//!
//! Made of transactions, reads and watches, as in etcd's own client, so that the loss of one member is survived.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::client::Client;
use super::error::CliError;
use super::range::KeyRange;

const PAUSE: Duration = Duration::from_millis(200);

/// A lease that is renewed as long as [`KeptLease::during`] runs.
#[derive(Debug)]
pub(super) struct KeptLease<'a> {
    client: &'a Client,
    id: i64,
    ttl: Duration,
}

impl<'a> KeptLease<'a> {
    pub(super) async fn grant(client: &'a Client, seconds: i64) -> Result<Self, CliError> {
        let request = pb::LeaseGrantRequest { ttl: seconds, id: 0 };
        let granted = client.lease_grant(request).await?;
        Ok(Self {
            client,
            id: granted.id,
            ttl: Duration::from_secs(granted.ttl.unsigned_abs()),
        })
    }

    /// Runs `work` and renews meanwhile. Ends early, with an error, when the lease is lost.
    pub(super) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        tokio::select! {
            done = work => done,
            lost = self.renew() => Err(lost),
        }
    }

    /// Renews until that fails for as long as the lease lives, or the cluster says that it is gone.
    async fn renew(&self) -> CliError {
        let lost = |why: &str| {
            CliError::failed(format!("the lease {:x} is lost: {why}", self.id))
                .hint("another may hold it now: a longer --ttl survives longer outages")
        };
        let mut renewed = tokio::time::Instant::now();
        loop {
            sleep(self.ttl / 3).await;
            let asked = tokio::time::Instant::now();
            match self.client.lease_keep_alive(self.id).await {
                Ok(answer) if answer.ttl > 0 => renewed = asked,
                Ok(_) => return lost("it expired or was revoked"),
                Err(error) if renewed.elapsed() >= self.ttl => return lost(&error.to_string()),
                Err(_) => {}
            }
        }
    }

    /// Ends the lease, and with it the key: whoever waits is next. A cluster that cannot be reached ends it by itself
    /// when its time is over.
    pub(super) async fn release(self) -> Result<(), CliError> {
        self.client.lease_revoke(self.id).await.map(drop)
    }
}

/// Our place in the line under a name.
#[derive(Debug)]
pub(super) struct Place<'a> {
    client: &'a Client,
    /// `NAME/`.
    prefix: Vec<u8>,
    pub(super) key: Bytes,
    /// The revision that created our key: the lower, the earlier our turn.
    pub(super) created: i64,
}

impl<'a> Place<'a> {
    /// Stands in line with the key `NAME/LEASE`.
    pub(super) async fn take(lease: &KeptLease<'a>, name: &[u8], value: Bytes) -> Result<Self, CliError> {
        let client = lease.client;
        let prefix = prefix(name);
        let mut key = prefix.clone();
        key.extend_from_slice(format!("{:x}", lease.id).as_bytes());
        let key = Bytes::from(key);
        let answer = client
            .repeatable_txn(create(key.clone(), value, lease.id))
            .await?;
        let found = answer.responses.into_iter().find_map(|op| match op.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let created = match (answer.succeeded, found) {
            (true, _) => answer.header.map_or(0, |header| header.revision),
            (false, Some(kv)) => kv.create_revision,
            (false, None) => return Err(CliError::failed("the key came and went at once").hint("try again")),
        };
        Ok(Self {
            client,
            prefix,
            key,
            created,
        })
    }

    /// Waits until every key created before ours is gone. Answers with our key as it then is.
    pub(super) async fn wait(&self) -> Result<pb::RangeResponse, CliError> {
        while let Some((before, revision)) = self.predecessor().await? {
            follow(self.client, KeyRange::one(before), revision + 1, |event| {
                event.r#type() == EventType::Delete
            })
            .await?;
        }
        let own = self.client.range(get(KeyRange::one(self.key.clone()))).await?;
        if own.kvs.is_empty() {
            return Err(
                CliError::failed("our key is gone: the lease expired while we waited")
                    .hint("a longer --ttl survives longer outages"),
            );
        }
        Ok(own)
    }

    /// The youngest of those before us, and the revision at which it was seen.
    async fn predecessor(&self) -> Result<Option<(Bytes, i64)>, CliError> {
        let request = pb::RangeRequest {
            max_create_revision: self.created - 1,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Create.into(),
            limit: 1,
            ..get(KeyRange::prefix(&self.prefix))
        };
        let answer = self.client.range(request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok(answer.kvs.into_iter().next().map(|kv| (kv.key, revision)))
    }
}

/// Who holds now: the first created under a name. With the revision at which that was seen.
pub(super) async fn holder(client: &Client, name: &[u8]) -> Result<(Option<KeyValue>, i64), CliError> {
    let request = pb::RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        limit: 1,
        ..get(KeyRange::prefix(&prefix(name)))
    };
    let answer = client.range(request).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok((answer.kvs.into_iter().next(), revision))
}

pub(super) fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// Reads events from a revision on until one is `wanted`; over any number of lost endpoints.
pub(super) async fn follow(
    client: &Client,
    range: KeyRange,
    from: i64,
    mut wanted: impl FnMut(&Event) -> bool,
) -> Result<(), CliError> {
    let mut next = from;
    loop {
        let request = pb::WatchCreateRequest {
            key: range.key.clone(),
            range_end: range.range_end.clone(),
            start_revision: next,
            ..Default::default()
        };
        let (_, mut stream) = client.watch(request).await?;
        while let Ok(Some(response)) = stream.message().await {
            if response.compact_revision > 0 {
                // What we would have seen is gone: the caller looks again.
                return Ok(());
            }
            if response.canceled && !response.cancel_reason.contains("no leader") {
                return Err(CliError::watch_ended(&response.cancel_reason));
            }
            for event in &response.events {
                next = event.kv.as_ref().map_or(next, |kv| kv.mod_revision + 1);
                if wanted(event) {
                    return Ok(());
                }
            }
        }
        client.prefer_next();
        sleep(PAUSE).await;
    }
}

/// Ctrl-C and SIGTERM, from the moment this is made: from then on neither ends the process by itself.
#[derive(Debug)]
pub(super) struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

/// How somebody asked us to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Ctrl-C: all programs of the terminal's foreground have heard it.
    Interrupt,
    Terminate,
}

impl Ending {
    pub(super) fn new() -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::io("signals", &error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Waits for either. May be dropped and called again: nothing is lost.
    pub(super) async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

fn get(range: KeyRange) -> pb::RangeRequest {
    pb::RangeRequest {
        key: range.key,
        range_end: range.range_end,
        ..Default::default()
    }
}

/// Creates the key unless it is there: sent twice it does no more than sent once.
fn create(key: Bytes, value: Bytes, lease: i64) -> pb::TxnRequest {
    let absent = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let put = Request::RequestPut(pb::PutRequest {
        key: key.clone(),
        value,
        lease,
        ..Default::default()
    });
    let get = Request::RequestRange(get(KeyRange::one(key)));
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    pb::TxnRequest {
        compare: vec![absent],
        success: vec![op(put)],
        failure: vec![op(get)],
    }
}
