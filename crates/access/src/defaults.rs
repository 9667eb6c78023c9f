//! The roles and bindings that every cluster has, as rows, and how those that are there are brought up to
//! date: what somebody took away comes back, what they added stays.
//!
//! Names and what they allow are upstream's, for the kinds that are served and for those that clients
//! expect to be named; but nobody without credentials sees more than whether the API is well.

use crate::{
    AUTHENTICATED, BOOTSTRAPPERS, MASTERS, REPLICA_BOOTSTRAPPERS, SERVICE_ACCOUNTS,
    UNAUTHENTICATED,
    rbac::{GROUP, own_rules},
    rule::Rule,
    uncovered,
};
use serde_json::{Value, json};

/// While an object says `true`, it is brought up to date.
pub const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Verbs, API groups, resources.
type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// A ClusterRole.
struct Role {
    name: &'static str,
    /// Whose rules these become, too.
    to: &'static [&'static str],
    rows: &'static [Row],
    /// Only of these names: verbs, API group, resource, names.
    named:
        &'static [(&'static [&'static str], &'static str, &'static str, &'static [&'static str])],
    /// Verbs and paths.
    paths: &'static [(&'static [&'static str], &'static [&'static str])],
    /// Its rules are those of the roles with this label.
    aggregates: Option<&'static str>,
}

const NONE: Role = Role { name: "", to: &[], rows: &[], named: &[], paths: &[], aggregates: None };

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const ALL: &[&str] = &["*"];
const CORE: &[&str] = &[""];
const AUTHN: &[&str] = &["authentication.k8s.io"];
const AUTHZ: &[&str] = &["authorization.k8s.io"];
const HEALTH: &[&str] = &["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"];
const EVENTS: Row = (&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]);
const REVIEWS: [Row; 2] =
    [(CREATE, AUTHN, &["tokenreviews"]), (CREATE, AUTHZ, &["subjectaccessreviews"])];

const APPS: &[&str] =
    &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"];

const ROLES: &[Role] = &[
    Role { name: "cluster-admin", rows: &[(ALL, ALL, ALL)], paths: &[(ALL, ALL)], ..NONE },
    Role { name: "admin", aggregates: Some("admin"), ..NONE },
    Role { name: "edit", to: &["admin"], aggregates: Some("edit"), ..NONE },
    Role { name: "view", to: &["edit"], aggregates: Some("view"), ..NONE },
    Role {
        name: "system:aggregate-to-admin",
        to: &["admin"],
        rows: &[
            (CREATE, AUTHZ, &["localsubjectaccessreviews"]),
            (READ_WRITE, &[GROUP], &["rolebindings", "roles"]),
        ],
        ..NONE
    },
    Role {
        name: "system:aggregate-to-edit",
        to: &["edit"],
        rows: &[
            (
                READ,
                CORE,
                &[
                    "pods/attach",
                    "pods/exec",
                    "pods/portforward",
                    "pods/proxy",
                    "secrets",
                    "services/proxy",
                ],
            ),
            (&["impersonate"], CORE, &["serviceaccounts"]),
            (WRITE, CORE, &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            (CREATE, CORE, &["pods/eviction", "serviceaccounts/token"]),
            (
                WRITE,
                CORE,
                &[
                    "configmaps",
                    "endpoints",
                    "events",
                    "persistentvolumeclaims",
                    "podtemplates",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
            ),
            (
                WRITE,
                &["apps"],
                &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
            ),
            (WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
            (WRITE, &["batch"], &["cronjobs", "jobs"]),
            (WRITE, &["policy"], &["poddisruptionbudgets"]),
            (WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
            (READ_WRITE, &["coordination.k8s.io"], &["leases"]),
        ],
        ..NONE
    },
    Role {
        name: "system:aggregate-to-view",
        to: &["view"],
        rows: &[
            (
                READ,
                CORE,
                &[
                    "configmaps",
                    "endpoints",
                    "persistentvolumeclaims",
                    "persistentvolumeclaims/status",
                    "pods",
                    "podtemplates",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "serviceaccounts",
                    "services",
                    "services/status",
                ],
            ),
            (
                READ,
                CORE,
                &[
                    "bindings",
                    "events",
                    "limitranges",
                    "namespaces",
                    "namespaces/status",
                    "pods/log",
                    "pods/status",
                    "replicationcontrollers/status",
                    "resourcequotas",
                    "resourcequotas/status",
                ],
            ),
            (READ, &["discovery.k8s.io"], &["endpointslices"]),
            (READ, &["apps"], APPS),
            (
                READ,
                &["apps"],
                &[
                    "daemonsets/status",
                    "deployments/scale",
                    "deployments/status",
                    "replicasets/scale",
                    "replicasets/status",
                    "statefulsets/scale",
                    "statefulsets/status",
                ],
            ),
            (
                READ,
                &["autoscaling"],
                &["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
            ),
            (READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
            (READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
            (READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
        ],
        ..NONE
    },
    Role {
        name: "system:discovery",
        paths: &[(
            &["get"],
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        )],
        ..NONE
    },
    Role {
        name: "system:basic-user",
        rows: &[
            (CREATE, AUTHZ, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            (CREATE, AUTHN, &["selfsubjectreviews"]),
        ],
        ..NONE
    },
    Role { name: "system:public-info-viewer", paths: &[(&["get"], HEALTH)], ..NONE },
    Role {
        name: "system:monitoring",
        paths: &[(&["get"], HEALTH), (&["get"], &["/metrics", "/metrics/slis"])],
        ..NONE
    },
    Role { name: "system:auth-delegator", rows: &REVIEWS, ..NONE },
    Role {
        name: "system:service-account-issuer-discovery",
        paths: &[(
            &["get"],
            &[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ],
        )],
        ..NONE
    },
    Role {
        name: "system:node",
        rows: &[
            REVIEWS[0],
            REVIEWS[1],
            (CREATE, AUTHZ, &["localsubjectaccessreviews"]),
            (&["create", "get", "list", "patch", "update", "watch"], CORE, &["nodes"]),
            (&["get", "patch", "update"], CORE, &["nodes/status"]),
            EVENTS,
            (&["delete", "get", "list", "watch"], CORE, &["pods"]),
            (&["get", "patch", "update"], CORE, &["pods/status"]),
            (CREATE, CORE, &["pods/eviction", "serviceaccounts/token"]),
            (READ, CORE, &["configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts"]),
            (
                &["create", "delete", "get", "patch", "update"],
                &["coordination.k8s.io"],
                &["leases"],
            ),
        ],
        paths: &[(&["post"], &[NODE_SESSION, AWAIT_CALLS, TAKE_CALL, RENEW])],
        ..NONE
    },
    Role {
        name: "system:node-bootstrapper",
        rows: &[(
            &["create", "get", "list", "watch"],
            &["certificates.k8s.io"],
            &["certificatesigningrequests"],
        )],
        paths: &[(&["post"], &[JOIN_NODE])],
        ..NONE
    },
    Role { name: "system:replica-bootstrapper", paths: &[(&["post"], &[JOIN_REPLICA])], ..NONE },
    Role {
        name: "system:kube-scheduler",
        rows: &[
            EVENTS,
            (READ, CORE, &["namespaces", "nodes", "pods"]),
            (&["delete"], CORE, &["pods"]),
            (CREATE, CORE, &["bindings", "pods/binding"]),
            (&["patch", "update"], CORE, &["pods/status"]),
            (
                READ,
                CORE,
                &[
                    "persistentvolumeclaims",
                    "persistentvolumes",
                    "replicationcontrollers",
                    "services",
                ],
            ),
            (READ, &["apps"], &["replicasets", "statefulsets"]),
            (READ, &["policy"], &["poddisruptionbudgets"]),
            (READ, &["scheduling.k8s.io"], &["priorityclasses"]),
            (READ, &["storage.k8s.io"], ALL),
            REVIEWS[0],
            REVIEWS[1],
            (CREATE, &["coordination.k8s.io"], &["leases"]),
        ],
        named: &[(
            &["get", "list", "update", "watch"],
            "coordination.k8s.io",
            "leases",
            &["kube-scheduler"],
        )],
        ..NONE
    },
    Role {
        name: "system:kube-controller-manager",
        rows: &[
            EVENTS,
            (CREATE, &["coordination.k8s.io"], &["leases"]),
            (CREATE, CORE, &["secrets", "serviceaccounts", "serviceaccounts/token"]),
            (&["delete"], CORE, &["secrets"]),
            (&["get"], CORE, &["configmaps", "namespaces", "secrets", "serviceaccounts"]),
            (&["update"], CORE, &["secrets", "serviceaccounts"]),
            REVIEWS[0],
            REVIEWS[1],
            (&["list", "watch"], ALL, ALL),
        ],
        named: &[(
            &["get", "list", "update", "watch"],
            "coordination.k8s.io",
            "leases",
            &["kube-controller-manager"],
        )],
        ..NONE
    },
];

/// The RPC of a kubelet's session, as a path.
pub const NODE_SESSION: &str = "/trireme.node.v1.NodeService/Session";
/// The RPC by which a node can be called where it cannot be connected to, as a path.
pub const AWAIT_CALLS: &str = "/trireme.node.v1.NodeService/AwaitCalls";
/// The RPC by which it takes a call, as a path.
pub const TAKE_CALL: &str = "/trireme.node.v1.NodeService/TakeCall";
/// The RPC by which a node gets a new certificate in the place of its own, as a path.
pub const RENEW: &str = "/trireme.cluster.v1.CertificateService/RenewCertificate";

/// The RPC by which a machine becomes a node, as a path.
pub const JOIN_NODE: &str = "/trireme.cluster.v1.JoinService/JoinNode";
/// The RPC by which a machine becomes a replica and gets what replicas share, as a path.
pub const JOIN_REPLICA: &str = "/trireme.cluster.v1.JoinService/JoinReplica";

/// A ClusterRoleBinding: its name, the role, the kind and the names of its subjects.
const BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", "Group", &[MASTERS]),
    ("system:discovery", "system:discovery", "Group", &[AUTHENTICATED]),
    ("system:basic-user", "system:basic-user", "Group", &[AUTHENTICATED]),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        "Group",
        &[AUTHENTICATED, UNAUTHENTICATED],
    ),
    ("system:monitoring", "system:monitoring", "Group", &["system:monitoring"]),
    (
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        "Group",
        &[SERVICE_ACCOUNTS],
    ),
    // Nodes get it by the node authoriser, each for its own.
    ("system:node", "system:node", "Group", &[]),
    ("system:node-bootstrapper", "system:node-bootstrapper", "Group", &[BOOTSTRAPPERS]),
    // A token for nodes must not do for replicas: these get the authority's key.
    (
        "system:replica-bootstrapper",
        "system:replica-bootstrapper",
        "Group",
        &[REPLICA_BOOTSTRAPPERS],
    ),
    ("system:kube-scheduler", "system:kube-scheduler", "User", &["system:kube-scheduler"]),
    (
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        "User",
        &["system:kube-controller-manager"],
    ),
];

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Role {
    fn rules(&self) -> Vec<Rule> {
        let rows = self.rows.iter().map(|(verbs, groups, resources)| Rule {
            verbs: owned(verbs),
            api_groups: owned(groups),
            resources: owned(resources),
            ..Rule::default()
        });
        let named = self.named.iter().map(|(verbs, group, resource, names)| Rule {
            verbs: owned(verbs),
            api_groups: owned(&[group]),
            resources: owned(&[resource]),
            resource_names: owned(names),
            ..Rule::default()
        });
        let paths = self.paths.iter().map(|(verbs, paths)| Rule {
            verbs: owned(verbs),
            non_resource_urls: owned(paths),
            ..Rule::default()
        });
        rows.chain(named).chain(paths).collect()
    }

    fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
            "metadata": metadata(self.name), "rules": self.rules(),
        });
        for to in self.to {
            let labels = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut);
            if let Some(labels) = labels {
                labels.insert(format!("{AGGREGATE}{to}"), "true".into());
            }
        }
        if let (Some(label), Some(fields)) = (self.aggregates, object.as_object_mut()) {
            let label = format!("{AGGREGATE}{label}");
            let rule = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            fields.insert("aggregationRule".to_owned(), rule);
        }
        object
    }
}

fn metadata(name: &str) -> Value {
    let (label, value) = BOOTSTRAPPING;
    json!({"name": name, "labels": {label: value}, "annotations": {AUTO_UPDATE: "true"}})
}

/// The ClusterRoles that every cluster has, as objects.
pub fn cluster_roles() -> impl Iterator<Item = Value> {
    ROLES.iter().map(Role::object)
}

/// The ClusterRoleBindings that every cluster has, as objects.
pub fn cluster_role_bindings() -> impl Iterator<Item = Value> {
    BINDINGS.iter().map(|(name, role, kind, subjects)| {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|name| json!({"apiGroup": GROUP, "kind": kind, "name": name}))
            .collect();
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
            "metadata": metadata(name), "subjects": subjects,
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        })
    })
}

/// The rules of one of these roles; none for another.
#[must_use]
pub fn rules_of(name: &str) -> Vec<Rule> {
    ROLES.iter().find(|role| role.name == name).map(Role::rules).unwrap_or_default()
}

/// What an object that is there has to become so that it has all that the default has; `None` if it has,
/// or is not to be brought up to date. The role of a binding cannot be changed and is left.
#[must_use]
pub fn reconciled(default: &Value, found: &Value) -> Option<Value> {
    let annotation = found.pointer("/metadata/annotations").and_then(|all| all.get(AUTO_UPDATE));
    if annotation.and_then(Value::as_str).is_some_and(|value| value != "true") {
        return None;
    }
    let mut new = found.clone();
    for field in ["labels", "annotations"] {
        let wanted = default.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        let metadata = api::meta::metadata_mut(&mut new);
        let own = metadata.entry(field).or_insert_with(|| json!({}));
        if let (Some(wanted), Some(own)) = (wanted, own.as_object_mut()) {
            for (key, value) in wanted {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    match default.get("kind").and_then(Value::as_str) {
        Some("ClusterRole") if default.get("aggregationRule").is_some() => {
            let wanted = default.get("aggregationRule").cloned().unwrap_or_default();
            let own = new.get("aggregationRule");
            let has = |selector: &Value| {
                let own = own.and_then(|rule| rule.get("clusterRoleSelectors"));
                own.and_then(Value::as_array).is_some_and(|own| own.contains(selector))
            };
            let selectors = wanted.get("clusterRoleSelectors").and_then(Value::as_array);
            if !selectors.is_some_and(|all| all.iter().all(has))
                && let Some(fields) = new.as_object_mut()
            {
                fields.insert("aggregationRule".to_owned(), wanted);
            }
        }
        Some("ClusterRole") => {
            let own = own_rules(found);
            let missing = own_rules(default)
                .into_iter()
                .filter(|rule| uncovered(&own, std::slice::from_ref(rule)) != Ok(Vec::new()));
            extend(&mut new, "rules", missing.map(|rule| json!(rule)).collect());
        }
        _ => {
            let same = |a: &Value, b: &Value| {
                ["kind", "name", "namespace"].iter().all(|key| a.get(*key) == b.get(*key))
            };
            let list = |of: &Value| {
                of.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default()
            };
            let (wanted, own) = (list(default), list(found));
            let missing = wanted.into_iter().filter(|w| !own.iter().any(|o| same(w, o)));
            extend(&mut new, "subjects", missing.collect());
        }
    }
    (new != *found).then_some(new)
}

fn extend(object: &mut Value, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    let Some(fields) = object.as_object_mut() else { return };
    let list = fields.entry(field).or_insert_with(|| json!([]));
    match list.as_array_mut() {
        Some(list) => list.extend(more),
        None => *list = more.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attributes::{Attributes, Resource},
        rbac::{Objects, Policies},
    };
    use api::{caller::Identity, kinds, meta};

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let role = cluster_roles().find(|role| meta::name(role) == "system:basic-user").unwrap();
        assert_eq!(reconciled(&role, &role), None);
        let own = json!({"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]});
        let mut changed = role.clone();
        changed["rules"] = json!([own]);
        changed["metadata"]["labels"] = json!({"mine": "x"});
        let new = reconciled(&role, &changed).unwrap();
        assert_eq!(new["rules"].as_array().unwrap().len(), 3);
        assert_eq!(new["rules"][0], own);
        assert_eq!(new["metadata"]["labels"]["mine"], "x");
        assert_eq!(new["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        // A rule that covers it will do.
        let mut wider = role.clone();
        wider["rules"] = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert_eq!(reconciled(&role, &wider), None);
        // Whoever says so is left alone.
        changed["metadata"]["annotations"] = json!({AUTO_UPDATE: "false"});
        assert_eq!(reconciled(&role, &changed), None);

        let binding = cluster_role_bindings().next().unwrap();
        let mut changed = binding.clone();
        changed["subjects"] = json!([{"kind": "User", "name": "me"}]);
        let new = reconciled(&binding, &changed).unwrap();
        assert_eq!(new["subjects"].as_array().unwrap().len(), 2);
        let view = cluster_roles().find(|role| meta::name(role) == "view").unwrap();
        let mut changed = view.clone();
        changed["aggregationRule"] = Value::Null;
        assert_eq!(
            reconciled(&view, &changed).unwrap()["aggregationRule"],
            view["aggregationRule"]
        );
    }

    #[test]
    fn every_default_is_an_object_that_the_api_takes() {
        let (roles, bindings) = ("clusterroles", "clusterrolebindings");
        let all = cluster_roles().map(|o| (roles, o));
        for (plural, mut object) in all.chain(cluster_role_bindings().map(|o| (bindings, o))) {
            let kind = kinds::by_alias(plural).unwrap();
            (kind.decode)(&object).unwrap();
            let before = object.clone();
            (kind.default)(&mut object);
            assert_eq!(object, before);
            assert_eq!((kind.validate_create)(&object), [], "{object}");
        }
    }

    #[test]
    fn a_token_for_nodes_brings_no_replica() {
        let mut objects = Objects::default();
        for role in cluster_roles() {
            objects.set("clusterroles", "", meta::name(&role), Some(&role));
        }
        for binding in cluster_role_bindings() {
            objects.set("clusterrolebindings", "", meta::name(&binding), Some(&binding));
        }
        let policies = Policies::compile(&objects);
        let node = Identity::new("system:bootstrap:a", &[BOOTSTRAPPERS, AUTHENTICATED]);
        let replica = Identity::new("system:bootstrap:b", &[BOOTSTRAPPERS, REPLICA_BOOTSTRAPPERS]);
        for (who, path, want) in [
            (&node, JOIN_NODE, true),
            (&node, JOIN_REPLICA, false),
            (&node, NODE_SESSION, false),
            (&node, RENEW, false),
            (&replica, JOIN_REPLICA, true),
            (&node, "/trireme.cluster.v1.AdminService/Backup", false),
        ] {
            let found = policies.decide(who, &Attributes::path("post", path));
            assert_eq!(found.is_allowed(), want, "{who:?} {path}");
        }
    }

    #[test]
    fn admin_edit_and_view_are_steps() {
        let mut objects = Objects::default();
        for role in cluster_roles() {
            objects.set("clusterroles", "", meta::name(&role), Some(&role));
        }
        for role in ["admin", "edit", "view"] {
            let binding = json!({"roleRef": {"kind": "ClusterRole", "name": role},
                                 "subjects": [{"kind": "User", "name": role}]});
            objects.set("rolebindings", "ns", role, Some(&binding));
        }
        let policies = Policies::compile(&objects);
        for (verb, group, resource, sub, want) in [
            ("get", "", "pods", "", "admin edit view"),
            ("get", "", "pods", "log", "admin edit view"),
            ("get", "", "namespaces", "", "admin edit view"),
            ("create", "", "pods", "exec", "admin edit"),
            ("get", "", "secrets", "", "admin edit"),
            ("delete", "apps", "deployments", "", "admin edit"),
            ("update", "batch", "jobs", "", "admin edit"),
            ("create", "", "serviceaccounts", "token", "admin edit"),
            ("create", GROUP, "roles", "", "admin"),
            ("create", "authorization.k8s.io", "localsubjectaccessreviews", "", "admin"),
            ("update", "", "resourcequotas", "", ""),
            ("get", "", "nodes", "", ""),
            ("bind", GROUP, "roles", "", ""),
            ("update", "", "pods", "status", ""),
        ] {
            let asked = Attributes::resource(
                verb,
                Resource {
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    subresource: sub.to_owned(),
                    namespace: "ns".to_owned(),
                    ..Resource::default()
                },
            );
            let may = ["admin", "edit", "view"].into_iter().filter(|user| {
                let who = Identity { user: (*user).to_owned(), ..Identity::default() };
                policies.decide(&who, &asked).is_allowed()
            });
            assert_eq!(may.collect::<Vec<_>>().join(" "), want, "{verb} {group} {resource}/{sub}");
        }
    }
}
