//! A Service sends nobody to a Pod that is on its way out: its endpoint is not ready from then on.

use crate::{
    evidence::{Evidence, Life, Version},
    history::Mark,
    pods,
    property::{Findings, Property},
    show::Time,
};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const PROPERTY: Property = Property {
    name: "endpoints never serve a terminating Pod as ready",
    sources: &["DEL-40", "EPS-2", "FEN-20"],
    file: file!(),
    check,
};

/// Uids of Pods that a slice says are ready; absent means ready.
fn ready<'h>(slice: &Version<'h>) -> BTreeSet<&'h str> {
    let endpoints = slice.get("/endpoints").and_then(Value::as_array).into_iter().flatten();
    let ready = endpoints.filter(|endpoint| {
        endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
    });
    ready.filter_map(|endpoint| endpoint.pointer("/targetRef/uid")?.as_str()).collect()
}

/// Whether its Service wants Pods that are not ready, too.
fn wants_all(evidence: &Evidence<'_>, slice: &Life<'_>) -> bool {
    let service = slice.versions.values().find_map(|version| {
        version.get("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str)
    });
    let services = evidence.objects.of_kind("Service");
    let mut named = services
        .filter(|life| life.namespace() == slice.namespace() && Some(life.name()) == service);
    named.any(|service| {
        service.versions.values().any(|version| {
            version.get("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true))
        })
    })
}

/// The first version of a Pod that is on its way out, or gone.
fn leaving<'e, 'h>(evidence: &'e Evidence<'h>, uid: &str) -> Option<&'e Version<'h>> {
    let pod = evidence.objects.get(uid)?;
    pod.versions.values().find(|version| version.deleted || pods::is_terminating(version))
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let lateness_ns = evidence.history.settings.lateness_ns;
    let ended_ns = evidence.marks.iter().filter_map(|mark| match mark {
        Mark::FinalObjects { at_ns, .. } => Some(*at_ns),
        Mark::Fault { .. }
        | Mark::Healed { .. }
        | Mark::Awaited { .. }
        | Mark::FinalKeys { .. } => None,
    });
    let ended_ns = ended_ns.max();
    for life in evidence.objects.of_kind("EndpointSlice") {
        if wants_all(evidence, life) {
            continue;
        }
        let mut before: Option<(&Version<'_>, BTreeSet<&str>)> = None;
        for slice in life.versions.values().filter(|version| !version.deleted) {
            let ready = ready(slice);
            for uid in &ready {
                findings.look();
                let Some(pod) = leaving(evidence, uid) else { continue };
                if pod.revision() >= slice.revision() {
                    continue;
                }
                // A controller may be a little behind; it must not turn back, and must catch up.
                let turned = before.as_ref().is_some_and(|(earlier, was)| {
                    earlier.revision() > pod.revision() && !was.contains(uid)
                });
                let late = slice.seen_ns > pod.seen_ns.saturating_add(lateness_ns);
                if turned || late {
                    let text = format!(
                        "{} (seen at {}) says that {uid} is ready, which is on its way out since \
                         {} (seen at {})",
                        slice.label(),
                        Time(slice.seen_ns),
                        pod.label(),
                        Time(pod.seen_ns)
                    );
                    findings.violated(slice.seen_ns, text);
                }
            }
            before = Some((slice, ready));
        }
        let (Some(last), Some(ended_ns)) = (life.last(), ended_ns) else { continue };
        if last.deleted {
            continue;
        }
        let since_ns = evidence.healed_ns().unwrap_or_default();
        for uid in ready(last) {
            let Some(pod) = leaving(evidence, uid) else { continue };
            if ended_ns > pod.seen_ns.max(since_ns).saturating_add(lateness_ns) {
                let text = format!(
                    "{} still says in the end that {uid} is ready; {} is on its way out or gone",
                    last.label(),
                    pod.label()
                );
                findings.violated(ended_ns, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{SECOND, follows, hold, life},
    };
    use serde_json::json;

    /// DEL-40, EPS-2
    #[test]
    fn an_endpoint_that_stays_ready_is_caught() {
        let pod = || {
            let marked = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
            life(1, "Pod", ("web", "u1"), &[(5, json!({})), (10, marked)])
        };
        let slice = |ready: bool| json!({"endpoints": [{"conditions": {"ready": ready}, "targetRef": {"uid": "u1"}}]});
        let with = |versions: &[(u64, Value)], more: Vec<Record>| {
            let slices = life(2, "EndpointSlice", ("web-1", "s1"), versions);
            let watches = vec![follows(1, "Pod"), follows(2, "EndpointSlice")];
            [watches, pod(), slices, more].concat()
        };
        let last = || -> Record {
            let (kind, items) = ("EndpointSlice".to_owned(), Vec::new());
            let (replica, resource_version, at_ns) = (1, 9_999, 60 * SECOND);
            Mark::FinalObjects { at_ns, replica, kind, resource_version, items }.into()
        };
        let service = || {
            let json = json!({"spec": {"publishNotReadyAddresses": true}});
            [vec![follows(3, "Service")], life(3, "Service", ("web", "v1"), &[(2, json)])].concat()
        };
        let labelled = |ready| {
            let mut json = slice(ready);
            json["metadata"]["labels"]["kubernetes.io/service-name"] = json!("web");
            json
        };
        let cases = [
            ("turned in time", with(&[(6, slice(true)), (11, slice(false))], vec![last()]), None),
            (
                "a moment behind",
                with(&[(6, slice(true)), (11, slice(true)), (12, slice(false))], vec![]),
                None,
            ),
            (
                "turned back",
                with(&[(6, slice(true)), (11, slice(false)), (12, slice(true))], vec![]),
                { Some("says that u1 is ready") },
            ),
            ("written long after", with(&[(6, slice(true)), (6_000, slice(true))], vec![]), {
                Some("at 6000")
            }),
            (
                "never turned",
                with(&[(6, slice(true))], vec![last()]),
                Some("still says in the end"),
            ),
            ("deleted", with(&[(6, slice(true)), (11, Value::Null)], vec![last()]), None),
            (
                "wanted so",
                with(&[(6, slice(true)), (6_000, slice(true)), (6_001, labelled(true))], {
                    service()
                }),
                None,
            ),
        ];
        // In the last one, nothing is left to examine.
        let (wanted, others) = cases.split_last().unwrap();
        hold(&PROPERTY, others.to_vec());
        let verdict =
            crate::testing::verdict(&PROPERTY, &crate::testing::history(wanted.1.clone()));
        assert!(verdict.held, "{}: {verdict:?}", wanted.0);
    }
}
