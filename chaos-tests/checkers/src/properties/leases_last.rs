//! A lease lives at least as long as it was granted for, counted from its last renewal.

use crate::{
    evidence::Evidence,
    leases::leases,
    property::{Findings, Property},
    show::Time,
};

pub(super) const PROPERTY: Property = Property {
    name: "leases never expire early",
    sources: &["etcd Lease API guarantees", "FEN-41", "FEN-42"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let fast = 1_000_000 - evidence.history.settings.clock_drift_ppm.min(1_000_000);
    for (id, lease) in leases(evidence) {
        if lease.grants != 1 || lease.is_revoked {
            continue;
        }
        let ttl_ns = lease.ttl_seconds.saturating_mul(1_000) * fast;
        // From when on it was gone at the latest, and which renewals were certainly before: since, at.
        let mut gone: Vec<(u64, u64, String)> = lease
            .not_found
            .iter()
            .map(|asked| (asked.invoked_ns, asked.answered_ns, asked.to_string()))
            .collect();
        for (at_ns, event) in evidence.streams.iter().flat_map(|stream| stream.events()) {
            if event.value.is_some() || !lease.keys.contains(event.key.as_str()) {
                continue;
            }
            let before = evidence.keys.last(&event.key, event.mod_revision.saturating_sub(1));
            let was_its = before.is_some_and(|fact| fact.lease == id);
            let is_explained =
                evidence.keys.at(&event.key, event.mod_revision).is_none_or(|fact| {
                    fact.cause.is_some()
                        || evidence
                            .keys
                            .swept(&event.key, event.mod_revision - 1, event.mod_revision)
                            .is_some()
                        || evidence
                            .keys
                            .may_be_deleted(&event.key, at_ns, &evidence.operations)
                            .is_some()
                });
            if was_its && !is_explained {
                let (key, revision) = (&event.key, event.mod_revision);
                gone.push((at_ns, at_ns, format!("{key} was deleted at revision {revision}")));
            }
        }
        for (since_ns, at_ns, what) in gone {
            let renewed = lease.renewed.iter().filter(|renewed| renewed.answered_ns <= since_ns);
            let Some(renewed) = renewed.max_by_key(|renewed| renewed.invoked_ns) else { continue };
            findings.look();
            if at_ns < renewed.invoked_ns.saturating_add(ttl_ns) {
                let text = format!(
                    "lease {id} of {} s: {what}, seen at {}; {renewed}",
                    lease.ttl_seconds,
                    Time(at_ns)
                );
                findings.violated(at_ns, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Body, Call, Record},
        testing::{delete, done, events, hold, leased, ok, opened, unknown},
    };

    fn grant(ms: (u64, u64)) -> Record {
        done(1, ms, Call::LeaseGrant { lease: 7, ttl_seconds: 2 }, 4)
    }

    fn renew(ms: (u64, u64), ttl_seconds: u64) -> Record {
        ok(1, ms, Call::LeaseKeepAlive { lease: 7 }, 4, Body::Lease { ttl_seconds })
    }

    /// The key's end is seen at a time in milliseconds.
    fn gone(ms: u64) -> Vec<Record> {
        let put = done(1, (10, 11), leased("a", "1", 7), 5);
        vec![put, opened(1, "", 1), events(1, ms, &[("a", 6, None)])]
    }

    /// FEN-42
    #[test]
    fn a_lease_that_ends_early_is_caught() {
        let with = |first: Vec<Record>, more: Vec<Record>| [first, more].concat();
        let asked = vec![unknown(2, (100, 200), delete("a"))];
        let revoked = vec![unknown(2, (100, 200), Call::LeaseRevoke { lease: 7 })];
        let early = Some("lease 7 of 2 s: a was deleted at revision 6");
        let cases = vec![
            ("in time", with(vec![grant((0, 1))], gone(2_001)), None),
            ("early", with(vec![grant((0, 1))], gone(1_500)), early),
            (
                "in time after a renewal",
                with(vec![grant((0, 1)), renew((1_500, 1_501), 2)], gone(3_600)),
                None,
            ),
            (
                "early after a renewal",
                with(vec![grant((0, 1)), renew((1_500, 1_501), 2)], gone(2_500)),
                early,
            ),
            ("not found in time", vec![grant((0, 1)), renew((2_100, 2_101), 0)], None),
            ("not found early", vec![grant((0, 1)), renew((1_000, 1_001), 0)], Some("0 s left")),
            (
                "somebody may have deleted it",
                [vec![grant((0, 1)), renew((2_100, 2_101), 0)], gone(1_500), asked].concat(),
                None,
            ),
        ];
        hold(&PROPERTY, cases);
        let history = crate::testing::history([vec![grant((0, 1))], gone(1_500), revoked].concat());
        assert!(crate::testing::verdict(&PROPERTY, &history).held, "somebody may have revoked it");
    }
}
