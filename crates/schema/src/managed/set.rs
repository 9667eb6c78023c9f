//! Sets of fields, and how `managedFields` writes them (`FieldsV1`).

use crate::{
    go::canonical,
    table::{Shape, Table},
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One step of a path into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// An object's field.
    Field(String),
    /// A list's item by its keys; their values are JSON in one form.
    Key(BTreeMap<String, String>),
    /// A list's item by itself, as JSON in one form.
    Value(String),
    /// A list's item by its place. We write none, and keep those that others wrote.
    Index(i64),
}

/// A path from the root of an object.
pub(super) type Path = Vec<Element>;

impl Element {
    /// As `FieldsV1` writes it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(keys) => {
                let name = |name: &String| Value::from(name.as_str()).to_string();
                let keys: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{}:{value}", name(key))).collect();
                format!("k:{{{}}}", keys.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid field path element {text:?}");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            "f" => Ok(Self::Field(rest.to_owned())),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|_| wrong())?;
                Ok(Self::Key(keys.iter().map(|(key, v)| (key.clone(), canonical(v))).collect()))
            }
            "v" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| wrong())?;
                Ok(Self::Value(canonical(&value)))
            }
            "i" => rest.parse().map(Self::Index).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Such as `.spec.containers[name="a"].image`.
pub(super) fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// Paths. A path's beginnings are not in the set unless they were put in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Set {
    members: BTreeSet<Element>,
    /// None of them is empty.
    children: BTreeMap<Element, Set>,
}

impl Set {
    #[cfg(test)]
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a [&'a str]>) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Path = path.iter().map(|name| Element::Field((*name).to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// The root itself is never a member.
    pub(super) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => drop(self.members.insert(last.clone())),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    /// Puts an element and all below it in.
    pub(super) fn add(&mut self, element: Element, is_member: bool, below: Self) {
        if !below.is_empty() {
            let known = self.children.entry(element.clone()).or_default();
            known.extend(below);
        }
        if is_member {
            self.members.insert(element);
        }
    }

    /// Puts an element in.
    pub(super) fn put(&mut self, element: Element) {
        self.members.insert(element);
    }

    /// Puts what is below an element in, of which nothing is in yet.
    pub(super) fn put_below(&mut self, element: &Element, below: Self) {
        if !below.is_empty() {
            self.children.insert(element.clone(), below);
        }
    }

    /// Takes out what is in `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        for element in &other.members {
            self.members.remove(element);
        }
        for (element, theirs) in &other.children {
            self.below_mut(element, |below| below.subtract(theirs));
        }
    }

    /// Takes out what is in `other` or below a member of it.
    pub(super) fn subtract_below(&mut self, other: &Self) {
        for element in &other.members {
            self.members.remove(element);
            self.children.remove(element);
        }
        for (element, theirs) in &other.children {
            self.below_mut(element, |below| below.subtract_below(theirs));
        }
    }

    fn below_mut(&mut self, element: &Element, change: impl FnOnce(&mut Self)) {
        let Some(below) = self.children.get_mut(element) else { return };
        change(below);
        if below.is_empty() {
            self.children.remove(element);
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.members.extend(other.members);
        for (element, below) in other.children {
            self.children.entry(element).or_default().extend(below);
        }
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.extend(other.clone());
        self
    }

    /// What is not in `other`.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, below)| {
            let below = match other.children.get(element) {
                Some(other) => below.difference(other),
                None => below.clone(),
            };
            (!below.is_empty()).then(|| (element.clone(), below))
        });
        Self { members, children: children.collect() }
    }

    /// What is neither in `other` nor below a member of it.
    pub(super) fn difference_below(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, below)| {
            if other.members.contains(element) {
                return None;
            }
            let below = match other.children.get(element) {
                Some(other) => below.difference_below(other),
                None => below.clone(),
            };
            (!below.is_empty()).then(|| (element.clone(), below))
        });
        Self { members, children: children.collect() }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, below)| {
            let below = below.intersection(other.children.get(element)?);
            (!below.is_empty()).then(|| (element.clone(), below))
        });
        Self { members, children: children.collect() }
    }

    /// With the fields of definitions through which a path goes. Entries of maps and items of lists
    /// are members by themselves; a definition's field is only where it is a leaf.
    pub(super) fn with_parents(&self, table: &Table, shape: &Shape) -> Self {
        let mut members = self.members.clone();
        let children = self.children.iter().map(|(element, below)| {
            let below_shape = match (element, shape) {
                (Element::Field(name), _) => {
                    let found = table.field(shape, name);
                    if found.field.is_some() {
                        members.insert(element.clone());
                    }
                    found.shape
                }
                (_, Shape::List { item, .. }) => item,
                _ => &Shape::Opaque,
            };
            (element.clone(), below.with_parents(table, below_shape))
        });
        let children = children.collect();
        Self { members, children }
    }

    /// Every path of the set, in order.
    pub(super) fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, begin: &mut Path, paths: &mut Vec<Path>) {
        let elements: BTreeSet<&Element> =
            self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            begin.push(element.clone());
            if self.members.contains(element) {
                paths.push(begin.clone());
            }
            if let Some(below) = self.children.get(element) {
                below.collect(begin, paths);
            }
            begin.pop();
        }
    }

    /// `FieldsV1`: a tree whose leaves are empty objects; `.` says that a branch is a member too.
    pub(super) fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        for element in &self.members {
            fields.insert(element.text(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            let mut tree = below.to_fields_v1();
            if let (Some(tree), true) = (tree.as_object_mut(), self.members.contains(element)) {
                tree.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.text(), tree);
        }
        Value::Object(fields)
    }

    /// Takes what is in the set out of what `FieldsV1` says; and what is below, if it goes, too.
    pub(super) fn take_from(&self, fields: &mut Map<String, Value>, and_below: bool) {
        for element in &self.members {
            let name = element.text();
            let Some(below) = fields.get_mut(&name).and_then(Value::as_object_mut) else {
                continue;
            };
            below.remove(".");
            if and_below || below.is_empty() {
                fields.remove(&name);
            }
        }
        for (element, theirs) in &self.children {
            let name = element.text();
            let Some(below) = fields.get_mut(&name).and_then(Value::as_object_mut) else {
                continue;
            };
            // A leaf has nothing below it, and stays.
            if below.is_empty() {
                continue;
            }
            theirs.take_from(below, and_below);
            if below.is_empty() {
                fields.remove(&name);
            }
        }
    }

    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn from_fields_v1(value: &Value) -> Result<Self, String> {
        let fields = value.as_object().ok_or_else(|| format!("fieldsV1 is no object: {value}"))?;
        let mut set = Self::default();
        for (text, below) in fields.iter().filter(|(text, _)| *text != ".") {
            let element = Element::parse(text)?;
            let tree = Self::from_fields_v1(below)?;
            let is_member = tree.is_empty() || below.get(".").is_some();
            set.add(element, is_member, tree);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_v1_is_read_and_written() {
        let fields = json!({
            "f:data": {},
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}, "i:3": {}}},
        });
        let set = Set::from_fields_v1(&fields).unwrap();
        assert_eq!(set.to_fields_v1(), fields);
        let paths: Vec<String> = set.paths().iter().map(|path| path_text(path)).collect();
        assert_eq!(
            paths,
            [
                ".data",
                ".metadata.finalizers[=\"x/y\"]",
                ".metadata.labels",
                ".metadata.labels.a",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].name",
                ".spec.ports[3]",
            ]
        );
        for wrong in [json!([]), json!({"x": {}}), json!({"k:1": {}}), json!({"i:x": {}})] {
            assert!(Set::from_fields_v1(&wrong).is_err(), "{wrong}");
        }
    }

    fn any_set() -> impl Strategy<Value = Set> {
        let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
        prop::collection::vec(path, 0..8).prop_map(|paths| Set::of(paths.iter().map(Vec::as_slice)))
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in any_set(), b in any_set()) {
            let (of_a, of_b) = (a.paths(), b.paths());
            let sorted = |mut paths: Vec<Path>| { paths.sort(); paths.dedup(); paths };
            let both: Vec<Path> = of_a.iter().chain(&of_b).cloned().collect();
            prop_assert_eq!(sorted(a.clone().union(&b).paths()), sorted(both));
            let only: Vec<Path> = of_a.iter().filter(|path| !of_b.contains(path)).cloned().collect();
            prop_assert_eq!(sorted(a.difference(&b).paths()), sorted(only));
            let shared: Vec<Path> = of_a.iter().filter(|path| of_b.contains(path)).cloned().collect();
            prop_assert_eq!(sorted(a.intersection(&b).paths()), sorted(shared));
            let below = |path: &&Path| !of_b.iter().any(|other| path.starts_with(other));
            let left: Vec<Path> = of_a.iter().filter(below).cloned().collect();
            prop_assert_eq!(sorted(a.difference_below(&b).paths()), sorted(left));
            let (mut without, mut without_below) = (a.clone(), a.clone());
            without.subtract(&b);
            without_below.subtract_below(&b);
            prop_assert_eq!(without, a.difference(&b));
            prop_assert_eq!(without_below, a.difference_below(&b));
            prop_assert_eq!(Set::from_fields_v1(&a.to_fields_v1()), Ok(a));
        }
    }
}
