//! Evaluation at a bounded cost.

use super::{
    functions,
    parse::{Expr, Literal, Macro, Operator},
    value::Val,
};
use regex::Regex;
use std::{borrow::Cow, collections::BTreeMap, rc::Rc};

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The expression has none for these values, as CEL says it: `no such key: a`.
    Error(String),
    /// It would cost too much.
    OverBudget,
}

impl Fault {
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }
}

/// How many steps may still be made. A step is a part of an expression, an item that is looked at, or ten
/// bytes of a text.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u64,
    /// Patterns that have been compiled, which costs much more than to match one.
    patterns: BTreeMap<String, Regex>,
}

/// What it costs to compile a pattern, and each of its bytes.
const PATTERN_STEPS: u64 = 500;
const PATTERN_BYTE_STEPS: u64 = 10;

impl Budget {
    pub(crate) const fn new(steps: u64) -> Self {
        Self { left: steps, patterns: BTreeMap::new() }
    }

    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Fault> {
        self.left = self.left.checked_sub(steps).ok_or(Fault::OverBudget)?;
        Ok(())
    }

    pub(super) fn pattern(&mut self, text: &str) -> Result<Regex, Fault> {
        if let Some(known) = self.patterns.get(text) {
            return Ok(known.clone());
        }
        self.spend(PATTERN_STEPS + PATTERN_BYTE_STEPS * text.len() as u64)?;
        let regex = crate::pattern::compile(text);
        let regex = regex.map_err(|e| Fault::Error(format!("invalid pattern {text:?}: {e}")))?;
        self.patterns.insert(text.to_owned(), regex.clone());
        Ok(regex)
    }
}

type Evaluated<'a> = Result<Val<'a>, Fault>;

pub(super) fn evaluate<'a>(
    expr: &'a Expr,
    variables: Vec<(&'a str, Val<'a>)>,
    budget: &mut Budget,
) -> Evaluated<'a> {
    Evaluation { variables, budget }.value(expr)
}

struct Evaluation<'a, 'b> {
    /// The last of a name counts.
    variables: Vec<(&'a str, Val<'a>)>,
    budget: &'b mut Budget,
}

fn no_overload<'a>(what: &str) -> Evaluated<'a> {
    Err(Fault::error(format!("no such overload: {what}")))
}

impl<'a> Evaluation<'a, '_> {
    fn value(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        self.budget.spend(1)?;
        match expr {
            Expr::Literal(literal) => Ok(self::literal(literal)),
            Expr::Ident(name) => {
                let found = self.variables.iter().rev().find(|(own, _)| own == name);
                match (found, functions::type_named(name)) {
                    (Some((_, value)), _) => Ok(value.clone()),
                    (None, Some(of)) => Ok(Val::Type(of)),
                    (None, None) => Err(Fault::error(format!("undeclared reference to '{name}'"))),
                }
            }
            Expr::Select { of, field, optional } => self.select(of, field, *optional),
            Expr::Has { of, field } => match self.value(of)? {
                Val::Optional(None) => Ok(Val::Bool(false)),
                Val::Optional(Some(inner)) => Ok(Val::Bool(inner.field(field).is_some())),
                of => Ok(Val::Bool(of.field(field).is_some())),
            },
            Expr::Index { of, key, optional } => self.index(of, key, *optional),
            Expr::Call { name, target, arguments } => self.call(name, target.as_deref(), arguments),
            Expr::List(items) => {
                let items: Result<Vec<_>, Fault> =
                    items.iter().map(|item| self.value(item)).collect();
                items.map(Val::list)
            }
            Expr::Map(pairs) => {
                let mut made: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let (key, value) = (self.value(key)?, self.value(value)?);
                    self.budget.spend(made.len() as u64)?;
                    if made.iter().any(|(own, _)| own.same(&key)) {
                        return Err(Fault::error("repeated key in a map"));
                    }
                    made.push((key, value));
                }
                Ok(Val::Map(Rc::new(made)))
            }
            Expr::Not(of) => match self.value(of)? {
                Val::Bool(flag) => Ok(Val::Bool(!flag)),
                other => no_overload(&format!("!{}", other.type_name())),
            },
            Expr::Negate(of) => match self.value(of)? {
                // Written as the least integer without its sign.
                Val::Int(i64::MIN) if matches!(**of, Expr::Literal(_)) => Ok(Val::Int(i64::MIN)),
                Val::Int(n) => overflow(n.checked_neg().map(Val::Int)),
                Val::Double(n) => Ok(Val::Double(-n)),
                other => no_overload(&format!("-{}", other.type_name())),
            },
            Expr::And(all) => self.junction(all, false),
            Expr::Or(all) => self.junction(all, true),
            Expr::If(condition, yes, no) => match self.value(condition)? {
                Val::Bool(true) => self.value(yes),
                Val::Bool(false) => self.value(no),
                other => no_overload(&format!("{} ? _ : _", other.type_name())),
            },
            Expr::Binary(operator, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.binary(*operator, &a, &b)
            }
            Expr::Each { kind, of, name, filter, body } => {
                self.each(*kind, of, name, filter.as_deref(), body)
            }
        }
    }

    /// The first that decides does, even behind one that has no value.
    fn junction(&mut self, all: &'a [Expr], decides: bool) -> Evaluated<'a> {
        let mut fault = None;
        for expr in all {
            match self.value(expr) {
                Ok(Val::Bool(flag)) if flag == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(other) => {
                    let text = format!("no such overload: {} as bool", other.type_name());
                    fault = Some(Fault::Error(text));
                }
                Err(Fault::OverBudget) => return Err(Fault::OverBudget),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        fault.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn select(&mut self, of: &'a Expr, field: &str, optional: bool) -> Evaluated<'a> {
        let of = self.value(of)?;
        let wrapped = |found: Option<Val<'a>>| Ok(Val::Optional(found.map(Box::new)));
        match of {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => wrapped(inner.field(field)),
            of if optional => wrapped(of.field(field)),
            of @ (Val::Object(..) | Val::Map(_)) => {
                of.field(field).ok_or_else(|| Fault::error(format!("no such key: {field}")))
            }
            other => no_overload(&format!("{}.{field}", other.type_name())),
        }
    }

    fn index(&mut self, of: &'a Expr, key: &'a Expr, optional: bool) -> Evaluated<'a> {
        let (of, mut key) = (self.value(of)?, self.value(key)?);
        // A whole number is a place, however it is written.
        if let Val::Uint(n) = key {
            key = i64::try_from(n).map_or(key, Val::Int);
        }
        self.budget.spend(key.weight())?;
        let wrapped = |found: Option<Val<'a>>| Ok(Val::Optional(found.map(Box::new)));
        match of {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => wrapped(inner.get(&key)),
            of if optional => wrapped(of.get(&key)),
            of @ (Val::Object(..) | Val::Map(_)) => {
                of.get(&key).ok_or_else(|| Fault::error(format!("no such key: {}", shown(&key))))
            }
            of @ (Val::List(_) | Val::Array(..)) => of
                .get(&key)
                .ok_or_else(|| Fault::error(format!("index out of bounds: {}", shown(&key)))),
            other => no_overload(&format!("{}[_]", other.type_name())),
        }
    }

    fn call(
        &mut self,
        name: &str,
        target: Option<&'a Expr>,
        arguments: &'a [Expr],
    ) -> Evaluated<'a> {
        // Names of functions that stand in front of a dot.
        if let Some(Expr::Ident(space)) = target
            && functions::SPACES.contains(&space.as_str())
        {
            let values: Result<Vec<_>, Fault> = arguments.iter().map(|a| self.value(a)).collect();
            return match space.as_str() {
                "sets" => functions::sets(name, &values?, self.budget),
                _ => functions::optional(name, values?),
            };
        }
        let target = target.map(|target| self.value(target)).transpose()?;
        // The other choice is only looked at when it is needed.
        if let (Some(Val::Optional(inner)), [other]) = (&target, arguments)
            && (name == "orValue" || name == "or")
        {
            return match (inner, name) {
                (Some(inner), "orValue") => Ok((**inner).clone()),
                (Some(_), _) => Ok(Val::Optional(inner.clone())),
                (None, _) => self.value(other),
            };
        }
        let values: Result<Vec<_>, Fault> = arguments.iter().map(|a| self.value(a)).collect();
        functions::call(name, target, values?, self.budget)
    }

    fn binary(&mut self, operator: Operator, a: &Val<'a>, b: &Val<'a>) -> Evaluated<'a> {
        self.budget.spend(a.weight().min(b.weight()))?;
        let text = || format!("{} {operator} {}", a.type_name(), b.type_name());
        let compared = |test: fn(std::cmp::Ordering) -> bool| match a.order(b) {
            Some(order) => Ok(Val::Bool(test(order))),
            // A number that is none is in no order.
            None if matches!((a, b), (Val::Double(_), _) | (_, Val::Double(_))) => {
                Ok(Val::Bool(false))
            }
            None => no_overload(&text()),
        };
        match operator {
            Operator::Equal => self.same(a, b).map(Val::Bool),
            Operator::NotEqual => self.same(a, b).map(|same| Val::Bool(!same)),
            Operator::Less => compared(std::cmp::Ordering::is_lt),
            Operator::LessOrEqual => compared(std::cmp::Ordering::is_le),
            Operator::Greater => compared(std::cmp::Ordering::is_gt),
            Operator::GreaterOrEqual => compared(std::cmp::Ordering::is_ge),
            Operator::In => match b {
                Val::Map(_) | Val::Object(..) => Ok(Val::Bool(b.get(a).is_some())),
                list => {
                    let Some(items) = list.items() else { return no_overload(&text()) };
                    for item in &items {
                        self.budget.spend(1)?;
                        if self.same(a, item)? {
                            return Ok(Val::Bool(true));
                        }
                    }
                    Ok(Val::Bool(false))
                }
            },
            Operator::Add => self.add(a, b).unwrap_or_else(|| no_overload(&text())),
            Operator::Subtract => match (a, b) {
                (Val::Int(a), Val::Int(b)) => overflow(a.checked_sub(*b).map(Val::Int)),
                (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_sub(*b).map(Val::Uint)),
                (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
                (Val::Duration(a), Val::Duration(b)) => {
                    overflow(a.checked_sub(*b).map(Val::Duration))
                }
                (Val::Time(a), Val::Duration(b)) => overflow(a.checked_sub(*b).ok().map(Val::Time)),
                (Val::Time(a), Val::Time(b)) => Ok(Val::Duration(a.duration_since(*b))),
                _ => no_overload(&text()),
            },
            Operator::Multiply => match (a, b) {
                (Val::Int(a), Val::Int(b)) => overflow(a.checked_mul(*b).map(Val::Int)),
                (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_mul(*b).map(Val::Uint)),
                (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
                _ => no_overload(&text()),
            },
            Operator::Divide => match (a, b) {
                (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => {
                    Err(Fault::error("division by zero"))
                }
                (Val::Int(a), Val::Int(b)) => overflow(a.checked_div(*b).map(Val::Int)),
                (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_div(*b).map(Val::Uint)),
                (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
                _ => no_overload(&text()),
            },
            Operator::Remainder => match (a, b) {
                (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => {
                    Err(Fault::error("modulus by zero"))
                }
                (Val::Int(a), Val::Int(b)) => overflow(a.checked_rem(*b).map(Val::Int)),
                (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_rem(*b).map(Val::Uint)),
                _ => no_overload(&text()),
            },
        }
    }

    fn same(&mut self, a: &Val<'a>, b: &Val<'a>) -> Result<bool, Fault> {
        // What is inside costs as well; it is only looked at where both have as much.
        if matches!(a.count(), Some(count) if count > 0 && b.count() == Some(count)) {
            self.budget.spend(functions::size(a))?;
        }
        Ok(a.same(b))
    }

    fn add(&mut self, a: &Val<'a>, b: &Val<'a>) -> Option<Evaluated<'a>> {
        Some(match (a, b) {
            (Val::Int(a), Val::Int(b)) => overflow(a.checked_add(*b).map(Val::Int)),
            (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_add(*b).map(Val::Uint)),
            (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
            (Val::Text(a), Val::Text(b)) => {
                let cost = 1 + (a.len() + b.len()) as u64 / 10;
                self.budget.spend(cost).map(|()| Val::text(format!("{a}{b}")))
            }
            (Val::Bytes(a), Val::Bytes(b)) => {
                let cost = 1 + (a.len() + b.len()) as u64 / 10;
                let joined = || [a.as_slice(), b.as_slice()].concat();
                self.budget.spend(cost).map(|()| Val::Bytes(Rc::new(joined())))
            }
            (Val::Duration(a), Val::Duration(b)) => overflow(a.checked_add(*b).map(Val::Duration)),
            (Val::Time(a), Val::Duration(b)) | (Val::Duration(b), Val::Time(a)) => {
                overflow(a.checked_add(*b).ok().map(Val::Time))
            }
            (Val::List(_) | Val::Array(..), Val::List(_) | Val::Array(..)) => {
                let cost = a.count().unwrap_or_default() + b.count().unwrap_or_default();
                self.budget.spend(cost as u64).map(|()| {
                    let items = a.items().into_iter().chain(b.items()).flatten();
                    Val::list(items.collect())
                })
            }
            _ => return None,
        })
    }

    fn each(
        &mut self,
        kind: Macro,
        of: &'a Expr,
        name: &'a str,
        filter: Option<&'a Expr>,
        body: &'a Expr,
    ) -> Evaluated<'a> {
        let of = self.value(of)?;
        let Some(items) = of.items() else {
            return no_overload(&format!("a comprehension over {}", of.type_name()));
        };
        self.budget.spend(items.len() as u64)?;
        let (mut found, mut fits, mut fault) = (Vec::new(), 0_u64, None);
        for item in items {
            self.variables.push((name, item.clone()));
            let accepted = match filter {
                Some(filter) => self.value(filter),
                None => Ok(Val::Bool(true)),
            };
            let value = match accepted {
                Ok(Val::Bool(true)) => self.value(body).map(Some),
                Ok(Val::Bool(false)) => Ok(None),
                Ok(other) => no_overload(&format!("{} as bool", other.type_name())).map(Some),
                Err(fault) => Err(fault),
            };
            self.variables.pop();
            match (kind, value) {
                (_, Err(Fault::OverBudget)) => return Err(Fault::OverBudget),
                // As with `&&` and `||`: an item that decides does.
                (Macro::All | Macro::Exists, Err(error)) => fault = fault.or(Some(error)),
                (_, Err(error)) => return Err(error),
                (Macro::Map, Ok(Some(value))) => found.push(value),
                (_, Ok(None)) => {}
                (Macro::All, Ok(Some(Val::Bool(false)))) => return Ok(Val::Bool(false)),
                (Macro::Exists, Ok(Some(Val::Bool(true)))) => return Ok(Val::Bool(true)),
                (Macro::Filter, Ok(Some(Val::Bool(true)))) => found.push(item),
                (Macro::ExistsOne, Ok(Some(Val::Bool(true)))) => fits += 1,
                (_, Ok(Some(Val::Bool(_)))) => {}
                (_, Ok(Some(other))) => {
                    return no_overload(&format!("{} as bool", other.type_name()));
                }
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        Ok(match kind {
            Macro::All => Val::Bool(true),
            Macro::Exists => Val::Bool(false),
            Macro::ExistsOne => Val::Bool(fits == 1),
            Macro::Filter | Macro::Map => Val::list(found),
        })
    }
}

fn literal<'a>(literal: &'a Literal) -> Val<'a> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(flag) => Val::Bool(*flag),
        Literal::Int(n) => Val::Int(*n),
        Literal::Uint(n) => Val::Uint(*n),
        Literal::Double(n) => Val::Double(*n),
        Literal::Text(text) => Val::Text(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Val::Bytes(Rc::new(bytes.clone())),
    }
}

fn overflow(value: Option<Val<'_>>) -> Evaluated<'_> {
    value.ok_or_else(|| Fault::error("return error for overflow"))
}

fn shown(key: &Val<'_>) -> String {
    match key {
        Val::Text(text) => text.clone().into_owned(),
        Val::Int(n) => n.to_string(),
        other => other.type_name().to_owned(),
    }
}
