//! Once faults are over, what was demanded comes to be, and all replicas have the same.

use crate::{
    evidence::Evidence,
    history::{Kv, Mark, Object, Range},
    property::{Findings, Property},
    show::Time,
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "everything converges after healing",
    sources: &["INV-10", "CTL-1", "raft §5.2 (liveness)", "FEN-36"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut keys: BTreeMap<&Range, (u64, u64, &[Kv])> = BTreeMap::new();
    let mut objects: BTreeMap<&str, (u64, Heads<'_>)> = BTreeMap::new();
    for mark in &evidence.marks {
        match mark {
            Mark::Awaited { since_ns, until_ns, limit_ns, what } => {
                findings.look();
                let limit = Time(*limit_ns);
                match until_ns {
                    None => {
                        let text = format!("{what} within {limit}: never");
                        findings.violated(since_ns.saturating_add(*limit_ns), text);
                    }
                    Some(until_ns) if until_ns.saturating_sub(*since_ns) > *limit_ns => {
                        let took = Time(until_ns.saturating_sub(*since_ns));
                        findings.violated(*until_ns, format!("{what} within {limit}: took {took}"));
                    }
                    Some(_) => {}
                }
            }
            Mark::FinalKeys { at_ns, replica, range, revision, kvs } => {
                findings.look();
                let (by, first, same) = *keys.entry(range).or_insert((*replica, *revision, kvs));
                if (first, same) != (*revision, kvs.as_slice()) {
                    let missing = |of: &[Kv], among: &[Kv]| {
                        of.iter().find(|kv| !among.contains(kv)).map(ToString::to_string)
                    };
                    let differs = missing(same, kvs).or_else(|| missing(kvs, same));
                    let text = format!(
                        "{range}: replica {by} is at revision {first}, replica {replica} at \
                         {revision}; one alone has {}",
                        differs.unwrap_or_else(|| "nothing".to_owned())
                    );
                    findings.violated(*at_ns, text);
                }
            }
            Mark::FinalObjects { at_ns, replica, kind, items, .. } => {
                findings.look();
                let heads = heads(items);
                let (by, same) = objects.entry(kind).or_insert((*replica, heads.clone()));
                if *same != heads {
                    let differs = same.iter().find(|head| !heads.contains(head));
                    let differs =
                        differs.or_else(|| heads.iter().find(|head| !same.contains(head)));
                    let text = format!(
                        "{kind}: replicas {by} and {replica} differ; one alone has {differs:?}"
                    );
                    findings.violated(*at_ns, text);
                }
            }
            Mark::Fault { .. } | Mark::Healed { .. } => {}
        }
    }
}

/// Uids and resource versions, in order.
type Heads<'h> = Vec<(&'h str, u64)>;

fn heads(items: &[Object]) -> Heads<'_> {
    let mut heads: Heads<'_> =
        items.iter().map(|item| (item.uid.as_str(), item.resource_version)).collect();
    heads.sort_unstable();
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{final_keys, hold, object},
    };
    use serde_json::json;

    /// INV-10
    #[test]
    fn what_does_not_converge_is_caught() {
        let awaited = |until_ns| -> Record {
            let what = "a write is acknowledged".to_owned();
            Mark::Awaited { since_ns: 1_000, until_ns, limit_ns: 500, what }.into()
        };
        let pods = |replica, revision| -> Record {
            let items = vec![object("Pod", "web", "u1", revision, &json!({}))];
            let kind = "Pod".to_owned();
            Mark::FinalObjects { at_ns: 9, replica, kind, resource_version: 20, items }.into()
        };
        let one = || final_keys(1, 9, 20, &[("a", "1", 7)]);
        let cases = vec![
            ("in time", vec![awaited(Some(1_500))], None),
            ("too late", vec![awaited(Some(1_501))], Some("a write is acknowledged within")),
            ("never", vec![awaited(None)], Some("never")),
            ("the same keys", vec![one(), final_keys(2, 9, 20, &[("a", "1", 7)])], None),
            ("other keys", vec![one(), final_keys(2, 9, 20, &[])], Some("one alone has a=\"1\"")),
            ("another revision", vec![one(), final_keys(2, 9, 19, &[("a", "1", 7)])], {
                Some("replica 2 at 19")
            }),
            ("the same objects", vec![pods(1, 7), pods(2, 7)], None),
            ("other objects", vec![pods(1, 7), pods(2, 8)], Some("replicas 1 and 2 differ")),
        ];
        hold(&PROPERTY, cases);
    }
}
