//! The key index: every key in memory with its [`KeyIndex`], and which versions compaction may forget.
//!
//! Owns where to look; the records themselves are in the backend. One writer (apply) adds, the sweeper removes what
//! is obsolete, any number of readers look up at a revision. A long scan lets go of the lock every
//! [`PAGE_KEYS`] keys: what changes meanwhile has a later revision than the reader's, which it does not see.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::key_index::{KeyIndex, Version, Visible};
use super::{KeyRange, Revision};

const PAGE_KEYS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: RwLock<BTreeMap<Bytes, KeyIndex>>,
    obsolete: Mutex<Obsoletes>,
}

/// A version that no reader needs once `since` is compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obsolete {
    since: i64,
    pub(crate) key: Bytes,
    pub(crate) revision: Revision,
    bytes: u32,
}

/// In the order in which they became obsolete, so that a compaction never looks at what it keeps.
#[derive(Debug, Default)]
struct Obsoletes {
    /// Puts: obsolete once the revision that replaced them is compacted.
    replaced: Line,
    /// Tombstones: obsolete once the revision after theirs is.
    tombstones: Line,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Obsolete>,
    /// How many at the front are compacted already and wait for the sweeper only.
    compacted: usize,
}

impl Line {
    fn compact(&mut self, revision: i64) -> u64 {
        let mut freed = 0;
        while let Some(obsolete) = self.waiting.get(self.compacted).filter(|o| o.since <= revision) {
            freed += u64::from(obsolete.bytes);
            self.compacted += 1;
        }
        freed
    }

    fn take(&mut self, revision: i64, into: &mut Vec<Obsolete>, max: usize) {
        while into.len() < max && self.compacted > 0 {
            let Some(obsolete) = self.waiting.pop_front_if(|o| o.since <= revision) else {
                return;
            };
            self.compacted -= 1;
            into.push(obsolete);
        }
    }
}

impl Index {
    /// What `key` was at the main revision `at`; `None` where it did not exist.
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<Visible> {
        self.keys.read().get(key)?.get(at)
    }

    /// Adds a put. Nothing keeps a reference to `key`, which may be a slice of something large.
    pub(crate) fn put(&self, key: &[u8], version: Version) {
        self.add_put(key, version, |index| index.put(version));
    }

    /// Adds a put read back from disk.
    pub(crate) fn restore_put(&self, key: &[u8], version: Version, created: i64, count: i64) {
        self.add_put(key, version, |index| index.restore_put(version, created, count));
    }

    fn add_put(&self, key: &[u8], version: Version, add: impl FnOnce(&mut KeyIndex)) {
        let mut keys = self.keys.write();
        let Some((known, index)) = find_mut(&mut keys, key) else {
            let mut index = KeyIndex::default();
            add(&mut index);
            keys.insert(Bytes::copy_from_slice(key), index);
            return;
        };
        if let Some(replaced) = index.live() {
            self.obsolete.lock().replaced.waiting.push_back(Obsolete {
                since: version.revision.main,
                key: known.clone(),
                revision: replaced.revision,
                bytes: replaced.bytes,
            });
        }
        add(index);
    }

    /// Adds a tombstone. Read back from disk it may be all that is left of its key.
    pub(crate) fn tombstone(&self, key: &[u8], version: Version) {
        let mut keys = self.keys.write();
        if !keys.contains_key(key) {
            keys.insert(Bytes::copy_from_slice(key), KeyIndex::default());
        }
        let Some((known, index)) = find_mut(&mut keys, key) else {
            return;
        };
        let mut obsolete = self.obsolete.lock();
        if let Some(replaced) = index.live() {
            obsolete.replaced.waiting.push_back(Obsolete {
                since: version.revision.main,
                key: known.clone(),
                revision: replaced.revision,
                bytes: replaced.bytes,
            });
        }
        obsolete.tombstones.waiting.push_back(Obsolete {
            since: version.revision.main + 1,
            key: known.clone(),
            revision: version.revision,
            bytes: version.bytes,
        });
        drop(obsolete);
        index.tombstone(version);
    }

    /// Calls `each` with every key of `range` that exists at `at`, ascending, until it breaks.
    pub(crate) fn visit(
        &self,
        range: KeyRange<'_>,
        at: i64,
        mut each: impl FnMut(&Bytes, Visible) -> ControlFlow<()>,
    ) {
        let Some((mut start, end)) = range
            .bounds()
            .map(|(start, end)| (start.map(<[u8]>::to_vec), end))
        else {
            return;
        };
        loop {
            let keys = self.keys.read();
            let mut page = keys.range::<[u8], _>((start.as_ref().map(Vec::as_slice), end));
            let mut last = None;
            for (key, index) in page.by_ref().take(PAGE_KEYS) {
                last = Some(key);
                if let Some(visible) = index.get(at)
                    && each(key, visible).is_break()
                {
                    return;
                }
            }
            match (last, page.next()) {
                (Some(last), Some(_)) => start = Bound::Excluded(last.to_vec()),
                _ => return,
            }
        }
    }

    /// Marks what is obsolete at `revision` as compacted: how many of the quota's bytes that frees.
    pub(crate) fn compact(&self, revision: i64) -> u64 {
        let mut obsolete = self.obsolete.lock();
        obsolete.replaced.compact(revision) + obsolete.tombstones.compact(revision)
    }

    /// Takes out up to `max` compacted versions that nobody who reads at `revision` or later needs.
    pub(crate) fn take_compacted(&self, revision: i64, max: usize) -> Vec<Obsolete> {
        let mut obsolete = self.obsolete.lock();
        let mut taken = Vec::new();
        obsolete.replaced.take(revision, &mut taken, max);
        obsolete.tombstones.take(revision, &mut taken, max);
        taken
    }

    /// Whether anything compacted waits to be taken out.
    pub(crate) fn has_compacted(&self) -> bool {
        let obsolete = self.obsolete.lock();
        obsolete.replaced.compacted + obsolete.tombstones.compacted > 0
    }

    /// Forgets versions, and keys of which none is left.
    pub(crate) fn remove(&self, versions: &[Obsolete]) {
        let mut keys = self.keys.write();
        for version in versions {
            if let Some(index) = keys.get_mut(&version.key)
                && index.remove(version.revision)
            {
                keys.remove(&version.key);
            }
        }
    }

    /// Whether the record of `key` at `revision` is still needed once `compacted` is compacted.
    pub(crate) fn retains(&self, compacted: i64, key: &[u8], revision: Revision) -> bool {
        revision.main >= compacted
            || self
                .get(key, compacted)
                .is_some_and(|seen| seen.modified == revision)
    }

    /// How many keys it holds, deleted ones with history included.
    pub(crate) fn len(&self) -> usize {
        self.keys.read().len()
    }
}

fn find_mut<'a>(
    keys: &'a mut BTreeMap<Bytes, KeyIndex>,
    key: &[u8],
) -> Option<(&'a Bytes, &'a mut KeyIndex)> {
    keys.range_mut::<[u8], _>((Bound::Included(key), Bound::Included(key)))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(main: i64) -> Version {
        Version {
            revision: Revision { main, sub: 0 },
            bytes: 10,
        }
    }

    fn names(index: &Index, range: KeyRange<'_>, at: i64) -> Vec<String> {
        let mut names = Vec::new();
        index.visit(range, at, |key, visible| {
            names.push(format!("{}@{}", String::from_utf8_lossy(key), visible.modified));
            ControlFlow::Continue(())
        });
        names
    }

    #[test]
    fn a_scan_over_several_pages_sees_every_key_once() {
        let index = Index::default();
        for n in 0..2_500 {
            index.put(format!("{n:05}").as_bytes(), version(n + 2));
        }
        assert_eq!(names(&index, KeyRange::From(b"\0"), i64::MAX).len(), 2_500);
        assert_eq!(names(&index, KeyRange::From(b"\0"), 1_001).len(), 1_000);
        assert_eq!(
            names(&index, KeyRange::Between(b"00998", b"01001"), 9_999),
            ["00998@1000.0", "00999@1001.0", "01000@1002.0"]
        );
        assert_eq!(
            names(&index, KeyRange::Between(b"2", b"1"), 9_999),
            Vec::<String>::new()
        );
    }

    #[test]
    fn compaction_frees_what_nobody_can_read_any_more() {
        let index = Index::default();
        index.put(b"a", version(2));
        index.put(b"a", version(3));
        index.put(b"b", version(4));
        index.tombstone(b"b", version(5));
        let swept = |revision| {
            let taken = index.take_compacted(revision, 10);
            index.remove(&taken);
            taken.iter().map(|o| o.revision.main).collect::<Vec<_>>()
        };
        assert_eq!(swept(5), Vec::<i64>::new(), "nothing is compacted yet");
        assert_eq!(index.compact(2), 0);
        assert_eq!(index.compact(5), 20);
        assert_eq!(swept(2), Vec::<i64>::new(), "a reader at 2 is pinned");
        assert_eq!(swept(5), [2, 4]);
        assert_eq!(index.len(), 2, "the tombstone at the compacted revision stays");
        assert_eq!(index.compact(6), 10);
        assert_eq!(swept(6), [5]);
        assert_eq!(names(&index, KeyRange::From(b"\0"), 6), ["a@3.0"]);
        assert_eq!(index.len(), 1);
    }
}
