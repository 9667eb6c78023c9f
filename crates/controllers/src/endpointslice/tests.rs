//! Plans as tables: Pods in, writes out.

use super::*;
use serde_json::{Value, json};

fn service(spec: &Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s1"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}],
                 "ipFamilies": ["IPv4"]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn pod_value(i: usize) -> Value {
    json!({
        "metadata": {"name": format!("p{i:03}"), "namespace": "default", "uid": format!("u{i}"),
                     "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 8000}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", i / 250, i % 250 + 1),
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn pod(object: Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(object).unwrap())
}

fn pods(numbers: impl IntoIterator<Item = usize>) -> Vec<Arc<Pod>> {
    numbers.into_iter().map(|i| pod(pod_value(i))).collect()
}

fn node(name: &str) -> Option<Arc<Node>> {
    let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}});
    (name == "n").then(|| Arc::new(serde_json::from_value(node).unwrap()))
}

/// Carries a plan out; how many creates, updates and deletes it was.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for action in actions {
        match action {
            Action::Create(slice) => {
                counts.0 += 1;
                slices.push(Arc::new(slice));
            }
            Action::Update(slice) => {
                counts.1 += 1;
                let old = slices.iter_mut().find(|s| s.metadata.name == slice.metadata.name);
                *old.unwrap() = Arc::new(slice);
            }
            Action::Delete(slice) => {
                counts.2 += 1;
                slices.retain(|s| s.metadata.name != slice.metadata.name);
            }
        }
    }
    counts
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    let mut sizes: Vec<usize> = slices.iter().map(|s| listed(s).len()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn an_endpoint_says_of_its_pod_what_is_true_of_it() {
    // EPS-1, EPS-2, EPS-8, DEL-40, tests (a), (c), (d)
    let gone = json!("2026-01-01T00:00:00Z");
    let not_ready = json!([{"type": "Ready", "status": "False"}]);
    let publishes = json!({"publishNotReadyAddresses": true});
    for (name, spec, changes, want) in [
        ("ready", json!({}), vec![], Some([true, true, false])),
        ("not ready", json!({}), vec![("/status/conditions", not_ready.clone())], Some([false; 3])),
        (
            "terminating, still serving",
            json!({}),
            vec![("/metadata/deletionTimestamp", gone.clone())],
            Some([false, true, true]),
        ),
        (
            "terminating, no longer serving",
            json!({}),
            vec![("/metadata/deletionTimestamp", gone.clone()), ("/status/conditions", not_ready)],
            Some([false, false, true]),
        ),
        (
            "terminating, published all the same",
            publishes.clone(),
            vec![("/metadata/deletionTimestamp", gone)],
            Some([true, true, true]),
        ),
        ("failed without deletion", json!({}), vec![("/status/phase", json!("Failed"))], None),
        ("succeeded", json!({}), vec![("/status/phase", json!("Succeeded"))], None),
        ("without an address", json!({}), vec![("/status/podIP", Value::Null)], None),
        ("other labels", json!({}), vec![("/metadata/labels", json!({"app": "db"}))], None),
        ("node is gone", json!({}), vec![("/spec/nodeName", json!("m"))], None),
        (
            "node is gone, published all the same",
            publishes,
            vec![("/spec/nodeName", json!("m"))],
            Some([true, true, false]),
        ),
    ] {
        let mut object = pod_value(1);
        for (path, value) in changes {
            let (parent, field) = path.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value;
        }
        let actions = plan(&service(&spec), vec![pod(object)], &node, &[]);
        let [Action::Create(slice)] = actions.as_slice() else { panic!("{name}: {actions:?}") };
        let found = listed(slice).first().map(|e| {
            let c = e.conditions.clone().unwrap();
            [c.ready, c.serving, c.terminating].map(Option::unwrap)
        });
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn a_slice_carries_labels_owner_ports_and_where_its_pods_are() {
    // EPS-2, EPS-3
    let mut service = service(&json!({"clusterIP": "None"}));
    service.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    let mut object = pod_value(1);
    object["spec"]["hostname"] = json!("first");
    object["spec"]["subdomain"] = json!("web");
    let actions = plan(&service, vec![pod(object)], &node, &[]);
    let [Action::Create(slice)] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(slice.metadata.name.as_ref().unwrap().starts_with("web-"));
    let labels = serde_json::to_value(slice.metadata.labels.as_ref().unwrap()).unwrap();
    let want = json!({
        "team": "a", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    assert_eq!(labels, want);
    assert!(is_owned(&service, slice));
    let ports = serde_json::to_value(slice.ports.as_ref().unwrap()).unwrap();
    assert_eq!(ports, json!([{"name": "", "protocol": "TCP", "port": 8080}]));
    let endpoint = serde_json::to_value(&listed(slice)[0]).unwrap();
    let want = json!({
        "addresses": ["10.0.0.2"], "hostname": "first", "nodeName": "n", "zone": "z",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "p001", "uid": "u1"},
    });
    assert_eq!(endpoint, want);
}

#[test]
fn a_named_port_is_what_each_pod_calls_so() {
    // EPS-3: another number, another slice; without the name, without the port.
    let named = service(&json!({"ports": [
        {"name": "h", "port": 80, "targetPort": "http"}, {"name": "n", "port": 81, "targetPort": 9}]}));
    let mut other = pod_value(2);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(8001);
    let mut lacks = pod_value(3);
    lacks["spec"]["containers"][0]["ports"] = json!([]);
    let pods = vec![pod(pod_value(1)), pod(other), pod(lacks)];
    let mut slices = Vec::new();
    apply(&mut slices, plan(&named, pods, &node, &[]));
    let mut found: Vec<(Vec<i32>, String)> = slices
        .iter()
        .map(|s| {
            let ports = s.ports.iter().flatten().filter_map(|p| p.port).collect();
            let target = listed(s)[0].target_ref.clone().unwrap();
            (ports, target.name.unwrap())
        })
        .collect();
    found.sort();
    let want = [(vec![9], "p003"), (vec![8000, 9], "p001"), (vec![8001, 9], "p002")];
    assert_eq!(found, want.map(|(ports, name)| (ports, name.to_owned())));
}

#[test]
fn packing_touches_as_few_slices_as_can_be() {
    // EPS-4, test (b)
    let service = service(&json!({}));
    let mut slices = Vec::new();
    let mut step = |numbers: Vec<usize>| {
        let actions = plan(&service, pods(numbers.clone()), &node, &slices);
        let counts = apply(&mut slices, actions);
        let again = plan(&service, pods(numbers), &node, &slices);
        assert_eq!(again, [], "what was done is not done again");
        (counts, sizes(&slices))
    };
    assert_eq!(step((0..250).collect()), ((3, 0, 0), vec![50, 100, 100]), "three slices");
    assert_eq!(step((0..249).collect()), ((0, 1, 0), vec![49, 100, 100]), "one fewer");
    assert_eq!(step((0..260).collect()), ((0, 1, 0), vec![60, 100, 100]), "into the best fit");
    let without: Vec<usize> = (0..260).filter(|i| *i != 7).chain([300]).collect();
    assert_eq!(step(without), ((0, 1, 0), vec![60, 100, 100]), "into what is written anyway");
    assert_eq!(step((0..200).collect()).1, vec![100, 100]);
    assert_eq!(step((40..150).collect()).1, vec![50, 60], "never joined for its own sake");
    assert_eq!(step(vec![5]), ((0, 1, 1), vec![1]), "an emptied one goes");
    assert_eq!(step(vec![]), ((0, 1, 0), vec![0]), "one is kept that says: none");
    assert_eq!(step(vec![1]), ((0, 1, 0), vec![1]), "and is used again");
}

#[test]
fn slices_of_a_namesake_that_is_gone_are_deleted_and_never_reused() {
    // EPS-5
    let old = service(&json!({}));
    let mut slices = Vec::new();
    apply(&mut slices, plan(&old, pods([1]), &node, &[]));
    let mut new = service(&json!({}));
    new.metadata.uid = Some("s2".to_owned());
    let actions = plan(&new, pods([1]), &node, &slices);
    assert!(matches!(actions.as_slice(), [Action::Create(_), Action::Delete(_)]), "{actions:?}");
    assert_eq!(apply(&mut slices, actions), (1, 0, 1));
    assert!(is_owned(&new, &slices[0]));
}

#[test]
fn some_services_are_not_ours_and_some_get_nothing_new() {
    // EPS-1, EPS-5
    for (name, spec) in [
        ("without a selector", json!({"selector": null})),
        ("of an empty selector", json!({"selector": {}})),
        ("a name elsewhere", json!({"type": "ExternalName", "externalName": "example.com"})),
    ] {
        assert_eq!(plan(&service(&spec), pods([1]), &node, &[]), [], "{name}");
    }
    let mut ending = service(&json!({}));
    ending.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(plan(&ending, pods([1]), &node, &[]), [], "no creates for what is on its way out");
}

#[test]
fn a_change_of_ports_or_labels_rewrites_what_is_there() {
    // EPS-5: an update, not one gone and one new.
    let mut slices = Vec::new();
    apply(&mut slices, plan(&service(&json!({})), pods([1, 2]), &node, &[]));
    let moved = service(&json!({"ports": [{"port": 80, "targetPort": 9090}]}));
    let actions = plan(&moved, pods([1, 2]), &node, &slices);
    assert_eq!(apply(&mut slices, actions), (0, 1, 0));
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(9090));
    let mut labelled = moved;
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let actions = plan(&labelled, pods([1, 2]), &node, &slices);
    assert_eq!(apply(&mut slices, actions), (0, 1, 0));
    assert_eq!(slices[0].metadata.labels.as_ref().unwrap()["a"], "b");
}
