//! Many documents, one revision: a transaction that does everything or nothing, however many keys it has.
//!
//! A transaction holds 128 operations and as many compares; one within another counts for itself. So compares stand in
//! a chain, each link the only thing that the one before does, and the last link does all the work.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;

use super::client::Client;
use super::error::CliError;

/// Below etcd's default of 128.
const AT_ONCE: usize = 100;

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) key: String,
    /// The revision that the key must stand at; 0: it must not be there; `None`: whatever it is.
    pub(super) expected: Option<i64>,
    pub(super) write: Write,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Nothing,
    Put(String),
    Delete,
}

/// Does all of it at one revision, which is returned. `None`: a key is not what was expected, and nothing is done.
pub(super) async fn commit(client: &Client, steps: &[Step]) -> Result<Option<i64>, CliError> {
    let response = client.txn(transaction(steps)).await?;
    let revision = response.header.map_or(0, |header| header.revision);
    let depth = links(steps);
    Ok(all_succeeded(&response, depth).then_some(revision))
}

/// How many transactions stand within each other for the compares.
fn links(steps: &[Step]) -> usize {
    let compares = steps.iter().filter(|step| step.expected.is_some()).count();
    compares.div_ceil(AT_ONCE).max(1)
}

fn transaction(steps: &[Step]) -> pb::TxnRequest {
    let writes: Vec<pb::RequestOp> = steps.iter().filter_map(write).collect();
    let success = if writes.len() <= AT_ONCE {
        writes
    } else {
        let part = |part: &[pb::RequestOp]| {
            nested(pb::TxnRequest {
                success: part.to_vec(),
                ..Default::default()
            })
        };
        writes.chunks(AT_ONCE).map(part).collect()
    };
    let compares: Vec<pb::Compare> = steps.iter().filter_map(compare).collect();
    let mut links = compares.chunks(AT_ONCE).rev();
    let mut transaction = pb::TxnRequest {
        compare: links.next().unwrap_or_default().to_vec(),
        success,
        failure: vec![],
    };
    for link in links {
        transaction = pb::TxnRequest {
            compare: link.to_vec(),
            success: vec![nested(transaction)],
            failure: vec![],
        };
    }
    transaction
}

fn nested(transaction: pb::TxnRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(Request::RequestTxn(transaction)),
    }
}

fn compare(step: &Step) -> Option<pb::Compare> {
    Some(pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: step.key.clone().into(),
        target_union: Some(TargetUnion::ModRevision(step.expected?)),
        ..Default::default()
    })
}

fn write(step: &Step) -> Option<pb::RequestOp> {
    let key = bytes::Bytes::from(step.key.clone());
    let request = match &step.write {
        Write::Nothing => return None,
        Write::Put(text) => Request::RequestPut(pb::PutRequest {
            key,
            value: text.clone().into(),
            ..Default::default()
        }),
        Write::Delete => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key,
            ..Default::default()
        }),
    };
    Some(pb::RequestOp {
        request: Some(request),
    })
}

fn all_succeeded(response: &pb::TxnResponse, links: usize) -> bool {
    let mut response = response;
    for _ in 1..links {
        let inner = response
            .responses
            .first()
            .and_then(|inner| inner.response.as_ref());
        match inner {
            Some(Response::ResponseTxn(inner)) if response.succeeded => response = inner,
            _ => return false,
        }
    }
    response.succeeded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: usize) -> Vec<Step> {
        (0..count)
            .map(|number| Step {
                key: format!("k{number:04}"),
                expected: Some(1),
                write: Write::Put("v".into()),
            })
            .collect()
    }

    /// Compares and operations of each transaction, the outer one first.
    fn shape(transaction: &pb::TxnRequest) -> Vec<(usize, usize)> {
        let mut shape = vec![(transaction.compare.len(), transaction.success.len())];
        for op in &transaction.success {
            if let Some(Request::RequestTxn(inner)) = &op.request {
                shape.extend(self::shape(inner));
            }
        }
        shape
    }

    #[test]
    fn no_transaction_holds_more_than_it_may() {
        assert_eq!(shape(&transaction(&steps(0))), [(0, 0)]);
        assert_eq!(shape(&transaction(&steps(100))), [(100, 100)]);
        assert_eq!(
            shape(&transaction(&steps(250))),
            [(100, 1), (100, 1), (50, 3), (0, 100), (0, 100), (0, 50)]
        );
        assert_eq!(links(&steps(250)), 3);
    }

    #[test]
    fn every_link_must_hold() {
        let link = |succeeded: bool, inner: Option<pb::TxnResponse>| pb::TxnResponse {
            succeeded,
            responses: inner
                .into_iter()
                .map(|inner| pb::ResponseOp {
                    response: Some(Response::ResponseTxn(inner)),
                })
                .collect(),
            ..Default::default()
        };
        assert!(all_succeeded(&link(true, None), 1));
        assert!(!all_succeeded(&link(false, None), 1));
        assert!(all_succeeded(&link(true, Some(link(true, None))), 2));
        assert!(!all_succeeded(&link(true, Some(link(false, None))), 2));
        assert!(!all_succeeded(&link(false, None), 2));
    }
}
