//! Wrong manifests and what is said of them; every error at once (VAL-5).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]

mod corpus;
mod manifests;
mod rows;

use api::{kinds, status::Status};
use schema::fields::unknown_fields;
use serde_json::{Value, json};

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"name": "a", "image": "toolbox"}],
            "volumes": [{"name": "v"}],
        },
    })
}

fn errors(kind: &str, object: &Value) -> Vec<String> {
    let kind = kinds::by_alias(kind).unwrap();
    let mut object = object.clone();
    (kind.default)(&mut object);
    (kind.validate_create)(&object).iter().map(ToString::to_string).collect()
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = pod.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list.push(value),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        other => panic!("{other}"),
    }
    pod
}

#[test]
fn a_good_pod_has_no_errors_and_defaulting_is_idempotent() {
    let kind = kinds::by_alias("po").unwrap();
    assert!(errors("pods", &pod()).is_empty());
    let mut once = pod();
    (kind.default)(&mut once);
    let mut twice = once.clone();
    (kind.default)(&mut twice);
    assert_eq!(once, twice, "DEF-1");
    assert_eq!(once["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(once["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(once["spec"]["volumes"][0]["emptyDir"], json!({}));
}

#[test]
fn a_wrong_pod_is_refused_with_upstreams_words() {
    // S16, §1.7
    let c = "spec.containers[0]";
    for (pod, want) in [
        (with("/spec/containers", json!([])), vec!["spec.containers: Required value".to_owned()]),
        (with("/spec/containers/-", json!({"image": "x"})), vec!["spec.containers[1].name: Required value".to_owned()]),
        (with("/spec/containers/-", json!({"name": "a", "image": "x"})), vec!["spec.containers[1].name: Duplicate value: \"a\"".to_owned()]),
        (with("/spec/containers/0/image", json!("")), vec![format!("{c}.image: Required value")]),
        (with("/spec/containers/0/image", json!(" x")), vec![format!("{c}.image: Invalid value: \" x\": must not have leading or trailing whitespace")]),
        (with("/spec/containers/0/imagePullPolicy", json!("Sometimes")), vec![format!("{c}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"")]),
        (with("/spec/restartPolicy", json!("X")), vec!["spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"".to_owned()]),
        (with("/spec/containers/0/ports", json!([{"containerPort": 0}])), vec![format!("{c}.ports[0].containerPort: Required value")]),
        (with("/spec/containers/0/ports", json!([{"containerPort": 70000}])), vec![format!("{c}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive")]),
        (with("/spec/containers/0/ports", json!([{"containerPort": 80, "protocol": "ICMP"}])), vec![format!("{c}.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"")]),
        (with("/spec/containers/0/env", json!([{"value": "x"}])), vec![format!("{c}.env[0].name: Required value")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "w", "mountPath": "/d"}])), vec![format!("{c}.volumeMounts[0].name: Not found: \"w\"")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v"}])), vec![format!("{c}.volumeMounts[0].mountPath: Required value")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d"}, {"name": "v", "mountPath": "/d"}])), vec![format!("{c}.volumeMounts[1].mountPath: Invalid value: \"/d\": must be unique")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d", "subPath": "/etc"}])), vec![format!("{c}.volumeMounts.subPath: Invalid value: \"/etc\": must be a relative path")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d", "subPath": "a/../../etc"}])), vec![format!("{c}.volumeMounts.subPath: Invalid value: \"a/../../etc\": must not contain '..'")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d", "subPath": "..a/b.."}])), vec![]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d", "subPathExpr": "$(A)/.."}])), vec![format!("{c}.volumeMounts.subPathExpr: Invalid value: \"$(A)/..\": must not contain '..'")]),
        (with("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/d", "subPath": "a", "subPathExpr": "b"}])), vec![format!("{c}.volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive")]),
        (with("/spec/containers/0/resources", json!({"limits": {"cpu": "-1"}})), vec![format!("{c}.resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"), format!("{c}.resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0")]),
        (with("/spec/containers/0/resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})), vec![format!("{c}.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1")]),
        (with("/spec/containers/0/resources", json!({"requests": {"tpu": "2"}})), vec![format!("{c}.resources.requests[tpu]: Invalid value: \"tpu\": must be a standard resource type or fully qualified"), format!("{c}.resources.requests[tpu]: Invalid value: \"tpu\": must be a standard resource for containers")]),
        (with("/spec/containers/0/lifecycle", json!({"preStop": {}})), vec![format!("{c}.lifecycle.preStop: Required value: must specify a handler type")]),
        (with("/spec/containers/0/lifecycle", json!({"preStop": {"exec": {}}})), vec![format!("{c}.lifecycle.preStop.exec.command: Required value")]),
        (with("/spec/volumes/-", json!({"name": "v"})), vec!["spec.volumes[1].name: Duplicate value: \"v\"".to_owned()]),
        (with("/spec/volumes/-", json!({"name": "w", "emptyDir": {}, "hostPath": {"path": "/x"}})), vec!["spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type".to_owned()]),
        (with("/spec/volumes/-", json!({"name": "w", "hostPath": {"path": "/a/../b"}})), vec!["spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'".to_owned()]),
        (with("/spec/activeDeadlineSeconds", json!(0)), vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive".to_owned()]),
        (with("/spec/tolerations", json!([{"operator": "Equal"}])), vec!["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"".to_owned()]),
        (with("/spec/tolerations", json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 3, "effect": "NoSchedule"}])), vec!["spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set".to_owned()]),
        (with("/metadata/name", json!("")), vec!["metadata.name: Required value: name or generateName is required".to_owned()]),
        (with("/metadata/ownerReferences", json!([{"kind": "A", "name": "a", "uid": "u"}])), vec!["metadata.ownerReferences[0].apiVersion: Invalid value: \"\": must not be empty".to_owned()]),
    ] {
        assert_eq!(errors("pods", &pod), want);
    }
}

#[test]
fn all_errors_come_in_one_status() {
    // VAL-1, VAL-2
    let kind = kinds::by_alias("pod").unwrap();
    let mut pod = with("/spec/restartPolicy", json!("X"));
    pod["spec"]["containers"][0]["image"] = json!("");
    (kind.default)(&mut pod);
    let status = Status::invalid(kind, "p", &(kind.validate_create)(&pod));
    assert_eq!(status.code, 422);
    assert_eq!(
        status.message,
        "Pod \"p\" is invalid: [spec.containers[0].image: Required value, spec.restartPolicy: \
         Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"]"
    );
    assert_eq!(status.details["kind"], "Pod");
    assert_eq!(status.details["causes"][0]["reason"], "FieldValueRequired");
    assert_eq!(Status::from_json(&status.to_json()), Some(status));
}

#[test]
fn an_update_may_change_what_upstream_lets_it_change() {
    // UPD-2…UPD-5
    let kind = kinds::by_alias("pod").unwrap();
    let mut old = pod();
    (kind.default)(&mut old);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        (kind.validate_update)(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(changed(&|p| p["spec"]["containers"][0]["image"] = json!("other:1")).is_empty());
    assert!(changed(&|p| p["metadata"]["labels"] = json!({"a": "b"})).is_empty());
    let refused = changed(&|p| p["spec"]["nodeName"] = json!("n"));
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than")
    );
    let fewer = changed(&|p| p["spec"]["containers"].as_array_mut().unwrap().clear());
    assert!(
        fewer.iter().any(
            |e| e == "spec.containers: Forbidden: pod updates may not add or remove containers"
        )
    );
}

#[test]
fn a_field_that_a_kind_does_not_have_is_named() {
    // HTTP-2
    let kind = kinds::by_alias("pod").unwrap();
    let mut pod = with("/spec/foo", json!(1));
    pod["spec"]["containers"][0]["bar"] = json!("x");
    assert_eq!(unknown_fields(kind, &pod), ["spec.containers[0].bar", "spec.foo"]);
    assert!((kind.decode)(&with("/spec/containers", json!("x"))).is_err());
    // QTY-2: what is no amount is not understood, rather than invalid.
    let resources = json!({"limits": {"cpu": "many"}});
    assert!((kind.decode)(&with("/spec/containers/0/resources", resources)).is_err());
}

#[test]
fn other_kinds_are_checked_too() {
    let service = |spec: Value| json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec});
    assert!(errors("svc", &service(json!({"ports": [{"port": 80}]}))).is_empty());
    assert_eq!(errors("svc", &service(json!({}))), ["spec.ports: Required value"]);
    assert_eq!(
        errors("svc", &service(json!({"ports": [{"port": 0}]}))),
        ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]
    );
    let map = json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a/b": "x"}});
    assert!(
        errors("cm", &map)[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key")
    );
    assert_eq!(
        errors("ns", &json!({"metadata": {"name": "a.b"}})),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
}
