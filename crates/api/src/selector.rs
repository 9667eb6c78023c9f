//! Label and field selectors (SEL-1, SEL-2).

use crate::{kinds::Kind, meta, status::Status};
use serde_json::Value;
use std::collections::BTreeMap;

/// A parsed label selector; every requirement must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
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
        let requirements = split(text)
            .into_iter()
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                requirement(part.trim()).ok_or_else(|| {
                    Status::bad_request(format!("unable to parse requirement: {part:?}"))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
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

/// At commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    let make = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        crate::names::qualified(key).is_empty().then(|| Requirement {
            key: key.to_owned(),
            operator,
            values,
        })
    };
    for (word, operator) in [(" notin ", Operator::NotIn), (" in ", Operator::In)] {
        if let Some((key, set)) = part.split_once(word) {
            let set = set.trim().strip_prefix('(')?.strip_suffix(')')?;
            return make(key, operator, set.split(',').map(|v| v.trim().to_owned()).collect());
        }
    }
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Operator::Absent, Vec::new());
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            let value = value.trim();
            if !crate::names::label_value(value).is_empty() {
                return None;
            }
            return make(key, operator, vec![value.to_owned()]);
        }
    }
    make(part, Operator::Exists, Vec::new())
}

/// A parsed field selector of one kind; every requirement must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// From `spec.nodeName=n,status.phase!=Failed`.
    ///
    /// # Errors
    /// 400 for a field that this kind cannot be selected by.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (label, equal, value) = match part.split_once("!=") {
                Some((label, value)) => (label, false, value),
                None => {
                    let (label, value) = part.split_once('=').ok_or_else(|| {
                        Status::bad_request(format!("invalid field selector: {part:?}"))
                    })?;
                    (label, true, value.strip_prefix('=').unwrap_or(value))
                }
            };
            let known = matches!(label, "metadata.name" | "metadata.namespace")
                || kind.field_labels.contains(&label);
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {label}")));
            }
            requirements.push((label.to_owned(), equal, value.to_owned()));
        }
        Ok(Self { requirements })
    }

    /// Selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether this object is selected.
    #[must_use]
    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        self.requirements.iter().all(|(label, equal, wanted)| {
            let found = match label.as_str() {
                "metadata.name" => meta::name(object).to_owned(),
                "metadata.namespace" => meta::namespace(object).to_owned(),
                label => (kind.field)(object, label),
            };
            (found == *wanted) == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_select_as_upstream_does() {
        let labels = BTreeMap::from([
            ("app".to_owned(), "web".to_owned()),
            ("n".to_owned(), "5".to_owned()),
        ]);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,n", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("!other", true),
            ("!app", false),
            ("n>4", true),
            ("n<5", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), want, "{text}");
        }
        for text in ["app=a b", "=x", "app in web"] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().code, 400, "{text}");
        }
    }
}
