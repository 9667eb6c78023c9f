//! The older form, from Pods to subsets.

use super::*;
use serde_json::{Value, json};

fn service(spec: &Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s1"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn pod(i: usize, ready: bool, ending: bool, port: i32) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    let mut object = json!({
        "metadata": {"name": format!("p{i}"), "namespace": "default", "uid": format!("u{i}"),
                     "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", i / 250, i % 250),
                   "conditions": [{"type": "Ready", "status": ready}]},
    });
    if ending {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

/// `ports: ready addresses / not ready ones` of each subset.
fn shown(endpoints: &Endpoints) -> Vec<String> {
    let list = |addresses: &Option<Vec<EndpointAddress>>| {
        addresses.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(",")
    };
    let subset = |s: &EndpointSubset| {
        let ports: Vec<String> = s.ports.iter().flatten().map(|p| p.port.to_string()).collect();
        let (ready, not_ready) = (list(&s.addresses), list(&s.not_ready_addresses));
        format!("{}: {ready} / {not_ready}", ports.join(","))
    };
    endpoints.subsets.iter().flatten().map(subset).collect()
}

#[test]
fn addresses_are_grouped_by_ports_and_leave_with_the_deletion() {
    // EPS-9, DEL-40
    let pods = || {
        vec![
            pod(1, true, false, 8000),
            pod(2, false, false, 8000),
            pod(3, true, true, 8000),
            pod(4, true, false, 8001),
        ]
    };
    for (name, spec, want) in [
        ("usual", json!({}), vec!["8000: 10.0.0.1 / 10.0.0.2", "8001: 10.0.0.4 / "]),
        (
            "published all the same",
            json!({"publishNotReadyAddresses": true}),
            vec!["8000: 10.0.0.1,10.0.0.2,10.0.0.3 / ", "8001: 10.0.0.4 / "],
        ),
        (
            "headless without ports",
            json!({"clusterIP": "None", "ports": null}),
            vec![": 10.0.0.1,10.0.0.4 / 10.0.0.2"],
        ),
        ("no Pod has the port", json!({"ports": [{"port": 80, "targetPort": "grpc"}]}), vec![]),
    ] {
        let made = plan(&service(&spec), pods(), None).unwrap();
        assert_eq!(shown(&made), want, "{name}");
        assert_eq!(plan(&service(&spec), pods(), Some(&made)), None, "{name}: nothing to do again");
    }
}

#[test]
fn more_than_a_thousand_are_cut_and_said_to_be() {
    // EPS-9: those that are ready stay.
    let pods = |n| (0..n).map(|i| pod(i, i != 0, false, 8000)).collect();
    let made = plan(&service(&json!({})), pods(1001), None).unwrap();
    let subset = &made.subsets.as_ref().unwrap()[0];
    assert_eq!(
        (subset.addresses.as_ref().unwrap().len(), &subset.not_ready_addresses),
        (1000, &None)
    );
    assert_eq!(made.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
    let fewer = plan(&service(&json!({})), pods(3), Some(&made)).unwrap();
    assert_eq!(fewer.metadata.annotations, None);
}
