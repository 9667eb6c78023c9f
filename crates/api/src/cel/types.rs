//! What can be told of a rule before there is a value: fields that there are not, and names of nothing.

use super::{
    functions,
    parse::{Expr, Macro},
    value::is_closed,
};
use crate::custom::{Additional, Schema};

/// What `oldSelf` is in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// The value before.
    Value,
    /// The same, if there was one.
    Optional,
}

/// What is known of an expression's value.
#[derive(Debug, Clone, Copy)]
enum Known<'s> {
    /// It is as this schema says.
    Form(&'s Schema),
    Nothing,
}

struct Check<'s> {
    scope: Vec<(String, Known<'s>)>,
}

pub(super) fn check(expr: &Expr, schema: &Schema, old: Old) -> Result<(), String> {
    let before = match old {
        Old::Value => Known::Form(schema),
        Old::Optional => Known::Nothing,
    };
    let scope = vec![("self".to_owned(), Known::Form(schema)), ("oldSelf".to_owned(), before)];
    Check { scope }.expr(expr).map(drop)
}

impl<'s> Check<'s> {
    fn expr(&mut self, expr: &Expr) -> Result<Known<'s>, String> {
        match expr {
            Expr::Ident(name) => {
                let found = self.scope.iter().rev().find(|(own, _)| own == name);
                match found {
                    Some((_, known)) => Ok(*known),
                    None if functions::type_named(name).is_some() => Ok(Known::Nothing),
                    None => Err(format!("undeclared reference to '{name}' (in container '')")),
                }
            }
            Expr::Select { of, field, optional } => {
                let known = self.field(of, field)?;
                Ok(if *optional { Known::Nothing } else { known })
            }
            Expr::Has { of, field } => self.field(of, field).map(|_| Known::Nothing),
            Expr::Index { of, key, optional } => {
                self.expr(key)?;
                let of = self.expr(of)?;
                let Known::Form(schema) = of else { return Ok(Known::Nothing) };
                let found = match (&schema.items, &schema.additional) {
                    (Some(items), _) => Some(&**items),
                    (None, Additional::Of(inner)) => Some(&**inner),
                    (None, Additional::Unsaid | Additional::Any | Additional::Forbidden) => None,
                };
                Ok(found.filter(|_| !optional).map_or(Known::Nothing, Known::Form))
            }
            Expr::Call { name, target, arguments } => {
                let space = match target.as_deref() {
                    Some(Expr::Ident(space)) => {
                        functions::SPACES.iter().copied().find(|known| known == space)
                    }
                    _ => None,
                };
                if !functions::is_known(space, name, target.is_some()) {
                    return Err(format!("undeclared reference to '{name}' (in container '')"));
                }
                if let (None, Some(target)) = (space, target) {
                    self.expr(target)?;
                }
                for argument in arguments {
                    self.expr(argument)?;
                }
                Ok(Known::Nothing)
            }
            Expr::Each { kind, of, name, filter, body } => {
                let of = self.expr(of)?;
                let item = match of {
                    Known::Form(schema) => {
                        schema.items.as_deref().map_or(Known::Nothing, Known::Form)
                    }
                    Known::Nothing => Known::Nothing,
                };
                self.scope.push((name.clone(), item));
                let inner = filter.iter().map(|filter| &**filter).chain([&**body]);
                let checked: Result<Vec<_>, String> = inner.map(|inner| self.expr(inner)).collect();
                self.scope.pop();
                checked?;
                // What is left of a list is a list of the same.
                Ok(if *kind == Macro::Filter { of } else { Known::Nothing })
            }
            Expr::If(condition, yes, no) => {
                for part in [condition, yes, no] {
                    self.expr(part)?;
                }
                // Two values of one type may still be of two schemas.
                Ok(Known::Nothing)
            }
            other => {
                for child in other.children() {
                    self.expr(child)?;
                }
                Ok(Known::Nothing)
            }
        }
    }

    fn field(&mut self, of: &Expr, field: &str) -> Result<Known<'s>, String> {
        let Known::Form(schema) = self.expr(of)? else { return Ok(Known::Nothing) };
        match schema.field(field) {
            Some(inner) => Ok(Known::Form(inner)),
            None if is_closed(schema) && !is_object_field(field) => {
                Err(format!("undefined field '{field}'"))
            }
            None => Ok(Known::Nothing),
        }
    }
}

/// At the root, and in objects inside of objects, there are these whatever the schema says.
fn is_object_field(field: &str) -> bool {
    matches!(field, "apiVersion" | "kind" | "metadata")
}
