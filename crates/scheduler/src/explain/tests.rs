//! Explanations and remedies against the decision itself.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn node(name: &str, cpu: &str, spec: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"zone": name, "disk": "hdd"}}, "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "3"}},
    }))
    .unwrap()
}

fn pod(name: &str, cpu: &str, memory: &str, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn on(node: &str, name: &str, cpu: &str) -> Pod {
    pod(name, cpu, "1Gi", json!({"nodeName": node}))
}

fn taint(key: &str) -> Value {
    json!({"taints": [{"key": key, "value": "v", "effect": "NoSchedule"}]})
}

#[test]
fn every_filter_is_asked_and_not_only_the_first_that_refuses() {
    let spec = json!({"unschedulable": true, "taints": [
        {"key": "k", "effect": "NoExecute"}, {"key": CORDON, "effect": "NoSchedule"}]});
    let holder = pod(
        "holder",
        "1",
        "1Gi",
        json!({"nodeName": "n", "containers": [{
        "name": "a", "ports": [{"containerPort": 80, "hostPort": 80}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}),
    );
    let world = World::new([node("n", "2", spec)], [holder]);
    let wanting = pod(
        "p",
        "1500m",
        "16Gi",
        json!({
        "nodeSelector": {"disk": "ssd"},
        "containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}],
                        "resources": {"requests": {"cpu": "1500m", "memory": "16Gi"}}}]}),
    );
    let verdicts = world.verdicts(&wanting);
    let gi = 1 << 30;
    let room = |resource: &str, asked, left, total| Refusal::Room {
        resource: resource.to_owned(),
        asked,
        left,
        total,
    };
    let k = Taint { key: "k".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
    assert_eq!(
        verdicts[0].refusals,
        [
            Refusal::Cordoned,
            Refusal::Taint(k),
            Refusal::Selector {
                key: "disk".to_owned(),
                wanted: "ssd".to_owned(),
                found: Some("hdd".to_owned())
            },
            Refusal::Port {
                protocol: "TCP".to_owned(),
                number: 80,
                holders: vec!["holder".to_owned()]
            },
            room("cpu", 1500, 1000, 2000),
            room("memory", 16 * gi, 7 * gi, 8 * gi),
        ]
    );
}

fn first(world: &World, pod: &Pod) -> Remedy {
    let verdicts = world.verdicts(pod);
    world.remedies(pod, &verdicts).into_iter().next().unwrap()
}

#[test]
fn the_nearest_remedy_is_the_least_that_works() {
    let world = World::new(
        [node("a", "4", json!({"unschedulable": true})), node("b", "2", json!({}))],
        [on("b", "x", "1")],
    );
    let remedy = first(&world, &pod("p", "1500m", "1Gi", json!({})));
    assert_eq!(
        remedy,
        Remedy {
            changes: vec![Change::Uncordon("a".to_owned())],
            nodes: vec!["a".to_owned()],
            alike: vec![],
        }
    );

    let world = World::new([node("b", "2", json!({}))], [on("b", "x", "1")]);
    let remedy = first(&world, &pod("p", "1500m", "1Gi", json!({})));
    let lower = Change::Lower {
        container: "a".to_owned(),
        resource: "cpu".to_owned(),
        from: 1500,
        to: 1000,
    };
    let nodes = vec!["b".to_owned()];
    assert_eq!(remedy, Remedy { changes: vec![lower], nodes, alike: vec![] });

    let tainted = [node("a", "2", taint("k")), node("b", "2", taint("k"))];
    let remedy = first(&World::new(tainted, []), &pod("p", "1", "1Gi", json!({})));
    assert!(matches!(&remedy.changes[..], [Change::Tolerate(t)] if t.key == "k"), "{remedy:?}");
    assert_eq!(remedy.nodes, ["a", "b"], "one toleration for all nodes");
}

#[test]
fn what_no_change_of_the_pod_can_help_is_looked_for_at_the_nodes() {
    let ill =
        json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]});
    let remedy = first(&World::new([node("a", "2", ill)], []), &pod("p", "1", "1Gi", json!({})));
    assert!(matches!(&remedy.changes[..], [Change::Heal(n, _)] if n == "a"), "{remedy:?}");

    // Full: the least important Pod that is enough.
    let mut low = on("a", "low", "1");
    low.spec.as_mut().unwrap().priority = Some(-5);
    let world = World::new([node("a", "2", json!({}))], [on("a", "high", "1"), low]);
    let verdicts = world.verdicts(&pod("p", "1", "1Gi", json!({})));
    let remedies = world.remedies(&pod("p", "1", "1Gi", json!({})), &verdicts);
    assert_eq!(remedies[0].changes, [Change::Remove("low".to_owned())]);
    assert_eq!(remedies[1].changes, [Change::Add("a".to_owned())], "{remedies:?}");

    // Too large for any node: nothing but asking for less.
    let world = World::new([node("a", "2", json!({}))], []);
    let giant = pod("p", "64", "1Gi", json!({}));
    let remedies = world.remedies(&giant, &world.verdicts(&giant));
    assert!(
        matches!(&remedies[..], [Remedy { changes, .. }]
        if matches!(&changes[..], [Change::Lower { to: 2000, .. }])),
        "{remedies:?}"
    );
}

#[test]
fn the_same_on_several_nodes_is_told_once_and_nothing_superfluous() {
    let cordoned = |name: &str| node(name, "2", json!({"unschedulable": true}));
    let world =
        World::new([cordoned("a"), cordoned("b"), cordoned("c"), node("d", "1", json!({}))], []);
    let wanting = pod("p", "2", "1Gi", json!({}));
    let remedies = world.remedies(&wanting, &world.verdicts(&wanting));
    assert_eq!(remedies[0].changes, [Change::Uncordon("a".to_owned())]);
    assert_eq!(
        (&remedies[0].nodes, &remedies[0].alike),
        (&vec!["a".to_owned()], &vec!["b".to_owned(), "c".to_owned()])
    );
    let uncordons = remedies.iter().flat_map(|r| &r.changes);
    assert_eq!(uncordons.filter(|c| matches!(c, Change::Uncordon(_))).count(), 1, "{remedies:?}");
}

#[test]
fn an_affinity_is_told_by_what_of_it_fails_and_answered_by_a_label() {
    let term = |key: &str, value: &str| {
        json!({"matchExpressions": [
        {"key": key, "operator": "In", "values": [value]}, {"key": "zone", "operator": "Exists"}]})
    };
    let picky = pod(
        "p",
        "1",
        "1Gi",
        json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [term("disk", "ssd"), term("gpu", "yes")]}}}}),
    );
    let world = World::new([node("a", "2", json!({}))], []);
    let verdicts = world.verdicts(&picky);
    let told = ["disk in (ssd)".to_owned(), "gpu in (yes)".to_owned()];
    assert_eq!(verdicts[0].refusals, [Refusal::Affinity(told.to_vec())]);
    let remedies = world.remedies(&picky, &verdicts);
    let label =
        Change::Label { node: "a".to_owned(), key: "disk".to_owned(), value: "ssd".to_owned() };
    assert!(remedies.iter().any(|remedy| remedy.changes == [label.clone()]), "{remedies:?}");
}

fn a_node() -> impl Strategy<Value = Node> {
    let taint = prop_oneof![
        4 => Just(json!([])),
        1 => Just(json!([{"key": "k", "effect": "NoSchedule"}])),
        1 => Just(json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}])),
        1 => Just(json!([{"key": "soft", "effect": "PreferNoSchedule"}])),
    ];
    (0..4u32, 1..5u32, taint, proptest::bool::weighted(0.2)).prop_map(
        |(name, cpu, taints, cordoned)| {
            node(
                &format!("n{name}"),
                &cpu.to_string(),
                json!({"taints": taints, "unschedulable": cordoned}),
            )
        },
    )
}

fn a_pod(name: String) -> impl Strategy<Value = Pod> {
    let place = prop_oneof![
        Just(json!({})),
        Just(json!({"nodeSelector": {"zone": "n1"}})),
        Just(json!({"nodeSelector": {"zone": "elsewhere"}})),
        Just(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})),
        Just(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["ssd"]}]}]}}}})
        ),
    ];
    (place, 1..30i64, 1..10i64, 0..3i32).prop_map(move |(place, tenths, memory, port)| {
        let mut pod = pod(&name, &format!("{}m", tenths * 100), &format!("{memory}Gi"), place);
        if port > 0 {
            let port = json!([{"containerPort": 80, "hostPort": port}]);
            pod.spec.as_mut().unwrap().containers[0].ports = serde_json::from_value(port).unwrap();
        }
        pod
    })
}

proptest! {
    #[test]
    fn an_explanation_never_disagrees_with_the_decision(
        nodes in proptest::collection::vec(a_node(), 0..4),
        bound in proptest::collection::vec((a_pod("other".to_owned()), 0..4), 0..8),
        pod in a_pod("p".to_owned()),
    ) {
        let bound = bound.into_iter().enumerate().map(|(i, (mut pod, node))| {
            pod.metadata.uid = Some(format!("u{i}"));
            pod.spec.as_mut().unwrap().node_name = Some(format!("n{node}"));
            pod
        });
        let world = World::new(nodes, bound);
        let verdicts = world.verdicts(&pod);
        match schedule(&world.cache(), &pod) {
            Ok(node) => {
                let taken = verdicts.iter().find(|verdict| verdict.node == node).unwrap();
                prop_assert_eq!(&taken.refusals, &vec![]);
            }
            Err(error) => {
                prop_assert_eq!(error.nodes, verdicts.len());
                prop_assert!(verdicts.iter().all(|verdict| !verdict.refusals.is_empty()));
            }
        }
        for verdict in &verdicts {
            let alone = schedule(&world.only(&verdict.node), &pod);
            prop_assert_eq!(alone.is_ok(), verdict.refusals.is_empty(), "{:?}", verdict);
        }
        // Every remedy, carried out on all of it, has the Pod taken where it says.
        for remedy in world.remedies(&pod, &verdicts) {
            if let [Change::Add(_)] = remedy.changes[..] {
                continue;
            }
            prop_assert!(!remedy.nodes.is_empty());
            for node in &remedy.nodes {
                let (mut cache, mut changed) = (world.cache(), pod.clone());
                for change in &remedy.changes {
                    apply(change, &mut cache, &mut changed);
                }
                let refused = refusals(&cache, node, &changed);
                prop_assert_eq!(refused, vec![], "{:?}", remedy);
                prop_assert!(schedule(&cache, &changed).is_ok());
            }
        }
    }
}
