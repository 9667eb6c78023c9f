//! A Pod's object goes when nothing of it runs any more, unless somebody did not want to wait for that.

use crate::{
    evidence::{Evidence, Version},
    property::{Findings, Property},
    runs::{runs, was_given_up},
    show::Time,
};
use serde_json::Value;

pub(super) const PROPERTY: Property = Property {
    name: "a Pod is gone only once nothing of it runs, unless it was given up",
    sources: &["DEL-30", "FEN-28", "INV-4"],
    file: file!(),
    check,
};

/// Without a grace nothing is waited for (DELAPI-5).
fn has_no_grace(version: &Version<'_>) -> bool {
    let is_zero = |pointer| version.get(pointer).and_then(Value::as_i64) == Some(0);
    is_zero("/spec/terminationGracePeriodSeconds")
        || is_zero("/metadata/deletionGracePeriodSeconds")
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    if !evidence.history.settings.runtime_is_complete {
        return;
    }
    for run in runs(evidence).0 {
        let uid = run.started.pod_uid.as_str();
        let Some(pod) = evidence.objects.get(uid) else { continue };
        let Some(end) = pod.deleted() else { continue };
        findings.look();
        // When the end was first seen, it had been for a while.
        let outlived = run.started.at_ns < end.seen_ns
            && run.stopped_ns.is_none_or(|stopped_ns| stopped_ns > end.seen_ns);
        if !outlived
            || pod.versions.values().any(has_no_grace)
            || was_given_up(evidence, uid, (pod.namespace(), pod.name()))
        {
            continue;
        }
        let text = format!(
            "{} was gone at {} (revision {}), and {} still ran on {}",
            pod.label(),
            Time(end.seen_ns),
            end.revision(),
            run.started.container,
            run.started.node
        );
        findings.violated(end.seen_ns, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Record, RuntimeFact},
        testing::{container, follows, hold, life},
    };
    use serde_json::json;

    /// DEL-30
    #[test]
    fn a_pod_that_is_gone_and_runs_is_caught() {
        let pod = |grace: i64| {
            let spec = json!({"spec": {"nodeName": "n1", "terminationGracePeriodSeconds": grace}});
            [vec![follows(1, "Pod")], {
                life(1, "Pod", ("web", "u1"), &[(5, spec.clone()), (9, Value::Null)])
            }]
            .concat()
        };
        let ran = |stopped_ms: u64| -> Vec<Record> {
            vec![
                container(1, "n1", "u1", RuntimeFact::Started),
                container(stopped_ms, "n1", "u1", RuntimeFact::Stopped),
            ]
        };
        hold(
            &PROPERTY,
            vec![
                ("after its end", [pod(30), ran(2)].concat(), None),
                ("before it", [pod(30), ran(60_000)].concat(), Some("still ran on n1")),
                ("without a grace", [pod(0), ran(60_000)].concat(), None),
            ],
        );
    }
}
