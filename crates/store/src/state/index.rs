//! The live pairs in key order: persistent, and counted, so that a count or a page is O(log n).
//!
//! A B+ tree whose nodes are shared between clones. `imbl::OrdMap` would do but for the counts: etcd
//! answers `count` with every page, and walking the range for it makes a page of 100 out of 100,000
//! keys cost as much as all of them.

use crate::types::{KeyRange, KeyValue};
use bytes::Bytes;
use std::{slice, sync::Arc};

/// Entries of a node. A write copies one node a level while a clone lives: narrower nodes copy less,
/// wider ones are fewer.
const WIDTH_MAX: usize = 32;
/// Below this a node is merged with its neighbour.
const WIDTH_MIN: usize = WIDTH_MAX / 4;

/// A clone is O(1) and stays as it was.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    root: Arc<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<Arc<KeyValue>>),
    Inner(Vec<Child>),
}

#[derive(Debug, Clone)]
struct Child {
    /// At most the first key below, and above every key of the child before.
    first: Bytes,
    /// Pairs below.
    count: u64,
    node: Arc<Node>,
}

impl Default for Index {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())) }
    }
}

impl Index {
    /// Of pairs whose keys ascend.
    pub(crate) fn from_sorted(pairs: Vec<Arc<KeyValue>>) -> Self {
        debug_assert!(pairs.is_sorted_by(|a, b| a.key < b.key), "keys must ascend");
        let mut level: Vec<Child> = chunks(pairs).map(Node::Leaf).filter_map(Child::of).collect();
        while level.len() > 1 {
            level = chunks(level).map(Node::Inner).filter_map(Child::of).collect();
        }
        level.pop().map_or_else(Self::default, |root| Self { root: root.node })
    }

    pub(crate) fn len(&self) -> u64 {
        self.root.count()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(pairs) => {
                    let at = pairs.binary_search_by(|kv| kv.key.as_ref().cmp(key)).ok()?;
                    return pairs.get(at);
                }
                Node::Inner(children) => node = &children.get(route(children, key))?.node,
            }
        }
    }

    /// The pair that was there.
    pub(crate) fn insert(&mut self, kv: Arc<KeyValue>) -> Option<Arc<KeyValue>> {
        let (old, split) = Arc::make_mut(&mut self.root).insert(kv);
        if let Some(right) = split {
            let left = Child::of(std::mem::take(self).root);
            self.root = Arc::new(Node::Inner(left.into_iter().chain([right]).collect()));
        }
        old
    }

    /// The pair that was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Arc<KeyValue>> {
        // So that removing nothing copies nothing.
        self.get(key)?;
        let old = Arc::make_mut(&mut self.root).remove(key);
        while let Node::Inner(children) = &*self.root
            && let [only] = children.as_slice()
        {
            self.root = Arc::clone(&only.node);
        }
        old
    }

    /// How many keys are below `key`.
    pub(crate) fn rank(&self, key: &[u8]) -> u64 {
        let mut below = 0;
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(pairs) => {
                    return below + pairs.partition_point(|kv| kv.key < key) as u64;
                }
                Node::Inner(children) => {
                    let at = route(children, key);
                    below += children.iter().take(at).map(|child| child.count).sum::<u64>();
                    let Some(child) = children.get(at) else { return below };
                    node = &child.node;
                }
            }
        }
    }

    /// The ranks of a range: of its first key, and of the first key behind it.
    pub(crate) fn ranks(&self, range: &KeyRange) -> (u64, u64) {
        let start = self.rank(range.start());
        let end = match range {
            KeyRange::One(key) => start + u64::from(self.get(key).is_some()),
            KeyRange::Between { end, .. } => self.rank(end).max(start),
            KeyRange::From(_) => self.len(),
        };
        (start, end)
    }

    /// Pairs in order, from the one of this rank on.
    pub(crate) fn iter_from(&self, rank: u64) -> Iter<'_> {
        let mut iter = Iter { above: Vec::new(), leaf: [].iter() };
        let mut node = &*self.root;
        let mut skip = rank;
        loop {
            match node {
                Node::Leaf(pairs) => {
                    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                    iter.leaf = pairs.get(skip..).unwrap_or_default().iter();
                    return iter;
                }
                Node::Inner(children) => {
                    let mut rest = children.iter();
                    let found = rest.find(|child| {
                        let here = skip < child.count;
                        skip -= if here { 0 } else { child.count };
                        here
                    });
                    iter.above.push(rest);
                    let Some(child) = found else { return iter };
                    node = &child.node;
                }
            }
        }
    }

    /// Pairs of a range, ascending.
    pub(crate) fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + use<'a> {
        let (start, end) = self.ranks(range);
        self.iter_from(start).take(usize::try_from(end - start).unwrap_or(usize::MAX))
    }
}

impl Node {
    fn count(&self) -> u64 {
        match self {
            Self::Leaf(pairs) => pairs.len() as u64,
            Self::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Leaf(pairs) => pairs.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// The pair that was there, and what no longer fits: a new node to the right.
    fn insert(&mut self, kv: Arc<KeyValue>) -> (Option<Arc<KeyValue>>, Option<Child>) {
        match self {
            Self::Leaf(pairs) => match pairs.binary_search_by(|p| p.key.cmp(&kv.key)) {
                Ok(at) => {
                    let old = pairs.get_mut(at).map(|slot| std::mem::replace(slot, kv));
                    (old, None)
                }
                Err(at) => {
                    pairs.insert(at, kv);
                    (None, overflow(pairs).map(Self::Leaf).and_then(Child::of))
                }
            },
            Self::Inner(children) => {
                let at = route(children, &kv.key);
                let child = children.get_mut(at).expect("an inner node has children");
                if kv.key < child.first {
                    child.first = kv.key.clone();
                }
                let (old, split) = Arc::make_mut(&mut child.node).insert(kv);
                child.count = child.node.count();
                if let Some(right) = split {
                    children.insert(at + 1, right);
                }
                (old, overflow(children).map(Self::Inner).and_then(Child::of))
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Arc<KeyValue>> {
        match self {
            Self::Leaf(pairs) => {
                let at = pairs.binary_search_by(|kv| kv.key.as_ref().cmp(key)).ok()?;
                Some(pairs.remove(at))
            }
            Self::Inner(children) => {
                let at = route(children, key);
                let child = children.get_mut(at)?;
                let old = Arc::make_mut(&mut child.node).remove(key)?;
                child.count -= 1;
                if child.node.width() < WIDTH_MIN {
                    merge(children, at);
                }
                Some(old)
            }
        }
    }

    fn append(&mut self, right: Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.extend(right),
            (Self::Inner(left), Self::Inner(right)) => left.extend(right),
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => {
                unreachable!("all leaves are at one depth")
            }
        }
    }
}

impl Child {
    /// `None` of an empty node.
    fn of(node: impl Into<Arc<Node>>) -> Option<Self> {
        let node = node.into();
        let first = match &*node {
            Node::Leaf(pairs) => pairs.first()?.key.clone(),
            Node::Inner(children) => children.first()?.first.clone(),
        };
        Some(Self { first, count: node.count(), node })
    }
}

/// Which child holds `key`, if any does.
fn route(children: &[Child], key: &[u8]) -> usize {
    children.partition_point(|child| child.first <= key).saturating_sub(1)
}

/// Splits off the upper half of a list that has grown too long.
fn overflow<T>(list: &mut Vec<T>) -> Option<Vec<T>> {
    (list.len() > WIDTH_MAX).then(|| list.split_off(list.len() / 2))
}

/// Puts a thin child and its neighbour together, in two halves if they are too much for one.
fn merge(children: &mut Vec<Child>, at: usize) {
    let at = at.min(children.len().saturating_sub(2));
    if at + 1 >= children.len() {
        return;
    }
    let right = children.remove(at + 1);
    let Some(left) = children.get_mut(at) else { return };
    let node = Arc::make_mut(&mut left.node);
    node.append(Arc::unwrap_or_clone(right.node));
    let rest = match node {
        Node::Leaf(pairs) => overflow(pairs).map(Node::Leaf),
        Node::Inner(grandchildren) => overflow(grandchildren).map(Node::Inner),
    };
    left.count = left.node.count();
    if let Some(rest) = rest.and_then(Child::of) {
        children.insert(at + 1, rest);
    }
}

/// Lists of at most three quarters of a node, so that the first writes do not split each of them, and
/// about equally long, so that the last is not thin.
fn chunks<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let lists = items.len().div_ceil(WIDTH_MAX * 3 / 4).max(1);
    let (least, longer) = (items.len() / lists, items.len() % lists);
    let mut items = items.into_iter();
    (0..lists).map(move |list| items.by_ref().take(least + usize::from(list < longer)).collect())
}

/// Pairs in key order.
#[derive(Debug, Clone)]
pub(crate) struct Iter<'a> {
    /// What is left of each node on the way down.
    above: Vec<slice::Iter<'a, Child>>,
    leaf: slice::Iter<'a, Arc<KeyValue>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(kv) = self.leaf.next() {
                return Some(kv);
            }
            match self.above.last_mut()?.next() {
                None => drop(self.above.pop()),
                Some(child) => match &*child.node {
                    Node::Leaf(pairs) => self.leaf = pairs.iter(),
                    Node::Inner(children) => self.above.push(children.iter()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaseId, Revision};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pair(key: u16, version: u64) -> Arc<KeyValue> {
        Arc::new(KeyValue {
            key: Bytes::copy_from_slice(&key.to_be_bytes()),
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: Revision::ZERO,
            version,
            lease: LeaseId::NONE,
        })
    }

    fn numbers<'a>(pairs: impl Iterator<Item = &'a Arc<KeyValue>>) -> Vec<(Bytes, u64)> {
        pairs.map(|kv| (kv.key.clone(), kv.version)).collect()
    }

    /// Depth of every leaf, and that counts, order and widths are as they must be.
    fn check(node: &Node, root: bool) -> usize {
        assert!(node.width() <= WIDTH_MAX, "a node is too wide");
        assert!(root || node.width() >= WIDTH_MIN, "a node of {} is too thin", node.width());
        match node {
            Node::Leaf(_) => 0,
            Node::Inner(children) => {
                for child in children {
                    assert_eq!(child.count, child.node.count());
                    let mut below =
                        Iter { above: vec![slice::from_ref(child).iter()], leaf: [].iter() };
                    assert!(child.first <= below.next().unwrap().key);
                }
                let depths: Vec<usize> = children.iter().map(|c| check(&c.node, false)).collect();
                assert!(depths.iter().all(|d| *d == depths[0]), "leaves at several depths");
                depths[0] + 1
            }
        }
    }

    proptest! {
        #[test]
        fn the_index_is_a_sorted_map_and_its_clones_stay(
            start in 0u16..3000,
            steps in proptest::collection::vec((any::<bool>(), 0u16..2000), 1..1500),
            (a, b) in (0u16..2100, 0u16..2100),
        ) {
            let begin: Vec<_> = (0..start).map(|key| pair(key, 0)).collect();
            let mut model: BTreeMap<Bytes, u64> = numbers(begin.iter()).into_iter().collect();
            let mut index = Index::from_sorted(begin);
            check(&index.root, true);
            let mut kept = Vec::new();
            for (version, (insert, key)) in (1u64..).zip(&steps) {
                let kv = pair(*key, version);
                let old = if *insert {
                    prop_assert_eq!(index.get(&kv.key).map(|p| p.version), model.get(&kv.key).copied());
                    let old = index.insert(Arc::clone(&kv));
                    prop_assert_eq!(old.map(|p| p.version), model.insert(kv.key.clone(), version));
                    continue;
                } else {
                    index.remove(&kv.key)
                };
                prop_assert_eq!(old.map(|p| p.version), model.remove(&kv.key));
                if version % 500 == 0 {
                    kept.push((index.clone(), model.clone()));
                }
            }
            check(&index.root, true);
            kept.push((index, model));
            let (low, high) = (Bytes::copy_from_slice(&a.to_be_bytes()), Bytes::copy_from_slice(&b.to_be_bytes()));
            for (index, model) in kept {
                let all: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(numbers(index.iter_from(0)), all.clone());
                prop_assert_eq!(index.len(), all.len() as u64);
                let rank = model.range(..low.clone()).count();
                prop_assert_eq!(index.rank(&low), rank as u64);
                prop_assert_eq!(numbers(index.iter_from(rank as u64)), all[rank..].to_vec());
                let want: Vec<_> = all.into_iter().filter(|(k, _)| low <= k && k < &high).collect();
                let range = KeyRange::Between { start: low.clone(), end: high.clone() };
                prop_assert_eq!(numbers(index.range(&range)), want);
            }
        }
    }

    #[test]
    fn emptying_and_refilling_leaves_no_thin_node() {
        let mut index = Index::from_sorted((0..5000).map(|key| pair(key, 1)).collect());
        for key in (0..5000).filter(|key| key % 7 != 3) {
            assert!(index.remove(&u16::to_be_bytes(key)).is_some());
            if key % 97 == 0 {
                check(&index.root, true);
            }
        }
        check(&index.root, true);
        for key in 0..5000 {
            index.remove(&u16::to_be_bytes(key));
        }
        assert_eq!((index.len(), index.iter_from(0).count()), (0, 0));
        assert!(matches!(&*index.root, Node::Leaf(_)), "the root collapses");
    }
}
