//! One rule of a role.

use crate::attributes::{Attributes, Resource, Target};
use serde::Serialize;
use serde_json::Value;

/// What may be done to what, as `rules` of a role say it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// `*` is all of them.
    pub verbs: Vec<String>,
    /// Empty text is core, `*` all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/exec`, `*/scale`; `*` is all of them with all of theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// None is all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; `*` at the end is whatever follows.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// The texts in a list, without what is none.
pub(crate) fn texts(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// As an object has it.
    #[must_use]
    pub fn parse(value: &Value) -> Self {
        Self {
            verbs: texts(value, "verbs"),
            api_groups: texts(value, "apiGroups"),
            resources: texts(value, "resources"),
            resource_names: texts(value, "resourceNames"),
            non_resource_urls: texts(value, "nonResourceURLs"),
        }
    }

    /// Whether it allows a request.
    #[must_use]
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        match &asked.target {
            Target::Path(path) => self.has_url(path),
            Target::Resource(Resource { group, resource, subresource, name, .. }) => {
                has(&self.api_groups, group)
                    && self.has_resource(resource, subresource)
                    && (self.resource_names.is_empty() || self.resource_names.contains(name))
            }
        }
    }

    /// Allocates nothing: this is asked for every rule of everybody who asks.
    pub(crate) fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            if own == "*" {
                return true;
            }
            match own.split_once('/') {
                None => subresource.is_empty() && own == resource,
                Some((of, sub)) => {
                    !subresource.is_empty() && sub == subresource && (of == "*" || of == resource)
                }
            }
        })
    }

    pub(crate) fn has_url(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|own| {
            own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(verb: &str, group: &str, combined: &str, name: &str) -> Attributes {
        let (resource, subresource) = combined.split_once('/').unwrap_or((combined, ""));
        Attributes::resource(
            verb,
            Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                name: name.to_owned(),
                ..Resource::default()
            },
        )
    }

    #[test]
    fn a_rule_allows_what_upstreams_allows() {
        for (rule, asked, want) in [
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                asked("get", "", "pods", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                asked("list", "", "pods", ""),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                asked("get", "apps", "pods", ""),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                asked("get", "", "pods/log", "a"),
                false,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                asked("watch", "apps", "a/b", ""),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
                asked("get", "", "pods/log", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
                asked("get", "", "pods", "a"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}),
                asked("get", "apps", "deployments/scale", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}),
                asked("get", "apps", "deployments/status", "a"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}),
                asked("get", "", "scale", "a"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/*"]}),
                asked("get", "", "pods/log", "a"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
                asked("get", "", "pods", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
                asked("get", "", "pods", "b"),
                false,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
                asked("list", "", "pods", ""),
                false,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
                asked("get", "", "pods", ""),
                false,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                Attributes::path("get", "/version"),
                false,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
                Attributes::path("get", "/healthz"),
                true,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
                Attributes::path("get", "/healthz/x"),
                false,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}),
                Attributes::path("get", "/healthz/x"),
                true,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}),
                Attributes::path("get", "/healthz"),
                false,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["*"]}),
                Attributes::path("get", "/x"),
                true,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["*/x"]}),
                Attributes::path("get", "/a/x"),
                false,
            ),
            (json!({"verbs": null, "resources": 1}), asked("get", "", "pods", ""), false),
        ] {
            assert_eq!(Rule::parse(&rule).allows(&asked), want, "{rule} {asked:?}");
        }
    }
}
