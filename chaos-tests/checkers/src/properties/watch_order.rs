//! A watch delivers in the order of revisions, each change once, and nothing from before it began.

use crate::{
    evidence::{Evidence, Stream},
    history::{Watch, WatchStep},
    property::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property {
    name: "watches are ordered and deliver each change once",
    sources: &["INV-6", "WCH-4", "etcd watch guarantees (Ordered, Unique)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for stream in &evidence.streams {
        let from = stream.from().unwrap_or_default();
        // Up to which revision, and exclusively, everything is over.
        let mut last = from.saturating_sub(1);
        let mut progress = 0;
        for watch in &stream.steps {
            let mut wrong = |what: String| {
                findings.violated(watch.at_ns, format!("watch {} {what}", stream.id));
            };
            match &watch.step {
                WatchStep::Events { events } => {
                    for event in events.iter().filter(|event| event.mod_revision < from) {
                        let (key, revision) = (&event.key, event.mod_revision);
                        wrong(format!("began at {from} and delivers {key} of revision {revision}"));
                    }
                    let first = events.first().map_or(u64::MAX, |event| event.mod_revision);
                    if first <= last && first >= from {
                        wrong(format!("delivers revision {first} after {last}"));
                    }
                    for (one, next) in events.iter().zip(events.iter().skip(1)) {
                        if next.mod_revision < one.mod_revision {
                            let (one, next) = (one.mod_revision, next.mod_revision);
                            wrong(format!("delivers revision {next} after {one}"));
                        }
                    }
                    let mut seen: Vec<_> =
                        events.iter().map(|event| (event.mod_revision, &event.key)).collect();
                    seen.sort_unstable();
                    for (one, _) in seen.iter().zip(seen.iter().skip(1)).filter(|(a, b)| a == b) {
                        wrong(format!("delivers {} of revision {} twice", one.1, one.0));
                    }
                    events.iter().for_each(|event| last = last.max(event.mod_revision));
                }
                WatchStep::Object(event) => {
                    let revision = event.object.resource_version;
                    if revision <= last {
                        wrong(format!(
                            "began at {from} and delivers {} after {last}",
                            event.object
                        ));
                    }
                    last = last.max(revision);
                }
                WatchStep::Progress { revision } => {
                    if *revision < progress {
                        wrong(format!("is told of progress to {revision} after {progress}"));
                    }
                    progress = progress.max(*revision);
                    last = last.max(*revision);
                }
                WatchStep::Opened(_) | WatchStep::Closed(_) => {}
            }
            findings.look();
        }
        twice(stream, findings);
    }
}

/// Two records at the same place of a stream: the recording itself is wrong, and nothing else can be said.
fn twice(stream: &Stream<'_>, findings: &mut Findings) {
    let steps = || stream.steps.iter().copied();
    let same = |(one, next): &(&Watch, &Watch)| one.sequence == next.sequence;
    for (one, _) in steps().zip(steps().skip(1)).filter(same) {
        let text = format!("watch {} has two records at place {}", stream.id, one.sequence);
        findings.violated(one.at_ns, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Change, Record},
        testing::{event, events, follows, hold, object, opened, progress},
    };
    use serde_json::json;

    /// INV-6, WCH-4
    #[test]
    fn a_watch_out_of_order_is_caught() {
        let one = |sequence, revision| events(1, sequence, &[("a", revision, Some("1"))]);
        let pod = |place: u64, revision| -> Record {
            let mut record =
                event(1, Change::Modified, object("Pod", "web", "u1", revision, &json!({})));
            if let Record::Watch(watch) = &mut record {
                watch.sequence = place;
            }
            record
        };
        let begun = || opened(1, "", 5);
        let cases: Vec<(&str, Vec<Record>, Option<&str>)> = vec![
            ("rising", vec![begun(), one(1, 5), one(2, 7), progress(1, 3, 9), one(4, 10)], None),
            (
                "two keys of a revision",
                vec![begun(), events(1, 1, &[("a", 5, None), ("b", 5, Some("1"))])],
                None,
            ),
            (
                "going back",
                vec![begun(), one(1, 7), one(2, 6)],
                Some("delivers revision 6 after 7"),
            ),
            ("the same again", vec![begun(), one(1, 7), one(2, 7)], Some("revision 7 after 7")),
            (
                "twice in one response",
                vec![begun(), events(1, 1, &[("a", 7, Some("1")), ("a", 7, Some("1"))])],
                Some("of revision 7 twice"),
            ),
            (
                "back within a response",
                vec![begun(), events(1, 1, &[("a", 7, Some("1")), ("b", 6, Some("1"))])],
                Some("delivers revision 6 after 7"),
            ),
            ("from before it began", vec![begun(), one(1, 4)], Some("began at 5")),
            ("progress ahead of events", vec![begun(), progress(1, 1, 9), one(2, 8)], {
                Some("delivers revision 8 after 9")
            }),
            ("progress goes back", vec![begun(), progress(1, 1, 9), progress(1, 2, 8)], {
                Some("progress to 8 after 9")
            }),
            ("objects rising", vec![follows(1, "Pod"), pod(1, 7), pod(2, 8)], None),
            ("an object goes back", vec![follows(1, "Pod"), pod(1, 8), pod(2, 7)], Some("after 8")),
            ("an object twice", vec![follows(1, "Pod"), pod(1, 8), pod(2, 8)], Some("after 8")),
            ("a broken record", vec![begun(), one(1, 5), one(1, 6)], Some("at place 1")),
        ];
        hold(&PROPERTY, cases);
    }
}
