//! The store's clock never goes back: not for one client, not between clients, not along the log.

use crate::{
    evidence::{Answered, Evidence},
    history::{Body, Call, ObjectVerb, ReplicaFact},
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "revisions only grow",
    sources: &["etcd KV API guarantees (revisions)", "FEN-37", "FEN-38"],
    file: file!(),
    check,
};

/// What an answer's revision says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It is a change's own: later than everything that was answered before it was asked for.
    Changed,
    /// It is the store's, no earlier than anything that was answered before it was asked for.
    Current,
    /// It is one that has been; how old, it does not say.
    Past,
}

fn says(answered: &Answered<'_>) -> Says {
    match (answered.call, &answered.answer.body) {
        (Call::Put(_), _) => Says::Changed,
        (Call::Delete(_), Body::Deleted { count: 0 }) => Says::Current,
        (Call::Delete(_), Body::Deleted { .. }) => Says::Changed,
        (Call::Range(request), _) if request.serializable => Says::Past,
        (Call::Range(_) | Call::Delete(_) | Call::Txn(_), _) => Says::Current,
        (Call::Object(call), _) => match call.verb {
            ObjectVerb::Create => Says::Changed,
            ObjectVerb::List => Says::Current,
            // What changes nothing answers with the revision of the last change (CC-4).
            ObjectVerb::Update
            | ObjectVerb::Patch
            | ObjectVerb::Delete
            | ObjectVerb::Bind
            | ObjectVerb::Evict
            | ObjectVerb::Get
            | ObjectVerb::Cached => Says::Past,
        },
        (
            Call::LeaseGrant { .. }
            | Call::LeaseKeepAlive { .. }
            | Call::LeaseRevoke { .. }
            | Call::Compact { .. },
            _,
        ) => Says::Past,
    }
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut ended: Vec<Answered<'_>> = evidence.answered().filter(|a| a.revision > 0).collect();
    ended.sort_by_key(|answered| answered.operation.answered_ns);
    let mut ended = ended.into_iter().peekable();
    let mut floor: Option<Answered<'_>> = None;
    // By when they were asked for, each against the highest revision that had been answered by then.
    for answered in evidence.answered().filter(|answered| answered.revision > 0) {
        let asked_ns = answered.operation.invoked_ns;
        while let Some(before) = ended.next_if(|b| b.operation.answered_ns < asked_ns) {
            if floor.is_none_or(|floor| floor.revision < before.revision) {
                floor = Some(before);
            }
        }
        let Some(floor) = floor else { continue };
        let wrong = match says(&answered) {
            Says::Past => continue,
            Says::Current => answered.revision < floor.revision,
            Says::Changed => answered.revision <= floor.revision,
        };
        findings.look();
        if wrong {
            let (operation, before) = (answered.operation, floor.operation);
            let text = format!("{operation}; answered before it was asked: {before}");
            findings.violated(operation.answered_ns, text);
        }
    }
    let mut revisions = BTreeMap::new();
    for seen in &evidence.replicas {
        if let ReplicaFact::Applied { index, revision, .. } = seen.fact {
            findings.look();
            revisions.entry(index).or_insert((seen, revision));
        }
    }
    for ((index, (_, before)), (next, (seen, revision))) in
        revisions.iter().zip(revisions.iter().skip(1))
    {
        if revision < before {
            let text = format!("revision {before} at index {index}, {revision} at index {next}");
            findings.violated(seen.at_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{applied, done, found, get, get_serializable, hold, ok, put};

    /// FEN-37
    #[test]
    fn a_revision_that_goes_back_is_caught() {
        let first = || done(1, (0, 1), put("a", "1"), 7);
        let read = |call, revision| ok(2, (5, 6), call, revision, found(&[("a", "1", 6)]));
        hold(
            &PROPERTY,
            vec![
                ("growing", vec![first(), done(2, (2, 3), put("b", "1"), 8)], None),
                (
                    "at once, in either order",
                    vec![first(), read(get("a"), 7), { done(2, (0, 3), put("b", "1"), 6) }],
                    None,
                ),
                (
                    "a serializable read may be old",
                    vec![
                        first(),
                        read(get_serializable("a"), 6),
                        done(2, (7, 8), put("b", "1"), 8),
                    ],
                    None,
                ),
                ("a stale read", vec![first(), read(get("a"), 6)], Some("read a")),
                (
                    "a change without a revision",
                    vec![first(), done(2, (2, 3), put("b", "1"), 7)],
                    { Some("put b") },
                ),
                ("the log goes back", vec![applied(1, 3, 1, 9, 1), applied(1, 4, 1, 8, 1)], {
                    Some("revision 9 at index 3, 8 at index 4")
                }),
            ],
        );
    }
}
