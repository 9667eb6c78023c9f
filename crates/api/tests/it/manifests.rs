//! One right manifest of each kind, as a user would write it, and ways to change it.

use api::kinds::{self, Kind};
use serde_json::{Value, json};

pub(crate) const CREATED: &str = "2026-01-01T00:00:00Z";

fn template(policy: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "restartPolicy": policy,
            "containers": [
                {"name": "a", "image": "toolbox:1", "resources": {"limits": {"cpu": "1000m"}}},
                {"name": "b", "image": "other:2"},
            ],
        },
    })
}

fn spec_and_status(plural: &str) -> Value {
    let selector = json!({"matchLabels": {"app": "web"}});
    match plural {
        "replicasets" | "deployments" | "daemonsets" => {
            json!({"spec": {"selector": selector, "template": template("Always")}})
        }
        "statefulsets" => json!({"spec": {
            "selector": selector, "serviceName": "web", "template": template("Always"),
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"],
                         "resources": {"requests": {"storage": "1Gi"}}},
            }],
        }}),
        "replicationcontrollers" => json!({"spec": {"template": template("Always")}}),
        "podtemplates" => json!({"template": template("Always")}),
        "controllerrevisions" => json!({"data": {"spec": {"a": null}}, "revision": 3}),
        "jobs" => json!({"spec": {"template": template("Never")}}),
        "cronjobs" => json!({"spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template("Never")}},
        }}),
        "horizontalpodautoscalers" => json!({"spec": {
            "maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        }}),
        "poddisruptionbudgets" => json!({"spec": {"minAvailable": "50%", "selector": selector}}),
        "priorityclasses" => json!({"value": 1000, "description": "more than most"}),
        "resourcequotas" => json!({"spec": {"hard": {"cpu": "2000m", "pods": 10}}}),
        "limitranges" => json!({"spec": {"limits": [{
            "type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"},
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"},
        }]}}),
        "roles" | "clusterroles" => json!({"rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        ]}),
        "rolebindings" | "clusterrolebindings" => json!({
            "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "jane"},
                {"kind": "Group", "name": "dev"},
                {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
            ],
        }),
        "customresourcedefinitions" => json!({"spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object"}},
                }},
            }],
        }}),
        other => panic!("there is no manifest of {other}"),
    }
}

/// The kinds that [`right`] has a manifest of.
pub(crate) const PLURALS: &[&str] = &[
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "limitranges",
    "customresourcedefinitions",
    "controllerrevisions",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
    "poddisruptionbudgets",
    "roles",
    "rolebindings",
    "clusterroles",
    "clusterrolebindings",
    "priorityclasses",
];

/// A manifest as a client sends it, with what the server gives every object.
pub(crate) fn right(kind: &Kind) -> Value {
    let mut object = spec_and_status(kind.plural);
    let name =
        if kind.plural == "customresourcedefinitions" { "widgets.example.com" } else { "web" };
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    object["metadata"] = json!({"name": name, "uid": "u1", "creationTimestamp": CREATED});
    if kind.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    if kind.has_generation {
        object["metadata"]["generation"] = json!(1);
    }
    object
}

/// Sets what is at a JSON pointer, and the objects on the way; a null removes.
pub(crate) fn edit(object: &mut Value, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = object;
    for step in parent.split('/').skip(1) {
        at = match at {
            Value::Array(list) => &mut list[step.parse::<usize>().unwrap()],
            other => &mut other[step],
        };
    }
    match (at, value) {
        (Value::Array(list), value) => match key.parse::<usize>() {
            Ok(index) => list[index] = value.clone(),
            Err(_) => list.push(value.clone()),
        },
        (at, Value::Null) => drop(at.as_object_mut().unwrap().remove(key)),
        (at, value) => at[key] = value.clone(),
    }
}

pub(crate) fn kind(plural: &str) -> &'static Kind {
    kinds::all().iter().find(|kind| kind.plural == plural).unwrap()
}

/// What is stored of a new object, before it is looked at.
pub(crate) fn created(kind: &Kind, edits: &[(&str, Value)]) -> Value {
    let mut object = right(kind);
    for (pointer, value) in edits {
        edit(&mut object, pointer, value);
    }
    (kind.decode)(&object).unwrap();
    (kind.default)(&mut object);
    (kind.prepare_create)(&mut object);
    object
}

/// What an update makes of `old`.
pub(crate) fn updated(kind: &Kind, old: &Value, edits: &[(&str, Value)]) -> Value {
    let mut object = old.clone();
    for (pointer, value) in edits {
        edit(&mut object, pointer, value);
    }
    (kind.decode)(&object).unwrap();
    (kind.default)(&mut object);
    (kind.prepare_update)(&mut object, old);
    object
}
