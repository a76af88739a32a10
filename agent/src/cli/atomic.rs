//! Many documents, one revision: a transaction that does everything or nothing, however many keys it has.
//!
//! A transaction holds 128 operations and as many compares, and one within another what the outer ones leave of that.
//! Writes that are too many stand in a tree, whose branches are short on every way down. Compares all gate the same
//! writes, so nesting gains them nothing: too many are replaced by one for each range that holds documents, which says
//! that nothing in it was put since it was read. That a document was not deleted since is said by its put, which keeps
//! the lease that it has (none): it is refused, and all with it, where there is nothing to keep.

use std::collections::BTreeSet;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;

use super::client::Client;
use super::error::CliError;
use super::range::KeyRange;

/// Below etcd's default of 128.
const AT_ONCE: usize = 100;
/// Of a tree: three levels of this stay below 128, and hold 64,000 writes.
const BRANCHES: usize = 40;
/// How a member refuses a put that keeps what is not there.
const NOT_THERE: &str = "key not found";

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

/// Does all of it at one revision, which is returned. `None`: a key is not what was expected when all were read, at
/// revision `read_at`, and nothing is done.
pub(super) async fn commit(client: &Client, steps: &[Step], read_at: i64) -> Result<Option<i64>, CliError> {
    let transaction = transaction(steps, read_at)?;
    let response = match client.txn(transaction).await {
        Err(error) if steps.len() > AT_ONCE && error.to_string().contains(NOT_THERE) => return Ok(None),
        answer => answer?,
    };
    let revision = response.header.map_or(0, |header| header.revision);
    Ok(response.succeeded.then_some(revision))
}

fn transaction(steps: &[Step], read_at: i64) -> Result<pb::TxnRequest, CliError> {
    let few = steps.len() <= AT_ONCE;
    let compare = if few {
        steps.iter().filter_map(compare).collect()
    } else {
        untouched(steps, read_at)?
    };
    let mut success: Vec<pb::RequestOp> = steps.iter().filter_map(|step| write(step, !few)).collect();
    while !few && success.len() > BRANCHES {
        success = success.chunks(BRANCHES).map(nested).collect();
    }
    Ok(pb::TxnRequest {
        compare,
        success,
        failure: vec![],
    })
}

/// For every tenant that is spoken of, and for the cluster: nothing that is desired was put since it was read.
fn untouched(steps: &[Step], read_at: i64) -> Result<Vec<pb::Compare>, CliError> {
    let expected = steps.iter().filter(|step| step.expected.is_some());
    let folders: BTreeSet<&str> = expected.map(|step| folder(&step.key)).collect();
    if folders.len() > BRANCHES {
        let text = format!("{} tenants are too many: {BRANCHES} go in at once", folders.len());
        return Err(CliError::failed(text).hint("nothing was changed; apply fewer tenants at once"));
    }
    let compare = |folder: &str| {
        let range = KeyRange::prefix(folder.as_bytes());
        pb::Compare {
            result: CompareResult::Less.into(),
            target: CompareTarget::Mod.into(),
            key: range.key,
            range_end: range.range_end,
            target_union: Some(TargetUnion::ModRevision(read_at + 1)),
        }
    };
    Ok(folders.into_iter().map(compare).collect())
}

/// Where a key is, up to its kind: `/tenants/shop/desired/`.
fn folder(key: &str) -> &str {
    let end = key
        .find("/desired/")
        .map_or(key.len(), |at| at + "/desired/".len());
    key.get(..end).unwrap_or(key)
}

fn nested(success: &[pb::RequestOp]) -> pb::RequestOp {
    let transaction = pb::TxnRequest {
        success: success.to_vec(),
        ..Default::default()
    };
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

/// With `keeps`, a put of what is expected to be there is refused where it is not.
fn write(step: &Step, keeps: bool) -> Option<pb::RequestOp> {
    let key = bytes::Bytes::from(step.key.clone());
    let request = match &step.write {
        Write::Nothing => return None,
        Write::Put(text) => Request::RequestPut(pb::PutRequest {
            key,
            value: text.clone().into(),
            ignore_lease: keeps && step.expected.is_some_and(|revision| revision > 0),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: usize) -> Vec<Step> {
        let tenant = |number: usize| if number.is_multiple_of(2) { "a" } else { "b" };
        let step = |number| Step {
            key: format!("/tenants/{}/desired/instances/i{number:04}", tenant(number)),
            expected: Some(if number < 10 { 7 } else { 0 }),
            write: Write::Put("v".into()),
        };
        (0..count).map(step).collect()
    }

    /// What a member counts: compares or operations, whichever are more, on the way down where they are most.
    fn most(transaction: &pb::TxnRequest) -> usize {
        let inner = transaction.success.iter().filter_map(|op| match &op.request {
            Some(Request::RequestTxn(inner)) => Some(most(inner)),
            _ => None,
        });
        transaction.compare.len().max(transaction.success.len()) + inner.max().unwrap_or(0)
    }

    fn puts(transaction: &pb::TxnRequest) -> Vec<&pb::PutRequest> {
        let requests = transaction.success.iter().filter_map(|op| op.request.as_ref());
        requests
            .flat_map(|request| match request {
                Request::RequestPut(put) => vec![put],
                Request::RequestTxn(inner) => puts(inner),
                _ => vec![],
            })
            .collect()
    }

    #[test]
    fn no_way_down_holds_more_than_it_may() {
        for count in [0, 1, 100, 101, 500, 1_600, 1_601, 5_000] {
            let transaction = transaction(&steps(count), 9).unwrap();
            assert!(most(&transaction) <= 128, "{count}: {}", most(&transaction));
            assert_eq!(puts(&transaction).len(), count);
        }
    }

    #[test]
    fn few_are_compared_each() {
        let transaction = transaction(&steps(100), 9).unwrap();
        assert_eq!(transaction.compare.len(), 100);
        assert!(puts(&transaction).iter().all(|put| !put.ignore_lease));
    }

    #[test]
    fn many_are_compared_by_their_folders() {
        let transaction = transaction(&steps(500), 9).unwrap();
        let compared: Vec<_> = transaction
            .compare
            .iter()
            .map(|compare| {
                (
                    compare.key.as_ref(),
                    compare.range_end.as_ref(),
                    compare.target_union.clone(),
                )
            })
            .collect();
        let before = || Some(TargetUnion::ModRevision(10));
        assert_eq!(
            compared,
            [
                (&b"/tenants/a/desired/"[..], &b"/tenants/a/desired0"[..], before()),
                (b"/tenants/b/desired/", b"/tenants/b/desired0", before())
            ]
        );
        let kept = puts(&transaction).iter().filter(|put| put.ignore_lease).count();
        assert_eq!(kept, 10, "those that were there must still be");
    }
}
