//! Leases as the log knows them: which there are, their TTLs, and which keys hang on each.
//!
//! It owns no deadline: time is the leader's, which proposes a revoke when one is over. Attachments are not stored;
//! they are read off the live keys at start.

mod feed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

pub(crate) use feed::LeaseFeedSender;
pub use feed::{LeaseEvent, LeaseFeed, LeaseNews};

use crate::store::LeaseInfo;

/// One change of the table. Apply makes it on its own table at once, and readers' table follows with the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    Grant {
        id: i64,
        ttl_seconds: i64,
    },
    Checkpoint {
        id: i64,
        remaining_ttl_seconds: i64,
    },
    /// Its keys are detached first, by their deletion.
    Revoke {
        id: i64,
    },
    /// Detaches the key from its former lease. A lease that is not there: detaches only.
    Attach {
        key: Bytes,
        id: i64,
    },
    Detach {
        key: Bytes,
    },
}

#[derive(Clone, Debug)]
struct Lease {
    granted_ttl_seconds: i64,
    remaining_ttl_seconds: i64,
    keys: BTreeSet<Bytes>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// Looked up only, never walked: its order is not the same on all members.
    attached: HashMap<Bytes, i64>,
}

impl Leases {
    pub(crate) fn change(&mut self, change: &LeaseChange) {
        match change {
            LeaseChange::Grant { id, ttl_seconds } => self.restore(&LeaseInfo {
                id: *id,
                granted_ttl_seconds: *ttl_seconds,
                remaining_ttl_seconds: *ttl_seconds,
            }),
            LeaseChange::Checkpoint {
                id,
                remaining_ttl_seconds,
            } => {
                if let Some(lease) = self.leases.get_mut(id) {
                    lease.remaining_ttl_seconds = *remaining_ttl_seconds;
                }
            }
            LeaseChange::Revoke { id } => {
                let revoked = self.leases.remove(id);
                for key in revoked.into_iter().flat_map(|lease| lease.keys) {
                    self.attached.remove(&key);
                }
            }
            LeaseChange::Attach { key, id } => self.attach(key, *id),
            LeaseChange::Detach { key } => self.detach(key),
        }
    }

    /// Adds a lease read back from disk.
    pub(crate) fn restore(&mut self, info: &LeaseInfo) {
        self.leases.insert(
            info.id,
            Lease {
                granted_ttl_seconds: info.granted_ttl_seconds,
                remaining_ttl_seconds: info.remaining_ttl_seconds,
                keys: BTreeSet::new(),
            },
        );
    }

    pub(crate) fn attach(&mut self, key: &[u8], id: i64) {
        if self.lease_of(key) == id {
            return;
        }
        self.detach(key);
        if let Some(lease) = self.leases.get_mut(&id) {
            // A copy: the caller's may be a slice of a whole log entry.
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.attached.insert(key, id);
        }
    }

    pub(crate) fn detach(&mut self, key: &[u8]) {
        if let Some(id) = self.attached.remove(key)
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.keys.remove(key);
        }
    }

    /// The lease of a key; 0: none.
    pub(crate) fn lease_of(&self, key: &[u8]) -> i64 {
        self.attached.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn get(&self, id: i64) -> Option<LeaseInfo> {
        self.leases.get(&id).map(|lease| info(id, lease))
    }

    /// Sorted.
    pub(crate) fn keys(&self, id: i64) -> Vec<Bytes> {
        self.leases
            .get(&id)
            .map(|lease| lease.keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Ascending; none where there is no such lease.
    pub(crate) fn keys_on(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.leases.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    pub(crate) fn key_count(&self, id: i64) -> usize {
        self.leases.get(&id).map_or(0, |lease| lease.keys.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Up to `max` with ids above `after`, ascending by id.
    pub(crate) fn after(&self, after: Option<i64>, max: usize) -> Vec<LeaseInfo> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.leases
            .range((start, Bound::Unbounded))
            .take(max)
            .map(|(id, lease)| info(*id, lease))
            .collect()
    }

    /// Ascending by id.
    pub(crate) fn all(&self) -> Vec<LeaseInfo> {
        self.leases.iter().map(|(id, lease)| info(*id, lease)).collect()
    }
}

fn info(id: i64, lease: &Lease) -> LeaseInfo {
    LeaseInfo {
        id,
        granted_ttl_seconds: lease.granted_ttl_seconds,
        remaining_ttl_seconds: lease.remaining_ttl_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hangs_on_one_lease_at_most() {
        let mut leases = Leases::default();
        for id in [1, 2] {
            leases.change(&LeaseChange::Grant { id, ttl_seconds: 10 });
        }
        leases.change(&LeaseChange::Attach {
            key: "b".into(),
            id: 1,
        });
        leases.change(&LeaseChange::Attach {
            key: "a".into(),
            id: 1,
        });
        assert_eq!(leases.keys(1), ["a", "b"]);
        leases.change(&LeaseChange::Attach {
            key: "a".into(),
            id: 2,
        });
        assert_eq!(
            (leases.keys(1), leases.keys(2)),
            (vec!["b".into()], vec!["a".into()])
        );
        leases.change(&LeaseChange::Attach {
            key: "b".into(),
            id: 9,
        });
        assert_eq!(leases.lease_of(b"b"), 0);
        leases.change(&LeaseChange::Checkpoint {
            id: 2,
            remaining_ttl_seconds: 3,
        });
        assert_eq!(leases.get(2).map(|lease| lease.remaining_ttl_seconds), Some(3));
        leases.change(&LeaseChange::Revoke { id: 2 });
        assert_eq!(
            (leases.lease_of(b"a"), leases.contains(2), leases.all().len()),
            (0, false, 1)
        );
    }
}
