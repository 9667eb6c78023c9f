//! What every row of the table of kinds must do: defaults, decoding, columns, generations.

use crate::manifests::{CREATED, PLURALS, created, edit, kind, right, updated};
use api::{
    discovery, kinds,
    meta::parse_time,
    status::Status,
    table::{IncludeObject, table},
};
use proptest::prelude::*;
use schema::fields::unknown_fields;
use serde_json::{Value, json};

#[test]
fn every_manifest_is_right_and_its_defaults_are_idempotent() {
    // DEF-1
    for plural in PLURALS {
        let kind = kind(plural);
        let sent = right(kind);
        assert_eq!(unknown_fields(kind, &sent), [""; 0], "{plural}");
        let mut once = sent.clone();
        (kind.default)(&mut once);
        let mut twice = once.clone();
        (kind.default)(&mut twice);
        assert_eq!(once, twice, "{plural}");
        let stored = created(kind, &[]);
        assert_eq!((kind.validate_create)(&stored), [], "{plural}");
        (kind.decode)(&stored).unwrap();
        assert_eq!(unknown_fields(kind, &stored), [""; 0], "{plural}");
        let mut again = stored.clone();
        (kind.default)(&mut again);
        assert_eq!(again, stored, "{plural}");
        assert_eq!((kind.validate_update)(&updated(kind, &stored, &[]), &stored), [], "{plural}");
        assert_eq!(updated(kind, &stored, &[]), stored, "{plural}");
    }
}

/// JSON pointers to everything in a value.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => {
            let escaped = |key: &String| key.replace('~', "~0").replace('/', "~1");
            fields.iter().map(|(key, value)| (escaped(key), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in inner {
        pointers(value, format!("{at}/{key}"), found);
    }
    if !at.is_empty() {
        found.push(at);
    }
}

fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        Just(json!({"a": null, "type": "RollingUpdate"})),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..200).prop_map(Value::from),
        "[a-zA-Z0-9/.%,* -]{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn nothing_is_too_strange_to_be_looked_at(
        plural in 0..PLURALS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), strange()), 1..4),
    ) {
        let kind = kind(PLURALS[plural]);
        let old = created(kind, &[]);
        let mut object = old.clone();
        for (at, value) in changes {
            let mut all = Vec::new();
            pointers(&object, String::new(), &mut all);
            let Some(place) = object.pointer_mut(&all[at.index(all.len())]) else { continue };
            *place = value;
        }
        let decodes = (kind.decode)(&object).is_ok();
        let _ = unknown_fields(kind, &object);
        let mut once = object.clone();
        (kind.default)(&mut once);
        let mut twice = once.clone();
        (kind.default)(&mut twice);
        if decodes {
            prop_assert_eq!(&once, &twice, "DEF-1");
        }
        let mut new = once.clone();
        (kind.prepare_create)(&mut new);
        let _ = (kind.validate_create)(&new);
        let mut update = once;
        (kind.prepare_update)(&mut update, &old);
        let _ = (kind.validate_update)(&update, &old);
        let _ = (kind.generation_counts)(&update, &old);
        let mut status = object.clone();
        (kind.prepare_status)(&mut status, &old);
        let _ = (kind.validate_status)(&status, &old);
        prop_assert_eq!((kind.cells)(&object, 0).len(), kind.columns.len());
        let _ = kind.warnings(&object);
        if let Some(scale) = api::scale::get(kind, &object) {
            let _ = api::scale::set(kind, &object, &scale);
        }
    }
}

#[test]
fn no_kind_forgets_metadata_when_it_is_updated() {
    // MET-4, UPD-5
    for kind in kinds::all() {
        let with = |key: &str, value: Value| {
            let mut object = json!({"metadata": {"name": "a", "uid": "u"}});
            if kind.namespaced {
                object["metadata"]["namespace"] = json!("default");
            }
            object["metadata"][key] = value;
            object
        };
        let said = |new: &Value, old: &Value, what: &str| {
            let errors = (kind.validate_update)(new, old);
            let told = errors.iter().filter(|error| error.to_string().starts_with(what));
            assert_eq!(told.count(), 1, "{kind:?} {errors:?}");
        };
        let old = with("labels", json!({}));
        let labelled = with("labels", json!({"a b": "c"}));
        said(&labelled, &old, "metadata.labels: Invalid value: \"a b\"");
        let annotated = with("annotations", json!({"a": "x".repeat(300_000)}));
        said(&annotated, &old, "metadata.annotations: Too long");
        let mut old = with("finalizers", json!(["a.b/old"]));
        old["metadata"]["deletionTimestamp"] = json!(CREATED);
        let held = with("finalizers", json!(["a.b/new"]));
        said(&held, &old, "metadata.finalizers: Forbidden: no new finalizers");
    }
}

#[test]
fn nulls_are_fields_that_are_not_there() {
    for (plural, pointer) in [
        ("deployments", "/spec/replicas"),
        ("deployments", "/spec/strategy"),
        ("statefulsets", "/spec/updateStrategy"),
        ("jobs", "/spec/completions"),
        ("horizontalpodautoscalers", "/spec/metrics"),
        ("cronjobs", "/spec/timeZone"),
        ("priorityclasses", "/preemptionPolicy"),
    ] {
        let kind = kind(plural);
        let mut object = right(kind);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().insert(key.to_owned(), Value::Null);
        let mut want = right(kind);
        (kind.default)(&mut want);
        (kind.default)(&mut object);
        assert_eq!(object, want, "{plural} {pointer}");
    }
}

#[test]
fn what_a_client_leaves_out_is_what_upstream_says() {
    for (plural, pointer, want) in [
        ("deployments", "/spec/replicas", json!(1)),
        (
            "deployments",
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
        ),
        ("deployments", "/spec/revisionHistoryLimit", json!(10)),
        ("deployments", "/spec/progressDeadlineSeconds", json!(600)),
        ("deployments", "/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        ("deployments", "/spec/template/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
        (
            "deployments",
            "/spec/template/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}}),
        ),
        ("replicasets", "/spec/replicas", json!(1)),
        ("replicasets", "/status", json!({"replicas": 0})),
        ("replicationcontrollers", "/spec/selector", json!({"app": "web"})),
        ("replicationcontrollers", "/metadata/labels", json!({"app": "web"})),
        (
            "daemonsets",
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        ),
        (
            "daemonsets",
            "/metadata/annotations",
            json!({"deprecated.daemonset.template.generation": "1"}),
        ),
        ("statefulsets", "/spec/podManagementPolicy", json!("OrderedReady")),
        (
            "statefulsets",
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
        ),
        (
            "statefulsets",
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
        ),
        ("statefulsets", "/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
        ("statefulsets", "/spec/volumeClaimTemplates/0/status", json!({"phase": "Pending"})),
        ("jobs", "/spec/completions", json!(1)),
        ("jobs", "/spec/parallelism", json!(1)),
        ("jobs", "/spec/backoffLimit", json!(6)),
        ("jobs", "/spec/completionMode", json!("NonIndexed")),
        ("jobs", "/spec/suspend", json!(false)),
        ("jobs", "/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
        ("cronjobs", "/spec/concurrencyPolicy", json!("Allow")),
        ("cronjobs", "/spec/successfulJobsHistoryLimit", json!(3)),
        ("cronjobs", "/spec/failedJobsHistoryLimit", json!(1)),
        ("horizontalpodautoscalers", "/spec/minReplicas", json!(1)),
        ("priorityclasses", "/preemptionPolicy", json!("PreemptLowerPriority")),
        ("resourcequotas", "/spec/hard", json!({"cpu": "2", "pods": "10"})),
        ("rolebindings", "/roleRef/apiGroup", json!("rbac.authorization.k8s.io")),
        ("rolebindings", "/subjects/0/apiGroup", json!("rbac.authorization.k8s.io")),
        ("customresourcedefinitions", "/spec/names/listKind", json!("WidgetList")),
        ("controllerrevisions", "/data", json!({"spec": {"a": null}})),
    ] {
        let object = created(kind(plural), &[]);
        assert_eq!(object.pointer(pointer), Some(&want), "{plural} {pointer}");
    }
    let work_queue = created(kind("jobs"), &[("/spec/parallelism", json!(3))]);
    assert_eq!(work_queue.pointer("/spec/completions"), None, "JOB-1");
    let recreate = created(kind("deployments"), &[("/spec/strategy", json!({"type": "Recreate"}))]);
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    let policy = json!({"rules": [{"action": "Count", "onPodConditions": [{"type": "Gone"}]}]});
    let failing = created(kind("jobs"), &[("/spec/podFailurePolicy", policy)]);
    assert_eq!(failing["spec"]["podReplacementPolicy"], "Failed");
    let pattern = "/spec/podFailurePolicy/rules/0/onPodConditions/0/status";
    assert_eq!(failing.pointer(pattern), Some(&json!("True")));
}

#[test]
fn a_status_is_only_the_status_writers() {
    // DEF-3, UPD-1, UPD-8
    for plural in PLURALS {
        let kind = kind(plural);
        if !kind.subresources.contains(&"status") {
            continue;
        }
        let fresh = created(kind, &[]);
        let claimed = created(kind, &[("/status", json!({"observedGeneration": 7}))]);
        assert_eq!(claimed["status"], fresh["status"], "{plural}");
        let mut old = fresh.clone();
        old["status"]["conditions"] = json!([]);
        let new = updated(kind, &old, &[("/status", json!({}))]);
        assert_eq!(new["status"]["conditions"], json!([]), "{plural}");
        let mut status = old.clone();
        edit(&mut status, "/metadata/labels", &json!({"a": "b"}));
        edit(&mut status, "/status/mark", &json!(1));
        (kind.prepare_status)(&mut status, &old);
        assert_eq!(status["status"]["mark"], 1, "{plural}");
        assert_eq!(status["metadata"], old["metadata"], "{plural}");
    }
}

#[test]
fn a_generation_counts_what_controllers_must_see() {
    // UPD-6, MET-1
    let label = ("/metadata/labels", json!({"a": "b"}));
    let annotation = ("/metadata/annotations/x", json!("y"));
    let image = |at: &'static str| (at, json!("new:1"));
    for (plural, change, want) in [
        ("deployments", label.clone(), false),
        ("deployments", annotation.clone(), true),
        ("deployments", ("/spec/replicas", json!(3)), true),
        ("replicasets", annotation.clone(), false),
        ("replicasets", ("/spec/replicas", json!(3)), true),
        ("daemonsets", image("/spec/template/spec/containers/0/image"), true),
        ("podtemplates", image("/template/spec/containers/0/image"), true),
        ("podtemplates", label, false),
        ("priorityclasses", ("/description", json!("x")), false),
        ("cronjobs", ("/spec/suspend", json!(true)), true),
    ] {
        let kind = kind(plural);
        let old = created(kind, &[]);
        let new = updated(kind, &old, &[change]);
        assert!(kind.has_generation, "{plural}");
        assert_eq!((kind.generation_counts)(&new, &old), want, "{plural}");
    }
}

#[test]
fn a_typical_object_of_each_kind_is_shown_as_kubectl_users_know_it() {
    // TAB-1, TAB-4
    let wide = ["a,b", "toolbox:1,other:2", "app=web"];
    let names = &wide[..2];
    let status = |status: Value| ("/status", status);
    let empty: &[&str] = &[];
    for (plural, edits, own, more) in [
        ("podtemplates", vec![], json!(["web", "a,b", "toolbox:1,other:2", "app=web"]), empty),
        (
            "replicationcontrollers",
            vec![status(json!({"replicas": 1, "readyReplicas": 1}))],
            json!(["web", 1, 1, 1, "60s"]),
            &wide[..],
        ),
        (
            "replicasets",
            vec![("/spec/replicas", json!(3)), status(json!({"replicas": 2, "readyReplicas": 1}))],
            json!(["web", 3, 2, 1, "60s"]),
            &wide[..],
        ),
        (
            "deployments",
            vec![
                ("/spec/replicas", json!(3)),
                status(json!({"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2})),
            ],
            json!(["web", "2/3", 1, 2, "60s"]),
            &wide[..],
        ),
        (
            "daemonsets",
            vec![
                ("/spec/template/spec/nodeSelector", json!({"disk": "ssd"})),
                status(
                    json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberMisscheduled": 0}),
                ),
            ],
            json!(["web", 3, 2, 1, 0, 0, "disk=ssd", "60s"]),
            &wide[..],
        ),
        ("daemonsets", vec![], json!(["web", 0, 0, 0, 0, 0, "<none>", "60s"]), &wide[..]),
        (
            "statefulsets",
            vec![status(json!({"replicas": 1, "readyReplicas": 1}))],
            json!(["web", "1/1", "60s"]),
            names,
        ),
        (
            "jobs",
            vec![
                ("/spec/selector", json!({"matchLabels": {"app": "web"}})),
                status(json!({
                    "succeeded": 1, "startTime": CREATED, "completionTime": "2026-01-01T00:00:03Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                })),
            ],
            json!(["web", "Complete", "1/1", "3s", "60s"]),
            &wide[..],
        ),
        (
            "jobs",
            vec![
                ("/spec/selector", json!({"matchLabels": {"app": "web"}})),
                ("/spec/parallelism", json!(4)),
                ("/spec/completions", Value::Null),
                status(json!({"startTime": CREATED, "succeeded": 2})),
            ],
            json!(["web", "Running", "2/1 of 4", "60s", "60s"]),
            &wide[..],
        ),
        (
            "cronjobs",
            vec![
                ("/spec/timeZone", json!("Europe/Berlin")),
                status(json!({"active": [{}], "lastScheduleTime": CREATED})),
            ],
            json!(["web", "*/5 * * * *", "Europe/Berlin", "False", 1, "60s", "60s"]),
            &["a,b", "toolbox:1,other:2", "<none>"],
        ),
        (
            "cronjobs",
            vec![],
            json!(["web", "*/5 * * * *", "<none>", "False", 0, "<none>", "60s"]),
            &["a,b", "toolbox:1,other:2", "<none>"],
        ),
        (
            "horizontalpodautoscalers",
            vec![status(json!({"currentReplicas": 2, "desiredReplicas": 2}))],
            json!(["web", "Deployment/web", "cpu: <unknown>/80%", "1", 5, 2, "60s"]),
            empty,
        ),
        (
            "poddisruptionbudgets",
            vec![status(
                json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}),
            )],
            json!(["web", "50%", "N/A", 1, "60s"]),
            empty,
        ),
        (
            "priorityclasses",
            vec![],
            json!(["web", 1000, false, "60s", "PreemptLowerPriority"]),
            empty,
        ),
        (
            "resourcequotas",
            vec![status(json!({
                "hard": {"cpu": "2", "limits.cpu": "4", "pods": "10"},
                "used": {"cpu": "500m", "limits.cpu": "1"},
            }))],
            json!(["web", "cpu: 500m/2, pods: 0/10", "limits.cpu: 1/4", "60s"]),
            empty,
        ),
        ("limitranges", vec![], json!(["web", CREATED]), empty),
        ("roles", vec![], json!(["web", CREATED]), empty),
        ("clusterroles", vec![], json!(["web", CREATED]), empty),
        (
            "rolebindings",
            vec![],
            json!(["web", "ClusterRole/view", "60s"]),
            &["jane", "dev", "ci/bot"],
        ),
        (
            "clusterrolebindings",
            vec![],
            json!(["web", "ClusterRole/view", "60s"]),
            &["jane", "dev", "ci/bot"],
        ),
        ("customresourcedefinitions", vec![], json!(["widgets.example.com", CREATED]), empty),
        (
            "controllerrevisions",
            vec![(
                "/metadata/ownerReferences",
                json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]),
            )],
            json!(["web", "statefulset.apps/web", 3, "60s"]),
            empty,
        ),
        ("controllerrevisions", vec![], json!(["web", "<none>", 3, "60s"]), empty),
    ] {
        let kind = kind(plural);
        let mut object = created(kind, &[]);
        for (pointer, value) in edits {
            edit(&mut object, pointer, &value);
        }
        let now = parse_time(CREATED).unwrap() + 60;
        let shown = table(kind, [&object], IncludeObject::None, json!({}), now);
        let mut want = own.as_array().unwrap().clone();
        want.extend(more.iter().map(|cell| json!(cell)));
        assert_eq!(shown["rows"][0]["cells"], json!(want), "{plural}");
        let columns = shown["columnDefinitions"].as_array().unwrap();
        assert_eq!(columns.len(), want.len(), "{plural}");
        let hidden = columns.iter().filter(|column| column["priority"] == 1).count();
        assert_eq!(hidden, more.len(), "{plural}: columns of -o wide");
    }
}

#[test]
fn what_no_node_acts_upon_is_said_of_templates_too() {
    // §1.1
    for (plural, path) in [
        ("deployments", "spec.template.spec"),
        ("replicationcontrollers", "spec.template.spec"),
        ("podtemplates", "template.spec"),
        ("jobs", "spec.template.spec"),
        ("cronjobs", "spec.jobTemplate.spec.template.spec"),
    ] {
        let kind = kind(plural);
        let pointer = format!("/{}/hostAliases", path.replace('.', "/"));
        let object = created(kind, &[(&pointer, json!([{"ip": "10.0.0.1"}]))]);
        let why = "not acted upon: containers have the image's hosts file";
        assert_eq!(kind.warnings(&object), [format!("{path}.hostAliases: {why}")], "{plural}");
        assert_eq!(kind.warnings(&created(kind, &[])), [""; 0], "{plural}");
    }
}

#[test]
fn users_find_the_kinds_by_the_names_they_know() {
    for (alias, want) in [
        ("deploy", "deployments"),
        ("rs", "replicasets"),
        ("ds", "daemonsets"),
        ("sts", "statefulsets"),
        ("rc", "replicationcontrollers"),
        ("cj", "cronjobs"),
        ("job", "jobs"),
        ("hpa", "horizontalpodautoscalers"),
        ("pdb", "poddisruptionbudgets"),
        ("pc", "priorityclasses"),
        ("quota", "resourcequotas"),
        ("limits", "limitranges"),
        ("crds", "customresourcedefinitions"),
        ("roles.rbac.authorization.k8s.io", "roles"),
        ("Deployment.apps", "deployments"),
    ] {
        assert_eq!(kinds::by_alias(alias).unwrap().plural, want, "{alias}");
    }
    let mut aliases = std::collections::BTreeSet::new();
    for kind in kinds::all() {
        for alias in kind.short_names.iter().chain([&kind.plural, &kind.singular]) {
            // And an Event in another form is the same one.
            let shared = kind.plural == kind.singular && *alias == kind.plural
                || kind.group == "events.k8s.io";
            assert!(aliases.insert(*alias) || shared, "{alias} means two kinds");
        }
    }
}

#[test]
fn get_all_shows_workloads_in_the_usual_order() {
    // As recorded of `kubectl get all`.
    let mut found = Vec::new();
    for core in [true, false] {
        let list = discovery::aggregated(core, "v2");
        for group in list["items"].as_array().unwrap() {
            for resource in group["versions"][0]["resources"].as_array().unwrap() {
                let categories = resource.get("categories").and_then(Value::as_array);
                if categories.is_some_and(|c| c.contains(&json!("all"))) {
                    found.push(resource["resource"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    let want = [
        "pods",
        "replicationcontrollers",
        "services",
        "daemonsets",
        "deployments",
        "replicasets",
        "statefulsets",
        "horizontalpodautoscalers",
        "cronjobs",
        "jobs",
    ];
    assert_eq!(found, want);
}

#[test]
fn new_groups_are_discovered_and_scale_is_another_groups_kind() {
    // §2.9
    let groups = discovery::api_groups();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    for group in [
        "apiextensions.k8s.io",
        "apps",
        "autoscaling",
        "batch",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
    ] {
        assert_eq!(names.iter().filter(|name| **name == group).count(), 1, "{group}");
        assert_eq!(discovery::api_group(group).unwrap()["name"], group);
    }
    let preferred = discovery::api_group("autoscaling").unwrap();
    assert_eq!(preferred["preferredVersion"]["groupVersion"], "autoscaling/v2");
    let apps = discovery::resources("apps", "v1").unwrap();
    let all = apps["resources"].as_array().unwrap();
    for plural in ["deployments", "replicasets", "statefulsets"] {
        let scale = all.iter().find(|r| r["name"] == format!("{plural}/scale")).unwrap();
        let want = json!({
            "name": format!("{plural}/scale"), "singularName": "", "namespaced": true,
            "group": "autoscaling", "version": "v1", "kind": "Scale",
            "verbs": ["get", "patch", "update"],
        });
        assert_eq!(*scale, want);
    }
    assert!(!all.iter().any(|r| r["name"] == "daemonsets/scale"));
    let core = discovery::resources("", "v1").unwrap();
    let all = core["resources"].as_array().unwrap();
    assert!(all.iter().any(|r| r["name"] == "replicationcontrollers/scale"));
}

#[test]
fn many_errors_cost_no_more_than_their_number() {
    // Each of them took minutes, or more memory than there is, as the product of two lists.
    let scopes = vec!["BestEffort"; 100_000];
    let hard = (0..20_000).map(|i| (format!("hugepages-{i}Ki"), json!("1")));
    let hard: serde_json::Map<String, Value> = hard.collect();
    let edits = [("/spec/scopes", json!(scopes)), ("/spec/hard", json!(hard))];
    let quota = created(kind("resourcequotas"), &edits);
    let errors = (kind("resourcequotas").validate_create)(&quota);
    assert!((1..1000).contains(&errors.len()), "{}", errors.len());
    let edits = [("/spec/scopes", json!(vec!["x"; 100_000]))];
    let quota = created(kind("resourcequotas"), &edits);
    let errors = (kind("resourcequotas").validate_create)(&quota);
    assert_eq!(errors.len(), 100_000);
    let status = Status::invalid(kind("resourcequotas"), "q", &errors);
    assert!(status.to_json().to_string().len() < 8 << 20);
    let crd = kind("customresourcedefinitions");
    let keys: Vec<String> = (0..50_000).map(|i| format!("k{i}")).collect();
    let schema = json!({"type": "object", "properties": {"a": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
        "items": {"type": "object", "required": keys},
    }}});
    let edits = [("/spec/versions/0/schema/openAPIV3Schema", schema)];
    assert!((crd.validate_create)(&created(crd, &edits)).len() >= 50_000);
}
