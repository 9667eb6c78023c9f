//! A watch leaves out nothing between where it began and what it delivered last.

use crate::{
    evidence::{Evidence, Fact, Knowledge, Stream},
    history::Event,
    property::{Findings, Property},
    show::Time,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const PROPERTY: Property = Property {
    name: "watches leave nothing out, across replicas too",
    sources: &["INV-6", "WCH-4", "WCH-8", "FEN-40", "etcd watch guarantees (Reliable)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for stream in &evidence.streams {
        let (Some(from), Some(until)) = (stream.from(), stream.delivered()) else { continue };
        keys(evidence, findings, stream, (from, until));
        versions(findings, stream);
        objects(evidence, findings, stream, (from, until));
    }
}

/// Everything that anybody saw change must have been delivered.
fn keys(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    stream: &Stream<'_>,
    (from, until): (u64, u64),
) {
    let delivered: BTreeSet<(u64, &str)> =
        stream.events().map(|(_, event)| (event.mod_revision, event.key.as_str())).collect();
    let at_ns = stream.steps.last().map_or(0, |step| step.at_ns);
    for (revision, keys) in evidence.keys.revisions(from).take_while(|(at, _)| *at <= until) {
        for key in keys.iter().filter(|key| stream.covers_key(key)) {
            findings.look();
            if !delivered.contains(&(revision, key)) {
                let text = format!(
                    "watch {} delivered everything from {from} to {until}, but not {key} of \
                     revision {revision}{}",
                    stream.id,
                    cause(evidence, evidence.keys.at(key, revision))
                );
                findings.violated(at_ns, text);
            }
        }
    }
    // What a deletion of a range took, its answer does not name; what was there, others may know.
    for (key, gone_by) in evidence.keys.swept_within(from, until, |key| stream.covers_key(key)) {
        let before = gone_by.saturating_sub(1);
        let Knowledge::Certain(fact) = evidence.keys.known(key, before, &evidence.streams) else {
            continue;
        };
        findings.look();
        if fact.value.is_some() && !delivered.contains(&(gone_by, key)) {
            let text = format!(
                "watch {} delivered everything from {from} to {until}, but not the end of {key}, \
                 written at revision {} and deleted at {gone_by}",
                stream.id, fact.revision
            );
            findings.violated(at_ns, text);
        }
    }
}

fn cause(evidence: &Evidence<'_>, fact: Option<&Fact<'_>>) -> String {
    let cause = fact.and_then(|fact| evidence.operations.get(fact.cause?));
    cause.map(|operation| format!(": {operation}")).unwrap_or_default()
}

/// Each key counts its writes: a number that is left out was one.
fn versions(findings: &mut Findings, stream: &Stream<'_>) {
    let mut last: BTreeMap<&str, &Event> = BTreeMap::new();
    for (at_ns, event) in stream.events() {
        let before = last.insert(&event.key, event);
        if event.value.is_none() || event.version == 0 {
            if let (None, Some(Event { value: None, mod_revision, .. })) = (&event.value, before) {
                let (key, revision) = (&event.key, event.mod_revision);
                let text = format!(
                    "watch {}: {key} is deleted at revision {revision}, and was at {mod_revision}",
                    stream.id
                );
                findings.violated(at_ns, text);
            }
            continue;
        }
        let Some(before) = before else { continue };
        findings.look();
        let expected = match before.value {
            Some(_) if before.version == 0 => continue,
            Some(_) => (before.version + 1, before.create_revision),
            None => (1, event.mod_revision),
        };
        if (event.version, event.create_revision) != expected {
            let (key, revision) = (&event.key, event.mod_revision);
            let text = format!(
                "watch {} at {}: {key} of revision {revision} has version {}, created at {}; after \
                 revision {} it should have version {}, created at {}",
                stream.id,
                Time(at_ns),
                event.version,
                event.create_revision,
                before.mod_revision,
                expected.0,
                expected.1
            );
            findings.violated(at_ns, text);
        }
    }
}

fn objects(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    stream: &Stream<'_>,
    (from, until): (u64, u64),
) {
    let delivered: BTreeSet<(u64, &str)> = stream
        .object_events()
        .map(|(_, event)| (event.object.resource_version, event.object.uid.as_str()))
        .collect();
    let at_ns = stream.steps.last().map_or(0, |step| step.at_ns);
    let followed =
        evidence.objects.all().filter(|life| stream.covers_object(life.kind(), life.namespace()));
    for life in followed {
        for (revision, version) in life.versions.range(from..).take_while(|(at, _)| **at <= until) {
            findings.look();
            if !delivered.contains(&(*revision, life.uid)) {
                let text = format!(
                    "watch {} delivered everything from {from} to {until}, but not {}",
                    stream.id, version.object
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
        history::{Call, Range, Record, WatchStep},
        testing::{deleted, done, events, follows, hold, life, ok, opened, progress, put, resumed},
    };
    use serde_json::{Value, json};

    fn versioned(mut record: Record, counts: &[(u64, u64)]) -> Record {
        if let Record::Watch(watch) = &mut record
            && let WatchStep::Events { events } = &mut watch.step
        {
            for (event, (version, created)) in events.iter_mut().zip(counts) {
                (event.version, event.create_revision) = (*version, *created);
            }
        }
        record
    }

    /// INV-6, FEN-40
    #[test]
    fn a_change_that_is_left_out_is_caught() {
        let write = |value, revision| done(1, (0, 1), put("a", value), revision);
        let one = |stream, sequence, value, revision| {
            events(stream, sequence, &[("a", revision, Some(value))])
        };
        let swept = || ok(1, (5, 6), Call::Delete(Range::prefix("")), 9, deleted(1));
        let cases: Vec<(&str, Vec<Record>, Option<&str>)> = vec![
            (
                "all",
                vec![
                    write("1", 5),
                    write("2", 6),
                    opened(1, "", 5),
                    one(1, 1, "1", 5),
                    one(1, 2, "2", 6),
                ],
                None,
            ),
            (
                "not there yet",
                vec![write("1", 5), write("2", 6), opened(1, "", 5), one(1, 1, "1", 5)],
                None,
            ),
            (
                "of other keys",
                vec![
                    write("1", 5),
                    opened(1, "b", 5),
                    progress(1, 1, 9),
                    { opened(2, "", 5) },
                    one(2, 1, "1", 5),
                ],
                None,
            ),
            (
                "one is left out",
                vec![write("1", 5), write("2", 6), opened(1, "", 5), one(1, 1, "2", 6)],
                Some("not a of revision 5: client 1"),
            ),
            (
                "another watch saw it",
                vec![opened(1, "", 5), progress(1, 1, 7), opened(2, "", 5), one(2, 1, "1", 5)],
                Some("watch 1 delivered everything from 5 to 7, but not a of revision 5"),
            ),
            (
                "resumed one too late",
                vec![
                    write("1", 5),
                    write("2", 6),
                    write("3", 7),
                    opened(1, "", 5),
                    one(1, 1, "1", 5),
                    resumed(2, "", 6, 1),
                    one(2, 1, "3", 7),
                ],
                Some("watch 2 delivered everything from 6 to 7, but not a of revision 6"),
            ),
            ("progress ahead", vec![write("1", 5), opened(1, "", 5), progress(1, 1, 5)], {
                Some("not a of revision 5")
            }),
            (
                "counted writes",
                vec![
                    opened(1, "", 5),
                    versioned(one(1, 1, "1", 5), &[(1, 5)]),
                    versioned(one(1, 2, "2", 6), &[(2, 5)]),
                ],
                None,
            ),
            (
                "a write is missing in the count",
                vec![
                    opened(1, "", 5),
                    versioned(one(1, 1, "1", 5), &[(1, 5)]),
                    versioned(one(1, 2, "2", 7), &[(3, 5)]),
                ],
                Some("has version 3"),
            ),
            (
                "a deletion is missing",
                vec![
                    opened(1, "", 5),
                    versioned(one(1, 1, "1", 5), &[(1, 5)]),
                    versioned(one(1, 2, "2", 7), &[(1, 7)]),
                ],
                Some("should have version 2"),
            ),
            (
                "a range was deleted",
                vec![write("1", 5), swept(), opened(1, "", 5), one(1, 1, "1", 5), {
                    events(1, 2, &[("a", 9, None)])
                }],
                None,
            ),
            (
                "its end is left out",
                vec![write("1", 5), swept(), opened(1, "", 5), one(1, 1, "1", 5), {
                    progress(1, 2, 9)
                }],
                Some("the end of a"),
            ),
        ];
        hold(&PROPERTY, cases);
    }

    /// INV-6
    #[test]
    fn an_object_that_is_left_out_is_caught() {
        let all = [(5, json!({})), (6, json!({"spec": {}})), (8, Value::Null)];
        let watch = |stream, versions: &[(u64, Value)]| {
            [vec![follows(stream, "Pod")], life(stream, "Pod", ("web", "u1"), versions)].concat()
        };
        let cases = vec![
            ("both have all", [watch(1, &all), watch(2, &all)].concat(), None),
            ("one lags", [watch(1, &all), watch(2, &all[..2])].concat(), None),
            (
                "one left one out",
                [watch(1, &all), watch(2, &[all[0].clone(), all[2].clone()])].concat(),
                Some("watch 2 delivered everything from 1 to 8, but not Pod default/web (u1) at 6"),
            ),
        ];
        // The deletion's content is that of the version before, which differs when one is left out.
        hold(&PROPERTY, cases);
    }
}
