//! Which keys a watcher watches, in etcd's terms of key and range end.

use bytes::Bytes;

/// In a request, this as the range end means "no end".
const NO_END: &[u8] = b"\0";

/// One key, or a half-open range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    One(Bytes),
    Range(KeyRange),
}

/// Ordered by start, then by end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyRange {
    pub(super) start: Bytes,
    pub(super) end: RangeEnd,
}

/// Ordered by how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RangeEnd {
    Before(Bytes),
    Unbounded,
}

impl Keys {
    /// From a request's fields: no range end means the key alone, a zero byte means everything from the key on.
    pub(super) fn from_request(key: Bytes, range_end: Bytes) -> Keys {
        if range_end.is_empty() {
            Keys::One(key)
        } else if range_end == NO_END {
            Keys::Range(KeyRange {
                start: key,
                end: RangeEnd::Unbounded,
            })
        } else {
            Keys::Range(KeyRange {
                start: key,
                end: RangeEnd::Before(range_end),
            })
        }
    }

    /// The request's fields again.
    pub(super) fn as_request(&self) -> (&[u8], &[u8]) {
        match self {
            Keys::One(key) => (key, b""),
            Keys::Range(KeyRange {
                start,
                end: RangeEnd::Unbounded,
            }) => (start, NO_END),
            Keys::Range(KeyRange {
                start,
                end: RangeEnd::Before(end),
            }) => (start, end),
        }
    }
}

impl RangeEnd {
    /// Whether `key` is still before this end.
    pub(super) fn is_after(&self, key: &[u8]) -> bool {
        match self {
            RangeEnd::Before(end) => key < end.as_ref(),
            RangeEnd::Unbounded => true,
        }
    }
}
