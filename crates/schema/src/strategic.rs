//! Strategic merge patches (PAT-2): lists merge by the names of their items.
//!
//! A patch is a part of an object with directives in it: `$patch` in an object (`replace`, `delete`)
//! or in an item of a list, `$retainKeys` for an object, `$setElementOrder/LIST` and
//! `$deleteFromPrimitiveList/LIST` beside a list. A null removes.

use crate::{
    go::{self, canonical},
    table::{FieldOf, Shape, Table, table},
};
use api::{kinds::Kind, status::Status};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Takes or drops the object that it is in.
const PATCH: &str = "$patch";
/// Names the only fields that stay.
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

type Object = Map<String, Value>;

/// Why a patch does not apply, in the words of kube-apiserver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch, or what it is for, is no object.
    #[error("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")]
    NoObject { found: &'static str },
    /// An item of a list does not say which one it is. `map` is the item as Go prints it.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    /// `$patch` is none of the words that may be there.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    /// `$patch: merge` in an item.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// A list of objects that is to merge, and nothing names its items.
    #[error("cannot merge lists without merge key for {of}")]
    NoDeclaredKey { of: String },
    /// `$retainKeys` is no list, or does not name what the patch sets.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` for a list that the kind does not have.
    #[error("unable to find api field in struct {of} for the json field {field:?}")]
    NoField { of: String, field: String },
    /// A directive's value has the wrong type.
    #[error("expected a {expected}, but received a {received}")]
    WrongType { expected: &'static str, received: &'static str },
    /// Lists whose items are lists do not merge.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Objects and scalars in one list.
    #[error("list element types are not identical: [{first} {second}]")]
    MixedList { first: &'static str, second: &'static str },
    /// The patch has its items in another order than `$setElementOrder` says.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order { patch: String, order: String },
}

impl PatchError {
    /// As kube-apiserver answers it: most of these are a 500 there, without a reason.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::NoObject { .. } | Self::RetainKeys => Status::bad_request(self.to_string()),
            Self::ListOfLists => Status::new(422, "Invalid", self.to_string()),
            Self::NoMergeKey { .. }
            | Self::UnknownDirective { .. }
            | Self::MergeDirective
            | Self::NoDeclaredKey { .. }
            | Self::NoField { .. }
            | Self::WrongType { .. }
            | Self::MixedList { .. }
            | Self::Order { .. } => Status::new(500, "", self.to_string()),
        }
    }
}

/// What `base` is after `patch`, a strategic merge patch for an object of this kind.
///
/// Fields that the kind does not have merge if they are objects, and are replaced otherwise. Kinds
/// without a schema take no such patches (PAT-1); asked all the same, they merge in that way.
///
/// # Errors
/// See [`PatchError`]; `base` is then what it was.
pub fn strategic_merge(kind: &Kind, base: &Value, patch: &Value) -> Result<Value, PatchError> {
    let base = object(base)?.clone();
    let patch = object(patch)?.clone();
    let merge = Merge { table: table() };
    Ok(Value::Object(merge.objects(base, patch, &merge.table.root(kind))?))
}

fn object(value: &Value) -> Result<&Object, PatchError> {
    value.as_object().ok_or_else(|| PatchError::NoObject { found: go::json_name(value) })
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(PatchError::WrongType {
                expected: "[]interface {}",
                received: go::type_name(&value),
            })
        }
    }
}

fn no_key(item: &Value, key: &str) -> PatchError {
    PatchError::NoMergeKey { map: go::plain(item), key: key.to_owned() }
}

/// What a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Items {
    Objects,
    Scalars,
}

/// What all items of two lists are; empty lists count as scalars.
fn items_of(lists: [&[Value]; 2]) -> Result<Items, PatchError> {
    let mut first: Option<&Value> = None;
    for item in lists.into_iter().flatten() {
        if item.is_array() {
            return Err(PatchError::ListOfLists);
        }
        let first = *first.get_or_insert(item);
        if first.is_object() != item.is_object() {
            let (first, second) = (go::type_name(first), go::type_name(item));
            return Err(PatchError::MixedList { first, second });
        }
    }
    Ok(if first.is_some_and(Value::is_object) { Items::Objects } else { Items::Scalars })
}

/// How items of one list are told apart.
#[derive(Debug, Clone, Copy)]
enum Identity<'a> {
    /// By themselves.
    Own,
    /// By this field.
    Key(&'a str),
}

impl<'a> Identity<'a> {
    const fn new(items: Items, key: &'a str) -> Self {
        match items {
            Items::Objects if !key.is_empty() => Self::Key(key),
            Items::Objects | Items::Scalars => Self::Own,
        }
    }

    fn of(self, item: &Value) -> Result<&Value, PatchError> {
        match self {
            Self::Own => Ok(item),
            Self::Key(key) => item.get(key).ok_or_else(|| no_key(item, key)),
        }
    }

    /// What tells the item apart, as text.
    fn name(self, item: &Value) -> Result<String, PatchError> {
        self.of(item).map(canonical)
    }

    /// The place of each item; of the first, where two have one name.
    fn places(self, list: &[Value]) -> Result<BTreeMap<String, usize>, PatchError> {
        let named = list.iter().enumerate().rev();
        named.map(|(at, item)| Ok((self.name(item)?, at))).collect()
    }

    /// Puts items that `first` orders and the others, which `base` orders, into one list. Both keep
    /// their order; where both orders know two items, the one that `base` has first comes first.
    fn arrange(
        self,
        items: Vec<Value>,
        first: &[Value],
        base: &[Value],
    ) -> Result<Vec<Value>, PatchError> {
        let [first, base] = [self.places(first)?, self.places(base)?];
        let mut ordered = Vec::new();
        let mut others = Vec::new();
        for item in items {
            let name = self.name(&item)?;
            let in_base = base.get(&name).copied();
            match first.get(&name) {
                Some(place) => ordered.push((*place, in_base, item)),
                None => others.push((in_base, item)),
            }
        }
        ordered.sort_by_key(|(place, _, _)| *place);
        // What the base does not have came last.
        others.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
        let mut arranged = Vec::with_capacity(ordered.len() + others.len());
        let mut others = others.into_iter().peekable();
        for (_, in_base, item) in ordered {
            while let Some((_, other)) = others.next_if(|(place, _)| {
                place.zip(in_base).is_some_and(|(other, ordered)| other < ordered)
            }) {
                arranged.push(other);
            }
            arranged.push(item);
        }
        arranged.extend(others.map(|(_, item)| item));
        Ok(arranged)
    }
}

/// What a patch adds where nothing was: without nulls and directives. `None` is nothing.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            // Whatever it says: upstream looks for something to do it to, and drops it.
            if fields.contains_key(PATCH) {
                return None;
            }
            let kept = fields.into_iter().filter(|(name, _)| !is_directive(name));
            let kept = kept.filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter(|item| item.get(PATCH).is_none());
            // A null in a list is an item.
            let kept = kept.filter_map(|item| {
                if item.is_null() { Some(Value::Null) } else { without_directives(item) }
            });
            Some(Value::Array(kept.collect()))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value),
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || order_of(name).is_some() || deletion_of(name).is_some()
}

/// The list that a `$setElementOrder/LIST` is about.
fn order_of(name: &str) -> Option<&str> {
    name.strip_prefix(SET_ELEMENT_ORDER)?.strip_prefix('/')
}

/// The list that a `$deleteFromPrimitiveList/LIST` is about.
fn deletion_of(name: &str) -> Option<&str> {
    name.strip_prefix(DELETE_FROM_PRIMITIVE_LIST)?.strip_prefix('/')
}

struct Merge {
    table: &'static Table,
}

impl Merge {
    /// Such as `PodSpec`.
    fn name(&self, shape: &Shape) -> String {
        let name = self.table.definition(shape).map_or("", |definition| &definition.name);
        name.rsplit('.').next().unwrap_or_default().to_owned()
    }

    fn objects(
        &self,
        mut base: Object,
        mut patch: Object,
        shape: &Shape,
    ) -> Result<Object, PatchError> {
        if let Some(directive) = patch.remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Object::new()),
                Some(_) | None => {
                    let text = go::plain(&directive);
                    patch.insert(PATCH.to_owned(), directive);
                    let map = go::plain(&Value::Object(patch));
                    Err(PatchError::UnknownDirective { directive: text, map })
                }
            };
        }
        retain_keys(&mut base, &mut patch)?;
        self.ordered_lists(&mut base, &mut patch, shape)?;
        // Deletions come first, since `$` sorts before letters: what is both deleted and added stays.
        for (name, value) in patch {
            if let Some(list_name) = deletion_of(&name) {
                delete_from_list(&mut base, list_name, value)?;
                continue;
            }
            let found = self.table.field(shape, &name);
            let merged = match base.remove(&name) {
                None => without_directives(value),
                Some(_) if value.is_null() => None,
                Some(old) => self.values(old, value, found, shape)?,
            };
            if let Some(merged) = merged {
                base.insert(name, merged);
            }
        }
        Ok(base)
    }

    fn values(
        &self,
        old: Value,
        new: Value,
        found: FieldOf<'_>,
        of: &Shape,
    ) -> Result<Option<Value>, PatchError> {
        let strategy = found.field.map(|field| field.strategy).unwrap_or_default();
        Ok(match (old, new) {
            (Value::Object(_), new @ Value::Object(_)) if strategy.replace => {
                without_directives(new)
            }
            (Value::Object(old), Value::Object(new)) => {
                Some(Value::Object(self.objects(old, new, found.shape)?))
            }
            (Value::Array(old), Value::Array(new)) => {
                Some(Value::Array(self.lists(old, new, found, of)?))
            }
            (_, new) => without_directives(new),
        })
    }

    fn lists(
        &self,
        old: Vec<Value>,
        new: Vec<Value>,
        found: FieldOf<'_>,
        of: &Shape,
    ) -> Result<Vec<Value>, PatchError> {
        let Some(field) = found.field.filter(|field| field.strategy.merge) else {
            return Ok(new);
        };
        match items_of([&old, &new])? {
            Items::Scalars => {
                let mut seen = BTreeSet::new();
                let all = old.iter().chain(&new);
                let merged = all.filter(|item| seen.insert(canonical(item))).cloned().collect();
                Identity::Own.arrange(merged, &new, &old)
            }
            Items::Objects if field.merge_key.is_empty() => {
                Err(PatchError::NoDeclaredKey { of: self.name(of) })
            }
            Items::Objects => {
                let item = match found.shape {
                    Shape::List { item, .. } => item,
                    Shape::Scalar
                    | Shape::Opaque
                    | Shape::Deduced
                    | Shape::Struct(_)
                    | Shape::Map { .. } => &Shape::Opaque,
                };
                self.items(old, new, field.merge_key, item)
            }
        }
    }

    fn items(
        &self,
        old: Vec<Value>,
        new: Vec<Value>,
        key: &str,
        shape: &Shape,
    ) -> Result<Vec<Value>, PatchError> {
        let identity = Identity::Key(key);
        let (old, new) = special_items(old, new, key)?;
        let mut merged = old.clone();
        let mut places = identity.places(&merged)?;
        for item in &new {
            let place = *places.entry(identity.name(item)?).or_insert(merged.len());
            match merged.get_mut(place) {
                Some(known) => {
                    let base = known.as_object().cloned().unwrap_or_default();
                    let patch = item.as_object().cloned().unwrap_or_default();
                    *known = Value::Object(self.objects(base, patch, shape)?);
                }
                None => merged.extend(without_directives(item.clone())),
            }
        }
        identity.arrange(merged, &new, &old)
    }

    /// Carries out each `$setElementOrder/LIST`, together with the patch of that list.
    fn ordered_lists(
        &self,
        base: &mut Object,
        patch: &mut Object,
        shape: &Shape,
    ) -> Result<(), PatchError> {
        let names: Vec<String> =
            patch.keys().filter_map(|n| Some(order_of(n)?.to_owned())).collect();
        for name in names {
            let order = patch.remove(&format!("{SET_ELEMENT_ORDER}/{name}")).unwrap_or_default();
            let order = list(order)?;
            let old = base.get(&name).cloned().map(list).transpose()?;
            // A null takes the list away below.
            let new = patch.get(&name).filter(|value| !value.is_null());
            let new = new.cloned().map(list).transpose()?;
            let found = self.table.field(shape, &name);
            let key = match (found.field, shape) {
                (Some(field), _) => field.merge_key,
                (None, Shape::Struct(_)) => {
                    return Err(PatchError::NoField { of: self.name(shape), field: name });
                }
                (None, _) => continue,
            };
            let items = items_of([old.as_deref().unwrap_or(&[]), new.as_deref().unwrap_or(&[])])?;
            let identity = Identity::new(items, key);
            if let Some(new) = &new {
                in_order(new, &order, identity)?;
            }
            let deleted = patch.get(&name).is_some_and(Value::is_null);
            let (merged, old) = match (old, new) {
                (None, None) => continue,
                (Some(_), None) if deleted => continue,
                (Some(old), None) => (old.clone(), old),
                (None, Some(new)) => match without_directives(Value::Array(new)) {
                    Some(Value::Array(new)) => (new, Vec::new()),
                    Some(_) | None => (Vec::new(), Vec::new()),
                },
                (Some(old), Some(new)) => {
                    let places = places_after(&old, &new, identity);
                    (self.lists(old, new, found, shape)?, places)
                }
            };
            patch.remove(&name);
            let merged = identity.arrange(merged, &order, &old)?;
            base.insert(name, Value::Array(merged));
        }
        Ok(())
    }
}

/// Drops what `$retainKeys` does not name.
fn retain_keys(base: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(PatchError::RetainKeys) };
    let retained: BTreeSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let names = |name: &str| retained.contains(name);
    let sets = |name: &str, value: &Value| !value.is_null() && !is_directive(name);
    if patch.iter().any(|(name, value)| sets(name, value) && !names(name)) {
        return Err(PatchError::RetainKeys);
    }
    base.retain(|name, _| names(name));
    Ok(())
}

fn delete_from_list(base: &mut Object, name: &str, deleted: Value) -> Result<(), PatchError> {
    if deleted.is_null() {
        base.remove(name);
        return Ok(());
    }
    let deleted: BTreeSet<String> = list(deleted)?.iter().map(canonical).collect();
    if let Some(Value::Array(items)) = base.get_mut(name) {
        items.retain(|item| !deleted.contains(&canonical(item)));
    }
    Ok(())
}

/// Takes the items with a `$patch` out of a patch and does what they say: `delete` removes the item
/// that they name, `replace` removes all.
fn special_items(
    old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let identity = Identity::Key(key);
    let mut plain = Vec::with_capacity(new.len());
    let mut deleted = BTreeSet::new();
    let mut replace = false;
    for item in new {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                deleted.insert(identity.name(&item)?);
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::MergeDirective),
            Some(_) | None => {
                let (directive, map) = (go::plain(directive), go::plain(&item));
                return Err(PatchError::UnknownDirective { directive, map });
            }
        }
    }
    if replace {
        return Ok((Vec::new(), plain));
    }
    let mut left = Vec::with_capacity(old.len());
    for item in old {
        if deleted.is_empty() || !deleted.contains(&identity.name(&item)?) {
            left.push(item);
        }
    }
    Ok((left, plain))
}

/// The order of the live list as upstream sees it after a merge: what is added takes the places, at
/// the list's end, that deletions freed.
fn places_after(old: &[Value], new: &[Value], identity: Identity<'_>) -> Vec<Value> {
    let (deletions, others): (Vec<&Value>, Vec<&Value>) =
        new.iter().partition(|item| directive(item) == Some("delete"));
    let names = |items: &[&Value]| -> BTreeSet<String> {
        items.iter().filter_map(|item| identity.name(item).ok()).collect()
    };
    let is_in = |names: &BTreeSet<String>, item: &Value| {
        identity.name(item).is_ok_and(|name| names.contains(&name))
    };
    let deleted = names(&deletions);
    let mut left: Vec<&Value> = old.iter().filter(|item| !is_in(&deleted, item)).collect();
    if left.len() < old.len() && others.iter().all(|item| item.get(PATCH).is_none()) {
        let known = names(&left);
        left.extend(others.into_iter().filter(|item| !is_in(&known, item)));
    }
    // Past the end there is nothing to order by.
    left.truncate(old.len());
    left.into_iter().cloned().collect()
}

/// What an item says of itself.
fn directive(item: &Value) -> Option<&str> {
    item.get(PATCH)?.as_str()
}

/// Whether the items of a patch stand in the order that goes with it, which may name more.
fn in_order(new: &[Value], order: &[Value], identity: Identity<'_>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    let mut out_of_order = false;
    for item in new.iter().filter(|item| directive(item) != Some("delete")) {
        // Other directives name nothing, and are yet refused where the order ends.
        if item.get(PATCH).is_some() && rest.len() > 0 {
            continue;
        }
        out_of_order = true;
        let wanted = identity.of(item).ok();
        for next in rest.by_ref() {
            let next = identity.of(next)?;
            if wanted.is_some_and(|wanted| canonical(next) == canonical(wanted)) {
                out_of_order = false;
                break;
            }
        }
        if out_of_order {
            break;
        }
    }
    if out_of_order {
        let [patch, order] = [new, order].map(|list| go::plain(&Value::Array(list.to_vec())));
        return Err(PatchError::Order { patch, order });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use proptest::prelude::*;
    use serde_json::json;

    fn merged(kind: &str, base: &Value, patch: &Value) -> Result<Value, PatchError> {
        strategic_merge(kinds::by_alias(kind).unwrap(), base, patch)
    }

    fn spec(kind: &str, base: Value, patch: Value) -> Result<Value, String> {
        let merged = merged(kind, &json!({"spec": base}), &json!({"spec": patch}));
        merged.map(|merged| merged["spec"].clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_merge_by_the_names_of_their_items() {
        // PAT-2
        for (name, base, patch, want) in [
            (
                "a container is changed",
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
                json!({"containers": [{"name": "b", "image": "2"}]}),
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
            ),
            (
                "a container is added before those that the patch does not name",
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"name": "b", "image": null, "tty": true}]}),
                json!({"containers": [{"name": "b", "tty": true}, {"name": "a"}]}),
            ),
            (
                "lists within items merge too",
                json!({"containers": [{"name": "a", "env": [{"name": "x", "value": "1"}, {"name": "y", "value": "2"}],
                       "ports": [{"containerPort": 80}]}]}),
                json!({"containers": [{"name": "a", "env": [{"name": "y", "value": "3"}],
                       "ports": [{"containerPort": 80, "name": "http"}]}]}),
                json!({"containers": [{"name": "a", "env": [{"name": "x", "value": "1"}, {"name": "y", "value": "3"}],
                       "ports": [{"containerPort": 80, "name": "http"}]}]}),
            ),
            (
                "tolerations are replaced",
                json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
                json!({"tolerations": [{"key": "c"}]}),
                json!({"tolerations": [{"key": "c"}]}),
            ),
            (
                "commands are replaced",
                json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
                json!({"containers": [{"name": "a", "command": ["z"]}]}),
                json!({"containers": [{"name": "a", "command": ["z"]}]}),
            ),
            (
                "a null removes",
                json!({"nodeName": "n", "containers": [{"name": "a", "image": "1"}]}),
                json!({"nodeName": null, "containers": [{"name": "a", "image": null}]}),
                json!({"containers": [{"name": "a"}]}),
            ),
            (
                "an item is deleted",
                json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
                json!({"containers": [{"name": "b", "$patch": "delete"}]}),
                json!({"containers": [{"name": "a"}, {"name": "c"}]}),
            ),
            (
                "a list is replaced",
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"containers": [{"$patch": "replace"}, {"name": "c", "image": "1"}]}),
                json!({"containers": [{"name": "c", "image": "1"}]}),
            ),
            (
                "an object is replaced",
                json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
                json!({"securityContext": {"$patch": "replace", "runAsUser": 3}}),
                json!({"securityContext": {"runAsUser": 3}}),
            ),
            (
                "an object is deleted, which leaves an empty one",
                json!({"securityContext": {"runAsUser": 1}}),
                json!({"securityContext": {"$patch": "delete"}}),
                json!({"securityContext": {}}),
            ),
            (
                "a volume keeps the fields that it should",
                json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
                json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
            ),
            (
                "what is added has no directives and no nulls",
                json!({}),
                json!({"volumes": [{"name": "v", "$retainKeys": ["name"]}, {"name": "w", "$patch": "delete"}],
                       "$setElementOrder/volumes": [{"name": "v"}],
                       "securityContext": {"fsGroup": null, "runAsUser": 1},
                       "nodeSelector": {"$patch": "replace", "a": "b"}}),
                json!({"volumes": [{"name": "v"}], "securityContext": {"runAsUser": 1}}),
            ),
            (
                "an order puts items of the patch first where nothing says otherwise",
                json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
                json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
                       "containers": [{"name": "d", "image": "1"}]}),
                json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "d", "image": "1"}, {"name": "a"}]}),
            ),
            (
                "what is added takes the place that a deletion freed",
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"$setElementOrder/containers": [{"name": "c"}],
                       "containers": [{"name": "c", "image": "1"}, {"name": "b", "$patch": "delete"}]}),
                json!({"containers": [{"name": "a"}, {"name": "c", "image": "1"}]}),
            ),
            (
                "an order alone reorders",
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
                json!({"containers": [{"name": "b"}, {"name": "a"}]}),
            ),
            (
                "a list that is taken away needs no order",
                json!({"volumes": [{"name": "a"}]}),
                json!({"$setElementOrder/volumes": [], "volumes": null}),
                json!({}),
            ),
            (
                "fields of no kind merge as in any JSON",
                json!({"other": {"a": 1, "l": [1]}}),
                json!({"other": {"b": 2, "l": [2]}}),
                json!({"other": {"a": 1, "b": 2, "l": [2]}}),
            ),
        ] {
            assert_eq!(spec("pod", base, patch), Ok(want), "{name}");
        }
    }

    #[test]
    fn finalizers_merge_as_a_set() {
        // PAT-2
        let base = json!({"metadata": {"finalizers": ["a/x", "b/x", "c/x"]}});
        for (name, patch, want) in [
            ("added", json!({"finalizers": ["d/x", "a/x"]}), json!(["d/x", "a/x", "b/x", "c/x"])),
            (
                "deleted",
                json!({"$deleteFromPrimitiveList/finalizers": ["b/x"]}),
                json!(["a/x", "c/x"]),
            ),
            (
                "deleted, added and ordered",
                json!({"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["d/x"],
                       "$setElementOrder/finalizers": ["d/x", "b/x", "c/x"]}),
                json!(["d/x", "b/x", "c/x"]),
            ),
        ] {
            let merged = merged("cm", &base, &json!({"metadata": patch})).unwrap();
            assert_eq!(merged["metadata"]["finalizers"], want, "{name}");
        }
    }

    #[test]
    fn services_name_ports_by_their_number() {
        let base = json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]});
        let patch =
            json!({"ports": [{"port": 81.0, "name": "c"}, {"port": 80, "$patch": "delete"}]});
        assert_eq!(spec("svc", base, patch), Ok(json!({"ports": [{"port": 81.0, "name": "c"}]})));
    }

    #[test]
    fn a_patch_that_does_not_apply_is_refused_in_upstreams_words() {
        let base = json!({"containers": [{"name": "a", "image": "1"}]});
        for (patch, want) in [
            (
                json!({"containers": [{"image": "2", "ports": []}]}),
                "map: map[image:2 ports:[]] does not contain declared merge key: name",
            ),
            (
                json!({"containers": [{"image": "2", "$patch": "delete"}]}),
                "map: map[$patch:delete image:2] does not contain declared merge key: name",
            ),
            (
                json!({"containers": [{"name": "a", "$patch": "merge"}]}),
                "merging lists cannot yet be specified in the patch",
            ),
            (
                json!({"containers": [{"name": "a", "$patch": "jump"}]}),
                "unknown patch type: jump in map: map[$patch:jump name:a]",
            ),
            (
                json!({"$patch": "merge", "nodeName": "x"}),
                "unknown patch type: merge in map: map[$patch:merge nodeName:x]",
            ),
            (json!({"$retainKeys": "x"}), "invalid patch format of retainKeys"),
            (
                json!({"$retainKeys": ["containers"], "nodeName": "x"}),
                "invalid patch format of retainKeys",
            ),
            (
                json!({"$setElementOrder/containers": 1}),
                "expected a []interface {}, but received a int64",
            ),
            (
                json!({"$setElementOrder/nothing": [], "nothing": [1]}),
                "unable to find api field in struct PodSpec for the json field \"nothing\"",
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
                "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n\
                 [map[name:b]]\n",
            ),
            (json!({"containers": [[]]}), "lists of lists are not supported"),
            (
                json!({"containers": ["a"]}),
                "list element types are not identical: [map[string]interface {} string]",
            ),
        ] {
            assert_eq!(spec("pod", base.clone(), patch).unwrap_err(), want);
        }
        let error = merged("pod", &json!({}), &json!([])).unwrap_err();
        let want = "json: cannot unmarshal array into Go value of type map[string]interface {}";
        assert_eq!((error.status().code, error.status().message.as_str()), (400, want));
    }

    /// A Pod's lists of each sort, with few names, so that they meet.
    fn pod_spec() -> impl Strategy<Value = Value> {
        let names = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle();
        let keys = proptest::sample::subsequence(vec!["x", "y"], 0..=2);
        (names, keys, 0..3_u8, any::<bool>()).prop_map(|(names, keys, image, host)| {
            let container = |name: &&str| json!({"name": name, "image": image.to_string()});
            let toleration = |key: &&str| json!({"key": key});
            let mut spec = json!({
                "containers": names.iter().map(container).collect::<Vec<_>>(),
                "tolerations": keys.iter().map(toleration).collect::<Vec<_>>(),
            });
            if host {
                spec["hostNetwork"] = json!(true);
            }
            spec
        })
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(base in pod_spec(), patch in pod_spec()) {
            let once = spec("pod", base, patch.clone()).unwrap();
            prop_assert_eq!(spec("pod", once.clone(), patch), Ok(once));
        }

        #[test]
        fn a_merge_has_all_of_the_patch_in_its_order(base in pod_spec(), patch in pod_spec()) {
            let merged = spec("pod", base.clone(), patch.clone()).unwrap();
            let names = |spec: &Value| -> Vec<String> {
                let list = spec["containers"].as_array().unwrap();
                list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
            };
            let kept: Vec<String> =
                names(&merged).into_iter().filter(|name| names(&patch).contains(name)).collect();
            prop_assert_eq!(kept, names(&patch));
            // So do the others.
            let alone = |name: &String| !names(&patch).contains(name);
            let others: Vec<String> = names(&merged).into_iter().filter(alone).collect();
            let want: Vec<String> = names(&base).into_iter().filter(alone).collect();
            prop_assert_eq!(others, want);
            prop_assert_eq!(&merged["tolerations"], &patch["tolerations"]);
        }

        #[test]
        fn an_order_that_names_all_is_the_order(base in pod_spec(), order in Just(vec!["a", "b", "c", "d"]).prop_shuffle()) {
            let names: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
            let patch = json!({"containers": names, "$setElementOrder/containers": names});
            let merged = spec("pod", base, patch).unwrap();
            let got: Vec<&str> = merged["containers"].as_array().unwrap().iter()
                .map(|item| item["name"].as_str().unwrap()).collect();
            prop_assert_eq!(got, order);
        }
    }
}
