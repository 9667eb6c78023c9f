//! `x-kubernetes-validations`: rules in CEL, each at its place in the schema.

use super::{
    check::{at, same_item, type_of},
    structure::Schema,
};
use crate::{
    cel::{Budget, Fault, Old, Program, Val},
    field::{FieldError, Path},
};
use serde_json::{Map, Value};

/// Steps that all rules of one object may make together.
const STEPS_MAX: u64 = 1_000_000;
/// Characters of a message that a rule makes.
const MESSAGE_CHARS_MAX: usize = 2048;

/// One rule, read.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    text: String,
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
    field_path: String,
    old: Old,
    /// Only asked of what was there before.
    is_transition: bool,
}

/// The rules of one place.
///
/// # Errors
/// One is no expression.
pub(super) fn read(rules: Option<&Value>) -> Result<Vec<Rule>, String> {
    let rules = rules.and_then(Value::as_array).into_iter().flatten();
    rules.map(read_one).collect()
}

fn text<'a>(rule: &'a Value, key: &str) -> &'a str {
    rule.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read_one(rule: &Value) -> Result<Rule, String> {
    let expression = text(rule, "rule");
    let program = Program::parse(expression).map_err(|e| format!("rule {expression:?}: {e}"))?;
    let made = Some(text(rule, "messageExpression")).filter(|made| !made.is_empty());
    let message_program = made.map(Program::parse).transpose()?;
    let optional = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
    Ok(Rule {
        text: expression.trim().to_owned(),
        is_transition: program.uses("oldSelf") && !optional,
        program,
        message: text(rule, "message").trim().to_owned(),
        message_program,
        reason: text(rule, "reason").to_owned(),
        field_path: text(rule, "fieldPath").to_owned(),
        old: if optional { Old::Optional } else { Old::Value },
    })
}

/// Errors of the rules in one place of a definition's schema.
pub(super) fn check_definition(
    fields: &Map<String, Value>,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    const REASONS: &[&str] =
        &["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"];
    let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
    let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return };
    // The rules themselves are not part of what they are about.
    let mut bare = fields.clone();
    bare.remove("x-kubernetes-validations");
    let Ok(schema) = Schema::read(&without_rules(&Value::Object(bare))) else { return };
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(i);
        let old = match rule.get("optionalOldSelf") {
            Some(Value::Bool(true)) => Old::Optional,
            _ => Old::Value,
        };
        for key in ["rule", "messageExpression"] {
            let expression = text(rule, key);
            if expression.trim().is_empty() {
                continue;
            }
            let checked = Program::parse(expression).and_then(|p| p.check(&schema, old));
            if let Err(error) = checked {
                let detail = format!("compilation failed: ERROR: <input>: {error}");
                let mut value = rule.clone();
                if key == "messageExpression" {
                    value = expression.into();
                }
                errors.push(FieldError::invalid(&path.child(key), value, detail));
            }
        }
        let reason = text(rule, "reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            errors.push(FieldError::not_supported(&path.child("reason"), reason, REASONS));
        }
        let field_path = text(rule, "fieldPath");
        if !field_path.is_empty() && !names_a_field(&schema, field_path) {
            let detail = "fieldPath must be a valid path: it names no field of the schema";
            errors.push(FieldError::invalid(&path.child("fieldPath"), field_path, detail));
        }
    }
}

fn without_rules(schema: &Value) -> Value {
    let mut schema = schema.clone();
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if fields.get("x-kubernetes-validations").is_some_and(Value::is_array) {
                    fields.remove("x-kubernetes-validations");
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    strip(&mut schema);
    schema
}

fn names_a_field(schema: &Schema, path: &str) -> bool {
    let Ok(path) = super::jsonpath::Path::parse(path) else { return false };
    let Some(fields) = path.fields() else { return false };
    let found = fields.iter().try_fold(schema, |at, field| at.field(field));
    !fields.is_empty() && found.is_some()
}

/// Every error by the rules of a schema; `old` is what is stored, for an update.
pub(super) fn check(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = Check { budget: Budget::new(STEPS_MAX), errors: &mut errors };
    if check.value(schema, object, old, "").is_err() {
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        errors.push(FieldError::invalid(&at(""), type_of(object), detail));
    }
    errors
}

struct Check<'e> {
    budget: Budget,
    errors: &'e mut Vec<FieldError>,
}

/// The budget is used up: nothing further can be asked.
struct OutOfBudget;

impl Check<'_> {
    fn value(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Result<(), OutOfBudget> {
        if value.is_null() && schema.nullable {
            return Ok(());
        }
        for rule in &schema.rules {
            // What was stored like this is not held against who leaves it.
            let asked = if rule.is_transition { old.is_some() } else { old != Some(value) };
            if asked {
                self.rule(rule, schema, value, old, path)?;
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    let Some(known) = schema.field(name) else { continue };
                    let dot = if path.is_empty() { "" } else { "." };
                    let below = if schema.properties.contains_key(name) {
                        format!("{path}{dot}{name}")
                    } else {
                        format!("{path}[{name}]")
                    };
                    self.value(known, inner, old.and_then(|old| old.get(name)), &below)?;
                }
            }
            Value::Array(items) => {
                let Some(known) = &schema.items else { return Ok(()) };
                for (i, item) in items.iter().enumerate() {
                    let before = same_item(&schema.list, item, old);
                    self.value(known, item, before, &format!("{path}[{i}]"))?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Ok(())
    }

    fn rule(
        &mut self,
        rule: &Rule,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Result<(), OutOfBudget> {
        let variables = || {
            let own = Val::of(value, Some(schema));
            let before = old.map(|old| Val::of(old, Some(schema)));
            let before = match rule.old {
                Old::Value => before.unwrap_or(Val::Null),
                Old::Optional => Val::Optional(before.map(Box::new)),
            };
            vec![("self", own), ("oldSelf", before)]
        };
        let failed = || {
            if rule.message.is_empty() {
                format!("failed rule: {}", rule.text)
            } else {
                rule.message.clone()
            }
        };
        let place = at(&format!("{path}{}", rule.field_path));
        let place = if path.is_empty() && !rule.field_path.is_empty() {
            at(rule.field_path.trim_start_matches('.'))
        } else {
            place
        };
        let detail = match rule.program.evaluate(variables(), &mut self.budget) {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(Val::Bool(false)) => {
                let made = rule.message_program.as_ref();
                let made = made.map(|made| made.evaluate(variables(), &mut self.budget));
                match made {
                    Some(Err(Fault::OverBudget)) => return Err(OutOfBudget),
                    Some(Ok(Val::Text(text)))
                        if !text.trim().is_empty()
                            && !text.contains('\n')
                            && text.chars().count() <= MESSAGE_CHARS_MAX =>
                    {
                        text.trim().to_owned()
                    }
                    // A message that has no value is no reason to let the object pass.
                    Some(_) | None => failed(),
                }
            }
            Ok(_) => format!("rule is no bool: {}", rule.text),
            Err(Fault::Error(error)) => format!("{error} evaluating rule: {}", failed()),
            Err(Fault::OverBudget) => return Err(OutOfBudget),
        };
        self.errors.push(match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(&place, detail),
            "FieldValueRequired" => FieldError::required(&place, &detail),
            "FieldValueDuplicate" => {
                FieldError { detail, ..FieldError::duplicate(&place, value.clone()) }
            }
            _ => FieldError::invalid(&place, type_of(value), detail),
        });
        Ok(())
    }
}
