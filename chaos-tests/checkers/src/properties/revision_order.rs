//! Every answer is what the store held at the revision that the answer names.
//!
//! Changes are ordered by their revisions, so that this is strict serializability of all keys at once
//! together with [`super::revisions_grow`], transactions over several keys included, and needs no search.

use crate::{
    evidence::{Answered, Effect, Evidence, Fact, Knowledge, effects},
    history::{
        Body, Call, Compare, CompareOperator, CompareTarget, Kv, Range, RangeRequest, StepAnswer,
        Txn,
    },
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "answers are those of their revision (strictly serializable)",
    sources: &["etcd KV API guarantees (strict serializability)", "FEN-36"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for answered in evidence.answered() {
        match (answered.call, &answered.answer.body) {
            (Call::Range(request), Body::Range { kvs, more }) => {
                let at = if request.revision > 0 { request.revision } else { answered.revision };
                let until = kvs.last().filter(|_| *more).map(|kv| kv.key.as_str());
                check_range(evidence, findings, &answered, (&request.range, until), (at, kvs));
                check_limit(findings, &answered, request, kvs);
            }
            (Call::Txn(txn), Body::Txn { succeeded, steps }) => {
                findings.look();
                check_txn(evidence, findings, &answered, txn, (*succeeded, steps));
            }
            (Call::Delete(range), Body::Deleted { count: 0 }) => {
                check_range(evidence, findings, &answered, (range, None), (answered.revision, &[]));
            }
            (Call::Delete(Range { key, end: None }), Body::Deleted { count }) if *count > 0 => {
                findings.look();
                let before = answered.revision.saturating_sub(1);
                if let Knowledge::Absent | Knowledge::Certain(Fact { value: None, .. }) =
                    evidence.keys.known(key, before, &evidence.streams)
                {
                    let text = format!("{}; there was nothing before", answered.operation);
                    findings.violated(answered.operation.answered_ns, text);
                }
            }
            _ => {}
        }
    }
}

/// Holds pairs that were read at a revision against what is known of all keys of the range.
fn check_range(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    answered: &Answered<'_>,
    (range, until): (&Range, Option<&str>),
    (at, kvs): (u64, &[Kv]),
) {
    if at == 0 {
        return;
    }
    findings.look();
    let operation = answered.operation;
    let keys = &evidence.keys;
    for kv in kvs {
        if !range.contains(&kv.key) {
            let text = format!("{operation}; {} was not asked for", kv.key);
            findings.violated(operation.answered_ns, text);
        }
        if kv.mod_revision > at {
            let text = format!("{operation}; {kv} is later than the answer's revision {at}");
            findings.violated(operation.answered_ns, text);
        } else if let Some(later) = keys.first_after(&kv.key, kv.mod_revision, at) {
            let text = format!("{operation}; {}", describe(evidence, later));
            findings.violated(operation.answered_ns, text);
        } else if let Some((revision, by)) = keys.swept(&kv.key, kv.mod_revision, at) {
            let by = evidence.operations.get(by).map(ToString::to_string).unwrap_or_default();
            let text = format!("{operation}; {} was deleted at revision {revision}: {by}", kv.key);
            findings.violated(operation.answered_ns, text);
        }
    }
    let found: BTreeMap<&str, &Kv> = kvs.iter().map(|kv| (kv.key.as_str(), kv)).collect();
    let within = keys.keys_within(range).take_while(|key| until.is_none_or(|until| *key <= until));
    for key in within.filter(|key| !found.contains_key(key)) {
        if let Knowledge::Certain(fact @ Fact { value: Some(_), .. }) =
            keys.known(key, at, &evidence.streams)
        {
            let text = format!("{operation}; missing: {}", describe(evidence, fact));
            findings.violated(operation.answered_ns, text);
        }
    }
}

fn check_limit(
    findings: &mut Findings,
    answered: &Answered<'_>,
    request: &RangeRequest,
    kvs: &[Kv],
) {
    let count = u64::try_from(kvs.len()).unwrap_or(u64::MAX);
    let is_sorted = kvs.is_sorted_by(|one, other| one.key < other.key);
    if !is_sorted || (request.limit > 0 && count > request.limit) {
        let text = format!("{}; out of order, or beyond the limit", answered.operation);
        findings.violated(answered.operation.answered_ns, text);
    }
}

fn check_txn(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    answered: &Answered<'_>,
    txn: &Txn,
    (succeeded, steps): (bool, &[StepAnswer]),
) {
    let (operation, revision) = (answered.operation, answered.revision);
    if revision == 0 {
        return;
    }
    let has_changed = effects(answered.call, answered.answer).iter().any(|effect| match effect {
        Effect::Put(_) => true,
        Effect::Delete(_, count) => count.is_none_or(|count| count > 0),
    });
    // Compares see what was before; a transaction without a change took no revision.
    let before = if has_changed { revision.saturating_sub(1) } else { revision };
    let held: Vec<Option<bool>> =
        txn.compare.iter().map(|compare| holds(evidence, compare, before)).collect();
    let all = if held.contains(&Some(false)) {
        Some(false)
    } else {
        (!held.contains(&None)).then_some(true)
    };
    if all.is_some_and(|all| all != succeeded) {
        let false_ones = txn.compare.iter().zip(&held);
        let keys: Vec<String> = false_ones
            .map(|(compare, _)| match evidence.keys.last(&compare.key, before) {
                Some(fact) => describe(evidence, fact),
                None => format!("{} was never written", compare.key),
            })
            .collect();
        let text = format!("{operation}; before it: {}", keys.join("; "));
        findings.violated(operation.answered_ns, text);
    }
    if has_changed {
        // What its own steps read may be of its own steps.
        return;
    }
    for kv in steps.iter().flat_map(|step| match step {
        StepAnswer::Range { kvs } => kvs.as_slice(),
        StepAnswer::Put | StepAnswer::Deleted { .. } => &[],
    }) {
        if let Some(later) = evidence.keys.first_after(&kv.key, kv.mod_revision, revision) {
            let text = format!("{operation}; {}", describe(evidence, later));
            findings.violated(operation.answered_ns, text);
        }
    }
}

/// Whether a compare holds at a revision, if that is certain.
fn holds(evidence: &Evidence<'_>, compare: &Compare, at: u64) -> Option<bool> {
    let fact = match evidence.keys.known(&compare.key, at, &evidence.streams) {
        Knowledge::Certain(fact) if fact.value.is_some() => Some(fact),
        Knowledge::Certain(_) | Knowledge::Absent => None,
        Knowledge::Unsure(_) => return None,
    };
    let number = |stored: u64, wanted: u64| match compare.operator {
        CompareOperator::Equal => stored == wanted,
        CompareOperator::NotEqual => stored != wanted,
        CompareOperator::Greater => stored > wanted,
        CompareOperator::Less => stored < wanted,
    };
    match &compare.target {
        CompareTarget::ModRevision(n) => Some(number(fact.map_or(0, |fact| fact.revision), *n)),
        CompareTarget::Value(value) => {
            Some(fact.and_then(|fact| fact.value).is_some_and(|stored| match compare.operator {
                CompareOperator::Equal => stored == value,
                CompareOperator::NotEqual => stored != value,
                CompareOperator::Greater => stored > value.as_str(),
                CompareOperator::Less => stored < value.as_str(),
            }))
        }
        // Of a fact that only its own answer bears witness of, these are not known.
        CompareTarget::Version(n) => known(fact, |fact| fact.version).map(|v| number(v, *n)),
        CompareTarget::CreateRevision(n) => {
            known(fact, |fact| fact.create_revision).map(|v| number(v, *n))
        }
        CompareTarget::Lease(_) => None,
    }
}

fn known(fact: Option<&Fact<'_>>, of: impl Fn(&Fact<'_>) -> u64) -> Option<u64> {
    match fact {
        None => Some(0),
        Some(fact) => Some(of(fact)).filter(|value| *value > 0),
    }
}

/// A change, and how it is known.
fn describe(evidence: &Evidence<'_>, fact: &Fact<'_>) -> String {
    let cause = fact.cause.and_then(|index| evidence.operations.get(index));
    let by = cause.map(|operation| format!(" ({operation})")).unwrap_or_default();
    match fact.value {
        Some(value) => format!("{}={value:?} since revision {}{by}", fact.key, fact.revision),
        None => format!("{} deleted at revision {}{by}", fact.key, fact.revision),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Record, Step},
        testing::{delete, deleted, done, found, get, get_prefix, hold, ok, put, unknown},
    };

    fn cas(key: &str, mod_revision: u64, value: &str) -> Call {
        let Call::Put(write) = put(key, value) else { unreachable!() };
        let target = CompareTarget::ModRevision(mod_revision);
        let compare = Compare { key: key.to_owned(), operator: CompareOperator::Equal, target };
        let failure = vec![Step::Range(Range::one(key))];
        Call::Txn(Txn { compare: vec![compare], success: vec![Step::Put(write)], failure })
    }

    fn then(succeeded: bool) -> Body {
        Body::Txn { succeeded, steps: Vec::new() }
    }

    #[test]
    fn an_answer_that_its_revision_contradicts_is_caught() {
        let one = || done(1, (0, 1), put("a", "1"), 2);
        let two = || done(1, (2, 3), put("a", "2"), 3);
        let read =
            |revision, kvs: &[(&str, &str, u64)]| ok(2, (5, 6), get("a"), revision, found(kvs));
        let txn = |revision, call, succeeded| ok(2, (7, 8), call, revision, then(succeeded));
        let lost = || unknown(3, (2, 3), put("a", "3"));
        let cases: Vec<(&str, Vec<Record>, Option<&str>)> = vec![
            ("the last", vec![one(), two(), read(3, &[("a", "2", 3)])], None),
            (
                "an older state, by its revision",
                vec![one(), two(), read(2, &[("a", "1", 2)])],
                None,
            ),
            (
                "a stale value",
                vec![one(), two(), read(3, &[("a", "1", 2)])],
                Some("since revision 3"),
            ),
            ("a lost write", vec![one(), read(2, &[])], Some("missing: a=\"1\"")),
            ("from the future", vec![one(), two(), read(2, &[("a", "2", 3)])], Some("is later")),
            ("deleted", vec![one(), ok(1, (2, 3), delete("a"), 3, deleted(1)), read(3, &[])], None),
            (
                "deleted and still there",
                vec![one(), ok(1, (2, 3), delete("a"), 3, deleted(1)), read(3, &[("a", "1", 2)])],
                Some("deleted at revision 3"),
            ),
            ("one of unknown outcome came", vec![one(), lost(), read(3, &[("a", "3", 3)])], None),
            ("or did not", vec![one(), lost(), read(2, &[("a", "1", 2)])], None),
            (
                "a deletion of what is not there",
                vec![one(), ok(1, (2, 3), delete("b"), 3, deleted(1))],
                Some("there was nothing before"),
            ),
            (
                "a prefix of two states",
                vec![one(), done(1, (2, 3), put("b", "1"), 3), {
                    ok(2, (5, 6), get_prefix(""), 3, found(&[("b", "1", 3)]))
                }],
                Some("missing: a=\"1\""),
            ),
            ("a compare held", vec![one(), txn(3, cas("a", 2, "4"), true)], None),
            ("a compare failed", vec![one(), two(), txn(3, cas("a", 2, "4"), false)], None),
            (
                "a lost update",
                vec![one(), two(), txn(4, cas("a", 2, "4"), true)],
                Some("before it: a=\"2\" since revision 3"),
            ),
            (
                "a compare failed that must hold",
                vec![one(), txn(2, cas("a", 2, "4"), false)],
                Some("before it: a=\"1\" since revision 2"),
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
