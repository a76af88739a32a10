//! What a user may do: key ranges to read and to write, merged from all roles, and the questions about them.

use bytes::Bytes;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op};
use proto::replicated::request::Op;

use crate::lease::Leases;
use crate::mvcc::KeyRange;

/// Everything a user's roles allow, taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    root: bool,
    read: Ranges,
    write: Ranges,
}

impl Permissions {
    /// The root role's: everything.
    pub(super) fn root() -> Permissions {
        Permissions {
            root: true,
            ..Permissions::default()
        }
    }

    /// Permissions of a type that this version does not know allow nothing.
    pub(super) fn merge<'a>(granted: impl IntoIterator<Item = &'a Permission>) -> Permissions {
        let mut read = Vec::new();
        let mut write = Vec::new();
        for permission in granted {
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(permission),
                Ok(Type::Write) => write.push(permission),
                Ok(Type::Readwrite) => {
                    read.push(permission);
                    write.push(permission);
                }
                Err(_) => {}
            }
        }
        Permissions {
            root: false,
            read: Ranges::merge(&read),
            write: Ranges::merge(&write),
        }
    }

    /// Whether the user has the root role, which administers the cluster.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Whether every key that `key` and `range_end` name, as in a request, may be read.
    #[must_use]
    pub fn may_read(&self, key: &[u8], range_end: &[u8]) -> bool {
        self.root || self.read.contain(KeyRange::new(key, range_end))
    }

    /// Whether every key that `key` and `range_end` name may be written.
    #[must_use]
    pub fn may_write(&self, key: &[u8], range_end: &[u8]) -> bool {
        self.root || self.write.contain(KeyRange::new(key, range_end))
    }

    /// Whether a Txn that only reads may run: its compares, and the reads on all its branches. One that writes may not.
    #[must_use]
    pub fn may_read_txn(&self, request: &TxnRequest) -> bool {
        self.root
            || self.may_compare(request)
                && both_branches(request).all(|op| match &op.request {
                    Some(request_op::Request::RequestRange(range)) => {
                        self.may_read(&range.key, &range.range_end)
                    }
                    Some(request_op::Request::RequestTxn(nested)) => self.may_read_txn(nested),
                    Some(_) => false,
                    None => true,
                })
    }

    /// Whether a replicated request may be applied. What is not listed here is the cluster's own.
    pub(crate) fn may(&self, op: &Op, leases: &Leases) -> bool {
        match op {
            Op::Put(request) => self.may_put(request, leases),
            Op::DeleteRange(request) => self.may_delete(request),
            Op::Txn(request) => self.may_txn(request, leases),
            Op::LeaseRevoke(request) => self.may_write_all_on(request.id, leases),
            // It takes history from everybody. Etcd 3.5 asks nothing, which is CVE-2026-33413.
            Op::Compact(_) => self.may_write(b"\0", b"\0"),
            // As etcd: any user, whatever its keys.
            Op::LeaseGrant(_) => true,
            Op::Alarm(_) | Op::Auth(_) | Op::JoinToken(_) | Op::Revocation(_) => self.root,
            Op::LeaseCheckpoint(_)
            | Op::LeaseExpire(_)
            | Op::LeaseCheckpoints(_)
            | Op::HashCheck(_)
            | Op::PublishMember(_) => false,
        }
    }

    /// Every branch is checked, whichever will be taken: its answer would tell what the compares read.
    fn may_txn(&self, request: &TxnRequest, leases: &Leases) -> bool {
        self.root
            || self.may_compare(request)
                && both_branches(request).all(|op| match &op.request {
                    Some(request_op::Request::RequestRange(range)) => {
                        self.may_read(&range.key, &range.range_end)
                    }
                    Some(request_op::Request::RequestPut(put)) => self.may_put(put, leases),
                    Some(request_op::Request::RequestDeleteRange(delete)) => self.may_delete(delete),
                    Some(request_op::Request::RequestTxn(nested)) => self.may_txn(nested, leases),
                    // Nothing this version knows, and nothing it does.
                    None => true,
                })
    }

    fn may_compare(&self, request: &TxnRequest) -> bool {
        request
            .compare
            .iter()
            .all(|compare| self.may_read(&compare.key, &compare.range_end))
    }

    fn may_put(&self, request: &PutRequest, leases: &Leases) -> bool {
        self.may_write(&request.key, b"")
            && (!request.prev_kv || self.may_read(&request.key, b""))
            && self.may_write_all_on(request.lease, leases)
    }

    fn may_delete(&self, request: &DeleteRangeRequest) -> bool {
        self.may_write(&request.key, &request.range_end)
            && (!request.prev_kv || self.may_read(&request.key, &request.range_end))
    }

    /// Who puts a key on a lease, or revokes it, decides over all keys on it.
    fn may_write_all_on(&self, lease: i64, leases: &Leases) -> bool {
        self.root || leases.keys_on(lease).all(|key| self.may_write(key, b""))
    }
}

fn both_branches(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// Half-open ranges of keys: sorted, disjoint, not touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<Range>);

/// Without an end: every key from the start on. Ordered by start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: Bytes,
    end: Option<Bytes>,
}

impl Ranges {
    fn merge(permissions: &[&Permission]) -> Ranges {
        let mut all: Vec<Range> = permissions
            .iter()
            .filter_map(|permission| Range::of(permission))
            .collect();
        all.sort();
        let mut merged: Vec<Range> = Vec::with_capacity(all.len());
        for range in all {
            match merged.last_mut() {
                // Ranges that touch are one: a request may reach from one into the other.
                Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                    last.end = match (last.end.take(), range.end) {
                        (Some(one), Some(other)) => Some(one.max(other)),
                        _ => None,
                    };
                }
                _ => merged.push(range),
            }
        }
        Ranges(merged)
    }

    /// Whether all of `asked` lies in one range. A request's range that names no key, its end before its start, must
    /// have both of them in there: what it would name is nobody else's business either.
    fn contain(&self, asked: KeyRange<'_>) -> bool {
        let (KeyRange::One(start) | KeyRange::From(start) | KeyRange::Between(start, _)) = asked;
        let after = self.0.partition_point(|range| range.start.as_ref() <= start);
        let Some(range) = after.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return false;
        };
        let Some(end) = &range.end else {
            return match asked {
                KeyRange::Between(_, asked_end) => asked_end > range.start.as_ref(),
                KeyRange::One(_) | KeyRange::From(_) => true,
            };
        };
        match asked {
            KeyRange::One(key) => key < end.as_ref(),
            KeyRange::From(_) => false,
            KeyRange::Between(start, asked_end) => {
                start < end.as_ref() && asked_end <= end.as_ref() && asked_end > range.start.as_ref()
            }
        }
    }
}

impl Range {
    /// `None` where the permission names no key.
    fn of(permission: &Permission) -> Option<Range> {
        let start = permission.key.clone();
        let end = match KeyRange::new(&permission.key, &permission.range_end) {
            KeyRange::One(key) => {
                // The key and nothing after it: the next key there is, is the one with a zero byte more.
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(key);
                next.push(0);
                Some(Bytes::from(next))
            }
            KeyRange::From(_) => None,
            KeyRange::Between(key, end) if key < end => Some(permission.range_end.clone()),
            KeyRange::Between(..) => return None,
        };
        Some(Range { start, end })
    }
}
