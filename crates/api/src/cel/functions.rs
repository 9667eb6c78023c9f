//! The functions that rules may call: CEL's own, and of Kubernetes' those for texts, lists, regular
//! expressions, URLs, addresses and quantities.

use super::{
    evaluate::{Budget, Fault},
    value::Val,
};
use crate::quantity::Quantity;
use jiff::{SignedDuration, tz::TimeZone};
use serde_json::Value;
use std::{cmp::Ordering, rc::Rc};

/// Those that stand alone, such as `size(x)`.
const GLOBAL: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "ip",
    "isCIDR",
    "isIP",
    "isQuantity",
    "isURL",
    "quantity",
    "size",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// Those of a value, such as `x.size()`.
const METHODS: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "charAt",
    "compareTo",
    "contains",
    "endsWith",
    "family",
    "find",
    "findAll",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "indexOf",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isLoopback",
    "isSorted",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "or",
    "orValue",
    "replace",
    "sign",
    "size",
    "split",
    "startsWith",
    "sub",
    "substring",
    "sum",
    "trim",
    "upperAscii",
    "value",
];
/// Behind `optional.`
const OPTIONAL: &[&str] = &["none", "of", "ofNonZeroValue"];
/// Behind `sets.`
const SETS: &[&str] = &["contains", "equivalent", "intersects"];
/// What stands before a dot and is no value.
pub(super) const SPACES: &[&str] = &["optional", "sets"];

pub(super) fn is_known(space: Option<&str>, name: &str, is_method: bool) -> bool {
    match space {
        Some("optional") => OPTIONAL.contains(&name),
        Some("sets") => SETS.contains(&name),
        _ if is_method => METHODS.contains(&name),
        _ => GLOBAL.contains(&name),
    }
}

/// Types by what rules call them.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"]
        .into_iter()
        .find(|known| *known == name)
}

/// How many values there are in one.
pub(super) fn size(value: &Val<'_>) -> u64 {
    fn json(value: &Value) -> u64 {
        match value {
            Value::Array(items) => 1 + items.iter().map(json).sum::<u64>(),
            Value::Object(fields) => 1 + fields.values().map(json).sum::<u64>(),
            Value::String(text) => 1 + text.len() as u64 / 10,
            Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        }
    }
    match value {
        Val::List(items) => 1 + items.iter().map(size).sum::<u64>(),
        Val::Map(pairs) => 1 + pairs.iter().map(|(k, v)| size(k) + size(v)).sum::<u64>(),
        Val::Object(fields, _) => 1 + fields.values().map(json).sum::<u64>(),
        Val::Array(items, _) => 1 + items.iter().map(json).sum::<u64>(),
        other => other.weight(),
    }
}

type Called<'a> = Result<Val<'a>, Fault>;

pub(super) fn optional<'a>(name: &str, arguments: Vec<Val<'a>>) -> Called<'a> {
    let mut arguments = arguments.into_iter();
    match (name, arguments.next()) {
        ("none", None) => Ok(Val::Optional(None)),
        ("of", Some(value)) => Ok(Val::Optional(Some(Box::new(value)))),
        ("ofNonZeroValue", Some(value)) => {
            let zero = match &value {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => true,
                Val::Double(n) => *n == 0.0,
                other => other.count() == Some(0),
            };
            Ok(Val::Optional((!zero).then(|| Box::new(value))))
        }
        _ => none(&format!("optional.{name}")),
    }
}

/// Lists as sets of their values.
pub(super) fn sets<'a>(name: &str, arguments: &[Val<'a>], budget: &mut Budget) -> Called<'a> {
    let [a, b] = arguments else { return none(&format!("sets.{name}")) };
    let (Some(a), Some(b)) = (a.items(), b.items()) else { return none(&format!("sets.{name}")) };
    let mut has = |all: &[Val<'a>], item: &Val<'a>| {
        budget.spend(all.len() as u64 * size(item))?;
        Ok::<bool, Fault>(all.iter().any(|own| own.same(item)))
    };
    let mut has_all = |all: &[Val<'a>], items: &[Val<'a>]| {
        for item in items {
            if !has(all, item)? {
                return Ok::<bool, Fault>(false);
            }
        }
        Ok(true)
    };
    let found = match name {
        "contains" => has_all(&a, &b)?,
        "equivalent" => has_all(&a, &b)? && has_all(&b, &a)?,
        "intersects" => {
            let mut any = false;
            for item in &b {
                any = any || has_all(&a, std::slice::from_ref(item))?;
            }
            any
        }
        _ => return none(&format!("sets.{name}")),
    };
    Ok(Val::Bool(found))
}

fn none<'a>(name: &str) -> Called<'a> {
    Err(Fault::error(format!("no such overload: {name}")))
}

pub(super) fn call<'a>(
    name: &str,
    target: Option<Val<'a>>,
    arguments: Vec<Val<'a>>,
    budget: &mut Budget,
) -> Called<'a> {
    for value in target.iter().chain(&arguments) {
        budget.spend(value.weight())?;
    }
    // `size(x)` and `x.size()` are the same.
    if name == "size" {
        let of = target.as_ref().or(arguments.first());
        let count = of.and_then(Val::count).and_then(|count| i64::try_from(count).ok());
        return count.map_or_else(|| none("size"), |count| Ok(Val::Int(count)));
    }
    let Some(target) = target else {
        let [argument] = arguments.as_slice() else { return none(name) };
        return conversion(name, argument);
    };
    match &target {
        Val::Text(text) => text_method(name, text, &arguments, budget),
        Val::List(_) | Val::Array(..) => {
            let items = target.items().unwrap_or_default();
            list_method(name, &items, &arguments, budget)
        }
        Val::Optional(inner) => match (name, inner) {
            ("hasValue", inner) => Ok(Val::Bool(inner.is_some())),
            ("value", Some(inner)) => Ok((**inner).clone()),
            ("value", None) => Err(Fault::error("optional.none() dereference")),
            _ => none(name),
        },
        Val::Time(time) => time_method(name, *time, arguments.first()),
        Val::Duration(of) => {
            let n = match name {
                "getHours" => of.as_secs() / 3600,
                "getMinutes" => of.as_secs() / 60,
                "getSeconds" => of.as_secs(),
                "getMilliseconds" => i64::from(of.subsec_millis()),
                _ => return none(name),
            };
            Ok(Val::Int(n))
        }
        Val::Quantity(quantity) => quantity_method(name, *quantity, arguments.first()),
        Val::Address(address) => match name {
            "family" => Ok(Val::Int(if address.is_ipv4() { 4 } else { 6 })),
            "isLoopback" => Ok(Val::Bool(address.is_loopback())),
            _ => none(name),
        },
        _ => none(name),
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "what a conversion between types of numbers is for; its range is checked"
)]
fn conversion<'a>(name: &str, value: &Val<'a>) -> Called<'a> {
    let wrong =
        || Fault::error(format!("type conversion error from '{}' to '{name}'", value.type_name()));
    Ok(match (name, value) {
        ("dyn", value) => value.clone(),
        ("type", value) => Val::Type(value.type_name()),
        ("int", Val::Int(n)) => Val::Int(*n),
        ("int", Val::Uint(n)) => Val::Int(i64::try_from(*n).map_err(|_| overflow())?),
        ("int", Val::Double(n)) if n.is_finite() && n.abs() < 9.2e18 => Val::Int(*n as i64),
        ("int", Val::Double(_)) => return Err(overflow()),
        ("int", Val::Text(text)) => Val::Int(text.parse().map_err(|_| wrong())?),
        ("int", Val::Time(time)) => Val::Int(time.as_second()),
        ("uint", Val::Uint(n)) => Val::Uint(*n),
        ("uint", Val::Int(n)) => Val::Uint(u64::try_from(*n).map_err(|_| overflow())?),
        ("uint", Val::Text(text)) => Val::Uint(text.parse().map_err(|_| wrong())?),
        ("double", Val::Double(n)) => Val::Double(*n),
        ("double", Val::Int(n)) => Val::Double(*n as f64),
        ("double", Val::Uint(n)) => Val::Double(*n as f64),
        ("double", Val::Text(text)) => Val::Double(text.parse().map_err(|_| wrong())?),
        ("bool", Val::Bool(flag)) => Val::Bool(*flag),
        ("bool", Val::Text(text)) => match text.as_ref() {
            "true" | "True" | "TRUE" | "t" | "1" => Val::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Val::Bool(false),
            _ => return Err(wrong()),
        },
        ("string", Val::Text(text)) => Val::Text(text.clone()),
        ("string", Val::Int(n)) => Val::text(n.to_string()),
        ("string", Val::Uint(n)) => Val::text(n.to_string()),
        ("string", Val::Double(n)) => Val::text(n.to_string()),
        ("string", Val::Bool(flag)) => Val::text(flag.to_string()),
        ("string", Val::Time(time)) => Val::text(time.to_string()),
        ("string", Val::Duration(of)) => Val::text(seconds(*of)),
        ("string", Val::Bytes(bytes)) => {
            Val::text(String::from_utf8(bytes.to_vec()).map_err(|_| wrong())?)
        }
        ("string", Val::Address(address)) => Val::text(address.to_string()),
        ("bytes", Val::Bytes(bytes)) => Val::Bytes(Rc::clone(bytes)),
        ("bytes", Val::Text(text)) => Val::Bytes(Rc::new(text.as_bytes().to_vec())),
        ("duration", Val::Duration(of)) => Val::Duration(*of),
        ("duration", Val::Text(text)) => Val::Duration(duration(text).ok_or_else(wrong)?),
        ("timestamp", Val::Time(time)) => Val::Time(*time),
        ("timestamp", Val::Text(text)) => Val::Time(text.parse().map_err(|_| wrong())?),
        ("timestamp", Val::Int(n)) => {
            Val::Time(jiff::Timestamp::from_second(*n).map_err(|_| overflow())?)
        }
        ("isQuantity", Val::Text(text)) => Val::Bool(text.parse::<Quantity>().is_ok()),
        ("quantity", Val::Text(text)) => Val::Quantity(text.parse().map_err(|_| wrong())?),
        ("isIP", Val::Text(text)) => Val::Bool(text.parse::<std::net::IpAddr>().is_ok()),
        ("ip", Val::Text(text)) => Val::Address(text.parse().map_err(|_| wrong())?),
        ("isCIDR", Val::Text(text)) => Val::Bool(crate::custom::is_format("cidr", text)),
        ("isURL", Val::Text(text)) => Val::Bool(crate::custom::is_format("uri", text)),
        (name, _) => return none(name),
    })
}

fn overflow() -> Fault {
    Fault::error("return error for overflow")
}

/// A duration in seconds, as CEL prints it.
fn seconds(of: SignedDuration) -> String {
    let nanos = of.subsec_nanos().unsigned_abs();
    let sign = if of.is_negative() { "-" } else { "" };
    let whole = of.as_secs().unsigned_abs();
    if nanos == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// As Go writes one: `1h30m`, `1.5s`, `-10ms`.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(unit)?)?;
        let fraction: String = fraction.chars().take(18).collect();
        if !fraction.is_empty() {
            let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part: i128 = fraction.parse().ok()?;
            nanos = nanos.checked_add(part.checked_mul(unit)? / scale)?;
        }
        rest = after;
    }
    let nanos = i64::try_from(nanos.checked_mul(sign)?).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

fn text_of<'v>(arguments: &'v [Val<'_>], at: usize) -> Option<&'v str> {
    match arguments.get(at) {
        Some(Val::Text(text)) => Some(text),
        _ => None,
    }
}

fn int_of(arguments: &[Val<'_>], at: usize) -> Option<i64> {
    match arguments.get(at) {
        Some(Val::Int(n)) => Some(*n),
        _ => None,
    }
}

fn text_method<'a>(
    name: &str,
    text: &str,
    arguments: &[Val<'a>],
    budget: &mut Budget,
) -> Called<'a> {
    let first = text_of(arguments, 0);
    let place = |n: i64| usize::try_from(n).ok();
    let int = |n: Option<usize>| Val::Int(n.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1));
    Ok(match (name, first, arguments.len()) {
        ("contains", Some(part), 1) => Val::Bool(text.contains(part)),
        ("startsWith", Some(part), 1) => Val::Bool(text.starts_with(part)),
        ("endsWith", Some(part), 1) => Val::Bool(text.ends_with(part)),
        ("matches", Some(pattern), 1) => Val::Bool(budget.pattern(pattern)?.is_match(text)),
        ("find", Some(pattern), 1) => {
            Val::text(budget.pattern(pattern)?.find(text).map_or("", |found| found.as_str()))
        }
        ("findAll", Some(pattern), 1 | 2) => {
            let most = int_of(arguments, 1).and_then(place).unwrap_or(usize::MAX);
            let regex = budget.pattern(pattern)?;
            let found: Vec<_> =
                regex.find_iter(text).take(most).map(|found| Val::text(found.as_str())).collect();
            budget.spend(found.len() as u64)?;
            Val::list(found)
        }
        ("format", None, 1) => {
            let values = arguments.first().and_then(Val::items);
            let Some(values) = values else { return none("format") };
            let made = formatted(text, &values)?;
            budget.spend(made.len() as u64 / 10)?;
            Val::text(made)
        }
        ("lowerAscii", None, 0) => Val::text(text.to_ascii_lowercase()),
        ("upperAscii", None, 0) => Val::text(text.to_ascii_uppercase()),
        ("trim", None, 0) => Val::text(text.trim()),
        ("charAt", None, 1) => {
            let at = int_of(arguments, 0).and_then(place);
            let length = text.chars().count();
            match at {
                Some(at) if at == length => Val::text(""),
                Some(at) => {
                    let found = text.chars().nth(at);
                    let wrong = || Fault::error(format!("index out of range: {at}"));
                    Val::text(found.ok_or_else(wrong)?.to_string())
                }
                None => return none("charAt"),
            }
        }
        ("indexOf" | "lastIndexOf", Some(part), 1) => {
            let found = if name == "indexOf" { text.find(part) } else { text.rfind(part) };
            let letters = found.map(|at| text.get(..at).unwrap_or_default().chars().count());
            int(letters)
        }
        ("indexOf", Some(part), 2) => {
            let Some(from) = int_of(arguments, 1).and_then(place) else { return none("indexOf") };
            let rest: String = text.chars().skip(from).collect();
            let found = rest.find(part);
            int(found.map(|at| from + rest.get(..at).unwrap_or_default().chars().count()))
        }
        ("substring", None, 1 | 2) => {
            let length = text.chars().count();
            let from = int_of(arguments, 0).and_then(place);
            let to = if arguments.len() == 2 {
                int_of(arguments, 1).and_then(place)
            } else {
                Some(length)
            };
            match (from, to) {
                (Some(from), Some(to)) if from <= to && to <= length => {
                    Val::text(text.chars().skip(from).take(to - from).collect::<String>())
                }
                _ => return Err(Fault::error("index out of range")),
            }
        }
        ("replace", Some(part), 2 | 3) => {
            let Some(with) = text_of(arguments, 1) else { return none("replace") };
            let most = int_of(arguments, 2).and_then(place).unwrap_or(usize::MAX);
            let found = if part.is_empty() { text.len() + 1 } else { text.matches(part).count() };
            let grown = text.len().saturating_add(found.min(most).saturating_mul(with.len()));
            budget.spend(grown as u64 / 10)?;
            Val::text(text.replacen(part, with, most))
        }
        ("split", Some(part), 1 | 2) => {
            let most = int_of(arguments, 1);
            let all: Vec<&str> = match most {
                Some(0) => Vec::new(),
                Some(n) if n > 0 => text.splitn(place(n).unwrap_or(usize::MAX), part).collect(),
                _ if part.is_empty() => {
                    text.split("").filter(|letter| !letter.is_empty()).collect()
                }
                _ => text.split(part).collect(),
            };
            budget.spend(all.len() as u64)?;
            Val::list(all.into_iter().map(Val::text).collect())
        }
        _ => return none(name),
    })
}

/// Fills values into a text, as `%s` and its like say.
fn formatted(text: &str, values: &[Val<'_>]) -> Result<String, Fault> {
    let wrong = |why: String| Fault::Error(format!("format: {why}"));
    let (mut out, mut values, mut letters) =
        (String::new(), values.iter(), text.chars().peekable());
    while let Some(c) = letters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if letters.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let parsed: Option<usize> = digits.parse().ok().filter(|digits| *digits <= 100);
            precision = Some(parsed.ok_or_else(|| wrong("invalid precision".to_owned()))?);
        }
        let verb = letters.next().ok_or_else(|| wrong("unexpected end of text".to_owned()))?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| wrong("too few values".to_owned()))?;
        let digits = precision.unwrap_or(6);
        let filled = match (verb, value) {
            ('s', value) => shown(value, 0).ok_or_else(|| wrong("no text".to_owned()))?,
            ('d', Val::Int(n)) => n.to_string(),
            ('d', Val::Uint(n)) => n.to_string(),
            ('f', Val::Double(n)) => format!("{n:.digits$}"),
            ('b', Val::Int(n)) => format!("{n:b}"),
            ('o', Val::Int(n)) => format!("{n:o}"),
            ('x', Val::Int(n)) => format!("{n:x}"),
            ('X', Val::Int(n)) => format!("{n:X}"),
            (verb, value) => {
                let of = value.type_name();
                return Err(wrong(format!("%{verb} cannot be filled with {of}")));
            }
        };
        out.push_str(&filled);
    }
    Ok(out)
}

/// A value as a text has it; `None` for one that is too deep or has no text.
fn shown(value: &Val<'_>, depth: usize) -> Option<String> {
    if depth > 20 {
        return None;
    }
    Some(match value {
        Val::Null => "null".to_owned(),
        Val::Bool(flag) => flag.to_string(),
        Val::Int(n) => n.to_string(),
        Val::Uint(n) => n.to_string(),
        Val::Double(n) => n.to_string(),
        Val::Text(text) => text.clone().into_owned(),
        Val::Duration(of) => seconds(*of),
        Val::Time(time) => time.to_string(),
        Val::Type(name) => (*name).to_owned(),
        Val::Address(address) => address.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Val::List(_) | Val::Array(..) => {
            let items = value.items()?;
            let items: Option<Vec<_>> = items.iter().map(|item| shown(item, depth + 1)).collect();
            format!("[{}]", items?.join(", "))
        }
        Val::Map(_) | Val::Object(..) => {
            let keys = value.items()?;
            let pair = |key| {
                Some(format!("{}: {}", shown(key, depth + 1)?, shown(&value.get(key)?, depth + 1)?))
            };
            let pairs: Option<Vec<_>> = keys.iter().map(pair).collect();
            format!("{{{}}}", pairs?.join(", "))
        }
        Val::Optional(_) => return None,
    })
}

fn list_method<'a>(
    name: &str,
    items: &[Val<'a>],
    arguments: &[Val<'a>],
    budget: &mut Budget,
) -> Called<'a> {
    for item in items {
        budget.spend(item.weight())?;
    }
    let extreme = |wanted: Ordering| {
        let mut items = items.iter();
        let mut best =
            items.next().ok_or_else(|| Fault::error(format!("{name} called on empty list")))?;
        for item in items {
            let order = item.order(best);
            let order = order.ok_or_else(|| Fault::error(format!("no such overload: {name}")))?;
            if order == wanted {
                best = item;
            }
        }
        Ok(best.clone())
    };
    match name {
        "isSorted" => {
            let pairs = items.iter().zip(items.iter().skip(1));
            let mut sorted = true;
            for (a, b) in pairs {
                match a.order(b) {
                    Some(order) => sorted &= order.is_le(),
                    None => return none("isSorted"),
                }
            }
            Ok(Val::Bool(sorted))
        }
        "min" => extreme(Ordering::Less),
        "max" => extreme(Ordering::Greater),
        "sum" => {
            let mut sum = match items.first() {
                None | Some(Val::Int(_)) => Val::Int(0),
                Some(Val::Uint(_)) => Val::Uint(0),
                Some(Val::Double(_)) => Val::Double(0.0),
                Some(Val::Duration(_)) => Val::Duration(SignedDuration::ZERO),
                Some(_) => return none("sum"),
            };
            for item in items {
                sum = match (&sum, item) {
                    (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_add(*b).ok_or_else(overflow)?),
                    (Val::Uint(a), Val::Uint(b)) => {
                        Val::Uint(a.checked_add(*b).ok_or_else(overflow)?)
                    }
                    (Val::Double(a), Val::Double(b)) => Val::Double(a + b),
                    (Val::Duration(a), Val::Duration(b)) => {
                        Val::Duration(a.checked_add(*b).ok_or_else(overflow)?)
                    }
                    _ => return none("sum"),
                };
            }
            Ok(sum)
        }
        "indexOf" | "lastIndexOf" => {
            let [wanted] = arguments else { return none(name) };
            for item in items {
                budget.spend(size(item))?;
            }
            let mut places = items.iter().enumerate().filter(|(_, item)| item.same(wanted));
            let found = if name == "indexOf" { places.next() } else { places.next_back() };
            Ok(Val::Int(found.and_then(|(at, _)| i64::try_from(at).ok()).unwrap_or(-1)))
        }
        "join" => {
            let between = text_of(arguments, 0).unwrap_or_default();
            let mut texts = Vec::with_capacity(items.len());
            for item in items {
                let Val::Text(text) = item else { return none("join") };
                budget.spend(between.len() as u64 / 10)?;
                texts.push(text.as_ref());
            }
            Ok(Val::text(texts.join(between)))
        }
        _ => none(name),
    }
}

fn time_method<'a>(name: &str, time: jiff::Timestamp, zone: Option<&Val<'a>>) -> Called<'a> {
    let zone = match zone {
        None => TimeZone::UTC,
        Some(Val::Text(zone)) => {
            TimeZone::get(zone).map_err(|e| Fault::error(format!("unknown time zone: {e}")))?
        }
        Some(_) => return none(name),
    };
    let at = time.to_zoned(zone);
    let n = match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return none(name),
    };
    Ok(Val::Int(n))
}

#[allow(clippy::cast_precision_loss, reason = "it is called approximate")]
fn quantity_method<'a>(name: &str, own: Quantity, other: Option<&Val<'a>>) -> Called<'a> {
    let other = match other {
        Some(Val::Quantity(other)) => Some(*other),
        Some(Val::Int(n)) => Some(Quantity::units(*n, crate::quantity::Format::Decimal)),
        _ => None,
    };
    Ok(match (name, other) {
        ("isGreaterThan", Some(other)) => Val::Bool(own > other),
        ("isLessThan", Some(other)) => Val::Bool(own < other),
        ("compareTo", Some(other)) => Val::Int(own.cmp(&other) as i64),
        ("add", Some(other)) => Val::Quantity(own + other),
        ("sub", Some(other)) => Val::Quantity(own - other),
        ("sign", None) => Val::Int(match (own.is_zero(), own.is_negative()) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        }),
        ("isInteger", None) => Val::Bool(own.is_whole()),
        ("asInteger", None) if own.is_whole() => Val::Int(own.value()),
        ("asInteger", None) => return Err(Fault::error("cannot convert value to integer")),
        ("asApproximateFloat", None) => Val::Double(own.milli_value() as f64 / 1000.0),
        _ => return none(name),
    })
}
