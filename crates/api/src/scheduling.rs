//! Taints, tolerations and node selectors, as scheduler and kubelet both judge them.

use crate::core::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use std::collections::BTreeMap;

/// Whether one of the tolerations fits the taint.
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| fits(t, taint))
}

fn fits(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (if key.is_empty() { exists } else { key == taint.key })
        && (exists
            || toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default())
}

/// The first taint with one of these effects that is not tolerated.
#[must_use]
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints.iter().find(|t| effects.contains(&t.effect.as_str()) && !tolerates(tolerations, t))
}

/// How long a Pod may stay under a taint that evicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// Not at all.
    None,
    /// So many seconds from when the taint came.
    Seconds(i64),
    /// For good.
    Forever,
}

/// How long a Pod may stay on a node with these taints; only `NoExecute` evicts (NOD rules, FEN-22).
#[must_use]
pub fn stay(taints: &[Taint], tolerations: &[Toleration]) -> Stay {
    let evicting = taints.iter().filter(|taint| taint.effect == "NoExecute");
    evicting
        .map(|taint| {
            let fitting: Vec<_> = tolerations.iter().filter(|t| fits(t, taint)).collect();
            let seconds = fitting.iter().filter_map(|t| t.toleration_seconds).min();
            match (fitting.is_empty(), seconds) {
                (true, _) => Stay::None,
                (false, None) => Stay::Forever,
                (false, Some(seconds @ 1..)) => Stay::Seconds(seconds),
                (false, Some(_)) => Stay::None,
            }
        })
        .min()
        .unwrap_or(Stay::Forever)
}

/// The Pod's tolerations.
#[must_use]
pub fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or_default()
}

/// The node's taints.
#[must_use]
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether `nodeSelector` and the required node affinity accept the node.
#[must_use]
pub fn node_matches(spec: &PodSpec, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required
            .is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, labels, name)))
}

/// The sum of the weights of the preferred terms that accept the node. An empty term accepts all.
#[must_use]
pub fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    terms
        .into_iter()
        .flatten()
        .filter(|t| is_empty(&t.preference) || term_matches(&t.preference, labels, name))
        .map(|t| i64::from(t.weight))
        .sum()
}

fn is_empty(term: &NodeSelectorTerm) -> bool {
    let none = |list: &Option<Vec<NodeSelectorRequirement>>| list.iter().flatten().next().is_none();
    none(&term.match_expressions) && none(&term.match_fields)
}

/// Whether one term accepts a node with these labels. An empty term accepts none.
#[must_use]
pub fn term_matches(
    term: &NodeSelectorTerm,
    labels: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let field = |r: &NodeSelectorRequirement| {
        let found = (r.key == "metadata.name").then_some(name);
        requirement_matches(r, found)
    };
    let label = |r: &NodeSelectorRequirement| {
        requirement_matches(r, labels.get(&r.key).map(String::as_str))
    };
    !is_empty(term)
        && term.match_expressions.iter().flatten().all(label)
        && term.match_fields.iter().flatten().all(field)
}

fn requirement_matches(r: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|v| v == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let pair = (found.and_then(number), values.first().and_then(|v| number(v)));
    match r.operator.as_str() {
        "In" => found.is_some_and(among),
        "NotIn" => !found.is_some_and(among),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => matches!(pair, (Some(a), Some(b)) if a > b),
        "Lt" => matches!(pair, (Some(a), Some(b)) if a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_toleration_fits_by_key_value_and_effect() {
        let taint: Taint = typed(json!({"key": "k", "value": "v", "effect": "NoSchedule"}));
        for (toleration, want) in [
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "j", "operator": "Exists"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"value": "v"}), false),
        ] {
            assert_eq!(tolerates(&[typed(toleration.clone())], &taint), want, "{toleration}");
        }
        let taints = [taint];
        assert!(untolerated(&taints, &[], &["NoSchedule", "NoExecute"]).is_some());
        assert!(untolerated(&taints, &[], &["NoExecute"]).is_none());
    }

    #[test]
    fn the_shortest_toleration_tells_how_long_a_pod_stays() {
        let taints: Vec<Taint> = typed(json!([
            {"key": "a", "effect": "NoExecute"},
            {"key": "b", "effect": "NoSchedule"},
        ]));
        let exists = |key: &str, seconds: Option<i64>| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
        for (tolerations, want) in [
            (json!([]), Stay::None),
            (json!([exists("a", None)]), Stay::Forever),
            (json!([exists("a", Some(300))]), Stay::Seconds(300)),
            (json!([exists("a", None), exists("a", Some(60))]), Stay::Seconds(60)),
            (json!([exists("a", Some(0))]), Stay::None),
            (json!([exists("b", None)]), Stay::None),
        ] {
            assert_eq!(stay(&taints, &typed::<Vec<_>>(tolerations.clone())), want, "{tolerations}");
        }
        assert_eq!(stay(&taints[1..], &[]), Stay::Forever);
        assert!(Stay::None < Stay::Seconds(1) && Stay::Seconds(9) < Stay::Forever);
    }

    #[test]
    fn terms_are_alternatives_and_expressions_add_up() {
        let node: Node = typed(json!({"metadata": {"name": "n", "labels": {"z": "a", "n": "5"}}}));
        let with = |terms: Value| -> PodSpec {
            typed(json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}))
        };
        let label = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (terms, want) in [
            (json!([label("z", "In", json!(["a", "b"]))]), true),
            (json!([label("z", "NotIn", json!(["a"]))]), false),
            (json!([label("y", "NotIn", json!(["a"]))]), true),
            (json!([label("y", "DoesNotExist", json!([]))]), true),
            (json!([label("z", "Exists", json!([]))]), true),
            (json!([label("n", "Gt", json!(["4"]))]), true),
            (json!([label("n", "Lt", json!(["5"]))]), false),
            (json!([label("z", "Gt", json!(["4"]))]), false),
            (json!([label("z", "Near", json!(["a"]))]), false),
            (json!([label("z", "In", json!(["b"])), label("n", "In", json!(["5"]))]), true),
            (json!([{}]), false),
            (json!([]), false),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
                true,
            ),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]}]),
                false,
            ),
        ] {
            assert_eq!(node_matches(&with(terms.clone()), &node), want, "{terms}");
        }
        let selected = |value: &str| typed(json!({"containers": [], "nodeSelector": {"z": value}}));
        assert!(node_matches(&selected("a"), &node));
        assert!(!node_matches(&selected("b"), &node));
    }

    #[test]
    fn preferences_add_their_weights() {
        let node: Node = typed(json!({"metadata": {"name": "n", "labels": {"z": "a"}}}));
        let spec: PodSpec = typed(json!({"containers": [], "affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 3, "preference": {"matchExpressions": [{"key": "z", "operator": "Exists"}]}},
            {"weight": 5, "preference": {"matchExpressions": [{"key": "y", "operator": "Exists"}]}},
            {"weight": 7, "preference": {}},
        ]}}}));
        assert_eq!(preference(&spec, &node), 10);
        assert_eq!(preference(&PodSpec::default(), &node), 0);
    }
}
