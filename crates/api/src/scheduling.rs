//! Taints, tolerations and node selectors, as scheduler and kubelet both judge them.

use crate::core::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use std::collections::BTreeMap;

/// Whether one of the tolerations fits the taint.
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        let exists = t.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (if key.is_empty() { exists } else { key == taint.key })
            && (exists
                || t.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default())
    })
}

/// The Pod's tolerations.
#[must_use]
pub fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or_default()
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

/// Whether one term accepts a node with these labels. An empty term accepts none.
#[must_use]
pub fn term_matches(
    term: &NodeSelectorTerm,
    labels: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_name = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|e| requirement_matches(e, labels))
        && fields.iter().all(|f| requirement_matches(f, &by_name))
}

fn requirement_matches(r: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let found = labels.get(&r.key);
    let number = |text: &String| text.parse::<i64>().ok();
    let pair = (found.and_then(number), values.first().and_then(number));
    match r.operator.as_str() {
        "In" => found.is_some_and(|v| values.contains(v)),
        "NotIn" => !found.is_some_and(|v| values.contains(v)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => matches!(pair, (Some(a), Some(b)) if a > b),
        "Lt" => matches!(pair, (Some(a), Some(b)) if a < b),
        _ => false,
    }
}
