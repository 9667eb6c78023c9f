//! Two Pods of one name never run at the same time, unless somebody gave the first one up.

use crate::{
    evidence::{Evidence, Life, Version},
    property::{Findings, Property},
    runs::{Run, runs, was_given_up},
    show::Time,
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "one name, one running Pod, unless it was given up",
    sources: &["INV-4", "STS-3", "DEL-30"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    if !evidence.history.settings.runtime_is_complete {
        return;
    }
    let mut by_name: BTreeMap<(&str, &str), Vec<Run<'_>>> = BTreeMap::new();
    for run in runs(evidence).0 {
        let name = (run.started.namespace.as_str(), run.started.pod.as_str());
        by_name.entry(name).or_default().push(run);
    }
    for ((namespace, name), runs) in by_name {
        for (index, run) in runs.iter().enumerate() {
            findings.look();
            let others = runs.iter().skip(index + 1);
            let mut others = others.filter(|other| {
                other.started.pod_uid != run.started.pod_uid
                    && other.overlaps(run)
                    && !was_given_up(evidence, older(evidence, run, other), (namespace, name))
            });
            let Some(other) = others.next() else { continue };
            let describe = |run: &Run<'_>| {
                let (uid, node) = (&run.started.pod_uid, &run.started.node);
                let since = Time(run.started.at_ns);
                match run.stopped_ns {
                    Some(until) => format!("{uid} on {node} from {since} to {}", Time(until)),
                    None => format!("{uid} on {node} since {since}"),
                }
            };
            let text = format!(
                "two Pods {namespace}/{name} ran at once: {}; {}",
                describe(run),
                describe(other)
            );
            findings.violated(other.started.at_ns, text);
        }
    }
}

/// The Pod that was made first, which is not always the one that ran first: a start may take long. `first` is the
/// run that began first.
fn older<'h>(evidence: &Evidence<'h>, first: &Run<'h>, second: &Run<'h>) -> &'h str {
    let (first, second) = (first.started.pod_uid.as_str(), second.started.pod_uid.as_str());
    let made = |uid| evidence.objects.get(uid).and_then(Life::first).map(Version::revision);
    match (made(first), made(second)) {
        (Some(one), Some(other)) if other < one => second,
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{
            Body, ObjectVerb, Record,
            RuntimeFact::{Started, Stopped},
        },
        testing::{call, container, follows, hold, life},
    };
    use serde_json::{Value, json};

    /// INV-4
    #[test]
    fn two_pods_of_one_name_at_once_are_caught() {
        let first = |until: u64| {
            vec![container(1, "n1", "u1", Started), container(until, "n1", "u1", Stopped)]
        };
        let then = |more: Vec<Record>| [vec![container(5, "n2", "u2", Started)], more].concat();
        let forced = || {
            let sent = json!({"gracePeriodSeconds": 0});
            call(1, (2, 3), ObjectVerb::Delete, ("Pod", "web"), sent, (0, Body::Done))
        };
        let node_gone = || {
            let pod = [(1, json!({"spec": {"nodeName": "n1"}}))];
            let node = [(2, json!({})), (3, Value::Null)];
            [
                vec![follows(1, "Pod"), follows(2, "Node")],
                life(1, "Pod", ("web", "u1"), &pod),
                life(2, "Node", ("n1", "n"), &node),
            ]
            .concat()
        };
        // The first Pod, which has no grace, was gone before its start was over.
        let late = |grace: i64| {
            let spec = json!({"spec": {"nodeName": "n1", "terminationGracePeriodSeconds": grace}});
            [
                vec![follows(1, "Pod")],
                life(1, "Pod", ("web", "u1"), &[(1, spec.clone()), (4, Value::Null)]),
                life(2, "Pod", ("web", "u2"), &[(5, spec)]),
                vec![container(5, "n1", "u2", Started), container(7, "n1", "u1", Started)],
                vec![container(7, "n1", "u1", Stopped)],
            ]
            .concat()
        };
        let cases = vec![
            ("a late start of what was given up", late(0), None),
            ("a late start", late(30), Some("two Pods default/web ran at once: u2 on n1")),
            ("one after the other", then(first(4)), None),
            ("at once", then(first(9)), Some("two Pods default/web ran at once: u1 on n1")),
            ("at once, by force", then([first(9), vec![forced()]].concat()), None),
            ("at once, its node gone", then([first(9), node_gone()].concat()), None),
        ];
        hold(&PROPERTY, cases);
    }
}
