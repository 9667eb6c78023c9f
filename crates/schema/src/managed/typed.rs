//! Objects seen through the table: which fields there are, which differ, and how two become one.

use super::set::{Element, Path, Set, path_text};
use crate::{
    go::{self, canonical},
    marks::ListType,
    table::{Definition, Shape, Table},
};
use serde_json::{Map, Value, map::Entry};
use std::collections::{BTreeMap, BTreeSet};

/// How a value is taken apart.
enum View<'a> {
    /// Not at all.
    Leaf,
    /// There is nothing, or a null where an object or a list could be.
    Nothing,
    /// By the names of its fields.
    Fields(&'a Map<String, Value>),
    /// By what names its items, which have this shape.
    Items(Vec<(Element, &'a Value)>, &'a Shape),
}

/// What differs between two objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

/// Where what differs is noted, level by level.
trait Found: Default {
    fn added(&mut self, element: Element);
    fn modified(&mut self, element: Element);
    fn removed(&mut self, element: Element);
    /// What was found below an element, of which nothing is noted yet.
    fn below(&mut self, element: &Element, below: Self);
}

impl Found for Comparison {
    fn added(&mut self, element: Element) {
        self.added.put(element);
    }

    fn modified(&mut self, element: Element) {
        self.modified.put(element);
    }

    fn removed(&mut self, element: Element) {
        self.removed.put(element);
    }

    fn below(&mut self, element: &Element, below: Self) {
        self.added.put_below(element, below.added);
        self.modified.put_below(element, below.modified);
        self.removed.put_below(element, below.removed);
    }
}

/// What is there now and was not there like that, as `FieldsV1` has it.
#[derive(Default)]
struct Written(Map<String, Value>);

impl Written {
    fn put(&mut self, element: &Element) {
        match self.0.entry(element.text()) {
            Entry::Vacant(place) => drop(place.insert(Value::Object(Map::new()))),
            Entry::Occupied(mut below) => {
                if let Some(below) = below.get_mut().as_object_mut() {
                    below.insert(".".to_owned(), Value::Object(Map::new()));
                }
            }
        }
    }
}

impl Found for Written {
    fn added(&mut self, element: Element) {
        self.put(&element);
    }

    fn modified(&mut self, element: Element) {
        self.put(&element);
    }

    fn removed(&mut self, _: Element) {}

    fn below(&mut self, element: &Element, Self(below): Self) {
        if !below.is_empty() {
            self.0.insert(element.text(), Value::Object(below));
        }
    }
}

impl Comparison {
    /// What is there now and was not there like that.
    pub(super) fn written(&self) -> Set {
        self.modified.clone().union(&self.added)
    }

    /// The same, and what is gone.
    pub(super) fn into_written_and_removed(self) -> (Set, Set) {
        let Self { added, modified: mut written, removed } = self;
        written.extend(added);
        (written, removed)
    }

    pub(super) fn without(mut self, ignored: &Set) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_below(ignored);
        }
        self
    }
}

/// Objects of one kind.
#[derive(Clone, Copy)]
pub(super) struct Typed<'t> {
    pub(super) table: &'t Table,
    pub(super) root: &'t Shape,
}

impl<'t> Typed<'t> {
    fn is_atomic(&self, shape: &Shape) -> bool {
        match shape {
            Shape::Scalar | Shape::Opaque => true,
            Shape::Struct(_) => {
                self.table.definition(shape).is_none_or(|definition| definition.atomic)
            }
            Shape::Map { atomic, .. } => *atomic,
            Shape::List { kind, .. } => *kind == ListType::Atomic,
            Shape::Deduced => false,
        }
    }

    /// A value of the wrong type, or a list whose items cannot be told apart, is a leaf.
    fn view<'a>(&self, shape: &'a Shape, value: Option<&'a Value>) -> View<'a> {
        if self.is_atomic(shape) {
            return View::Leaf;
        }
        match (shape, value) {
            (_, None | Some(Value::Null)) => View::Nothing,
            (
                Shape::Struct(_) | Shape::Map { .. } | Shape::Deduced,
                Some(Value::Object(fields)),
            ) => View::Fields(fields),
            (Shape::List { item, kind }, Some(Value::Array(items))) => {
                let named: Result<Vec<_>, String> = items
                    .iter()
                    .map(|value| Ok((self.element(item, kind, value)?, value)))
                    .collect();
                named.map_or(View::Leaf, |named| View::Items(named, item))
            }
            _ => View::Leaf,
        }
    }

    /// What names an item.
    fn element(&self, shape: &Shape, kind: &ListType, item: &Value) -> Result<Element, String> {
        let keys: Vec<&str> = match kind {
            ListType::Map(keys) => keys.to_vec(),
            ListType::Keyed(keys) => keys.iter().map(String::as_str).collect(),
            ListType::Set | ListType::Atomic => return Ok(Element::Value(canonical(item))),
        };
        let fields = item
            .as_object()
            .ok_or("associative list with keys may not have non-map elements".to_owned())?;
        let mut named = BTreeMap::new();
        for key in keys {
            let default = || self.table.field(shape, key).field?.default.as_ref();
            let value = fields.get(key).or_else(default).ok_or_else(|| {
                format!(
                    "associative list with keys has an element that omits key field {key:?} \
                     (and doesn't have default value)"
                )
            })?;
            named.insert(key.to_owned(), canonical(value));
        }
        Ok(Element::Key(named))
    }

    /// The fields that an applied object sets.
    pub(super) fn fields_of(&self, object: &Value) -> Set {
        self.fields_below(self.root, object).0
    }

    /// What is set below a value, and whether the value itself is set.
    fn fields_below(&self, shape: &Shape, value: &Value) -> (Set, bool) {
        let mut set = Set::default();
        match self.view(shape, Some(value)) {
            View::Leaf => return (set, true),
            View::Nothing => {}
            View::Fields(fields) => {
                for (name, value) in fields {
                    let found = self.table.field(shape, name);
                    let (below, is_leaf) = self.fields_below(found.shape, value);
                    let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    let is_member = is_leaf || is_empty || found.field.is_none();
                    set.add(Element::Field(name.clone()), is_member, below);
                }
            }
            View::Items(items, item_shape) => {
                for (element, value) in items {
                    let (below, _) = self.fields_below(item_shape, value);
                    set.add(element, true, below);
                }
            }
        }
        (set, false)
    }

    /// What upstream always writes counts as being there, so that nobody becomes its owner by putting
    /// something into it. A null is there, with nothing in it.
    pub(super) fn compare(&self, old: &Value, new: &Value) -> Comparison {
        let mut comparison = Comparison::default();
        if old != new {
            // The root itself is never in a set.
            self.compare_below(self.root, [Some(old), Some(new)], &mut comparison);
        }
        comparison
    }

    /// What who makes an object writes, as `FieldsV1` has it: the same as a comparison with nothing, without a set
    /// of it.
    pub(super) fn made(&self, object: &Value) -> Map<String, Value> {
        let mut written = Written::default();
        let nothing = Value::Object(Map::new());
        if *object != nothing {
            self.compare_below(self.root, [Some(&nothing), Some(object)], &mut written);
        }
        written.0
    }

    /// Compares two values that differ, under an element of what `to` is about.
    fn compare_values<F: Found>(
        &self,
        shape: &Shape,
        sides: [Option<&Value>; 2],
        element: Element,
        to: &mut F,
    ) {
        let mut below = F::default();
        let is_leaf = self.compare_below(shape, sides, &mut below);
        to.below(&element, below);
        match sides {
            [None, _] => to.added(element),
            [_, None] => to.removed(element),
            [Some(old), Some(new)] if is_leaf && !go::same(old, new) => to.modified(element),
            [Some(_), Some(_)] => {}
        }
    }

    /// Compares what is in two values; whether each of them is one that is not taken apart.
    fn compare_below<F: Found>(
        &self,
        shape: &Shape,
        sides: [Option<&Value>; 2],
        to: &mut F,
    ) -> bool {
        match sides.map(|value| self.view(shape, value)) {
            [View::Fields(before), View::Fields(after)]
                if !(self.is_empty(shape, before) && self.is_empty(shape, after)) =>
            {
                self.compare_fields(shape, [Some(before), Some(after)], to);
                false
            }
            [View::Fields(before), View::Nothing] if !self.is_empty(shape, before) => {
                self.compare_fields(shape, [Some(before), None], to);
                false
            }
            [View::Nothing, View::Fields(after)] if !self.is_empty(shape, after) => {
                self.compare_fields(shape, [None, Some(after)], to);
                false
            }
            [View::Items(before, item), View::Items(after, _)]
                if !(before.is_empty() && after.is_empty()) =>
            {
                self.compare_items(item, [before, after], to);
                false
            }
            [View::Items(before, item), View::Nothing] if !before.is_empty() => {
                self.compare_items(item, [before, Vec::new()], to);
                false
            }
            [View::Nothing, View::Items(after, item)] if !after.is_empty() => {
                self.compare_items(item, [Vec::new(), after], to);
                false
            }
            _ => true,
        }
    }

    fn compare_fields<F: Found>(
        &self,
        shape: &Shape,
        sides: [Option<&Map<String, Value>>; 2],
        to: &mut F,
    ) {
        let mut names: BTreeSet<&String> =
            sides.into_iter().flatten().flat_map(|fields| fields.keys()).collect();
        if let (Some(definition), true) =
            (self.table.definition(shape), sides.iter().any(Option::is_none))
        {
            let written = definition.fields.iter().filter(|(_, field)| field.written.is_some());
            names.extend(written.map(|(name, _)| name));
        }
        for name in names {
            let found = self.table.field(shape, name);
            let written = found.field.and_then(|field| field.written.as_ref());
            let [old, new] = sides.map(|fields| fields?.get(name).or(written));
            // Most of an object is what it was.
            if old != new {
                let element = Element::Field(name.clone());
                self.compare_values(found.shape, [old, new], element, to);
            }
        }
    }

    fn is_empty(&self, shape: &Shape, fields: &Map<String, Value>) -> bool {
        let writes = |definition: &Definition| {
            definition.fields.values().any(|field| field.written.is_some())
        };
        fields.is_empty() && !self.table.definition(shape).is_some_and(writes)
    }

    fn compare_items<F: Found>(
        &self,
        shape: &Shape,
        sides: [Vec<(Element, &Value)>; 2],
        to: &mut F,
    ) {
        let [old, new] = sides.map(by_element);
        let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
        for element in elements {
            let [old, new] =
                [&old, &new].map(|items| items.get(element).map_or(&[][..], Vec::as_slice));
            if old == new {
                continue;
            }
            let element = element.clone();
            match (old, new) {
                ([], [value]) => self.compare_values(shape, [None, Some(value)], element, to),
                ([value], []) => self.compare_values(shape, [Some(value), None], element, to),
                ([old], [new]) => self.compare_values(shape, [Some(old), Some(new)], element, to),
                // Items under one name are one leaf.
                ([], _) => to.added(element),
                (_, []) => to.removed(element),
                (_, _) => to.modified(element),
            }
        }
    }

    /// The live object with what is applied. Where both order a list's items, the applied order
    /// holds; the live object's other items stay where they are.
    pub(super) fn merge(&self, live: &Value, applied: &Value) -> Value {
        self.merge_values(self.root, live, applied)
    }

    fn merge_values(&self, shape: &Shape, live: &Value, applied: &Value) -> Value {
        match [live, applied].map(|value| self.view(shape, Some(value))) {
            [View::Fields(before), View::Fields(after)] => {
                let mut merged = before.clone();
                for (name, value) in after {
                    let value = match before.get(name) {
                        Some(old) => {
                            self.merge_values(self.table.field(shape, name).shape, old, value)
                        }
                        None => value.clone(),
                    };
                    merged.insert(name.clone(), value);
                }
                Value::Object(merged)
            }
            [View::Items(before, item), View::Items(after, _)] => {
                Value::Array(self.merge_items(item, &before, &after))
            }
            // A null takes nothing away of what is in there.
            [View::Fields(_) | View::Items(..), View::Nothing] => live.clone(),
            _ => applied.clone(),
        }
    }

    fn merge_items(
        &self,
        shape: &Shape,
        live: &[(Element, &Value)],
        applied: &[(Element, &Value)],
    ) -> Vec<Value> {
        let known: BTreeMap<&Element, &Value> =
            live.iter().rev().map(|(element, value)| (element, *value)).collect();
        let wanted: BTreeSet<&Element> = applied.iter().map(|(element, _)| element).collect();
        let shared = applied.iter().filter(|(element, _)| known.contains_key(element));
        let mut shared = shared.map(|(element, _)| element).peekable();
        let mut merged = Vec::with_capacity(live.len() + applied.len());
        let mut live = live.iter().peekable();
        let mut applied = applied.iter();
        loop {
            match live.peek() {
                Some((element, value)) if !wanted.contains(element) => {
                    merged.push((*value).clone());
                    live.next();
                    continue;
                }
                // It was taken, or comes where the applied order has it.
                Some((element, _)) if shared.peek() != Some(&element) => {
                    live.next();
                    continue;
                }
                Some(_) | None => {}
            }
            let Some((element, value)) = applied.next() else { break };
            shared.next_if(|next| *next == element);
            merged.push(match known.get(element) {
                Some(old) => self.merge_values(shape, old, value),
                None => (*value).clone(),
            });
        }
        merged
    }

    /// The object without what the set names. An object or list that thereby loses all becomes a
    /// null, which [`without_nulls`] takes away.
    pub(super) fn remove(&self, object: &Value, set: &Set) -> Value {
        self.remove_below(self.root, object, set)
    }

    fn remove_below(&self, shape: &Shape, value: &Value, set: &Set) -> Value {
        let kept = |element: &Element, shape: &Shape, value: &Value| {
            if set.has(element) {
                return None;
            }
            Some(match set.below(element) {
                Some(below) => self.remove_below(shape, value, below),
                None => value.clone(),
            })
        };
        match self.view(shape, Some(value)) {
            View::Fields(fields) => {
                let kept: Map<String, Value> = fields
                    .iter()
                    .filter_map(|(name, value)| {
                        let shape = self.table.field(shape, name).shape;
                        Some((name.clone(), kept(&Element::Field(name.clone()), shape, value)?))
                    })
                    .collect();
                let lost_all = kept.is_empty() && !fields.is_empty();
                if lost_all { Value::Null } else { Value::Object(kept) }
            }
            View::Items(items, shape) => {
                let had_any = !items.is_empty();
                let kept: Vec<Value> =
                    items.iter().filter_map(|(name, value)| kept(name, shape, value)).collect();
                let lost_all = kept.is_empty() && had_any;
                if lost_all { Value::Null } else { Value::Array(kept) }
            }
            View::Leaf | View::Nothing => value.clone(),
        }
    }

    /// What an applied object must not have: fields that the kind does not have, items that do not
    /// say which they are, or two under one name.
    pub(super) fn errors(&self, object: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.errors_below(self.root, object, &mut Vec::new(), &mut errors);
        errors
    }

    fn errors_below(
        &self,
        shape: &Shape,
        value: &Value,
        path: &mut Path,
        errors: &mut Vec<String>,
    ) {
        match (shape, value) {
            (Shape::Struct(_) | Shape::Map { .. } | Shape::Deduced, Value::Object(fields)) => {
                for (name, value) in fields {
                    let found = self.table.field(shape, name);
                    path.push(Element::Field(name.clone()));
                    if !self.table.has(shape, name) {
                        errors.push(format!("{}: field not declared in schema", path_text(path)));
                    } else {
                        self.errors_below(found.shape, value, path, errors);
                    }
                    path.pop();
                }
            }
            (Shape::List { item, kind }, Value::Array(items)) => {
                let mut seen = BTreeSet::new();
                for (at, value) in items.iter().enumerate() {
                    let element = match (kind, self.element(item, kind, value)) {
                        (ListType::Atomic, _) => Element::Index(i64::try_from(at).unwrap_or(0)),
                        (_, Ok(element)) => element,
                        (_, Err(error)) => {
                            errors.push(format!("{}: element {at}: {error}", path_text(path)));
                            continue;
                        }
                    };
                    if !seen.insert(element.clone()) {
                        let path = path_text(path);
                        errors.push(format!("{path}: duplicate entries for key {element}"));
                    }
                    path.push(element);
                    self.errors_below(item, value, path, errors);
                    path.pop();
                }
            }
            (_, Value::Null) | (Shape::Scalar | Shape::Opaque | Shape::Deduced, _) => {}
            (Shape::Struct(_) | Shape::Map { .. }, other) => {
                let (path, found) = (path_text(path), go::json_name(other));
                errors.push(format!("{path}: expected map, got {found}"));
            }
            (Shape::List { .. }, other) => {
                let (path, found) = (path_text(path), go::json_name(other));
                errors.push(format!("{path}: expected list, got {found}"));
            }
        }
    }
}

/// Items by what names them, each in its order.
fn by_element(items: Vec<(Element, &Value)>) -> BTreeMap<Element, Vec<&Value>> {
    let mut by_element: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (element, value) in items {
        by_element.entry(element).or_default().push(value);
    }
    by_element
}

/// Whether any field is null.
pub(super) fn has_nulls(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(|value| value.is_null() || has_nulls(value)),
        Value::Array(items) => items.iter().any(has_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Takes every field away that is null.
pub(super) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
