//! Reads at one revision.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::mvccpb::KeyValue;
use thiserror::Error;

use super::{Index, KeyRange, Revision, Visible, record};
use crate::backend::{Backend, BackendError};
use crate::store::RangeResult;

/// What is read without further ado, in keys and in bytes.
const QUICK_KEYS: usize = 256;
const QUICK_BYTES: u64 = 256 << 10;
/// What a key without its value takes in an answer, about.
const KEY_BYTES: u64 = 64;

/// Values written by apply and not yet in the backend.
pub(crate) type Overlay = BTreeMap<Revision, KeyValue>;

/// What one reader sees.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) index: &'a Index,
    /// Apply's own, and nobody else's.
    pub(crate) overlay: Option<&'a Overlay>,
    /// The latest revision this reader may see.
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ReadFailure {
    #[error("required revision has been compacted")]
    Compacted,
    #[error("required revision is a future revision")]
    Future,
    /// The index names a record that is gone: it was compacted since the view was taken, or the store is damaged.
    #[error("the record at revision {0} is gone")]
    Gone(Revision),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl View<'_> {
    /// A range with every option of the request.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResult, ReadFailure> {
        let at = self.readable(request.revision)?;
        let order = Order::of(request);
        let wanted = if request.count_only {
            0
        } else {
            order.wanted(request)
        };
        let (found, count) = self.find(KeyRange::new(&request.key, &request.range_end), at, wanted);

        let value = !request.keys_only || order.target == SortTarget::Value;
        let mut kvs = Vec::with_capacity(found.len());
        for revision in found {
            let kv = self.fetch(revision, value)?;
            if passes(request, &kv) {
                kvs.push(kv);
            }
        }
        order.sort(&mut kvs);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
            }
        }
        Ok(RangeResult {
            kvs,
            more,
            count,
            revision: self.revision,
        })
    }

    /// The bytes of what is read for an answer; `None` where that takes so long that others of the same thread should not
    /// wait for it.
    pub(crate) fn quick_bytes(&self, request: &RangeRequest) -> Option<u64> {
        let (keys, bytes) = self.weigh(request, QUICK_KEYS, QUICK_BYTES);
        (keys <= QUICK_KEYS && bytes <= QUICK_BYTES).then_some(bytes)
    }

    /// The bytes of an answer, about.
    pub(crate) fn answer_bytes(&self, request: &RangeRequest) -> u64 {
        if request.count_only {
            return 0;
        }
        // Where it is sorted all are read, before the first ones are chosen.
        let wanted = Order::of(request).wanted(request);
        let (keys, bytes) = self.weigh(request, wanted, u64::MAX);
        let beside = u64::try_from(keys).unwrap_or(u64::MAX).saturating_mul(KEY_BYTES);
        match request.keys_only {
            true => beside,
            false => bytes.saturating_add(beside),
        }
    }

    /// The keys of a range and their bytes, up to the first one beyond either bound.
    fn weigh(&self, request: &RangeRequest, most_keys: usize, most_bytes: u64) -> (usize, u64) {
        let (mut keys, mut bytes) = (0, 0_u64);
        let at = self.readable(request.revision).unwrap_or(0);
        let range = KeyRange::new(&request.key, &request.range_end);
        self.index.visit(range, at, |_, visible| {
            keys += 1;
            bytes += u64::from(visible.bytes);
            if keys > most_keys || bytes > most_bytes {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        (keys, bytes)
    }

    /// The revision at which a request that names `revision` reads.
    pub(crate) fn readable(&self, revision: i64) -> Result<i64, ReadFailure> {
        match revision {
            // As in etcd, negative means "current" too.
            ..=0 => Ok(self.revision),
            _ if revision > self.revision => Err(ReadFailure::Future),
            _ if revision < self.compacted => Err(ReadFailure::Compacted),
            _ => Ok(revision),
        }
    }

    /// Whether a range of a Txn can read at `revision`. A negative one, which means "current" in a range of its own,
    /// is older than any compaction here, as in etcd, where a store that was never compacted counts as compacted at -1.
    pub(crate) fn readable_in_txn(&self, revision: i64) -> Result<(), ReadFailure> {
        if revision < -1 || (revision == -1 && self.compacted > 0) {
            return Err(ReadFailure::Compacted);
        }
        self.readable(revision).map(drop)
    }

    /// What `key` is now.
    pub(crate) fn visible(&self, key: &[u8]) -> Option<Visible> {
        self.index.get(key, self.revision)
    }

    /// `key` as it is now.
    pub(crate) fn current(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadFailure> {
        self.visible(key)
            .map(|visible| self.fetch(visible.modified, true))
            .transpose()
    }

    /// The keys of `range` now, ascending.
    pub(crate) fn keys(&self, range: KeyRange<'_>) -> Vec<(bytes::Bytes, Visible)> {
        let mut keys = Vec::new();
        self.index.visit(range, self.revision, |key, visible| {
            keys.push((key.clone(), visible));
            ControlFlow::Continue(())
        });
        keys
    }

    /// The key-value that was put at `revision`, `value` or not.
    pub(crate) fn fetch(&self, revision: Revision, value: bool) -> Result<KeyValue, ReadFailure> {
        if let Some(kv) = self.overlay.and_then(|overlay| overlay.get(&revision)) {
            return Ok(kv.clone());
        }
        let read = if value { record::read } else { record::read_head };
        let record = read(self.backend, revision)?.ok_or(ReadFailure::Gone(revision))?;
        Ok(record.kv)
    }

    /// The first `wanted` versions of a range, and how many there are.
    fn find(&self, range: KeyRange<'_>, at: i64, wanted: usize) -> (Vec<Revision>, i64) {
        let mut found = Vec::new();
        let mut count = 0;
        self.index.visit(range, at, |_, visible| {
            count += 1;
            if found.len() < wanted {
                found.push(visible.modified);
            }
            ControlFlow::Continue(())
        });
        (found, count)
    }
}

/// How a range is sorted, and how much of it must be fetched for that.
struct Order {
    target: SortTarget,
    order: SortOrder,
}

impl Order {
    fn of(request: &RangeRequest) -> Order {
        Order {
            target: request.sort_target(),
            order: request.sort_order(),
        }
    }

    /// A limit cuts before sorting only where nothing is filtered and no order is named. One more than the limit
    /// tells whether there is more.
    fn wanted(&self, request: &RangeRequest) -> usize {
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        match usize::try_from(request.limit) {
            Ok(limit) if limit > 0 && !filtered && self.order == SortOrder::None => limit.saturating_add(1),
            _ => usize::MAX,
        }
    }

    fn sort(&self, kvs: &mut [KeyValue]) {
        // They are found in key order already.
        if self.target == SortTarget::Key && self.order != SortOrder::Descend {
            return;
        }
        let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
            match self.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        };
        match self.order {
            SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
            SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
        }
    }
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let at_least = |bound: i64, revision: i64| bound == 0 || revision >= bound;
    let at_most = |bound: i64, revision: i64| bound == 0 || revision <= bound;
    at_least(request.min_mod_revision, kv.mod_revision)
        && at_most(request.max_mod_revision, kv.mod_revision)
        && at_least(request.min_create_revision, kv.create_revision)
        && at_most(request.max_create_revision, kv.create_revision)
}
