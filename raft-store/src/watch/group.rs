//! The synced watchers, found by the keys they watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::inbox::Inbox;
use super::key_range::Keys;
use super::range_tree::RangeTree;

/// What a put costs does not depend on how many watchers watch other keys.
#[derive(Debug)]
pub(super) struct Group {
    /// Only looked up, never iterated while events are handed out: its order is not the same in every run.
    by_key: HashMap<Bytes, BTreeMap<u64, Arc<Inbox>>>,
    by_range: RangeTree<Arc<Inbox>>,
}

impl Group {
    pub(super) fn new() -> Group {
        Group {
            by_key: HashMap::new(),
            by_range: RangeTree::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.by_range.is_empty()
    }

    pub(super) fn insert(&mut self, inbox: &Arc<Inbox>) {
        let (id, member) = (inbox.id(), Arc::clone(inbox));
        match inbox.keys() {
            Keys::One(key) => {
                self.by_key.entry(key.clone()).or_default().insert(id, member);
            }
            Keys::Range(range) => self.by_range.insert(range, id, member),
        }
    }

    /// Does nothing where the watcher is not a member.
    pub(super) fn remove(&mut self, inbox: &Inbox) {
        match inbox.keys() {
            Keys::One(key) => {
                let Some(members) = self.by_key.get_mut(key) else {
                    return;
                };
                members.remove(&inbox.id());
                if members.is_empty() {
                    self.by_key.remove(key);
                }
            }
            Keys::Range(range) => self.by_range.remove(range, inbox.id()),
        }
    }

    pub(super) fn for_each_watching(&self, key: &[u8], visit: &mut impl FnMut(&Arc<Inbox>)) {
        if let Some(members) = self.by_key.get(key) {
            members.values().for_each(&mut *visit);
        }
        self.by_range.for_each_at(key, visit);
    }

    /// Empties the group. In the order of ids.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Inbox>> {
        let mut all: Vec<Arc<Inbox>> = self
            .by_key
            .drain()
            .flat_map(|(_, members)| members.into_values())
            .collect();
        self.by_range.for_each(&mut |inbox| all.push(Arc::clone(inbox)));
        self.by_range = RangeTree::new();
        all.sort_unstable_by_key(|inbox| inbox.id());
        all
    }
}
