//! Which of many key ranges hold a key, without looking at all of them.
//!
//! A treap by start of range, in which each node knows the furthest end below it: O(log n) to change,
//! O(log n + found) to ask, whatever the ranges are; and clients choose them.

use crate::types::KeyRange;
use bytes::Bytes;

/// Ranges, each with an id.
#[derive(Debug, Default)]
pub(super) struct Spans {
    root: Link,
    inserted: u64,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    span: Span,
    id: u64,
    /// A heap by this, as random as its order must be for the tree to be flat.
    priority: u64,
    /// Of all spans in this node and below.
    latest_end: End,
    left: Link,
    right: Link,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: Bytes,
    end: End,
}

/// In order: what never ends is behind all that does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

impl Span {
    fn of(range: &KeyRange) -> Self {
        match range {
            KeyRange::One(key) => {
                // The next key there is.
                let end = [key.as_ref(), &[0]].concat();
                Self { start: key.clone(), end: End::Before(end.into()) }
            }
            KeyRange::Between { start, end } => {
                Self { start: start.clone(), end: End::Before(end.clone()) }
            }
            KeyRange::From(start) => Self { start: start.clone(), end: End::Never },
        }
    }
}

impl Spans {
    /// Each range at most once.
    pub(super) fn insert(&mut self, range: &KeyRange, id: u64) {
        self.inserted += 1;
        let span = Span::of(range);
        let (left, right) = split(self.root.take(), &span);
        let (priority, latest_end) = (scatter(self.inserted), span.end.clone());
        let node = Node { span, id, priority, latest_end, left: None, right: None };
        self.root = join(join(left, Some(Box::new(node))), right);
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        remove(&mut self.root, &Span::of(range));
    }

    /// The ids of all ranges that hold `key`.
    pub(super) fn holding(&self, key: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        collect(&self.root, key, &mut found);
        found
    }
}

impl Node {
    fn settle(mut self: Box<Self>) -> Link {
        let below = [&self.left, &self.right].into_iter().flatten().map(|node| &node.latest_end);
        let latest_end = below.chain([&self.span.end]).max().cloned();
        self.latest_end = latest_end.unwrap_or(End::Never);
        Some(self)
    }
}

/// What is below `span`, and the rest.
fn split(link: Link, span: &Span) -> (Link, Link) {
    let Some(mut node) = link else { return (None, None) };
    if node.span < *span {
        let (left, right) = split(node.right.take(), span);
        node.right = left;
        (node.settle(), right)
    } else {
        let (left, right) = split(node.left.take(), span);
        node.left = right;
        (left, node.settle())
    }
}

/// All of `left` must be below all of `right`.
fn join(left: Link, right: Link) -> Link {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = join(left.right.take(), Some(right));
                left.settle()
            } else {
                right.left = join(Some(left), right.left.take());
                right.settle()
            }
        }
    }
}

fn remove(link: &mut Link, span: &Span) {
    let Some(mut node) = link.take() else { return };
    *link = match span.cmp(&node.span) {
        std::cmp::Ordering::Equal => join(node.left.take(), node.right.take()),
        std::cmp::Ordering::Less => {
            remove(&mut node.left, span);
            node.settle()
        }
        std::cmp::Ordering::Greater => {
            remove(&mut node.right, span);
            node.settle()
        }
    };
}

fn collect(link: &Link, key: &[u8], found: &mut Vec<u64>) {
    let Some(node) = link else { return };
    if !node.latest_end.is_behind(key) {
        return;
    }
    collect(&node.left, key, found);
    if node.span.start <= key {
        if node.span.end.is_behind(key) {
            found.push(node.id);
        }
        collect(&node.right, key, found);
    }
}

/// The finisher of splitmix64: neighbours in, noise out. No chance, so that a run can be repeated.
fn scatter(mut x: u64) -> u64 {
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0u8..4, 0..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::One),
            (key(), key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
            key().prop_map(KeyRange::From),
            key().prop_map(KeyRange::prefix),
        ]
    }

    fn depth(link: &Link) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    proptest! {
        #[test]
        fn a_key_finds_exactly_the_ranges_that_hold_it(
            ranges in proptest::collection::vec((range(), any::<bool>()), 0..60),
            keys in proptest::collection::vec(key(), 1..20),
        ) {
            let mut spans = Spans::default();
            let mut model: BTreeMap<Span, (KeyRange, u64)> = BTreeMap::new();
            for (id, (range, keep)) in (0..).zip(ranges) {
                if model.contains_key(&Span::of(&range)) {
                    continue;
                }
                spans.insert(&range, id);
                model.insert(Span::of(&range), (range.clone(), id));
                if !keep {
                    let first = model.values().next().unwrap().0.clone();
                    spans.remove(&first);
                    model.remove(&Span::of(&first));
                }
            }
            for key in keys {
                let mut found = spans.holding(&key);
                found.sort_unstable();
                let mut want: Vec<u64> =
                    model.values().filter(|(r, _)| r.contains(&key)).map(|(_, id)| *id).collect();
                want.sort_unstable();
                prop_assert_eq!(found, want);
            }
        }
    }

    #[test]
    fn ranges_that_come_in_order_do_not_make_a_list() {
        let mut spans = Spans::default();
        for i in 0u32..10_000 {
            spans.insert(&KeyRange::prefix(i.to_be_bytes().to_vec()), u64::from(i));
        }
        assert!(depth(&spans.root) < 60, "depth {}", depth(&spans.root));
        assert_eq!(spans.holding(&77u32.to_be_bytes()), [77]);
    }
}
