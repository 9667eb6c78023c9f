//! Label and field selectors (SEL-1, SEL-2).

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever token was found instead is named in the message"
)]

use crate::{
    core::{LabelSelectorObject, LabelSelectorRequirement},
    kinds::Kind,
    meta, names,
    status::Status,
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// A parsed label selector; every requirement must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    /// In order of the alphabet, each once.
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Greater,
    Less,
}

impl LabelSelector {
    /// From `k=v,k2 in (a,b),!k3`.
    ///
    /// # Errors
    /// 400 that names the part which cannot be read.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let refused =
            |why: String| Status::bad_request(format!("unable to parse requirement: {why}"));
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        if tokens.peek() == Token::End {
            return Ok(Self::default());
        }
        loop {
            requirements.push(requirement(&mut tokens).map_err(refused)?);
            match tokens.next() {
                Token::End => return Ok(Self { requirements }),
                Token::Comma => {}
                found => return Err(refused(format!("found '{found}', expected: ',' or the end"))),
            }
        }
    }

    /// From the `spec.selector` of a Service: every pair must be there.
    #[must_use]
    pub fn equal(pairs: &BTreeMap<String, String>) -> Self {
        let requirements = pairs
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
            })
            .collect();
        Self { requirements }
    }

    /// From `matchLabels` and `matchExpressions`; `None` (no selector at all) selects nothing, so it is
    /// not taken here.
    ///
    /// # Errors
    /// 400 for an operator that is none, or values where none belong.
    pub fn of(selector: &LabelSelectorObject) -> Result<Self, Status> {
        let mut all = Self::equal(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for expression in selector.match_expressions.iter().flatten() {
            all.requirements.push(expressed(expression)?);
        }
        Ok(all)
    }

    /// Selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether these labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
    }

    /// Whether an object's labels are selected.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.requirements
            .iter()
            .all(|r| r.matches(labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str)))
    }
}

fn expressed(expression: &LabelSelectorRequirement) -> Result<Requirement, Status> {
    let mut values = expression.values.clone().unwrap_or_default();
    let (operator, takes_values) = match expression.operator.as_str() {
        "In" => (Operator::In, true),
        "NotIn" => (Operator::NotIn, true),
        "Exists" => (Operator::Exists, false),
        "DoesNotExist" => (Operator::Absent, false),
        other => {
            let text = format!("{other:?} is not a valid label selector operator");
            return Err(Status::bad_request(text));
        }
    };
    if values.is_empty() == takes_values {
        let wanted = if takes_values { "needs values" } else { "takes no values" };
        return Err(Status::bad_request(format!(
            "label selector operator {:?} {wanted}",
            expression.operator
        )));
    }
    values.sort();
    values.dedup();
    Ok(Requirement { key: expression.key.clone(), operator, values })
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        let compare = |wanted| {
            let number = |text: &str| text.parse::<i64>().ok();
            let pair = (value.and_then(number), self.values.first().and_then(|v| number(v)));
            matches!(pair, (Some(a), Some(b)) if a.cmp(&b) == wanted)
        };
        match self.operator {
            Operator::In => value.is_some_and(among),
            Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Greater => compare(std::cmp::Ordering::Greater),
            Operator::Less => compare(std::cmp::Ordering::Less),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let (key, values) = (&r.key, r.values.join(","));
            match (r.operator, r.values.len()) {
                (Operator::Exists, _) => write!(f, "{key}")?,
                (Operator::Absent, _) => write!(f, "!{key}")?,
                (Operator::Greater, _) => write!(f, "{key}>{values}")?,
                (Operator::Less, _) => write!(f, "{key}<{values}")?,
                (Operator::In, 1) => write!(f, "{key}={values}")?,
                (Operator::NotIn, 1) => write!(f, "{key}!={values}")?,
                (Operator::In, _) => write!(f, "{key} in ({values})")?,
                (Operator::NotIn, _) => write!(f, "{key} notin ({values})")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `=`, `==`, `!=`, `<`, `>`, `!`
    Sign(&'a str),
    Open,
    Close,
    Comma,
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::Open => "(",
            Self::Close => ")",
            Self::Comma => ",",
            Self::End => "",
        })
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        const SPECIAL: &str = "=!<>(),";
        self.rest = self.rest.trim_start();
        let take = |tokens: &mut Self, bytes: usize| {
            let (taken, rest) = tokens.rest.split_at(bytes);
            tokens.rest = rest;
            taken
        };
        match self.rest.chars().next() {
            None => Token::End,
            Some('(') => {
                take(self, 1);
                Token::Open
            }
            Some(')') => {
                take(self, 1);
                Token::Close
            }
            Some(',') => {
                take(self, 1);
                Token::Comma
            }
            Some('=' | '!') if self.rest[1..].starts_with('=') => Token::Sign(take(self, 2)),
            Some('=' | '!' | '<' | '>') => Token::Sign(take(self, 1)),
            Some(_) => {
                let end = self.rest.find(|c: char| c.is_whitespace() || SPECIAL.contains(c));
                Token::Word(take(self, end.unwrap_or(self.rest.len())))
            }
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let make = |key: &str, operator, mut values: Vec<String>| {
        if let Some(wrong) = names::qualified(key).into_iter().next() {
            return Err(format!("key {key:?}: {wrong}"));
        }
        for value in &values {
            if let Some(wrong) = names::label_value(value).into_iter().next() {
                return Err(format!("value {value:?} of key {key:?}: {wrong}"));
            }
        }
        values.sort();
        values.dedup();
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    let key = match tokens.next() {
        Token::Sign("!") => match tokens.next() {
            Token::Word(key) => return make(key, Operator::Absent, Vec::new()),
            found => return Err(format!("found '{found}', expected: identifier")),
        },
        Token::Word(key) => key,
        found => return Err(format!("found '{found}', expected: !, identifier, or the end")),
    };
    if matches!(tokens.peek(), Token::End | Token::Comma) {
        return make(key, Operator::Exists, Vec::new());
    }
    match tokens.next() {
        Token::Word("in") => make(key, Operator::In, set(tokens)?),
        Token::Word("notin") => make(key, Operator::NotIn, set(tokens)?),
        Token::Sign("=" | "==") => make(key, Operator::In, vec![value(tokens).to_owned()]),
        Token::Sign("!=") => make(key, Operator::NotIn, vec![value(tokens).to_owned()]),
        Token::Sign(sign @ (">" | "<")) => {
            let text = value(tokens);
            if text.parse::<i64>().is_err() {
                return Err(format!(
                    "value {text:?} of key {key:?}: must be an integer for '{sign}'"
                ));
            }
            let operator = if sign == ">" { Operator::Greater } else { Operator::Less };
            make(key, operator, vec![text.to_owned()])
        }
        found => Err(format!("found '{found}', expected: in, notin, =, ==, !=, <, >")),
    }
}

/// The value behind a sign; there may be none.
fn value<'a>(tokens: &mut Tokens<'a>) -> &'a str {
    match tokens.peek() {
        Token::Word(text) => {
            tokens.next();
            text
        }
        Token::Sign(_) | Token::Open | Token::Close | Token::Comma | Token::End => "",
    }
}

/// `(a, b)`; an element may be empty.
fn set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    match tokens.next() {
        Token::Open => {}
        found => return Err(format!("found '{found}', expected: '('")),
    }
    let mut values = Vec::new();
    loop {
        values.push(value(tokens).to_owned());
        match tokens.next() {
            Token::Comma => {}
            Token::Close => return Ok(values),
            found => return Err(format!("found '{found}', expected: ',' or ')'")),
        }
    }
}

/// A parsed field selector of one kind; every requirement must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    label: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// From `spec.nodeName=n,status.phase!=Failed`. `\` before `,`, `=` or `\` takes its meaning.
    ///
    /// # Errors
    /// 400 for a field that this kind cannot be selected by.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text).into_iter().filter(|part| !part.is_empty()) {
            let unclear = || {
                let text = format!("invalid selector: '{text}'; can't understand '{part}'");
                Status::bad_request(text)
            };
            let at = part.find(['!', '=']).ok_or_else(unclear)?;
            let (label, rest) = part.split_at(at);
            let (equal, value) = ["==", "=", "!="]
                .iter()
                .find_map(|sign| Some((*sign != "!=", rest.strip_prefix(sign)?)))
                .ok_or_else(unclear)?;
            let label = canonical(kind, label);
            let known = matches!(label, "metadata.name" | "metadata.namespace")
                || kind.is_field_label(label);
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {label}")));
            }
            let value = unescape(value).ok_or_else(unclear)?;
            requirements.push(FieldRequirement { label: label.to_owned(), equal, value });
        }
        Ok(Self { requirements })
    }

    /// Selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The fields that it asks for.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|r| r.label.as_str())
    }

    /// The value that the field must have, if the selector says so: what an index is asked for
    /// (SEL-3).
    #[must_use]
    pub fn required(&self, label: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|r| r.equal && r.label == label)?;
        Some(&found.value)
    }

    /// Whether this object is selected.
    #[must_use]
    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        self.requirements.iter().all(|r| {
            let same = match r.label.as_str() {
                "metadata.name" => meta::name(object) == r.value,
                "metadata.namespace" => meta::namespace(object) == r.value,
                label => kind.field_value(object, label) == r.value,
            };
            same == r.equal
        })
    }
}

/// Of a field that has had another name.
fn canonical<'a>(kind: &Kind, label: &'a str) -> &'a str {
    if kind.is("Pod") && label == "spec.host" { "spec.nodeName" } else { label }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(move |c| {
        let end = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        end
    })
    .collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_alias;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels() -> BTreeMap<String, String> {
        [("app", "web"), ("n", "5"), ("x.y/z", ""), ("in", "here")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn label_selectors_select_as_upstream_does() {
        // SEL-1
        for (text, want) in [
            ("", true),
            ("  ", true),
            ("app=web", true),
            ("app==web,n", true),
            (" app = web , n = 5 ", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app in(db,web)", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("!other", true),
            ("! other", true),
            ("!app", false),
            ("n>4", true),
            ("n<5", false),
            ("n > 4, n < 6", true),
            ("other>1", false),
            ("x.y/z=", true),
            ("x.y/z", true),
            ("app=", false),
            ("app in (,web)", true),
            ("x.y/z in (a,)", true),
            ("in in (here)", true),
            ("in=here", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels()), want, "{text}");
            let object = json!({"metadata": {"labels": labels()}});
            assert_eq!(selector.matches_object(&object), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_reason() {
        for (text, want) in [
            ("app=a b", "found 'b', expected: ',' or the end"),
            ("=x", "found '=', expected: !, identifier, or the end"),
            ("app in web", "found 'web', expected: '('"),
            ("app in (web", "found '', expected: ',' or ')'"),
            ("app,", "found '', expected: !, identifier, or the end"),
            ("!", "found '', expected: identifier"),
            ("n>x", "must be an integer for '>'"),
            ("a/b/c=x", "key \"a/b/c\""),
            ("app=-x", "value \"-x\" of key \"app\""),
            ("app ~ x", "found '~', expected: in, notin, =, ==, !=, <, >"),
        ] {
            let status = LabelSelector::parse(text).unwrap_err();
            assert_eq!(status.code, 400, "{text}");
            assert!(status.message.contains(want), "{text}: {}", status.message);
        }
    }

    #[test]
    fn selector_objects_select_like_their_text() {
        let object = |value: Value| serde_json::from_value::<LabelSelectorObject>(value).unwrap();
        let selector = object(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "n", "operator": "In", "values": ["5", "6"]},
                {"key": "x", "operator": "DoesNotExist"},
            ],
        }));
        let selector = LabelSelector::of(&selector).unwrap();
        assert_eq!(selector.to_string(), "app=web,n in (5,6),!x");
        assert!(selector.matches(&labels()));
        assert!(LabelSelector::of(&object(json!({}))).unwrap().matches(&labels()), "empty is all");
        for wrong in [
            json!({"key": "n", "operator": "Near", "values": ["5"]}),
            json!({"key": "n", "operator": "In"}),
            json!({"key": "n", "operator": "Exists", "values": ["5"]}),
        ] {
            let selector = object(json!({"matchExpressions": [wrong]}));
            assert_eq!(LabelSelector::of(&selector).unwrap_err().code, 400);
        }
    }

    #[test]
    fn field_selectors_know_the_fields_of_their_kind() {
        // SEL-2
        let (pods, nodes) = (by_alias("pods").unwrap(), by_alias("nodes").unwrap());
        let pod = json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        });
        for (text, want) in [
            ("", true),
            ("metadata.name=p,metadata.namespace=d", true),
            ("metadata.name==q", false),
            ("spec.nodeName=n,status.phase!=Failed", true),
            ("spec.host=n", true),
            ("spec.hostNetwork=false", true),
            ("status.podIPs=10.0.0.1", true),
            ("status.podIPs=10.0.0.2", false),
            ("spec.nodeName=", false),
            ("spec.nodeName=a\\,b", false),
        ] {
            let selector = FieldSelector::parse(pods, text).unwrap();
            assert_eq!(selector.matches(pods, &pod), want, "{text}");
        }
        let selector = FieldSelector::parse(pods, "spec.host=n,status.phase!=Failed").unwrap();
        assert_eq!(selector.required("spec.nodeName"), Some("n"));
        assert_eq!(selector.required("status.phase"), None);
        for (kind, text, want) in [
            (pods, "spec.foo=x", "field label not supported: spec.foo"),
            (nodes, "spec.nodeName=x", "field label not supported: spec.nodeName"),
            (
                pods,
                "metadata.name",
                "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
            ),
            (
                pods,
                "metadata.name=a=b",
                "invalid selector: 'metadata.name=a=b'; can't understand 'metadata.name=a=b'",
            ),
        ] {
            let status = FieldSelector::parse(kind, text).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (400, want));
        }
    }

    proptest! {
        #[test]
        fn a_selector_reads_back_as_it_was_written(
            parts in proptest::collection::vec(("[a-z][a-z0-9.]{0,5}[a-z]", 0usize..6, "[a-z0-9]{1,4}", "[a-z0-9]{1,4}"), 0..5),
        ) {
            let text: Vec<String> = parts.iter().map(|(key, shape, a, b)| match shape {
                0 => format!("{key}={a}"),
                1 => format!("{key}!={a}"),
                2 => format!("{key} in ({a},{b})"),
                3 => format!("{key} notin ({a},{b})"),
                4 => format!("!{key}"),
                _ => key.clone(),
            }).collect();
            let selector = LabelSelector::parse(&text.join(",")).unwrap();
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn any_text_is_a_selector_or_refused(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(by_alias("pods").unwrap(), &text);
        }
    }
}
