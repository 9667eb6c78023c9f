//! What a kind does with an object, whether its row says so or its definition.

use super::Kind;
use crate::field::FieldError;
use serde_json::{Value, json};

/// How deep objects may be nested. Readers of JSON give up at 128 levels, and a list of objects has some more
/// than each of them.
const DEPTH_MAX: usize = 100;

fn is_within(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else { return false };
    match value {
        Value::Object(fields) => fields.values().all(|value| is_within(value, below)),
        Value::Array(items) => items.iter().all(|value| is_within(value, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

impl Kind {
    /// Whether it is the built-in kind of this name: definitions may make others of the same.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.custom.is_none() && self.kind == kind
    }

    /// Whether the object decodes as its type; the error names the path and what was expected.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_type(&self, object: &Value) -> Result<(), String> {
        // Only these may be nested as deep as a client likes.
        if (self.custom.is_some() || self.is("CustomResourceDefinition"))
            && !is_within(object, DEPTH_MAX)
        {
            return Err(format!("objects and lists are nested deeper than {DEPTH_MAX} levels"));
        }
        match &self.custom {
            Some(_) => crate::custom::Custom::decode(object),
            None => (self.decode)(object),
        }
    }

    /// Fills in what the client left out; of a custom resource, takes away what its schema does not have.
    pub fn set_defaults(&self, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.complete(object),
            None => (self.default)(object),
        }
    }

    /// Drops what a client may not set at creation and sets what the server owns.
    pub fn before_create(&self, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.prepare_create(object),
            None => (self.prepare_create)(object),
        }
    }

    /// The same for an update.
    pub fn before_update(&self, new: &mut Value, old: &Value) {
        match &self.custom {
            Some(custom) => custom.prepare_update(new, old),
            None => (self.prepare_update)(new, old),
        }
    }

    /// The same for an update of the status.
    pub fn before_status(&self, new: &mut Value, old: &Value) {
        match &self.custom {
            Some(custom) => custom.prepare_status(new, old),
            None => (self.prepare_status)(new, old),
        }
    }

    /// Every error at once of a new object.
    #[must_use]
    pub fn check_create(&self, object: &Value) -> Vec<FieldError> {
        match &self.custom {
            Some(custom) => custom.check(self, object, None),
            None => (self.validate_create)(object),
        }
    }

    /// Every error at once of the result of an update, and of the change.
    #[must_use]
    pub fn check_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        match &self.custom {
            Some(custom) => custom.check(self, new, Some(old)),
            None => (self.validate_update)(new, old),
        }
    }

    /// Every error at once of a status change.
    #[must_use]
    pub fn check_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        match &self.custom {
            Some(custom) => custom.check(self, new, Some(old)),
            None => (self.validate_status)(new, old),
        }
    }

    /// The columns as a Table describes them.
    #[must_use]
    pub fn column_definitions(&self) -> Vec<Value> {
        if let Some(custom) = &self.custom {
            return custom.columns();
        }
        let column = |c: &crate::table::Column| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": "",
                   "priority": c.priority})
        };
        self.columns.iter().map(column).collect()
    }

    /// One cell a column. `now` is in seconds since the Unix epoch.
    #[must_use]
    pub fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.cells(object, now),
            None => (self.cells)(object, now),
        }
    }

    /// Whether a field selector may ask for this, beside name and namespace.
    #[must_use]
    pub fn is_field_label(&self, label: &str) -> bool {
        match &self.custom {
            Some(custom) => custom.is_label(label),
            None => self.field_labels.contains(&label),
        }
    }

    /// What an object has there.
    #[must_use]
    pub fn field_value(&self, object: &Value, label: &str) -> String {
        match &self.custom {
            Some(custom) => custom.field(object, label),
            None => (self.field)(object, label),
        }
    }

    /// Such as `po`.
    #[must_use]
    pub fn all_short_names(&self) -> Vec<&str> {
        match &self.custom {
            Some(custom) => custom.short_names.iter().map(String::as_str).collect(),
            None => self.short_names.to_vec(),
        }
    }

    /// Such as `all`.
    #[must_use]
    pub fn all_categories(&self) -> Vec<&str> {
        match &self.custom {
            Some(custom) => custom.categories.iter().map(String::as_str).collect(),
            None => self.categories.to_vec(),
        }
    }

    /// Kind of a list of these.
    #[must_use]
    pub fn list_kind(&self) -> String {
        let own = self.custom.as_ref().map(|custom| custom.list_kind.clone());
        own.filter(|kind| !kind.is_empty()).unwrap_or_else(|| format!("{}List", self.kind))
    }
}
