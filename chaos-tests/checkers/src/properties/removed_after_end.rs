//! A Pod's object goes when nothing of it runs any more, unless somebody did not want to wait for that.

use crate::{
    evidence::Evidence,
    pods,
    property::{Findings, Property},
    runs::{runs, was_given_up},
    show::Time,
};

pub(super) const PROPERTY: Property = Property {
    name: "a Pod is gone only once it is shown to have ended, unless it was given up",
    sources: &["DEL-30", "FEN-28", "INV-4"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    shown(evidence, findings);
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
        if !outlived || was_given_up(evidence, uid, (pod.namespace(), pod.name())) {
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

/// Whose node has taken it on is gone only after the API has shown that it has ended: of a deletion the content is
/// that of the version before.
fn shown(evidence: &Evidence<'_>, findings: &mut Findings) {
    for pod in evidence.objects.of_kind("Pod") {
        let Some(end) = pod.deleted().filter(|end| end.is_whole()) else { continue };
        if pods::node(end).is_empty() {
            continue;
        }
        findings.look();
        if !pods::is_terminal(end)
            && !was_given_up(evidence, pod.uid, (pod.namespace(), pod.name()))
        {
            let (label, at, phase) = (pod.label(), end.revision(), pods::phase(end));
            let text = format!("{label} was gone at {at} in phase {phase:?}, bound to its node");
            findings.violated(end.seen_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Record, RuntimeFact},
        testing::{container, follows, hold, life},
    };
    use serde_json::{Value, json};

    /// DEL-30
    #[test]
    fn a_pod_that_is_gone_and_runs_is_caught() {
        let with = |grace: i64, phase: &str| {
            let pod = json!({
                "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": grace},
                "status": {"phase": phase},
            });
            let versions = [(5, pod), (9, Value::Null)];
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), &versions)].concat()
        };
        let pod = |grace| with(grace, "Failed");
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
                (
                    "before the API shows its end",
                    with(30, "Running"),
                    Some("was gone at 9 in phase \"Running\""),
                ),
            ],
        );
    }
}
