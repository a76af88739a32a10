//! The shape of requests: what can be said of them without looking at the store.
//!
//! Pure. Whoever gets through here may still be refused by apply, at its own position in the log.

use std::collections::{BTreeMap, HashSet};

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::api::status::ApiError;
use crate::node::identity::is_base_url;

/// The longest a lease may be granted for, in seconds.
pub(super) const MAX_LEASE_TTL_SECONDS: i64 = 9_000_000_000;

pub(super) fn range(request: &RangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(ApiError::InvalidSortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ApiError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ApiError::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        Err(ApiError::EmptyKey)
    } else {
        Ok(())
    }
}

/// A transaction and all those nested in it.
pub(super) fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    txn_ops(request, max_ops)?;
    // Only now that the sizes are known to be sane.
    path_writes(&request.success)?;
    path_writes(&request.failure)?;
    Ok(())
}

/// The peer URLs of a member, sorted: at least one, each a scheme, a host and a port and nothing else.
pub(super) fn peer_urls(urls: &[String]) -> Result<Vec<String>, ApiError> {
    let mut urls: Vec<String> = urls.iter().map(|url| url.trim().to_owned()).collect();
    let fits = |url: &String| is_base_url(url) && !url.ends_with('/');
    if urls.is_empty() || !urls.iter().all(fits) {
        return Err(ApiError::BadMemberUrls);
    }
    urls.sort();
    Ok(urls)
}

/// The TTL to grant: short ones are raised, as clients expect.
pub(super) fn lease_ttl_seconds(asked: i64, min: i64) -> Result<i64, ApiError> {
    if asked > MAX_LEASE_TTL_SECONDS {
        Err(ApiError::LeaseTtlTooLarge)
    } else {
        Ok(asked.max(min))
    }
}

/// What is about to be replicated must not be larger than the configured limit.
pub(super) fn size(encoded_bytes: usize, max_bytes: usize) -> Result<(), ApiError> {
    if encoded_bytes > max_bytes {
        Err(ApiError::RequestTooLarge)
    } else {
        Ok(())
    }
}

fn txn_ops(request: &TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    // A nested transaction has what this one leaves of the limit.
    let left = max_ops.checked_sub(ops).ok_or(ApiError::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => txn_ops(request, left)?,
            None => return Err(ApiError::KeyNotFound),
        }
    }
    Ok(())
}

/// What the operations of one path may write, nested transactions included.
#[derive(Debug, Default)]
struct PathWrites<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

/// Refuses a path that could put a key twice, or put a key in a range that it also deletes.
///
/// The deletes of a level are collected first, so that they hold for the puts of nested transactions before them
/// too. The two branches of one nested transaction exclude each other: both may put the same key.
fn path_writes(ops: &[RequestOp]) -> Result<PathWrites<'_>, ApiError> {
    let mut writes = PathWrites::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            writes.deletes.insert(&request.key, &request.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let then = path_writes(&nested.success)?;
            let otherwise = path_writes(&nested.failure)?;
            for &key in &then.puts {
                writes.put(key)?;
            }
            for &key in otherwise.puts.difference(&then.puts) {
                writes.put(key)?;
            }
            writes.deletes.merge(then.deletes);
            writes.deletes.merge(otherwise.deletes);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            writes.put(&request.key)?;
        }
    }
    Ok(writes)
}

impl<'a> PathWrites<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), ApiError> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(ApiError::DuplicateKey);
        }
        Ok(())
    }
}

/// A point between keys: before `.0`, or right after it.
type Edge<'a> = (&'a [u8], bool);

/// A set of half-open intervals of keys, kept disjoint so that asking is a look at one of them.
#[derive(Debug, Default)]
struct Intervals<'a> {
    /// Start to end.
    by_start: BTreeMap<Edge<'a>, Edge<'a>>,
}

impl<'a> Intervals<'a> {
    /// An empty `range_end` means the key alone. An end at or before the start deletes nothing; for `"\0"`, which
    /// means "to the last key", etcd says so too in this check (and in this check only): clients may rely on it.
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.insert_edges((key, false), (key, true));
        } else if key < range_end {
            self.insert_edges((key, false), (range_end, false));
        }
    }

    fn insert_edges(&mut self, mut start: Edge<'a>, mut end: Edge<'a>) {
        // Swallow every interval that touches the new one, from the last that starts before its end backwards.
        while let Some((&other_start, &other_end)) = self.by_start.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.by_start.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.by_start.insert(start, end);
    }

    fn merge(&mut self, other: Intervals<'a>) {
        for (start, end) in other.by_start {
            self.insert_edges(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let at = (key, false);
        self.by_start
            .range(..=at)
            .next_back()
            .is_some_and(|(_, &end)| at < end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::etcdserverpb::Compare;

    use super::*;

    fn get(key: &'static str) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        }))
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        }))
    }

    fn del(key: &'static str, range_end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: false,
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest {
            compare: Vec::new(),
            success,
            failure,
        }))
    }

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    #[test]
    fn ranges() {
        let good = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        let cases = [
            (good.clone(), Ok(())),
            (RangeRequest::default(), Err(ApiError::EmptyKey)),
            (
                RangeRequest {
                    range_end: "b".into(),
                    ..RangeRequest::default()
                },
                Err(ApiError::EmptyKey),
            ),
            (
                RangeRequest {
                    sort_order: 2,
                    sort_target: 4,
                    ..good.clone()
                },
                Ok(()),
            ),
            (
                RangeRequest {
                    sort_order: 3,
                    ..good.clone()
                },
                Err(ApiError::InvalidSortOption),
            ),
            (
                RangeRequest {
                    sort_target: 5,
                    ..good.clone()
                },
                Err(ApiError::InvalidSortOption),
            ),
            (
                RangeRequest {
                    sort_target: -1,
                    ..good
                },
                Err(ApiError::InvalidSortOption),
            ),
        ];
        for (request, expected) in cases {
            assert_eq!(range(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn puts() {
        let good = PutRequest {
            key: "a".into(),
            ..PutRequest::default()
        };
        let cases = [
            (good.clone(), Ok(())),
            (PutRequest::default(), Err(ApiError::EmptyKey)),
            (
                PutRequest {
                    ignore_value: true,
                    ignore_lease: true,
                    ..good.clone()
                },
                Ok(()),
            ),
            (
                PutRequest {
                    ignore_value: true,
                    value: "v".into(),
                    ..good.clone()
                },
                Err(ApiError::ValueProvided),
            ),
            (
                PutRequest {
                    ignore_lease: true,
                    lease: -1,
                    ..good
                },
                Err(ApiError::LeaseProvided),
            ),
        ];
        for (request, expected) in cases {
            assert_eq!(put(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(
            delete_range(&DeleteRangeRequest::default()),
            Err(ApiError::EmptyKey)
        );
        assert_eq!(size(10, 10), Ok(()));
        assert_eq!(size(11, 10), Err(ApiError::RequestTooLarge));
        assert_eq!(lease_ttl_seconds(-5, 2), Ok(2));
        assert_eq!(lease_ttl_seconds(60, 2), Ok(60));
        assert_eq!(
            lease_ttl_seconds(MAX_LEASE_TTL_SECONDS, 2),
            Ok(MAX_LEASE_TTL_SECONDS)
        );
        assert_eq!(
            lease_ttl_seconds(MAX_LEASE_TTL_SECONDS + 1, 2),
            Err(ApiError::LeaseTtlTooLarge)
        );
    }

    #[test]
    fn numbers_of_operations() {
        let gets = |count| vec![get("a"); count];
        let compares = |count| {
            vec![
                Compare {
                    key: "a".into(),
                    ..Compare::default()
                };
                count
            ]
        };
        let cases = [
            (TxnRequest::default(), Ok(())),
            (
                TxnRequest {
                    compare: compares(4),
                    success: gets(4),
                    failure: gets(4),
                },
                Ok(()),
            ),
            (
                TxnRequest {
                    compare: compares(5),
                    ..TxnRequest::default()
                },
                Err(ApiError::TooManyOps),
            ),
            (
                TxnRequest {
                    success: gets(5),
                    ..TxnRequest::default()
                },
                Err(ApiError::TooManyOps),
            ),
            (
                TxnRequest {
                    failure: gets(5),
                    ..TxnRequest::default()
                },
                Err(ApiError::TooManyOps),
            ),
            // One outer operation leaves three to each nested transaction.
            (
                TxnRequest {
                    success: vec![nested(gets(3), gets(3))],
                    ..TxnRequest::default()
                },
                Ok(()),
            ),
            (
                TxnRequest {
                    success: vec![nested(gets(4), gets(0))],
                    ..TxnRequest::default()
                },
                Err(ApiError::TooManyOps),
            ),
            (
                TxnRequest {
                    compare: compares(2),
                    success: vec![nested(gets(3), gets(0))],
                    failure: vec![],
                },
                Err(ApiError::TooManyOps),
            ),
            (
                TxnRequest {
                    compare: vec![Compare::default()],
                    ..TxnRequest::default()
                },
                Err(ApiError::EmptyKey),
            ),
            (
                TxnRequest {
                    failure: vec![RequestOp { request: None }],
                    ..TxnRequest::default()
                },
                Err(ApiError::KeyNotFound),
            ),
            (
                TxnRequest {
                    success: vec![nested(vec![], vec![put_op("")])],
                    ..TxnRequest::default()
                },
                Err(ApiError::EmptyKey),
            ),
        ];
        for (request, expected) in cases {
            assert_eq!(txn(&request, 4), expected, "{request:?}");
        }
    }

    #[test]
    fn duplicate_keys() {
        let good = [
            vec![put_op("a"), put_op("b")],
            vec![put_op("a"), get("a"), get("a")],
            vec![del("a", ""), del("a", ""), del("a", "c")],
            vec![del("a", "b"), put_op("b")],
            vec![del("a", ""), put_op("aa"), put_op("a\0")],
            // Deletes to the last key, and of nothing.
            vec![del("a", "\0"), put_op("b")],
            vec![del("c", "a"), put_op("b")],
            vec![nested(vec![put_op("a")], vec![put_op("a")])],
            vec![nested(vec![put_op("a")], vec![del("a", "")])],
            vec![
                nested(vec![put_op("a")], vec![]),
                nested(vec![], vec![del("b", "")]),
            ],
        ];
        let bad = [
            vec![put_op("a"), put_op("a")],
            vec![del("a", ""), put_op("a")],
            vec![put_op("b"), del("a", "c")],
            vec![put_op("b"), del("a", "b"), del("b", "c")],
            vec![put_op("a"), nested(vec![put_op("a")], vec![])],
            vec![put_op("a"), nested(vec![], vec![put_op("a")])],
            vec![put_op("a"), nested(vec![del("a", "")], vec![])],
            vec![nested(vec![put_op("a")], vec![]), del("a", "")],
            vec![
                nested(vec![put_op("a")], vec![]),
                nested(vec![], vec![put_op("a")]),
            ],
            vec![
                nested(vec![del("a", "c")], vec![]),
                nested(vec![], vec![put_op("b")]),
            ],
            vec![nested(vec![put_op("a")], vec![put_op("a")]), put_op("a")],
            vec![
                nested(vec![nested(vec![], vec![put_op("a")])], vec![]),
                del("a", "b"),
            ],
            vec![nested(vec![put_op("a"), put_op("a")], vec![])],
        ];
        for ops in good {
            let request = TxnRequest {
                success: ops.clone(),
                failure: ops,
                compare: vec![],
            };
            assert_eq!(txn(&request, 128), Ok(()), "{request:?}");
        }
        for ops in bad {
            let then = TxnRequest {
                success: ops.clone(),
                ..TxnRequest::default()
            };
            assert_eq!(txn(&then, 128), Err(ApiError::DuplicateKey), "{then:?}");
            let otherwise = TxnRequest {
                failure: ops,
                ..TxnRequest::default()
            };
            assert_eq!(txn(&otherwise, 128), Err(ApiError::DuplicateKey), "{otherwise:?}");
        }
    }

    proptest! {
        #[test]
        fn intervals_are_a_set(inserted in prop::collection::vec(("[abc]{1,2}", "[abc]{0,2}"), 0..8)) {
            let mut set = Intervals::default();
            for (start, end) in &inserted {
                set.insert(start.as_bytes(), end.as_bytes());
            }
            let letters = ["", "a", "b", "c"];
            for key in letters.iter().flat_map(|one| letters.iter().map(move |two| format!("{one}{two}"))) {
                let expected = inserted.iter().any(|(start, end)| {
                    if end.is_empty() { *start == key } else { *start <= key && key < *end }
                });
                prop_assert_eq!(set.contains(key.as_bytes()), expected, "{}", key);
            }
            prop_assert!(set.by_start.iter().all(|(start, end)| start < end));
            prop_assert!(set.by_start.values().zip(set.by_start.keys().skip(1)).all(|(end, next)| end < next));
        }
    }
}
