//! Managers of fields, as kube-apiserver was seen to track them.

use super::*;
use crate::table::table;
use api::kinds;
use proptest::prelude::*;

const T1: &str = "2026-11-23T08:06:25Z";
const T2: &str = "2026-11-23T08:07:44Z";
const T3: &str = "2026-11-23T08:07:51Z";

fn kind(alias: &str) -> &'static Kind {
    kinds::by_alias(alias).unwrap()
}

fn cm(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm1", "namespace": "rec"},
           "data": data})
}

/// With everything but `managedFields` that the stored object is to have.
fn with(stored: &Value, pointer: &str, value: Value) -> Value {
    let mut object = stored.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(name.to_owned(), value);
    object
}

fn created(object: Value, manager: &str, now: &str) -> Value {
    let mut object = track_update(kind_of(&object), None, object, manager, now, "");
    object["metadata"]["uid"] = json!("u");
    object
}

fn kind_of(object: &Value) -> &'static Kind {
    kinds::by_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
        .unwrap()
}

fn updated(old: &Value, new: Value, manager: &str, now: &str) -> Value {
    track_update(kind_of(old), Some(old), new, manager, now, "")
}

fn applied(
    live: Option<&Value>,
    object: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, String> {
    apply(kind_of(object), live, object, manager, force, now, "").map_err(|e| e.to_string())
}

/// Managers as `name operation time fields`.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
            let fields = &entry["fieldsV1"];
            format!("{} {} {} {fields}", text("manager"), text("operation"), text("time"))
        })
        .collect()
}

#[test]
fn config_maps_are_tracked_as_in_the_recording() {
    // PAT-3; recordings 12, 59, 60, 62 and 63.
    let object = created(cm(json!({"a": "1"})), "kubectl-create", T1);
    assert_eq!(
        managers(&object),
        [format!("kubectl-create Update {T1} {}", json!({"f:data": {".": {}, "f:a": {}}}))]
    );
    let object = updated(&object, with(&object, "/data/b", json!("2")), "kubectl-patch", T2);
    let create = format!("kubectl-create Update {T1} {}", json!({"f:data": {".": {}, "f:a": {}}}));
    let patch = format!("kubectl-patch Update {T2} {}", json!({"f:data": {"f:b": {}}}));
    assert_eq!(managers(&object), [create, patch]);
    let object = updated(&object, with(&object, "/data/a", json!("3")), "kubectl-patch", T2);
    let create = format!("kubectl-create Update {T1} {}", json!({"f:data": {}}));
    let patch = format!("kubectl-patch Update {T2} {}", json!({"f:data": {"f:a": {}, "f:b": {}}}));
    assert_eq!(managers(&object), [create.clone(), patch]);
    let object = updated(&object, with(&object, "/data/a", json!("4")), "kubectl-edit", T3);
    let patch = format!("kubectl-patch Update {T2} {}", json!({"f:data": {"f:b": {}}}));
    let edit = format!("kubectl-edit Update {T3} {}", json!({"f:data": {"f:a": {}}}));
    assert_eq!(managers(&object), [create.clone(), patch, edit]);
    let object = updated(&object, with(&object, "/data", json!({"a": "5"})), "kubectl-replace", T3);
    let replace = format!("kubectl-replace Update {T3} {}", json!({"f:data": {"f:a": {}}}));
    assert_eq!(managers(&object), [create, replace]);
}

#[test]
fn a_pod_is_tracked_as_in_the_recording() {
    // Recording 110: what upstream always writes has no owner, and `resources` has.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "tmp", "namespace": "rec", "labels": {"run": "tmp"}},
        "spec": {
            "containers": [{
                "name": "tmp", "image": "busybox:1.36", "args": ["x"], "stdin": true,
                "stdinOnce": true, "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Never",
            "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    });
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:run": {}}},
        "f:spec": {
            "f:containers": {"k:{\"name\":\"tmp\"}": {
                ".": {}, "f:args": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                "f:resources": {}, "f:stdin": {}, "f:stdinOnce": {},
                "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
            }},
            "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {},
            "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {},
        },
    });
    let object = created(pod, "kubectl-run", T1);
    assert_eq!(managers(&object), [format!("kubectl-run Update {T1} {fields}")]);
    // The status is written by another subresource, and is another's.
    let status = with(
        &object,
        "/status",
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    let object = track_update(kind("pod"), Some(&object), status, "kubelet", T2, "status");
    let entry = &object["metadata"]["managedFields"][1];
    assert_eq!(entry["subresource"], "status");
    let condition = json!({".": {}, "f:status": {}, "f:type": {}});
    let want = json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": condition}, "f:phase": {}}});
    assert_eq!(entry["fieldsV1"], want);
}

#[test]
fn a_service_is_tracked_as_in_the_recording() {
    // Recording 53.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "rec"},
        "spec": {
            "internalTrafficPolicy": "Cluster", "selector": {"app": "web"}, "sessionAffinity": "None",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}], "type": "ClusterIP",
        },
    });
    let port = json!({".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}});
    let fields = json!({"f:spec": {
        "f:internalTrafficPolicy": {}, "f:selector": {}, "f:sessionAffinity": {}, "f:type": {},
        "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": port},
    }});
    let object = created(service, "kubectl-create", T1);
    assert_eq!(managers(&object), [format!("kubectl-create Update {T1} {fields}")]);
}

#[test]
fn applying_is_tracked_and_refused_as_in_the_recording() {
    // PAT-3; recordings 66, 67 and 68.
    let live = created(cm(json!({"a": "1"})), "kubectl-replace", T1);
    let owned = applied(Some(&live), &cm(json!({"a": "1"})), "kubectl", false, T2).unwrap();
    let apply_entry = format!("kubectl Apply - {}", json!({"f:data": {"f:a": {}}}));
    let update_entry =
        format!("kubectl-replace Update {T1} {}", json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(managers(&owned), [apply_entry, update_entry]);

    let other = cm(json!({"a": "5"}));
    let error = apply(kind("cm"), Some(&owned), &other, "other", false, T3, "").unwrap_err();
    let want = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Apply failed with 2 conflicts: conflicts with \"kubectl\":\n- .data.a\n\
                    conflicts with \"kubectl-replace\" using v1:\n- .data.a",
        "reason": "Conflict", "code": 409,
        "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\"", "field": ".data.a"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-replace\" using v1",
             "field": ".data.a"},
        ]},
    });
    assert_eq!(error.status().to_json(), want);

    let forced = applied(Some(&owned), &other, "other", true, T3).unwrap();
    assert_eq!(forced["data"], json!({"a": "5"}));
    let apply_entry = format!("other Apply {T3} {}", json!({"f:data": {"f:a": {}}}));
    let update_entry = format!("kubectl-replace Update {T1} {}", json!({"f:data": {}}));
    assert_eq!(managers(&forced), [apply_entry, update_entry]);
}

#[test]
fn one_conflict_is_told_in_one_line() {
    // PAT-3
    let live = created(cm(json!({"a": "1"})), "kubectl", T1);
    let error = applied(Some(&live), &cm(json!({"a": "2"})), "other", false, T2).unwrap_err();
    let want = "Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .data.a";
    assert_eq!(error, want);
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_has_it() {
    // PAT-3
    let first =
        applied(None, &cm(json!({"a": "1", "b": "2", "c": "3"})), "one", false, T1).unwrap();
    assert_eq!(first["data"], json!({"a": "1", "b": "2", "c": "3"}));
    let shared = applied(Some(&first), &cm(json!({"b": "2"})), "two", false, T2).unwrap();
    let touched = updated(&shared, with(&shared, "/data/d", json!("4")), "three", T2);
    let last = applied(Some(&touched), &cm(json!({"a": "1"})), "one", false, T3).unwrap();
    assert_eq!(last["data"], json!({"a": "1", "b": "2", "d": "4"}));
    // Nobody else has `a`, so it goes with the last who applied it.
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm1"}});
    let gone = applied(Some(&last), &none, "one", false, T3).unwrap();
    assert_eq!(gone["data"], json!({"b": "2", "d": "4"}));
    assert!(managers(&gone).iter().all(|manager| !manager.starts_with("one ")));
}

#[test]
fn who_has_what_lost_all_that_was_in_it_keeps_it() {
    let live = created(cm(json!({})), "m", T1);
    let one = applied(Some(&live), &cm(json!({"a": "1"})), "one", false, T2).unwrap();
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm1"}});
    let gone = applied(Some(&one), &none, "one", false, T3).unwrap();
    assert_eq!(gone.get("data"), None);
    assert_eq!(managers(&gone), [format!("m Update {T1} {}", json!({"f:data": {}}))]);
}

fn pod(containers: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"},
           "spec": {"containers": containers}})
}

#[test]
fn lists_merge_by_their_keys_when_applied() {
    // PAT-3
    let live = applied(
        None,
        &pod(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "1"}])),
        "one",
        false,
        T1,
    )
    .unwrap();
    // The server fills the protocol in, which is the key's default.
    let live = with(&live, "/spec/containers/0/ports/0/protocol", json!("TCP"));
    let more = pod(json!([
        {"name": "c", "image": "3"},
        {"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 80, "protocol": "UDP"}]},
    ]));
    let merged = applied(Some(&live), &more, "two", false, T2).unwrap();
    assert_eq!(
        merged["spec"]["containers"],
        json!([
            {"name": "c", "image": "3"},
            {"name": "a", "image": "1", "ports": [
                {"containerPort": 80, "protocol": "TCP", "name": "http"},
                {"containerPort": 80, "protocol": "UDP"},
            ]},
            {"name": "b", "image": "1"},
        ])
    );
    // An item that only its applier has goes whole; one that another has a field of stays.
    let fewer =
        applied(Some(&merged), &pod(json!([{"name": "b", "image": "1"}])), "one", false, T3);
    let names = |pod: &Value| -> Vec<String> {
        let containers = pod["spec"]["containers"].as_array().unwrap();
        containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let fewer = fewer.unwrap();
    assert_eq!(names(&fewer), ["c", "a", "b"]);
    assert_eq!(fewer["spec"]["containers"][1].get("image"), None);
    let fewer = applied(Some(&fewer), &pod(json!([{"name": "c", "image": "3"}])), "two", false, T3);
    assert_eq!(names(&fewer.unwrap()), ["c", "b"]);
}

#[test]
fn a_port_without_a_protocol_is_the_tcp_port() {
    let with_ports = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "d"},
               "spec": {"ports": ports}})
    };
    let tcp = json!([{"port": 80, "protocol": "TCP", "nodePort": 30000}]);
    let live = created(with_ports(tcp), "m", T1);
    let named = with_ports(json!([{"port": 80.0, "name": "http"}]));
    let merged = applied(Some(&live), &named, "one", false, T2).unwrap();
    let want = json!([{"port": 80.0, "protocol": "TCP", "nodePort": 30000, "name": "http"}]);
    assert_eq!(merged["spec"]["ports"], want);
}

#[test]
fn what_is_one_value_is_replaced_whole() {
    // PAT-3
    let with_spec = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}, "spec": spec});
    let live = applied(
        None,
        &with_spec(
            json!({"nodeSelector": {"a": "1"}, "tolerations": [{"key": "a"}, {"key": "b"}]}),
        ),
        "one",
        false,
        T1,
    )
    .unwrap();
    let other = with_spec(json!({"nodeSelector": {"b": "1"}, "tolerations": [{"key": "c"}]}));
    let error = applied(Some(&live), &other, "two", false, T2).unwrap_err();
    let want = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.nodeSelector\n\
                - .spec.tolerations";
    assert_eq!(error, want);
    let forced = applied(Some(&live), &other, "two", true, T2).unwrap();
    assert_eq!(forced["spec"], other["spec"]);
    assert_eq!(managers(&forced).len(), 1);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let object = pod(json!([{"name": "a", "image": "1", "env": [{"name": "x", "value": "y"}]}]));
    let once = applied(None, &object, "one", false, T1).unwrap();
    assert_eq!(applied(Some(&once), &object, "one", false, T2), Ok(once));
}

#[test]
fn a_wrong_object_is_not_applied() {
    for (object, want) in [
        (
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (
            json!({"apiVersion": "v1", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "metadata": {"name": "n", "namespace": "d"}, "dat": {}}),
            "failed to create typed patch object (d/n; /v1, Kind=ConfigMap): .dat: field not declared \
             in schema",
        ),
        (
            json!({"apiVersion": "v1", "data": [], "metadata": {"finalizers": ["a", "a"]}}),
            "failed to create typed patch object (/; /v1, Kind=ConfigMap): errors:\n  .data: expected \
             map, got array\n  .metadata.finalizers: duplicate entries for key [=\"a\"]",
        ),
    ] {
        let error = apply(kind("cm"), None, &object, "m", false, T1, "").unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(error.status().code, 400);
    }
    let twice = pod(json!([{"name": "a"}, {"name": "a"}]));
    let error = applied(None, &twice, "m", false, T1).unwrap_err();
    assert!(error.ends_with(".spec.containers: duplicate entries for key [name=\"a\"]"), "{error}");
}

#[test]
fn an_object_that_nobody_tracked_belongs_to_who_came_before_the_first_apply() {
    let live = cm(json!({"a": "1"}));
    let error = applied(Some(&live), &cm(json!({"a": "2"})), "m", false, T1).unwrap_err();
    let want =
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a";
    assert_eq!(error, want);
    // Until then nobody is.
    let new = cm(json!({"a": "2"}));
    assert_eq!(updated(&live, new.clone(), "m", T1), new);
}

#[test]
fn one_empty_entry_ends_the_tracking() {
    let object = created(cm(json!({"a": "1"})), "m", T1);
    let reset = with(&object, "/metadata/managedFields", json!([{}]));
    let after = updated(&object, reset, "m", T2);
    assert_eq!(after["metadata"].get("managedFields"), None);
    // An empty list, or what cannot be read, changes nothing.
    for kept in [json!([]), json!([{"manager": "x"}])] {
        let new = with(&object, "/metadata/managedFields", kept);
        assert_eq!(updated(&object, new, "m", T2), object);
    }
    // A client may write it otherwise.
    let entries = json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "time": T1,
                          "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}]);
    let new = with(&object, "/metadata/managedFields", entries.clone());
    assert_eq!(updated(&object, new, "m", T2)["metadata"]["managedFields"], entries);
}

#[test]
fn a_status_belongs_to_the_subresource_alone() {
    let live = created(pod(json!([{"name": "a"}])), "m", T1);
    let mut with_status = pod(json!([{"name": "a"}]));
    with_status["status"] = json!({"phase": "Running"});
    let object = applied(Some(&live), &with_status, "one", false, T2).unwrap();
    assert!(!managers(&object).iter().any(|manager| manager.contains("f:status")));
    let object = apply(kind("pod"), Some(&live), &with_status, "two", false, T2, "status").unwrap();
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
    assert_eq!(entry["subresource"], "status");
    let mut other = with_status;
    other["status"] = json!({"phase": "Failed"});
    let error =
        apply(kind("pod"), Some(&object), &other, "three", false, T2, "status").unwrap_err();
    let want = "Apply failed with 1 conflict: conflict with \"two\" with subresource \"status\": \
                .status.phase";
    assert_eq!(error.to_string(), want);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_its_own_side() {
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
                      "metadata": {"name": "cm1", "namespace": "rec"}});
    let annotated = |data: Value| {
        let mut object = cm(data);
        object["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
        object
    };
    let live = created(annotated(json!({"a": "1"})), "kubectl-client-side-apply", T1);
    let object = applied(Some(&live), &cm(json!({"a": "2"})), "kubectl", false, T2).unwrap();
    assert_eq!(object["data"], json!({"a": "2"}));
    let annotation = object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), cm(json!({"a": "2"})));
    // What was changed since is another's.
    let changed = updated(&live, with(&live, "/data/a", json!("9")), "edit", T2);
    let error = applied(Some(&changed), &cm(json!({"a": "2"})), "kubectl", false, T3).unwrap_err();
    let want = "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.a";
    assert_eq!(error, want);
}

#[test]
fn the_oldest_of_many_updaters_are_taken_together() {
    let mut object = created(cm(json!({"k": "0"})), "m00", "2026-01-01T00:00:00Z");
    for n in 1..13 {
        let new = with(&object, &format!("/data/k{n}"), json!("1"));
        let now = format!("2026-01-01T00:00:{n:02}Z");
        object = updated(&object, new, &format!("m{n:02}"), &now);
    }
    let managers = managers(&object);
    assert_eq!(managers.len(), UPDATERS_MAX);
    let fields = json!({"f:data": {".": {}, "f:k": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}}});
    assert_eq!(managers[0], format!("ancient-changes Update 2026-01-01T00:00:03Z {fields}"));
    assert!(managers[1].starts_with("m04 "), "{managers:?}");
}

#[test]
fn kinds_without_a_schema_have_fields_and_lists_that_are_one_value() {
    let widget = Kind {
        kind: "Widget",
        group: "example.com",
        subresources: &[],
        custom: None,
        ..*kind("cm")
    };
    let object = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let first = object(json!({"a": {"b": 1}, "list": [1, 2]}));
    let live = apply(&widget, None, &first, "one", false, T1, "").unwrap();
    let fields = json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:list": {}}});
    assert_eq!(managers(&live), [format!("one Apply {T1} {fields}")]);
    let more = object(json!({"a": {"c": 2}}));
    let live = apply(&widget, Some(&live), &more, "two", false, T1, "").unwrap();
    assert_eq!(live["spec"], json!({"a": {"b": 1, "c": 2}, "list": [1, 2]}));
    let other = object(json!({"list": [1, 2, 3]}));
    let error = apply(&widget, Some(&live), &other, "two", false, T1, "").unwrap_err();
    let want = "Apply failed with 1 conflict: conflict with \"one\": .spec.list";
    assert_eq!(error.to_string(), want);
    let gone = apply(&widget, Some(&live), &object(json!({"list": [1, 2]})), "one", false, T1, "");
    assert_eq!(gone.unwrap()["spec"], json!({"a": {"c": 2}, "list": [1, 2]}));
}

/// Small Pods whose lists, maps and single values meet.
fn any_pod() -> impl Strategy<Value = Value> {
    let image = prop::option::of(0..2_u8);
    let env = prop::collection::btree_map(prop::sample::select(vec!["x", "y"]), 0..2_u8, 0..3);
    let container = (prop::sample::select(vec!["a", "b", "c"]), image, env);
    let containers = prop::collection::vec(container, 0..3);
    let labels = prop::collection::btree_map(prop::sample::select(vec!["l", "m"]), 0..2_u8, 0..3);
    let finalizers = prop::sample::subsequence(vec!["f/x", "g/x"], 0..=2);
    let host = prop::option::of(any::<bool>());
    (containers, labels, finalizers, host).prop_map(|(containers, labels, finalizers, host)| {
        let mut seen = Vec::new();
        let mut list = Vec::new();
        for (name, image, env) in containers {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let mut container = json!({"name": name});
            if let Some(image) = image {
                container["image"] = json!(image.to_string());
            }
            if !env.is_empty() {
                let env = env
                    .iter()
                    .map(|(name, value)| json!({"name": name, "value": value.to_string()}));
                container["env"] = env.collect();
            }
            list.push(container);
        }
        let mut pod = pod(list.into());
        if !labels.is_empty() {
            pod["metadata"]["labels"] = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value.to_string())))
                .collect();
        }
        if !finalizers.is_empty() {
            pod["metadata"]["finalizers"] = json!(finalizers);
        }
        if let Some(host) = host {
            pod["spec"]["hostNetwork"] = json!(host);
        }
        pod
    })
}

/// A new object as a comparison with nothing tracks it.
fn compared_with_nothing(object: &Value) -> Value {
    let kind = kind_of(object);
    let root = table().root(kind);
    let tracker = Tracker::new(kind, (table(), &root), T1, "");
    let mut managers = Managers::new();
    tracker.update(&json!({}), object, &mut managers, "m");
    let mut object = object.clone();
    encode(&mut object, &managers);
    object
}

#[test]
fn who_makes_an_object_is_told_as_by_a_comparison_with_nothing() {
    let container = json!({
        "name": "a", "image": "i", "args": ["x", "x"], "resources": {"requests": {"cpu": "1"}},
        "env": [{"name": "x", "value": "1"}, {"name": "x", "value": "2"}, {"name": "y"}],
        "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}],
    });
    let metadata = |more: Value| {
        let mut metadata = json!({"name": "o", "namespace": "n", "uid": "u", "generation": 1,
                                  "creationTimestamp": T1});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        metadata
    };
    for object in [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(json!({})),
               "spec": {"containers": [container, {"name": "b"}, {"image": "nameless"}],
                        "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": []},
               "status": {"phase": "Pending"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(json!({
                   "labels": {"f:a": "b", ".": "dot"}, "annotations": {},
                   "finalizers": ["b/x", "a/x"],
                   "ownerReferences": [{"uid": "1", "name": "r"}, {"uid": "2"}]})),
               "spec": {"containers": [container], "securityContext": {}}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(json!({})),
               "spec": "of the wrong type"}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(json!({}))}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o"}, "data": {}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o"},
               "data": {"a": "b"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(json!({})),
               "spec": {"replicas": 2, "strategy": {"rollingUpdate": {}, "type": "RollingUpdate"},
                        "template": {"metadata": {"labels": {"a": "b"}},
                                     "spec": {"containers": [container]}}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(json!({})),
               "spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "x"}],
                        "clusterIPs": ["10.0.0.1"]}, "status": {"loadBalancer": {}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "o"},
               "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    ] {
        let made = track_update(kind_of(&object), None, object.clone(), "m", T1, "");
        assert_eq!(made, compared_with_nothing(&object), "{object}");
    }
}

fn spec_and_labels(object: &Value) -> Value {
    let mut object = without_managed_fields(object);
    object.as_object_mut().unwrap().remove("status");
    object
}

proptest! {
    #[test]
    fn who_applies_alone_has_exactly_what_was_applied(first in any_pod(), second in any_pod()) {
        let live = applied(None, &first, "one", false, T1).unwrap();
        let live = applied(Some(&live), &second, "one", false, T2).unwrap();
        let mut want = second;
        let mut got = spec_and_labels(&live);
        // A list that is applied empty, and one that lost all, are both nothing.
        for object in [&mut want, &mut got] {
            let spec = object["spec"].as_object_mut();
            if let Some(spec) = spec
                && spec.get("containers").is_some_and(|list| list.as_array().is_none_or(Vec::is_empty))
            {
                spec.remove("containers");
            }
            let nothing = object["spec"].as_object().is_none_or(Map::is_empty);
            if nothing {
                object.as_object_mut().unwrap().remove("spec");
            }
        }
        prop_assert_eq!(got, want);
    }

    #[test]
    fn who_makes_a_pod_is_told_as_by_a_comparison_with_nothing(object in any_pod()) {
        let made = track_update(kind("pod"), None, object.clone(), "m", T1, "");
        prop_assert_eq!(made, compared_with_nothing(&object));
    }

    #[test]
    fn applying_twice_is_applying_once(base in any_pod(), config in any_pod()) {
        let live = created(base, "creator", T1);
        let once = applied(Some(&live), &config, "one", true, T2).unwrap();
        let twice = applied(Some(&once), &config, "one", false, T3);
        prop_assert_eq!(twice, Ok(once));
    }

    #[test]
    fn what_one_applies_is_in_the_result_and_is_theirs(base in any_pod(), config in any_pod()) {
        let live = created(base, "creator", T1);
        let object = applied(Some(&live), &config, "one", true, T2).unwrap();
        let root = table().root(kind("pod"));
        let typed = Typed { table: table(), root: &root };
        let set = typed.fields_of(&config);
        // Nothing of it would change.
        prop_assert_eq!(&typed.merge(&object, &config), &object);
        let owned = decode(&object).unwrap();
        let own = owned.iter().find(|(manager, _)| manager.name == "one").map(|(_, own)| own.set.clone());
        prop_assert_eq!(own.unwrap_or_default(), set.difference(&set_of(SERVERS_OWN)));
    }

    #[test]
    fn an_update_leaves_its_writer_with_what_differs(old in any_pod(), new in any_pod()) {
        let live = created(old, "creator", T1);
        let mut new = new;
        new["metadata"]["uid"] = json!("u");
        let after = updated(&live, new.clone(), "writer", T2);
        prop_assert_eq!(without_managed_fields(&after), new.clone());
        let root = table().root(kind("pod"));
        let tracker = Tracker::new(kind("pod"), (table(), &root), T2, "");
        let differs = tracker.compare(&without_managed_fields(&live), &new);
        let owned = decode(&after).unwrap();
        for (manager, managed) in &owned {
            let written = managed.set.intersection(&differs.written());
            prop_assert_eq!(written.is_empty(), manager.name == "creator");
            prop_assert!(managed.set.intersection(&differs.removed).is_empty());
        }
        // Without a change there is none here either.
        prop_assert_eq!(updated(&after, after.clone(), "third", T3), after);
    }
}
