//! A watch goes on where it broke off, on any replica, unless what comes next has been forgotten.

use crate::{
    evidence::{Evidence, Stream},
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "watches go on where they broke off",
    sources: &["INV-6", "WCH-2", "FEN-37", "FEN-40", "etcd watch guarantees (Resumable)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let by_id: BTreeMap<u64, &Stream<'_>> = evidence.streams.iter().map(|s| (s.id, s)).collect();
    let answered = evidence.answered().map(|answered| answered.revision);
    let delivered = evidence.streams.iter().filter_map(Stream::delivered);
    let newest = answered.chain(delivered).max().unwrap_or_default();
    for stream in &evidence.streams {
        let Some(opened) = stream.opened else { continue };
        let id = stream.id;
        // A replica that was sent a snapshot knows nothing of what was before: it may forget more than was
        // asked for, but nothing that has not been.
        if let Some((at_ns, compacted)) = stream.compacted() {
            findings.look();
            if compacted > newest {
                let text = format!(
                    "watch {id} is told that revision {compacted} is forgotten; the newest is {newest}"
                );
                findings.violated(at_ns, text);
            }
        }
        let Some(before) = opened.resumes.and_then(|id| by_id.get(&id)) else { continue };
        findings.look();
        let Some(delivered) = before.delivered().or_else(|| before.from().map(|f| f - 1)) else {
            continue;
        };
        if opened.from > delivered + 1 && before.compacted().is_none() {
            let text = format!(
                "watch {id} goes on at {} after watch {}, which delivered up to {delivered}",
                opened.from, before.id
            );
            findings.violated(0, text);
        }
        // What comes again must be what came before.
        let again = before.events().filter(|(_, event)| event.mod_revision >= opened.from);
        for (_, event) in again {
            let mut same =
                stream.events().filter(|(_, now)| now.mod_revision >= event.mod_revision);
            let until = stream.delivered().unwrap_or_default();
            let is_there = until < event.mod_revision || same.any(|(_, now)| now == event);
            if !is_there && stream.covers_key(&event.key) {
                let (key, revision) = (&event.key, event.mod_revision);
                let text = format!(
                    "watch {id} goes on after watch {} without its {key} of revision {revision}",
                    before.id
                );
                findings.violated(0, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compacted, done, events, hold, opened, put, resumed};

    /// INV-6, FEN-37
    #[test]
    fn a_watch_that_goes_on_elsewhere_is_caught() {
        let one = |stream, at, revision, value| events(stream, at, &[("a", revision, Some(value))]);
        let first = || vec![opened(1, "", 5), one(1, 1, 5, "1"), one(1, 2, 6, "2")];
        let write = || done(1, (0, 1), put("a", "9"), 9);
        let then = |more: Vec<_>| [first(), more].concat();
        hold(
            &PROPERTY,
            vec![
                ("goes on", then(vec![resumed(2, "", 7, 1), one(2, 1, 7, "3")]), None),
                ("some come again", then(vec![resumed(2, "", 6, 1), one(2, 1, 6, "2")]), None),
                ("too late", then(vec![resumed(2, "", 8, 1), one(2, 1, 8, "3")]), {
                    Some("goes on at 8 after watch 1, which delivered up to 6")
                }),
                ("comes again as another", then(vec![resumed(2, "", 6, 1), one(2, 1, 6, "3")]), {
                    Some("without its a of revision 6")
                }),
                (
                    "rightly forgotten",
                    then(vec![write(), resumed(2, "", 7, 1), compacted(2, 1, 9)]),
                    None,
                ),
                (
                    "forgotten before it was there",
                    then(vec![write(), resumed(2, "", 7, 1), compacted(2, 1, 10)]),
                    Some("revision 10 is forgotten; the newest is 9"),
                ),
            ],
        );
    }
}
