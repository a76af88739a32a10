//! The history of one key.
//!
//! A key lives in generations: one begins with a put, grows with every put, and ends with a tombstone (a delete).
//! What happens to the index of a key `k`, as (revision) and `t` for a tombstone:
//!
//! ```text
//! put k at 1, put k at 2, delete k at 4          put k at 5, delete k at 6, put k at 8
//!     {1, 2, 4t}                                     {1, 2, 4t}  {5, 6t}  {8}
//!
//! after compact(2): what is visible at 2 stays   {2, 4t}  {5, 6t}  {8}
//! after compact(4): nothing is visible at 4,
//!     but the tombstone at 4 itself stays, for
//!     a watch that starts there                  {4t}  {5, 6t}  {8}
//! after compact(5): visible at 5 is 5            {5, 6t}  {8}
//! after compact(8): visible at 8 is 8            {8}
//! ```
//!
//! So a put goes once the version after it is at or below the compacted revision, a tombstone once it is below.
//! A key none of whose versions are left is no longer in the index.

use super::Revision;

/// One change of a key, and what its record takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) revision: Revision,
    /// Bytes of key, value and bookkeeping: what counts towards the quota.
    pub(crate) bytes: u32,
}

/// From a put to the delete that follows, or to now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Generation {
    /// The main revision of its first put, even when that is compacted.
    created: i64,
    /// How many puts of it were compacted away.
    compacted: i64,
    versions: Vec<Version>,
    /// Whether the last of `versions` is a tombstone.
    ended: bool,
}

/// What a key was at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) modified: Revision,
    pub(crate) created: i64,
    /// How many puts of the generation there were, this one included.
    pub(crate) version: i64,
    /// As in [`Version`].
    pub(crate) bytes: u32,
}

/// The generations of one key, oldest first. Never empty while it is in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyIndex {
    generations: Vec<Generation>,
}

impl KeyIndex {
    /// The version that a put or a delete now would replace, tombstones excluded.
    pub(crate) fn live(&self) -> Option<Version> {
        self.generations
            .last()
            .filter(|generation| !generation.ended)?
            .versions
            .last()
            .copied()
    }

    pub(crate) fn put(&mut self, version: Version) {
        match self.generations.last_mut() {
            Some(generation) if !generation.ended => generation.versions.push(version),
            _ => self.begin(version, false),
        }
    }

    /// A put read back from disk, whose generation may have begun with versions that are compacted.
    pub(crate) fn restore_put(&mut self, version: Version, created: i64, count: i64) {
        let continues = self
            .generations
            .last()
            .is_some_and(|g| !g.ended && g.created == created);
        self.put(version);
        if !continues && let Some(generation) = self.generations.last_mut() {
            generation.created = created;
            generation.compacted = count - 1;
        }
    }

    /// Ends the live generation. Also takes a tombstone whose generation is compacted, when reading back.
    pub(crate) fn tombstone(&mut self, version: Version) {
        match self.generations.last_mut() {
            Some(generation) if !generation.ended => {
                generation.versions.push(version);
                generation.ended = true;
            }
            _ => self.begin(version, true),
        }
    }

    fn begin(&mut self, version: Version, ended: bool) {
        let created = version.revision.main;
        let generation = Generation {
            created,
            compacted: 0,
            versions: vec![version],
            ended,
        };
        if self.generations.is_empty() {
            // Most keys have one generation and one version, and a vector that grows takes room for four.
            self.generations = vec![generation];
        } else {
            self.generations.push(generation);
        }
    }

    /// What is visible at the main revision `at`; `None` where the key does not exist.
    pub(crate) fn get(&self, at: i64) -> Option<Visible> {
        let generation = self.generations.iter().rev().find(|generation| {
            generation
                .versions
                .first()
                .is_some_and(|first| first.revision.main <= at)
        })?;
        let seen = generation
            .versions
            .partition_point(|version| version.revision.main <= at);
        if generation.ended && seen == generation.versions.len() {
            return None;
        }
        let visible = generation.versions.get(seen.checked_sub(1)?)?;
        Some(Visible {
            modified: visible.revision,
            created: generation.created,
            version: generation.compacted + i64::try_from(seen).ok()?,
            bytes: visible.bytes,
        })
    }

    /// Forgets one version. True when none is left.
    pub(crate) fn remove(&mut self, revision: Revision) -> bool {
        let holding = self.generations.iter().position(|generation| {
            generation
                .versions
                .last()
                .is_some_and(|last| last.revision >= revision)
        });
        if let Some(position) = holding
            && let Some(generation) = self.generations.get_mut(position)
            && let Ok(found) = generation
                .versions
                .binary_search_by_key(&revision, |version| version.revision)
        {
            generation.versions.remove(found);
            generation.compacted += 1;
            if generation.versions.is_empty() {
                self.generations.remove(position);
            }
        }
        self.generations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(main: i64) -> Version {
        Version {
            revision: Revision { main, sub: 0 },
            bytes: 1,
        }
    }

    /// The key of the module's example.
    fn example() -> KeyIndex {
        let mut key = KeyIndex::default();
        key.put(version(1));
        key.put(version(2));
        key.tombstone(version(4));
        key.put(version(5));
        key.tombstone(version(6));
        key.put(version(8));
        key
    }

    fn drawn(key: &KeyIndex) -> String {
        let generation = |generation: &Generation| {
            let last = generation.versions.len() - 1;
            let versions: Vec<String> = generation
                .versions
                .iter()
                .enumerate()
                .map(|(i, version)| {
                    let tombstone = if generation.ended && i == last { "t" } else { "" };
                    format!("{}{tombstone}", version.revision.main)
                })
                .collect();
            format!("{{{}}}", versions.join(", "))
        };
        key.generations
            .iter()
            .map(generation)
            .collect::<Vec<_>>()
            .join("  ")
    }

    #[test]
    fn the_example_reads_as_written() {
        let visible = |at| example().get(at).map(|v| (v.modified.main, v.created, v.version));
        assert_eq!(drawn(&example()), "{1, 2, 4t}  {5, 6t}  {8}");
        assert_eq!(visible(0), None);
        assert_eq!(visible(1), Some((1, 1, 1)));
        assert_eq!(visible(2), Some((2, 1, 2)));
        assert_eq!(visible(3), Some((2, 1, 2)));
        assert_eq!(visible(4), None);
        assert_eq!(visible(5), Some((5, 5, 1)));
        assert_eq!(visible(7), None);
        assert_eq!(visible(9), Some((8, 8, 1)));
    }

    #[test]
    fn the_example_compacts_as_written() {
        let mut key = example();
        let mut remove = |mains: &[i64]| {
            for main in mains {
                assert!(!key.remove(Revision { main: *main, sub: 0 }));
            }
            (drawn(&key), key.get(3).map(|v| (v.created, v.version)))
        };
        assert_eq!(remove(&[1]), ("{2, 4t}  {5, 6t}  {8}".to_owned(), Some((1, 2))));
        assert_eq!(remove(&[2]), ("{4t}  {5, 6t}  {8}".to_owned(), None));
        assert_eq!(remove(&[4]), ("{5, 6t}  {8}".to_owned(), None));
        assert_eq!(remove(&[5, 6]), ("{8}".to_owned(), None));
        assert!(key.remove(Revision { main: 8, sub: 0 }));
    }

    #[test]
    fn a_generation_without_its_first_versions_is_read_back() {
        let mut key = KeyIndex::default();
        key.tombstone(version(3));
        key.restore_put(version(9), 5, 4);
        key.restore_put(version(12), 5, 5);
        assert_eq!(key.get(4), None);
        assert_eq!(
            key.get(10),
            Some(Visible {
                modified: Revision { main: 9, sub: 0 },
                created: 5,
                version: 4,
                bytes: 1
            })
        );
        assert_eq!(
            key.get(12),
            Some(Visible {
                modified: Revision { main: 12, sub: 0 },
                created: 5,
                version: 5,
                bytes: 1
            })
        );
    }
}
