//! A request as far as it matters for who may make it.

use api::status::Status;
use std::borrow::Cow;

/// What is to be done, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// As upstream names it: `get`, `list`, `watch`, `deletecollection`, `impersonate`…; for a path the
    /// HTTP method in lower case.
    pub verb: String,
    /// To what.
    pub target: Target,
}

/// An object, a collection of them, or something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Of the API's resources.
    Resource(Resource),
    /// Any other path.
    Path(String),
}

/// Objects of a resource. Every part may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource {
    /// Empty for core.
    pub group: String,
    /// Such as `pods`.
    pub resource: String,
    /// Such as `exec`.
    pub subresource: String,
    /// Empty for all of them, and for what is in none.
    pub namespace: String,
    /// Empty for all of them, and for one whose name is to be chosen.
    pub name: String,
    /// The value of `spec.nodeName` that a field selector restricts a list to; otherwise empty.
    pub on_node: String,
}

/// Whether something may be done, and why, or why not: empty where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed(String),
    /// Nobody says that it may.
    NoOpinion(String),
}

impl Decision {
    /// Whether it may.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// Why, or why not.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allowed(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

impl Resource {
    /// `pods`, or `pods/exec`.
    #[must_use]
    pub fn combined(&self) -> Cow<'_, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(&self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.subresource))
        }
    }
}

impl Attributes {
    /// One verb on objects.
    #[must_use]
    pub fn resource(verb: &str, resource: Resource) -> Self {
        Self { verb: verb.to_owned(), target: Target::Resource(resource) }
    }

    /// One verb on a path that leads to no object.
    #[must_use]
    pub fn path(verb: &str, path: &str) -> Self {
        Self { verb: verb.to_owned(), target: Target::Path(path.to_owned()) }
    }

    /// 403 for a user who may not, in upstream's words.
    #[must_use]
    pub fn refusal(&self, user: &str, reason: &str) -> Status {
        let verb = &self.verb;
        let (subject, text) = match &self.target {
            Target::Path(path) => {
                (String::new(), format!("User {user:?} cannot {verb} path {path:?}"))
            }
            Target::Resource(of) => {
                let Resource { group, resource, namespace, name, .. } = of;
                let what = of.combined();
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {namespace:?}")
                };
                let text = format!(
                    "User {user:?} cannot {verb} resource {what:?} in API group {group:?} {place}"
                );
                let qualified =
                    if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                let subject = match (qualified.as_str(), name.as_str()) {
                    ("", _) => qualified,
                    (_, "") => format!("{qualified} is "),
                    (_, name) => format!("{qualified} {name:?} is "),
                };
                (subject, text)
            }
        };
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let status = Status::new(403, "Forbidden", format!("{subject}forbidden: {text}{reason}"));
        let mut status = Status { details: serde_json::json!({}), ..status };
        if let Target::Resource(of) = &self.target {
            for (key, value) in [("name", &of.name), ("group", &of.group), ("kind", &of.resource)] {
                if !value.is_empty() {
                    status = status.with_detail(key, value.as_str());
                }
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_in_upstreams_words() {
        // §2.3: 403
        let resource =
            |group: &str, resource: &str, sub: &str, namespace: &str, name: &str| Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: sub.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Resource::default()
            };
        for (attributes, reason, want) in [
            (
                Attributes::resource("get", resource("", "pods", "", "ns", "x")),
                "",
                r#"pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "ns""#,
            ),
            (
                Attributes::resource("list", resource("apps", "deployments", "", "", "")),
                "why",
                r#"deployments.apps is forbidden: User "u" cannot list resource "deployments" in API group "apps" at the cluster scope: why"#,
            ),
            (
                Attributes::resource("create", resource("", "pods", "exec", "ns", "x")),
                "",
                r#"pods "x" is forbidden: User "u" cannot create resource "pods/exec" in API group "" in the namespace "ns""#,
            ),
            (
                Attributes::path("get", "/version"),
                "",
                r#"forbidden: User "u" cannot get path "/version""#,
            ),
        ] {
            let status = attributes.refusal("u", reason);
            assert_eq!((status.code, status.message.as_str()), (403, want));
        }
    }
}
