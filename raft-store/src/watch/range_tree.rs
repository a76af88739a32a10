//! Which ranges contain a key: an AVL tree of ranges in which every node knows how far its subtree reaches.
//!
//! Ranges are ordered by their start, so a key's ranges are all left of the first start after it; and a subtree
//! that ends before the key is skipped as a whole. Watchers of the same range share a node.
//!
//! ```text
//!                  [d, m) max m
//!                 /            \
//!     [a, k) max k              [f, g) max z
//!                                         \
//!                                          [h, z) max z
//! ```
//! Looking for `g`: `[a, k)` and `[d, m)` hold it, `[f, g)` does not, and `[h, z)` starts after it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::key_range::{KeyRange, RangeEnd};

/// The members of each range, by id.
#[derive(Debug)]
pub(super) struct RangeTree<M> {
    root: Link<M>,
}

type Link<M> = Option<Box<RangeNode<M>>>;

#[derive(Debug)]
struct RangeNode<M> {
    range: KeyRange,
    /// Never empty, and in the order of ids: the same run wakes the same watchers in the same order.
    members: BTreeMap<u64, M>,
    /// The furthest end of the ranges here and below.
    max_end: RangeEnd,
    height: u32,
    left: Link<M>,
    right: Link<M>,
}

impl<M> RangeTree<M> {
    pub(super) fn new() -> RangeTree<M> {
        RangeTree { root: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub(super) fn insert(&mut self, range: &KeyRange, id: u64, member: M) {
        self.root = Some(insert(self.root.take(), range, id, member));
    }

    pub(super) fn remove(&mut self, range: &KeyRange, id: u64) {
        self.root = remove(self.root.take(), range, id);
    }

    /// Visits the members of every range that contains `key`.
    pub(super) fn for_each_at(&self, key: &[u8], visit: &mut impl FnMut(&M)) {
        visit_at(&self.root, key, visit);
    }

    /// Visits every member.
    pub(super) fn for_each(&self, visit: &mut impl FnMut(&M)) {
        visit_all(&self.root, visit);
    }
}

fn visit_at<M>(link: &Link<M>, key: &[u8], visit: &mut impl FnMut(&M)) {
    let Some(node) = link else { return };
    if !node.max_end.is_after(key) {
        return;
    }
    visit_at(&node.left, key, visit);
    if node.range.start.as_ref() > key {
        return;
    }
    if node.range.end.is_after(key) {
        node.members.values().for_each(&mut *visit);
    }
    visit_at(&node.right, key, visit);
}

fn visit_all<M>(link: &Link<M>, visit: &mut impl FnMut(&M)) {
    let Some(node) = link else { return };
    visit_all(&node.left, visit);
    node.members.values().for_each(&mut *visit);
    visit_all(&node.right, visit);
}

fn insert<M>(link: Link<M>, range: &KeyRange, id: u64, member: M) -> Box<RangeNode<M>> {
    let Some(mut node) = link else {
        return Box::new(RangeNode {
            range: range.clone(),
            members: BTreeMap::from([(id, member)]),
            max_end: range.end.clone(),
            height: 1,
            left: None,
            right: None,
        });
    };
    match range.cmp(&node.range) {
        Ordering::Less => node.left = Some(insert(node.left.take(), range, id, member)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), range, id, member)),
        Ordering::Equal => {
            node.members.insert(id, member);
            return node;
        }
    }
    balanced(node)
}

fn remove<M>(link: Link<M>, range: &KeyRange, id: u64) -> Link<M> {
    let mut node = link?;
    match range.cmp(&node.range) {
        Ordering::Less => node.left = remove(node.left.take(), range, id),
        Ordering::Greater => node.right = remove(node.right.take(), range, id),
        Ordering::Equal => {
            node.members.remove(&id);
            if node.members.is_empty() {
                return joined(node.left.take(), node.right.take());
            }
            return Some(node);
        }
    }
    Some(balanced(node))
}

/// One tree of two whose parent is gone.
fn joined<M>(left: Link<M>, right: Link<M>) -> Link<M> {
    let Some(right) = right else { return left };
    let (mut first, rest) = take_first(right);
    first.left = left;
    first.right = rest;
    Some(balanced(first))
}

/// The leftmost node, and the rest of the tree.
fn take_first<M>(mut node: Box<RangeNode<M>>) -> (Box<RangeNode<M>>, Link<M>) {
    match node.left.take() {
        None => {
            let rest = node.right.take();
            (node, rest)
        }
        Some(left) => {
            let (first, rest) = take_first(left);
            node.left = rest;
            (first, Some(balanced(node)))
        }
    }
}

/// Restores the node's own fields, and the heights of its children to within one of each other. They differ by
/// two at most, because one insertion or removal came before.
fn balanced<M>(mut node: Box<RangeNode<M>>) -> Box<RangeNode<M>> {
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        node.left = node.left.take().map(|child| {
            if height(&child.right) > height(&child.left) {
                rotated_left(child)
            } else {
                child
            }
        });
        rotated_right(node)
    } else if right > left + 1 {
        node.right = node.right.take().map(|child| {
            if height(&child.left) > height(&child.right) {
                rotated_right(child)
            } else {
                child
            }
        });
        rotated_left(node)
    } else {
        node.refresh();
        node
    }
}

fn rotated_left<M>(mut node: Box<RangeNode<M>>) -> Box<RangeNode<M>> {
    let Some(mut top) = node.right.take() else {
        return node;
    };
    node.right = top.left.take();
    node.refresh();
    top.left = Some(node);
    top.refresh();
    top
}

fn rotated_right<M>(mut node: Box<RangeNode<M>>) -> Box<RangeNode<M>> {
    let Some(mut top) = node.left.take() else {
        return node;
    };
    node.left = top.right.take();
    node.refresh();
    top.right = Some(node);
    top.refresh();
    top
}

fn height<M>(link: &Link<M>) -> u32 {
    link.as_ref().map_or(0, |node| node.height)
}

impl<M> RangeNode<M> {
    /// Recomputes what depends on the children.
    fn refresh(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        let children = [&self.left, &self.right];
        let furthest = children
            .into_iter()
            .flatten()
            .map(|child| &child.max_end)
            .chain([&self.range.end])
            .max();
        if let Some(furthest) = furthest {
            self.max_end = furthest.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(KeyRange, u64),
        /// Removes the n-th of what is there, modulo their number.
        Remove(usize),
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let end = prop_oneof![
            4 => prop::collection::vec(97_u8..105, 0..3).prop_map(|end| RangeEnd::Before(Bytes::from(end))),
            1 => Just(RangeEnd::Unbounded),
        ];
        (prop::collection::vec(97_u8..105, 0..3), end).prop_map(|(start, end)| KeyRange {
            start: Bytes::from(start),
            end,
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (range(), 0_u64..1000).prop_map(|(range, id)| Change::Insert(range, id)),
            2 => any::<usize>().prop_map(Change::Remove),
        ]
    }

    /// Checks order, balance and reach below `link`; returns height and furthest end.
    fn check(link: &Link<u64>) -> Option<(u32, RangeEnd)> {
        let node = link.as_ref()?;
        assert!(!node.members.is_empty());
        assert!(node.left.as_ref().is_none_or(|left| left.range < node.range));
        assert!(node.right.as_ref().is_none_or(|right| right.range > node.range));
        let (left, right) = (check(&node.left), check(&node.right));
        let heights = (
            left.as_ref().map_or(0, |l| l.0),
            right.as_ref().map_or(0, |r| r.0),
        );
        assert!(heights.0.abs_diff(heights.1) <= 1, "unbalanced: {heights:?}");
        let reach = [left, right]
            .into_iter()
            .flatten()
            .map(|(_, end)| end)
            .chain([node.range.end.clone()])
            .max();
        assert_eq!(Some(&node.max_end), reach.as_ref());
        assert_eq!(node.height, 1 + heights.0.max(heights.1));
        Some((node.height, node.max_end.clone()))
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(changes in prop::collection::vec(change(), 1..200)) {
            let mut tree = RangeTree::new();
            let mut model: Vec<(KeyRange, u64)> = Vec::new();
            for change in changes {
                match change {
                    Change::Insert(range, id) => {
                        if !model.contains(&(range.clone(), id)) {
                            tree.insert(&range, id, id);
                            model.push((range, id));
                        }
                    }
                    Change::Remove(n) if !model.is_empty() => {
                        let (range, id) = model.swap_remove(n % model.len());
                        tree.remove(&range, id);
                    }
                    Change::Remove(_) => {}
                }
                check(&tree.root);
            }
            prop_assert_eq!(tree.is_empty(), model.is_empty());
            for key in [&b""[..], b"a", b"ab", b"c", b"cc", b"e", b"hh", b"z"] {
                let mut found = Vec::new();
                tree.for_each_at(key, &mut |id| found.push(*id));
                found.sort_unstable();
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|(range, _)| range.start.as_ref() <= key && range.end.is_after(key))
                    .map(|(_, id)| *id)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn stays_low_when_ranges_arrive_in_order() {
        let mut tree = RangeTree::new();
        for n in 0..4096_u64 {
            let start = Bytes::from(format!("{n:08}"));
            let end = RangeEnd::Before(Bytes::from(format!("{:08}", n + 1)));
            tree.insert(&KeyRange { start, end }, n, n);
        }
        check(&tree.root);
        assert!(height(&tree.root) <= 13, "{}", height(&tree.root));
        let mut found = Vec::new();
        tree.for_each_at(b"00001234", &mut |id| found.push(*id));
        assert_eq!(found, [1234]);
    }
}
