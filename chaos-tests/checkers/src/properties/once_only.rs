//! A request takes effect once, however often its answer was lost and it was sent again.

use crate::{
    evidence::{Evidence, Fact},
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a request takes effect once",
    sources: &["FEN-33", "raft §8 (linearizable semantics)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    // A value that one request wrote is seen at one revision.
    let mut writes: BTreeMap<(&str, &str), &Fact<'_>> = BTreeMap::new();
    for fact in evidence.keys.all() {
        let Some(value) = fact.value else { continue };
        let name = (fact.key, value);
        let Some(asked) = evidence.keys.puts_asked.get(&name) else { continue };
        if evidence.keys.puts_alike.contains(&name) {
            continue;
        }
        findings.look();
        if let Some(first) = writes.insert(name, fact)
            && let Some(operation) = evidence.operations.get(*asked)
        {
            let (one, other) = (first.revision, fact.revision);
            let text = format!("{operation}; it was seen at revisions {one} and {other}");
            findings.violated(operation.answered_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{done, events, hold, opened, put, unknown};

    /// FEN-33
    #[test]
    fn a_request_that_is_carried_out_twice_is_caught() {
        let seen = |at, revision| events(1, at, &[("a", revision, Some("1"))]);
        let asked = || unknown(1, (0, 1), put("a", "1"));
        hold(
            &PROPERTY,
            vec![
                ("once", vec![asked(), opened(1, "", 1), seen(1, 5)], None),
                ("twice", vec![asked(), opened(1, "", 1), seen(1, 5), seen(2, 6)], {
                    Some("it was seen at revisions 5 and 6")
                }),
                (
                    "acknowledged at another revision",
                    vec![done(1, (0, 1), put("a", "1"), 6), opened(1, "", 1), seen(1, 5)],
                    Some("it was seen at revisions 5 and 6"),
                ),
                (
                    "asked for twice",
                    vec![
                        asked(),
                        unknown(2, (0, 1), put("a", "1")),
                        done(1, (0, 1), put("b", "1"), 7),
                        opened(1, "", 1),
                        seen(1, 5),
                        seen(2, 6),
                    ],
                    None,
                ),
            ],
        );
    }
}
