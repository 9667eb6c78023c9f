//! Values of expressions: those of an object as its schema types them, and those that are computed.

use crate::{
    custom::{Additional, Schema, Type},
    quantity::Quantity,
};
use serde_json::{Map, Value};
use std::{borrow::Cow, cmp::Ordering, net::IpAddr, rc::Rc};

/// A value. Those of an object are looked into where they lie.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Rc<Vec<u8>>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
    /// An object or map of a custom resource.
    Object(&'a Map<String, Value>, Option<&'a Schema>),
    /// A list of a custom resource.
    Array(&'a [Value], Option<&'a Schema>),
    Duration(jiff::SignedDuration),
    Time(jiff::Timestamp),
    Type(&'static str),
    Optional(Option<Box<Val<'a>>>),
    Quantity(Quantity),
    Address(IpAddr),
}

impl<'a> Val<'a> {
    /// Of an object, as its schema types it.
    pub(crate) fn of(value: &'a Value, schema: Option<&'a Schema>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => {
                let double = schema.is_some_and(|schema| schema.kind == Type::Number);
                match (double, number.as_i64(), number.as_u64(), number.as_f64()) {
                    (false, Some(number), ..) => Self::Int(number),
                    (false, None, Some(number), _) => Self::Uint(number),
                    (.., Some(number)) => Self::Double(number),
                    (.., None) => Self::Null,
                }
            }
            Value::String(text) => formatted(text, schema),
            Value::Array(items) => Self::Array(items, schema.and_then(|s| s.items.as_deref())),
            Value::Object(fields) => Self::Object(fields, schema),
        }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    pub(super) fn list(items: Vec<Val<'a>>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) | Self::Array(..) => "list",
            Self::Map(_) | Self::Object(..) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Address(_) => "net.IP",
        }
    }

    /// A field of an object or map.
    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Object(fields, schema) => {
                let schema = schema.and_then(|schema| schema.field(name));
                fields.get(name).map(|value| Val::of(value, schema))
            }
            Self::Map(pairs) => {
                let named = |key: &Val<'a>| matches!(key, Val::Text(text) if text == name);
                pairs.iter().find(|(key, _)| named(key)).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    /// The items of a list, or the keys of a map.
    pub(super) fn items(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Self::List(items) => Some(items.to_vec()),
            Self::Array(items, schema) => {
                Some(items.iter().map(|item| Val::of(item, *schema)).collect())
            }
            Self::Map(pairs) => Some(pairs.iter().map(|(key, _)| key.clone()).collect()),
            Self::Object(fields, _) => {
                Some(fields.keys().map(|key| Val::Text(Cow::Borrowed(key.as_str()))).collect())
            }
            _ => None,
        }
    }

    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::List(items) => Some(items.len()),
            Self::Array(items, _) => Some(items.len()),
            Self::Map(pairs) => Some(pairs.len()),
            Self::Object(fields, _) => Some(fields.len()),
            Self::Text(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            _ => None,
        }
    }

    /// How much a comparison with it costs.
    pub(super) fn weight(&self) -> u64 {
        let count = match self {
            Self::Text(text) => text.len() / 10,
            other => other.count().unwrap_or_default(),
        };
        1 + count as u64
    }

    /// Whether two are the same: numbers by value, whatever their type.
    pub(super) fn same(&self, other: &Val<'a>) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Address(a), Self::Address(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.same(b),
                _ => false,
            },
            (Self::Int(_) | Self::Uint(_) | Self::Double(_), _) => {
                self.order(other).is_some_and(Ordering::is_eq)
            }
            (Self::List(_) | Self::Array(..), Self::List(_) | Self::Array(..)) => {
                match (self.items(), other.items()) {
                    (Some(a), Some(b)) => {
                        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.same(b))
                    }
                    _ => false,
                }
            }
            (Self::Map(_) | Self::Object(..), Self::Map(_) | Self::Object(..)) => {
                let Some(keys) = self.items() else { return false };
                self.count() == other.count()
                    && keys.iter().all(|key| match (self.get(key), other.get(key)) {
                        (Some(a), Some(b)) => a.same(&b),
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    /// What a map has under a key, or a list at a place.
    pub(super) fn get(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Map(pairs), key) => {
                pairs.iter().find(|(own, _)| own.same(key)).map(|(_, value)| value.clone())
            }
            (Self::Object(..), Val::Text(name)) => self.field(name),
            (Self::List(items), Val::Int(at)) => items.get(usize::try_from(*at).ok()?).cloned(),
            (Self::Array(items, schema), Val::Int(at)) => {
                items.get(usize::try_from(*at).ok()?).map(|item| Val::of(item, *schema))
            }
            _ => None,
        }
    }

    pub(super) fn order(&self, other: &Val<'a>) -> Option<Ordering> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "numbers of two types are compared as doubles"
        )]
        let double = |value: &Val<'a>| match value {
            Val::Int(n) => Some(*n as f64),
            Val::Uint(n) => Some(*n as f64),
            Val::Double(n) => Some(*n),
            _ => None,
        };
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => {
                Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b)))
            }
            (Self::Uint(a), Self::Int(b)) => {
                Some(u64::try_from(*b).map_or(Ordering::Greater, |b| a.cmp(&b)))
            }
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => double(self)?.partial_cmp(&double(other)?),
        }
    }
}

fn formatted<'a>(text: &'a str, schema: Option<&Schema>) -> Val<'a> {
    let format = schema.map(Schema::text_format).unwrap_or_default();
    let parsed = match format {
        "date-time" | "datetime" => text.parse().ok().map(Val::Time),
        "date" => format!("{text}T00:00:00Z").parse().ok().map(Val::Time),
        "duration" => super::functions::duration(text).map(Val::Duration),
        _ => None,
    };
    parsed.unwrap_or(Val::Text(Cow::Borrowed(text)))
}

/// Whether a schema says which fields there are, and no others.
pub(super) fn is_closed(schema: &Schema) -> bool {
    schema.kind == Type::Object
        && !schema.preserve
        && matches!(schema.additional, Additional::Unsaid | Additional::Forbidden)
}
