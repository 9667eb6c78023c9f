//! Roles and bindings: what a user may do by them.

use crate::{
    attributes::{Attributes, Decision, Target},
    rule::Rule,
    service_account_user,
};
use api::{caller::Identity, core::LabelSelectorObject, meta, selector::LabelSelector};
use serde::Deserialize as _;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The API group of the four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role or ClusterRole.
#[derive(Debug, Clone, Default)]
struct Role {
    rules: Arc<[Rule]>,
    labels: BTreeMap<String, String>,
    /// Of a ClusterRole whose rules are those of others.
    aggregates: Option<Vec<LabelSelector>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Clone)]
struct Binding {
    /// Whether the role is a ClusterRole.
    of_cluster: bool,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone)]
struct Subject {
    is_group: bool,
    /// The user's or the group's.
    name: String,
    /// As a decision's reason names it.
    shown: String,
}

/// Namespace, empty for what is in none, and name.
type Key = (String, String);

/// The RBAC objects as they are now, read once each.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    roles: BTreeMap<Key, Role>,
    bindings: BTreeMap<Key, Binding>,
}

impl Objects {
    /// Takes an object of `plural` as it is now; `None` for one that is gone. Other kinds are passed over.
    pub fn set(&mut self, plural: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        match plural {
            "roles" | "clusterroles" => match object {
                Some(object) => drop(self.roles.insert(key, role(object))),
                None => drop(self.roles.remove(&key)),
            },
            "rolebindings" | "clusterrolebindings" => match object {
                Some(object) => drop(self.bindings.insert(key, binding(object, namespace))),
                None => drop(self.bindings.remove(&key)),
            },
            _ => {}
        }
    }

    /// The rules of a role, those it aggregates included; `None` if there is no such role. `namespace` is
    /// empty for a ClusterRole.
    #[must_use]
    pub fn rules(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let role = self.roles.get(&(namespace.to_owned(), name.to_owned()))?;
        if role.aggregates.is_none() {
            return Some(Arc::clone(&role.rules));
        }
        let mut seen = BTreeSet::from([name]);
        let mut rules = Vec::new();
        self.aggregate(role, &mut seen, &mut rules);
        Some(rules.into())
    }

    /// Those that are selected give theirs, once each, however they select each other.
    fn aggregate<'a>(&'a self, role: &Role, seen: &mut BTreeSet<&'a str>, rules: &mut Vec<Rule>) {
        let selectors = role.aggregates.as_deref().unwrap_or_default();
        for ((namespace, name), other) in &self.roles {
            let selected = selectors.iter().any(|selector| selector.matches(&other.labels));
            if !namespace.is_empty() || !selected || !seen.insert(name) {
                continue;
            }
            if other.aggregates.is_some() {
                self.aggregate(other, seen, rules);
            } else {
                for rule in other.rules.iter() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
    }

    /// The aggregating ClusterRoles whose stored rules are not those of the roles they select, with what
    /// they should be.
    #[must_use]
    pub fn unaggregated(&self) -> Vec<(String, Arc<[Rule]>)> {
        let aggregating = self.roles.iter().filter(|(_, role)| role.aggregates.is_some());
        let wrong = aggregating.filter_map(|((namespace, name), role)| {
            let rules = self.rules(namespace, name)?;
            (rules != role.rules).then(|| (name.clone(), rules))
        });
        wrong.collect()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The rules that an object has itself.
#[must_use]
pub fn own_rules(role: &Value) -> Vec<Rule> {
    list(role, "rules").map(Rule::parse).collect()
}

fn role(object: &Value) -> Role {
    let aggregation = object.get("aggregationRule").filter(|rule| !rule.is_null());
    let selectors = |rule: &Value| {
        // One that cannot be read selects nothing, and was refused when it was written.
        let parsed = list(rule, "clusterRoleSelectors").filter_map(|selector| {
            let selector = LabelSelectorObject::deserialize(selector).ok()?;
            LabelSelector::of(&selector).ok()
        });
        parsed.collect()
    };
    Role {
        rules: own_rules(object).into(),
        labels: meta::labels(object),
        aggregates: aggregation.map(selectors),
    }
}

fn binding(object: &Value, namespace: &str) -> Binding {
    let reference = object.get("roleRef").unwrap_or(&Value::Null);
    let subjects = list(object, "subjects").filter_map(|subject| {
        let name = text(subject, "name");
        let kind = text(subject, "kind");
        match kind {
            "User" | "Group" => Some(Subject {
                is_group: kind == "Group",
                name: name.to_owned(),
                shown: format!("{kind} {name:?}"),
            }),
            "ServiceAccount" => {
                let own = text(subject, "namespace");
                let of = if own.is_empty() { namespace } else { own };
                (!of.is_empty()).then(|| Subject {
                    is_group: false,
                    name: service_account_user(of, name),
                    shown: format!("ServiceAccount \"{name}/{of}\""),
                })
            }
            _ => None,
        }
    });
    Binding {
        of_cluster: text(reference, "kind") == "ClusterRole",
        role: text(reference, "name").to_owned(),
        subjects: subjects.collect(),
    }
}

/// What one binding gives to one subject.
#[derive(Debug)]
struct Grant {
    /// Why it is allowed, but for the subject.
    shown: Arc<str>,
    subject: String,
    /// Or that the role is not there.
    rules: Result<Arc<[Rule]>, Arc<str>>,
}

#[derive(Debug, Default)]
struct Grants {
    everywhere: Vec<Grant>,
    namespaces: HashMap<String, Vec<Grant>>,
}

/// The RBAC objects made ready for decisions, each of which looks only at what is given to who asks.
#[derive(Debug, Default)]
pub struct Policies {
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

impl Policies {
    /// Of the objects as they are now.
    #[must_use]
    pub fn compile(objects: &Objects) -> Self {
        let mut policies = Self::default();
        let mut aggregated: HashMap<&str, Option<Arc<[Rule]>>> = HashMap::new();
        for ((namespace, name), binding) in &objects.bindings {
            let Binding { of_cluster, role, subjects } = binding;
            let (kind, rules) = if *of_cluster {
                let rules = aggregated.entry(role).or_insert_with(|| objects.rules("", role));
                ("ClusterRole", rules.clone())
            } else {
                ("Role", objects.rules(namespace, role))
            };
            let rules = rules.ok_or_else(|| {
                Arc::from(format!("{}.{GROUP} {role:?} not found", kind.to_lowercase()))
            });
            let of = if namespace.is_empty() {
                format!("ClusterRoleBinding {name:?}")
            } else {
                format!("RoleBinding \"{name}/{namespace}\"")
            };
            let shown: Arc<str> = format!("RBAC: allowed by {of} of {kind} {role:?}").into();
            for subject in subjects {
                let side =
                    if subject.is_group { &mut policies.groups } else { &mut policies.users };
                let grants = side.entry(subject.name.clone()).or_default();
                let list = if namespace.is_empty() {
                    &mut grants.everywhere
                } else {
                    grants.namespaces.entry(namespace.clone()).or_default()
                };
                list.push(Grant {
                    shown: Arc::clone(&shown),
                    subject: subject.shown.clone(),
                    rules: rules.clone(),
                });
            }
        }
        policies
    }

    /// What is given to a user everywhere, and then in a namespace unless that is empty.
    fn grants<'a>(
        &'a self,
        who: &'a Identity,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        let groups = || who.groups.iter().filter_map(|group| self.groups.get(group));
        let theirs = || self.users.get(&who.user).into_iter().chain(groups());
        let everywhere = theirs().flat_map(|grants| &grants.everywhere);
        let in_namespace = theirs()
            .filter(move |_| !namespace.is_empty())
            .filter_map(move |grants| grants.namespaces.get(namespace))
            .flatten();
        everywhere.chain(in_namespace)
    }

    /// Whether the RBAC objects allow it.
    #[must_use]
    pub fn decide(&self, who: &Identity, asked: &Attributes) -> Decision {
        let namespace = match &asked.target {
            Target::Resource(resource) => resource.namespace.as_str(),
            Target::Path(_) => "",
        };
        let mut errors: Vec<&str> = Vec::new();
        for grant in self.grants(who, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    return Decision::Allowed(format!("{} to {}", grant.shown, grant.subject));
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Every rule that applies to a user in a namespace, and which roles are not there.
    #[must_use]
    pub fn rules(&self, who: &Identity, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.grants(who, namespace) {
            match &grant.rules {
                Ok(of) => rules.extend(of.iter().cloned()),
                Err(error) => errors.push(error.to_string()),
            }
        }
        (rules, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Resource;
    use serde_json::json;

    fn objects(all: &[(&str, &str, &str, Value)]) -> Objects {
        let mut objects = Objects::default();
        for (plural, namespace, name, object) in all {
            objects.set(plural, namespace, name, Some(object));
        }
        objects
    }

    fn rules(resource: &str) -> Value {
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}])
    }

    fn bound(kind: &str, role: &str, subjects: Value) -> Value {
        json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects})
    }

    fn who(user: &str, groups: &[&str]) -> Identity {
        Identity {
            user: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Identity::default()
        }
    }

    fn get(resource: &str, namespace: &str) -> Attributes {
        Attributes::resource(
            "get",
            Resource {
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                ..Resource::default()
            },
        )
    }

    #[test]
    fn a_binding_gives_to_its_subjects_where_it_is() {
        let user = json!([{"kind": "User", "name": "u"}]);
        let objects = objects(&[
            ("roles", "a", "pods", json!({"rules": rules("pods")})),
            ("clusterroles", "", "nodes", json!({"rules": rules("nodes")})),
            ("clusterroles", "", "maps", json!({"rules": rules("configmaps")})),
            ("rolebindings", "a", "one", bound("Role", "pods", user.clone())),
            (
                "rolebindings",
                "a",
                "two",
                bound(
                    "ClusterRole",
                    "maps",
                    json!([{"kind": "ServiceAccount", "name": "s"}, {"kind": "Group", "name": "g"}]),
                ),
            ),
            ("rolebindings", "b", "three", bound("Role", "pods", user)),
            (
                "clusterrolebindings",
                "",
                "four",
                bound(
                    "ClusterRole",
                    "nodes",
                    json!([{"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s", "namespace": "b"}]),
                ),
            ),
        ]);
        let policies = Policies::compile(&objects);
        for (user, groups, resource, namespace, want) in [
            (
                "u",
                &[][..],
                "pods",
                "a",
                Ok("RBAC: allowed by RoleBinding \"one/a\" of Role \"pods\" to User \"u\""),
            ),
            ("u", &[], "pods", "", Err("")),
            ("u", &[], "pods", "b", Err("RBAC: role.rbac.authorization.k8s.io \"pods\" not found")),
            ("u", &[], "configmaps", "a", Err("")),
            ("g", &[], "nodes", "", Err("")),
            (
                "v",
                &["g"],
                "nodes",
                "",
                Ok(
                    "RBAC: allowed by ClusterRoleBinding \"four\" of ClusterRole \"nodes\" to Group \"g\"",
                ),
            ),
            (
                "v",
                &["g"],
                "nodes",
                "c",
                Ok(
                    "RBAC: allowed by ClusterRoleBinding \"four\" of ClusterRole \"nodes\" to Group \"g\"",
                ),
            ),
            (
                "v",
                &["g"],
                "configmaps",
                "a",
                Ok("RBAC: allowed by RoleBinding \"two/a\" of ClusterRole \"maps\" to Group \"g\""),
            ),
            ("v", &["g"], "configmaps", "b", Err("")),
            (
                "system:serviceaccount:a:s",
                &[],
                "configmaps",
                "a",
                Ok(
                    "RBAC: allowed by RoleBinding \"two/a\" of ClusterRole \"maps\" to ServiceAccount \"s/a\"",
                ),
            ),
            ("system:serviceaccount:b:s", &[], "configmaps", "a", Err("")),
            (
                "system:serviceaccount:b:s",
                &[],
                "nodes",
                "",
                Ok(
                    "RBAC: allowed by ClusterRoleBinding \"four\" of ClusterRole \"nodes\" to ServiceAccount \"s/b\"",
                ),
            ),
        ] {
            let found = policies.decide(&who(user, groups), &get(resource, namespace));
            let want = match want {
                Ok(reason) => Decision::Allowed(reason.to_owned()),
                Err(reason) => Decision::NoOpinion(reason.to_owned()),
            };
            assert_eq!(found, want, "{user} {groups:?} {resource} {namespace}");
        }
        let (rules, errors) = policies.rules(&who("u", &["g"]), "a");
        let resources: Vec<_> = rules.iter().flat_map(|rule| &rule.resources).collect();
        assert_eq!(resources, ["nodes", "pods", "configmaps"]);
        assert_eq!(errors, [""; 0]);
        assert_eq!(policies.rules(&who("u", &[]), "b").1.len(), 1);
    }

    #[test]
    fn a_role_that_aggregates_has_the_rules_of_whom_it_selects_at_any_depth() {
        let select =
            |label: &str| json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        let labels = |label: &str| json!({"labels": {label: "true"}});
        let mut objects = objects(&[
            (
                "clusterroles",
                "",
                "top",
                json!({"aggregationRule": select("to-top"), "rules": rules("stale")}),
            ),
            (
                "clusterroles",
                "",
                "middle",
                json!({"metadata": labels("to-top"), "aggregationRule": select("to-middle")}),
            ),
            (
                "clusterroles",
                "",
                "leaf",
                json!({"metadata": labels("to-middle"), "rules": rules("pods")}),
            ),
            (
                "clusterroles",
                "",
                "other",
                json!({"metadata": labels("to-other"), "rules": rules("nodes")}),
            ),
            (
                "clusterroles",
                "",
                "circle",
                json!({"metadata": labels("to-circle"), "aggregationRule": select("to-circle")}),
            ),
        ]);
        let of = |objects: &Objects, name: &str| {
            let rules = objects.rules("", name).unwrap();
            rules.iter().flat_map(|rule| rule.resources.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&objects, "top"), ["pods"]);
        assert_eq!(of(&objects, "circle"), [""; 0]);
        let wrong: Vec<_> = objects.unaggregated().into_iter().map(|(name, _)| name).collect();
        assert_eq!(wrong, ["middle", "top"]);
        objects.set("clusterroles", "", "leaf", None);
        assert_eq!(of(&objects, "top"), [""; 0]);
    }
}
