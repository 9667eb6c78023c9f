//! A Deployment's rollout asks for no more Pods than its surge allows, and for no fewer than must be there.

use crate::{
    evidence::{Evidence, Life, Version},
    pods,
    property::{Findings, Property},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "rollouts stay within surge and availability",
    sources: &["INV-7", "FEN-17", "DEP-6"],
    file: file!(),
    check,
};

/// A number, or a share of the replicas, rounded up or down.
fn of_replicas(value: Option<&Value>, replicas: u64, up: bool) -> u64 {
    match value {
        Some(Value::Number(number)) => number.as_u64().unwrap_or_default(),
        Some(Value::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<u64>().ok());
            let all = percent.unwrap_or_default().saturating_mul(replicas);
            if up { all.div_ceil(100) } else { all / 100 }
        }
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => 0,
    }
}

fn replicas(of: &Version<'_>) -> u64 {
    of.get("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

/// The most Pods that may be asked for, and the least.
fn bounds(deployment: &Version<'_>) -> (u64, u64) {
    let wanted = replicas(deployment);
    let setting = |name: &str| deployment.get(&format!("/spec/strategy/rollingUpdate/{name}"));
    let surge = of_replicas(setting("maxSurge"), wanted, true);
    let mut unavailable = of_replicas(setting("maxUnavailable"), wanted, false);
    if surge == 0 && unavailable == 0 {
        // Otherwise nothing could ever change.
        unavailable = 1;
    }
    (wanted.saturating_add(surge), wanted.saturating_sub(unavailable))
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut sets: BTreeMap<&str, Vec<&Life<'_>>> = BTreeMap::new();
    for set in evidence.objects.of_kind("ReplicaSet") {
        let mut owners = set.versions.values().filter_map(pods::controller);
        if let Some((_, _, uid)) = owners.next() {
            sets.entry(uid).or_default().push(set);
        }
    }
    for (uid, sets) in sets {
        let Some(deployment) = evidence.objects.get(uid) else { continue };
        for set in &sets {
            let created = set.first().map(|first| (0, first));
            let changed = set.steps().map(|(one, next)| (replicas(one), next));
            for (before, version) in created.into_iter().chain(changed) {
                let Some(at) = deployment.at(version.revision()) else { continue };
                // Recreate has no rollout.
                if version.deleted || at.text("/spec/strategy/type") == "Recreate" {
                    continue;
                }
                findings.look();
                let others = sets.iter().filter_map(|set| set.at(version.revision()));
                let asked: u64 = others.map(replicas).sum();
                let (most, least) = bounds(at);
                let now = replicas(version);
                let is_wrong = now > before && asked > most || now < before && asked < least;
                if is_wrong {
                    let text = format!(
                        "{} allows {least} to {most} Pods; with {} going from {before} to {now}, \
                         {asked} are asked for",
                        at.label(),
                        version.label()
                    );
                    findings.violated(version.seen_ns, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{follows, hold, life},
    };
    use serde_json::json;

    /// INV-7, FEN-17
    #[test]
    fn a_rollout_out_of_bounds_is_caught() {
        let deployment = || {
            let rolling = json!({"maxSurge": "25%", "maxUnavailable": 1});
            let spec = json!({"replicas": 4, "strategy": {"rollingUpdate": rolling}});
            let versions = [(2, json!({"spec": spec}))];
            let watches = vec![follows(1, "Deployment"), follows(2, "ReplicaSet")];
            [watches, life(1, "Deployment", ("web", "d1"), &versions)].concat()
        };
        let set = |name: &str, versions: &[(u64, u64)]| {
            let versions: Vec<(u64, Value)> = versions
                .iter()
                .map(|(at, replicas)| {
                    let owner = json!({"kind": "Deployment", "uid": "d1", "controller": true});
                    let metadata = json!({"ownerReferences": [owner]});
                    (*at, json!({"metadata": metadata, "spec": {"replicas": replicas}}))
                })
                .collect();
            life(2, "ReplicaSet", (name, name), &versions)
        };
        let with = |sets: Vec<Vec<Record>>| [deployment(), sets.concat()].concat();
        let cases = vec![
            (
                "step by step",
                with(vec![set("old", &[(3, 4), (6, 3), (8, 2)]), set("new", &[(5, 1), (7, 2)])]),
                None,
            ),
            ("too many at once", with(vec![set("old", &[(3, 4)]), set("new", &[(5, 2)])]), {
                Some("allows 3 to 5 Pods")
            }),
            ("too few", with(vec![set("old", &[(3, 4), (6, 1)]), set("new", &[(5, 1)])]), {
                Some("2 are asked for")
            }),
        ];
        hold(&PROPERTY, cases);
    }
}
