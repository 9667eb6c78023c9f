//! A lease that nobody renews ends, and its keys with it, once the cluster works.

use crate::{
    evidence::{Evidence, pairs},
    history::{Call, Mark},
    leases::{last_election_ns, leases},
    property::{Findings, Property},
    show::Time,
};

pub(super) const PROPERTY: Property = Property {
    name: "leases do expire",
    sources: &["etcd Lease API guarantees", "FEN-42"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let settings = &evidence.history.settings;
    // Without a word on faults, the cluster is taken to be well all the time.
    let faults = evidence.marks.iter().any(|mark| matches!(mark, Mark::Fault { .. }));
    let Some(healed_ns) = evidence.healed_ns().or((!faults).then_some(0)) else { return };
    // A new leader gives every lease its full time again.
    let since_ns = healed_ns.max(last_election_ns(evidence));
    let slow = 1_000_000 + settings.clock_drift_ppm;
    for (id, lease) in leases(evidence) {
        if lease.grants != 1 {
            continue;
        }
        let ttl_ns = lease.ttl_seconds.saturating_mul(1_000).saturating_mul(slow);
        let until_ns = since_ns
            .max(lease.last_asked_ns)
            .saturating_add(ttl_ns)
            .saturating_add(settings.lateness_ns);
        let mut held = |at_ns: u64, kv: &crate::history::Kv, by: String| {
            if kv.lease == id {
                let text = format!(
                    "lease {id} of {} s should have ended by {}; {by} has {kv}",
                    lease.ttl_seconds,
                    Time(until_ns)
                );
                findings.violated(at_ns, text);
            }
        };
        let mut looks = 0_u64;
        for answered in evidence.answered() {
            let operation = answered.operation;
            let Call::Range(request) = answered.call else { continue };
            let is_now = !request.serializable && request.revision == 0;
            if is_now && operation.invoked_ns > until_ns {
                looks += u64::from(lease.keys.iter().any(|key| request.range.contains(key)));
                for kv in pairs(answered.answer) {
                    held(operation.answered_ns, kv, operation.to_string());
                }
            }
        }
        for mark in &evidence.marks {
            if let Mark::FinalKeys { at_ns, replica, range, kvs, .. } = mark
                && *at_ns > until_ns
            {
                looks += u64::from(lease.keys.iter().any(|key| range.contains(key)));
                kvs.iter().for_each(|kv| held(*at_ns, kv, format!("replica {replica} in the end")));
            }
        }
        (0..looks).for_each(|_| findings.look());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Body, Kv, Range, Record, ReplicaFact},
        testing::{SECOND, done, found, get, healed, hold, leased, ok, replica},
    };

    fn kv() -> Kv {
        let (key, value) = ("a".to_owned(), "1".to_owned());
        Kv { key, value, create_revision: 5, mod_revision: 5, version: 1, lease: 7 }
    }

    fn read(ms: u64, kvs: Vec<Kv>) -> Record {
        ok(2, (ms, ms + 1), get("a"), 9, Body::Range { kvs, more: false })
    }

    /// FEN-42
    #[test]
    fn a_lease_that_never_ends_is_caught() {
        // Of 2 seconds, and 5 that a cluster may be late: due at 7.
        let first = || {
            let grant = done(1, (0, 1), Call::LeaseGrant { lease: 7, ttl_seconds: 2 }, 4);
            vec![grant, done(1, (10, 11), leased("a", "1", 7), 5)]
        };
        let with = |more: Vec<Record>| [first(), more].concat();
        let gone = || ok(2, (30_000, 30_001), get("a"), 9, found(&[]));
        let last = |kvs| -> Record {
            let range = Range::prefix("");
            Mark::FinalKeys { at_ns: 30 * SECOND, replica: 3, range, revision: 9, kvs }.into()
        };
        let elected = || replica(1, 25_000, ReplicaFact::Leads { term: 2 });
        let cases = vec![
            ("gone", with(vec![gone()]), None),
            ("not due", with(vec![read(6_000, vec![kv()]), gone()]), None),
            (
                "there for ever",
                with(vec![read(8_000, vec![kv()])]),
                Some("should have ended by 7.00"),
            ),
            ("there in the end", with(vec![last(vec![kv()])]), Some("replica 3 in the end")),
            (
                "begun anew",
                with(vec![elected(), read(30_000, vec![kv()]), read(40_000, vec![])]),
                None,
            ),
            (
                "begun anew, and due",
                with(vec![elected(), read(33_000, vec![kv()])]),
                Some("by 32.0"),
            ),
            (
                "healed late",
                with(vec![healed(28_000), read(33_000, vec![kv()]), read(40_000, vec![])]),
                None,
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
