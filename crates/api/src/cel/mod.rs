//! Rules in the Common Expression Language, as definitions of custom resources have them: read, checked
//! against the schema, and evaluated at a bounded cost.
//!
//! There are the language and those of Kubernetes' functions that `functions.rs` has; a rule that uses
//! another one is refused when its definition is written, and never left unenforced.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "values are of many types, and most operations are for a few of them"
)]

mod evaluate;
mod functions;
mod parse;
mod types;
mod value;

pub(crate) use evaluate::{Budget, Fault};
pub(crate) use value::Val;

use crate::custom::Schema;
use parse::Expr;

/// An expression, read.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    expr: Expr,
}

impl Program {
    /// # Errors
    /// What is wrong and where, for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(|expr| Self { expr })
    }

    /// Whether a variable is used.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.expr.uses(name)
    }

    /// # Errors
    /// A field that the schema does not have, or a variable or function that there is not.
    pub(crate) fn check(&self, schema: &Schema, old: types::Old) -> Result<(), String> {
        types::check(&self.expr, schema, old)
    }

    /// # Errors
    /// [`Fault`]
    pub(crate) fn evaluate<'a>(
        &'a self,
        variables: Vec<(&'a str, Val<'a>)>,
        budget: &mut Budget,
    ) -> Result<Val<'a>, Fault> {
        evaluate::evaluate(&self.expr, variables, budget)
    }
}

pub(crate) use types::Old;

#[cfg(test)]
mod tests;
