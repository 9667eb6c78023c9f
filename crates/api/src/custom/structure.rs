//! A structural schema, read once from its definition, so that checking an object needs no look into JSON
//! Schema and no pattern is compiled twice.

use crate::pattern;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How deep schemas may be nested: reading and walking one recurses.
const DEPTH_MAX: usize = 100;

/// What JSON type a value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// None is said.
    #[default]
    Any,
    /// `array`
    Array,
    /// `boolean`
    Boolean,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `object`
    Object,
    /// `string`
    String,
}

impl Type {
    fn read(text: &str) -> Self {
        match text {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => Self::Any,
        }
    }

    /// As a schema says it; empty for [`Type::Any`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

/// What fields beside the named ones there may be.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Nothing is said: none that are kept.
    #[default]
    Unsaid,
    /// Any, as they are.
    Any,
    /// None: they are an error where nothing takes them away first.
    Forbidden,
    /// Any, of this form.
    Of(Box<Schema>),
}

/// How items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Items {
    /// They are not: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// A pattern and what it compiles to.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: Regex,
}

/// One place of an object.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// `type`
    pub kind: Type,
    /// `nullable`
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `properties`
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`
    pub additional: Additional,
    /// `items`
    pub items: Option<Box<Schema>>,
    /// `x-kubernetes-list-type` and its keys.
    pub list: Items,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// `default`
    pub default: Option<Value>,
    pub(super) required: Vec<String>,
    pub(super) format: String,
    pub(super) pattern: Option<Pattern>,
    pub(super) one_of_values: Vec<Value>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) length: (Option<u64>, Option<u64>),
    pub(super) item_count: (Option<u64>, Option<u64>),
    pub(super) property_count: (Option<u64>, Option<u64>),
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<super::rules::Rule>,
}

impl Schema {
    /// From the `openAPIV3Schema` of a version.
    ///
    /// # Errors
    /// What cannot be checked: a pattern that is none, a schema that is nested too deep. Such a definition
    /// is refused when it is written, so none of it is stored.
    pub fn read(schema: &Value) -> Result<Self, String> {
        read(schema, DEPTH_MAX)
    }

    /// `format`, empty if there is none.
    pub(crate) fn text_format(&self) -> &str {
        &self.format
    }

    /// What is known of a field; `None` for one that the schema does not name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::Unsaid | Additional::Any | Additional::Forbidden => None,
        })
    }
}

fn read(schema: &Value, depth: usize) -> Result<Schema, String> {
    let below = depth.checked_sub(1).ok_or("the schema is nested too deep")?;
    let empty = Map::new();
    let fields = schema.as_object().unwrap_or(&empty);
    let flag = |key: &str| fields.get(key) == Some(&Value::Bool(true));
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| fields.get(key).and_then(Value::as_f64);
    let count = |key: &str| fields.get(key).and_then(Value::as_u64);
    let texts = |key: &str| -> Vec<String> {
        let list = fields.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let one = |key: &str| -> Result<Option<Box<Schema>>, String> {
        let inner = fields.get(key).filter(|inner| inner.is_object());
        inner.map(|inner| read(inner, below).map(Box::new)).transpose()
    };
    let all = |key: &str| -> Result<Vec<Schema>, String> {
        let list = fields.get(key).and_then(Value::as_array).into_iter().flatten();
        list.map(|inner| read(inner, below)).collect()
    };
    let properties = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
    let pattern = match text("pattern") {
        "" => None,
        text => {
            let regex = pattern::compile(text).map_err(|e| format!("pattern {text:?}: {e}"))?;
            Some(Pattern { text: text.to_owned(), regex })
        }
    };
    Ok(Schema {
        kind: Type::read(text("type")),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        properties: properties
            .map(|(name, inner)| Ok((name.clone(), read(inner, below)?)))
            .collect::<Result<_, String>>()?,
        additional: match fields.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::Forbidden,
            Some(inner @ Value::Object(_)) => Additional::Of(Box::new(read(inner, below)?)),
            Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => {
                Additional::Unsaid
            }
        },
        items: one("items")?,
        list: match text("x-kubernetes-list-type") {
            "set" => Items::Set,
            "map" => Items::Map(texts("x-kubernetes-list-map-keys")),
            _ => Items::Atomic,
        },
        atomic_map: text("x-kubernetes-map-type") == "atomic",
        default: fields.get("default").cloned(),
        required: texts("required"),
        format: text("format").to_owned(),
        pattern,
        one_of_values: fields.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf").filter(|of| *of > 0.0),
        length: (count("minLength"), count("maxLength")),
        item_count: (count("minItems"), count("maxItems")),
        property_count: (count("minProperties"), count("maxProperties")),
        all_of: all("allOf")?,
        any_of: all("anyOf")?,
        one_of: all("oneOf")?,
        not: one("not")?,
        rules: super::rules::read(fields.get("x-kubernetes-validations"))?,
    })
}
