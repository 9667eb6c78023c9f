//! The grace of a Pod's end only gets shorter, and is prolonged once at most: what remains of it when a
//! process is asked to end is raised to two seconds.

use crate::{
    evidence::Evidence,
    property::{Findings, Property},
    runs::runs,
    show::Time,
};
use serde_json::Value;

pub(super) const PROPERTY: Property = Property {
    name: "the grace of an end is prolonged once only",
    sources: &["DELAPI-1", "DEL-3", "DEL-20"],
    file: file!(),
    check,
};

/// DEL-20
const FLOOR_SECONDS: u64 = 2;

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for life in evidence.objects.all() {
        for (one, next) in life.steps().filter(|(_, next)| next.is_whole()) {
            let until = one.text("/metadata/deletionTimestamp");
            if until.is_empty() {
                continue;
            }
            findings.look();
            // Both are text of one form, which sorts by time.
            let later = next.text("/metadata/deletionTimestamp");
            let grace = |version: &crate::evidence::Version<'_>| {
                version.get("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64)
            };
            // An end that is shortened when it should long have come is near, and not at a time that is past.
            let is_near = grace(next).is_some_and(|grace| grace <= 1) && grace(next) < grace(one);
            if later > until && !is_near || grace(next) > grace(one) {
                let text = format!(
                    "{}: its end was to be at {until} (grace {:?}), and at {} at {later} (grace {:?})",
                    life.label(),
                    grace(one),
                    next.revision(),
                    grace(next)
                );
                findings.violated(next.seen_ns, text);
            }
        }
    }
    let lateness_ns = evidence.history.settings.lateness_ns;
    for run in runs(evidence).0 {
        let (Some(asked_ns), Some(pod)) =
            (run.asked_ns, evidence.objects.get(&run.started.pod_uid))
        else {
            continue;
        };
        let graces = pod.versions.values().filter_map(|version| {
            let own = version.get("/metadata/deletionGracePeriodSeconds");
            own.or_else(|| version.get("/spec/terminationGracePeriodSeconds"))?.as_u64()
        });
        let Some(grace_seconds) = graces.max() else { continue };
        // A node that is down kills nobody; then the end comes late, but nothing was granted.
        let Some(stopped_ns) = run.stopped_ns else { continue };
        findings.look();
        let limit_ns = grace_seconds.max(FLOOR_SECONDS).saturating_mul(1_000_000_000);
        let took_ns = stopped_ns.saturating_sub(asked_ns);
        if took_ns > limit_ns.saturating_add(lateness_ns) {
            let text = format!(
                "{} of {} on {} was asked to end at {} and ran on for {}; its grace is \
                 {grace_seconds} s",
                run.started.container,
                pod.label(),
                run.started.node,
                Time(asked_ns),
                Time(took_ns)
            );
            findings.violated(stopped_ns, text);
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
    use serde_json::json;

    /// DELAPI-1, DEL-20
    #[test]
    fn a_prolonged_grace_is_caught() {
        let ends = |at: &str, grace: u64| json!({"metadata": {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace}});
        let pod = |versions: &[(u64, Value)]| {
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), versions)].concat()
        };
        let (early, late) = ("2026-01-01T00:00:10Z", "2026-01-01T00:00:30Z");
        let run = |grace, took_ms: u64| -> Vec<Record> {
            [
                pod(&[(5, json!({})), (6, ends(early, grace))]),
                vec![
                    container(1, "n1", "u1", RuntimeFact::Started),
                    container(1_000, "n1", "u1", RuntimeFact::Asked),
                    container(1_000 + took_ms, "n1", "u1", RuntimeFact::Stopped),
                ],
            ]
            .concat()
        };
        let cases = vec![
            ("shortened", pod(&[(5, json!({})), (6, ends(late, 30)), (7, ends(early, 10))]), None),
            ("later", pod(&[(6, ends(early, 10)), (7, ends(late, 10))]), Some("and at 7 at 2026")),
            ("shortened too late", pod(&[(6, ends(early, 10)), (7, ends(late, 1))]), None),
            ("to nothing, too late", pod(&[(6, ends(early, 1)), (7, ends(late, 0))]), None),
            (
                "shortened and later",
                pod(&[(6, ends(early, 10)), (7, ends(late, 2))]),
                Some("and at 7 at"),
            ),
            (
                "late again",
                pod(&[(6, ends(early, 1)), (7, ends(late, 1))]),
                Some("and at 7 at 2026"),
            ),
            ("longer", pod(&[(6, ends(early, 10)), (7, ends(early, 30))]), Some("grace Some(30)")),
            ("in time", run(10, 10_500), None),
            ("the floor", run(0, 2_000), None),
            ("ran on", run(10, 20_000), Some("ran on for 20.0")),
            ("the floor again and again", run(0, 10_000), Some("its grace is 0 s")),
        ];
        hold(&PROPERTY, cases);
    }
}
