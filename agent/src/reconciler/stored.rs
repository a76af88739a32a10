//! The reconciler's way to the store: documents and this host's status out of the local applied state, status back
//! through a proposal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use proto::mvccpb::KeyValue;
use proto::replicated::{reply, request::Op};
use raft_store::{ReadError, Store};
use thiserror::Error;

use super::desired::{Desired, Parser, StoredText};
use super::status::{StatusWrite, Stored};
use crate::document::{Status, desired_prefixes, parse_status_key, status_prefixes};
use crate::node::{Node, NodeError};

/// Keys read at once.
const PAGE: i64 = 1_000;
/// Status keys written by one request.
const WRITES_AT_ONCE: usize = 64;
/// Longer than a proposal takes to fail by itself.
const WRITE_LIMIT: Duration = Duration::from_secs(15);

/// Why status was not written. The next pass says it again.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    #[error("the cluster does not take it")]
    Node(#[from] NodeError),
    #[error("refused by the store: {0}")]
    Refused(String),
    #[error("no answer within {} s", WRITE_LIMIT.as_secs())]
    Timeout,
}

/// Documents and this host's status, both at one revision of the applied state.
pub(crate) fn read(store: &Store, parser: &mut Parser, host: &str) -> Result<(Desired, Stored), ReadError> {
    let revision = store.revision();
    let mut pairs: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    // Tenants have both in one place: it is read once.
    let prefixes: BTreeSet<&str> = desired_prefixes().into_iter().chain(status_prefixes()).collect();
    for prefix in prefixes {
        for pair in read_prefix(store, prefix, revision)? {
            pairs.insert(pair.key.clone(), pair);
        }
    }
    let texts = pairs.values().map(|pair| StoredText {
        key: &pair.key,
        value: &pair.value,
        created_revision: pair.create_revision,
        revision: pair.mod_revision,
    });
    let desired = parser.read(revision, texts);
    let stored = pairs
        .values()
        .filter_map(|pair| {
            let (key, of_host) = parse_status_key(std::str::from_utf8(&pair.key).ok()?)?;
            (of_host == host).then(|| (key, serde_json::from_slice::<Status>(&pair.value).ok()))
        })
        .collect();
    Ok((desired, stored))
}

/// What stands at one key of the applied state.
pub(crate) fn read_one(store: &Store, key: Bytes) -> Result<Option<KeyValue>, ReadError> {
    let request = RangeRequest {
        key,
        serializable: true,
        ..RangeRequest::default()
    };
    Ok(store.range(&request)?.kvs.into_iter().next())
}

/// Everything under a prefix, at one revision of the applied state.
pub(crate) fn read_prefix(store: &Store, prefix: &str, revision: i64) -> Result<Vec<KeyValue>, ReadError> {
    let mut pairs: Vec<KeyValue> = Vec::new();
    let range_end = prefix_end(prefix);
    let mut key = Bytes::copy_from_slice(prefix.as_bytes());
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit: PAGE,
            revision,
            serializable: true,
            ..RangeRequest::default()
        };
        let page = store.range(&request)?;
        let more = page.more;
        pairs.extend(page.kvs);
        match pairs.last() {
            Some(last) if more => key = after(&last.key),
            _ => return Ok(pairs),
        }
    }
}

/// The end of the range of all keys with a prefix, which ends in a slash.
pub(crate) fn prefix_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// The next key there can be.
fn after(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

/// Writes status, some keys at a time.
pub(crate) async fn write(node: Node, writes: Vec<StatusWrite>) -> Result<(), WriteError> {
    for some in writes.chunks(WRITES_AT_ONCE) {
        let success = some
            .iter()
            .map(|write| RequestOp {
                request: Some(request(write)),
            })
            .collect();
        let txn = TxnRequest {
            success,
            ..TxnRequest::default()
        };
        let reply = tokio::time::timeout(WRITE_LIMIT, node.propose(Op::Txn(txn)))
            .await
            .map_err(|_| WriteError::Timeout)??;
        if let Some(reply::Result::Refused(refusal)) = reply.result {
            let refusal = proto::replicated::Refusal::try_from(refusal).unwrap_or_default();
            return Err(WriteError::Refused(refusal.as_str_name().to_lowercase()));
        }
    }
    Ok(())
}

fn request(write: &StatusWrite) -> Request {
    let key = Bytes::copy_from_slice(write.key.as_bytes());
    match &write.value {
        Some(value) => Request::RequestPut(PutRequest {
            key,
            value: value.clone().into(),
            ..PutRequest::default()
        }),
        None => Request::RequestDeleteRange(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        }),
    }
}
