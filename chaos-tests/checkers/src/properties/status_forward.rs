//! What an object has reached it does not leave: a Pod's end, a mark of deletion, counters.

use crate::{
    evidence::{Evidence, Version},
    pods,
    property::{Findings, Property},
};
use serde_json::Value;

pub(super) const PROPERTY: Property = Property {
    name: "status never goes backwards",
    sources: &["FEN-27", "NOD-22", "DELAPI-1", "CTL-8"],
    file: file!(),
    check,
};

/// Numbers that only rise.
const COUNTERS: &[&str] = &["/metadata/generation", "/status/observedGeneration"];
/// What is written once.
const FIXED: &[&str] = &["/metadata/creationTimestamp", "/metadata/uid", "/status/startTime"];

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for life in evidence.objects.all() {
        for (one, next) in life.steps() {
            // Of a deletion the content is that of the version before.
            if !one.is_whole() || !next.is_whole() || next.deleted {
                continue;
            }
            findings.look();
            let mut back = backwards(one, next);
            if life.kind() == "Pod" {
                back.extend(pod_backwards(one, next));
            }
            for what in back {
                let (label, from, to) = (life.label(), one.revision(), next.revision());
                findings.violated(next.seen_ns, format!("{label} from {from} to {to}: {what}"));
            }
        }
    }
}

fn backwards(one: &Version<'_>, next: &Version<'_>) -> Vec<String> {
    let mut back = Vec::new();
    if pods::is_terminating(one) && !pods::is_terminating(next) {
        back.push("the mark of its deletion is gone".to_owned());
    }
    for counter in COUNTERS {
        let number = |version: &Version<'_>| version.get(counter).and_then(Value::as_u64);
        if number(next).unwrap_or_default() < number(one).unwrap_or_default() {
            back.push(format!("{counter} goes from {:?} to {:?}", number(one), number(next)));
        }
    }
    for fixed in FIXED {
        let (before, after) = (one.text(fixed), next.text(fixed));
        if !before.is_empty() && before != after {
            back.push(format!("{fixed} changes from {before:?} to {after:?}"));
        }
    }
    back
}

fn pod_backwards(one: &Version<'_>, next: &Version<'_>) -> Vec<String> {
    let mut back = Vec::new();
    let (before, after) = (pods::phase(one), pods::phase(next));
    let rank = |phase: &str| match phase {
        "" | "Pending" | "Unknown" => 0,
        "Running" => 1,
        _ => 2,
    };
    if rank(after) < rank(before) && after != "Unknown" || rank(before) == 2 && before != after {
        back.push(format!("phase goes from {before} to {after}"));
    }
    let containers = |version: &Version<'_>| {
        let statuses = version.get("/status/containerStatuses").and_then(Value::as_array);
        let counts = statuses.into_iter().flatten().map(|status| {
            let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or_default();
            (pods::text(status, "name").to_owned(), restarts)
        });
        counts.collect::<Vec<_>>()
    };
    let before = containers(one);
    for (name, restarts) in containers(next) {
        let known = before.iter().find(|(known, _)| *known == name);
        if let Some((_, known)) = known.filter(|(_, known)| *known > restarts) {
            back.push(format!("restarts of {name} go from {known} to {restarts}"));
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{follows, hold, life};
    use serde_json::json;

    /// FEN-27
    #[test]
    fn a_status_that_goes_back_is_caught() {
        let phase = |phase: &str| json!({"status": {"phase": phase}});
        let restarts = |count: u64| json!({"status": {"containerStatuses": [{"name": "main", "restartCount": count}]}});
        let marked = || json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let started = |at: &str| json!({"status": {"startTime": at}});
        let pod = |one: Value, next: Value| {
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), &[(5, one), (6, next)])]
                .concat()
        };
        let generation = |n: u64| json!({"metadata": {"generation": n}});
        let gone = || life(1, "Pod", ("web", "u1"), &[(7, Value::Null)]);
        let cases = vec![
            ("forward", pod(phase("Pending"), phase("Running")), None),
            ("to its end", pod(phase("Running"), phase("Failed")), None),
            ("deleted", [pod(phase("Pending"), phase("Running")), gone()].concat(), None),
            (
                "begins again",
                pod(phase("Running"), phase("Pending")),
                Some("from Running to Pending"),
            ),
            ("rises from its end", pod(phase("Succeeded"), phase("Running")), Some("to Running")),
            ("another end", pod(phase("Succeeded"), phase("Failed")), Some("Succeeded to Failed")),
            (
                "fewer restarts",
                pod(restarts(3), restarts(2)),
                Some("restarts of main go from 3 to 2"),
            ),
            (
                "no longer marked",
                pod(marked(), json!({})),
                Some("the mark of its deletion is gone"),
            ),
            (
                "an older generation",
                pod(generation(3), generation(2)),
                Some("/metadata/generation"),
            ),
            (
                "started anew",
                pod(started("2026-01-01T00:00:00Z"), started("2026-01-01T00:00:05Z")),
                Some("/status/startTime"),
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
