//! Nobody gives what they do not have: which part of some rules others do not cover.

use crate::rule::Rule;
use api::caller::Identity;
use std::collections::{BTreeMap, BTreeSet};

/// Single permissions that one write of a role may be taken apart into: each is held against every rule
/// of the writer.
const PERMISSIONS_MAX: usize = 100_000;

/// What of `wanted` is not covered by `own`, taken apart into single permissions.
///
/// # Errors
/// How many permissions there would be, when nobody can look at them all.
pub fn uncovered(own: &[Rule], wanted: &[Rule]) -> Result<Vec<Rule>, usize> {
    let permissions = wanted.iter().map(permissions).fold(0, usize::saturating_add);
    if permissions > PERMISSIONS_MAX {
        return Err(permissions);
    }
    let all = wanted.iter().flat_map(parts);
    Ok(all.filter(|part| !own.iter().any(|rule| covers(rule, part))).collect())
}

fn permissions(rule: &Rule) -> usize {
    let lengths = [
        rule.api_groups.len(),
        rule.resources.len(),
        rule.verbs.len(),
        rule.resource_names.len().max(1),
    ];
    let resources = lengths.into_iter().fold(1, usize::saturating_mul);
    resources.saturating_add(rule.non_resource_urls.len().saturating_mul(rule.verbs.len()))
}

/// Rules with one verb, one group, one resource and at most one name each, or one verb and one path.
fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part.clone());
                }
                for name in &rule.resource_names {
                    parts.push(Rule { resource_names: one(name), ..part.clone() });
                }
            }
        }
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
    }
    parts
}

fn covers(own: &Rule, part: &Rule) -> bool {
    let all = |own: &[String], part: &[String]| {
        own.iter().any(|o| o == "*") || part.iter().all(|p| own.contains(p))
    };
    let resource = |part: &String| {
        let sub = part.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        own.resources.iter().any(|o| o == "*" || o == part || Some(o) == sub.as_ref())
    };
    let names = own.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| own.resource_names.contains(name)));
    all(&own.verbs, &part.verbs)
        && all(&own.api_groups, &part.api_groups)
        && part.resources.iter().all(resource)
        && names
        && part.non_resource_urls.iter().all(|url| own.has_url(url))
}

/// What to tell who wants to give what they do not have.
#[must_use]
pub fn refusal(who: &Identity, missing: &[Rule], errors: &[String]) -> String {
    let lines: BTreeSet<String> = compact(missing).iter().map(text).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let groups: Vec<String> = who.groups.iter().map(|group| format!("{group:?}")).collect();
    let resolution = match errors {
        [] => String::new(),
        errors => format!("; resolution errors: [{}]", errors.join(", ")),
    };
    format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}{resolution}",
        who.user,
        groups.join(" "),
        lines.join("\n"),
    )
}

/// Verbs on the same resource become one rule.
fn compact(rules: &[Rule]) -> Vec<Rule> {
    let mut merged: BTreeMap<(Vec<String>, Vec<String>), Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for rule in rules {
        if rule.resource_names.is_empty() && rule.non_resource_urls.is_empty() {
            let key = (rule.api_groups.clone(), rule.resources.clone());
            let verbs = merged.entry(key).or_default();
            verbs.extend(
                rule.verbs.iter().filter(|v| !verbs.contains(v)).cloned().collect::<Vec<_>>(),
            );
        } else {
            others.push(rule.clone());
        }
    }
    let merged = merged.into_iter().map(|((api_groups, resources), verbs)| Rule {
        verbs,
        api_groups,
        resources,
        ..Rule::default()
    });
    merged.chain(others).collect()
}

fn text(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let list: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
        format!("{name}:[{}]", list.join(" "))
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        Rule::parse(&json!({
            "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names,
        }))
    }

    #[test]
    fn only_what_is_held_can_be_given() {
        let reads = rule(&["get", "list"], &[""], &["pods", "*/scale"], &[]);
        let named = rule(&["get"], &[""], &["secrets"], &["a"]);
        let urls = Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}));
        let own = [reads.clone(), named.clone(), urls];
        for (name, wanted, missing) in [
            ("the same", reads, 0),
            ("a part", rule(&["list"], &[""], &["pods"], &["x"]), 0),
            ("another verb", rule(&["get", "delete"], &[""], &["pods"], &[]), 1),
            ("every verb", rule(&["*"], &[""], &["pods"], &[]), 1),
            ("another group", rule(&["get"], &["apps", ""], &["pods"], &[]), 1),
            ("by the subresource", rule(&["get"], &[""], &["deployments/scale"], &[]), 0),
            ("another subresource", rule(&["get"], &[""], &["pods/log"], &[]), 1),
            ("every resource", rule(&["get"], &[""], &["*"], &[]), 1),
            ("the same name", named, 0),
            ("one name more", rule(&["get"], &[""], &["secrets"], &["a", "b"]), 1),
            ("every name", rule(&["get"], &[""], &["secrets"], &[]), 1),
            ("a path", Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": ["/a/b"]})), 0),
            (
                "another path",
                Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": ["/a", "*"]})),
                2,
            ),
        ] {
            assert_eq!(uncovered(&own, &[wanted]).unwrap().len(), missing, "{name}");
        }
        let many: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        let huge = Rule {
            verbs: many.clone(),
            api_groups: many.clone(),
            resources: many,
            ..Rule::default()
        };
        assert_eq!(uncovered(&own, &[huge]), Err(1_000_000_000));
    }

    #[test]
    fn what_is_missing_is_told_compactly() {
        let who = Identity {
            user: "u".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            ..Identity::default()
        };
        let wanted = [
            rule(&["get", "list"], &["apps"], &["deployments"], &[]),
            rule(&["get"], &[""], &["secrets"], &["x"]),
        ];
        let missing = uncovered(&[], &wanted).unwrap();
        assert_eq!(
            refusal(&who, &missing, &[]),
            "user \"u\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"x\"], Verbs:[\"get\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"get\" \"list\"]}"
        );
    }
}
