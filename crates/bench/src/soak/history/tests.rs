//! Events and answers in all their orders.

use super::*;

const KEY: Key = Key(300);

fn put(write: u64, revision: i64, version: i64, created: i64) -> Event {
    Event::Put(Found {
        key: KEY,
        write: Write(write),
        create_revision: Revision(created),
        mod_revision: Revision(revision),
        version,
    })
}

fn delete(revision: i64) -> Event {
    Event::Delete { key: KEY, mod_revision: Revision(revision) }
}

/// What a test does to a history.
enum Step {
    Sent(Change),
    Acknowledged(Change, i64),
    Refused(Change),
    Unknown(Change),
    GoneBy(i64),
    Watched(Event),
}
use Step::{Acknowledged, GoneBy, Refused, Sent, Unknown, Watched};

fn wrong(steps: Vec<Step>) -> Vec<Violation> {
    let (mut history, mut wrong) = (History::default(), Vec::new());
    let now = Instant::now();
    for step in steps {
        let checked = match step {
            Sent(change) => {
                history.sent(KEY, change, now);
                Ok(())
            }
            Acknowledged(change, revision) => history.acknowledged(KEY, change, Revision(revision)),
            Refused(change) => history.refused(KEY, change),
            Unknown(change) => history.unknown(KEY, change, now),
            GoneBy(revision) => history.gone_by(KEY, Revision(revision)),
            Watched(event) => {
                history.deliver(event, &mut wrong);
                Ok(())
            }
        };
        wrong.extend(checked.err());
    }
    let end = Revision(history.delivered().0 + 1);
    history.pass(end, &mut wrong);
    wrong
}

fn write(number: u64) -> Change {
    Change::Put(Write(number))
}

#[test]
fn what_happened_as_it_was_told_raises_no_alarm() {
    for (name, steps) in [
        (
            "answers first",
            vec![
                Sent(write(1)),
                Acknowledged(write(1), 10),
                Sent(Change::Delete),
                Acknowledged(Change::Delete, 11),
                Watched(put(1, 10, 1, 10)),
                Watched(delete(11)),
            ],
        ),
        (
            "events first",
            vec![
                Sent(write(1)),
                Watched(put(1, 10, 1, 10)),
                Acknowledged(write(1), 10),
                Sent(Change::Delete),
                Watched(delete(11)),
                Acknowledged(Change::Delete, 11),
            ],
        ),
        (
            "unknown outcomes, one of them late, one never",
            vec![
                Sent(write(1)),
                Unknown(write(1)),
                Sent(write(2)),
                Unknown(write(2)),
                Sent(write(3)),
                Acknowledged(write(3), 10),
                Watched(put(3, 10, 1, 10)),
                Watched(put(1, 12, 2, 10)),
            ],
        ),
        (
            "an event of a delete of unknown outcome before the answer of the next",
            vec![
                Sent(write(1)),
                Acknowledged(write(1), 10),
                Watched(put(1, 10, 1, 10)),
                Sent(Change::Delete),
                Unknown(Change::Delete),
                Sent(write(2)),
                Acknowledged(write(2), 11),
                Sent(Change::Delete),
                Watched(put(2, 11, 2, 10)),
                Watched(delete(12)),
                Refused(Change::Delete),
            ],
        ),
        (
            "a lease",
            vec![
                Sent(write(1)),
                Unknown(write(1)),
                Sent(Change::Delete),
                Watched(put(1, 10, 1, 10)),
                Unknown(Change::Delete),
                GoneBy(11),
                Watched(delete(11)),
            ],
        ),
    ] {
        assert_eq!(wrong(steps), [], "{name}");
    }
}

#[test]
fn each_way_to_be_wrong_is_seen() {
    let acknowledged =
        |number, revision| vec![Sent(write(number)), Acknowledged(write(number), revision)];
    let one = || acknowledged(1, 10);
    let key = KEY;
    let (w, r) = (Write, Revision);
    for (name, steps, want) in [
        (
            "a watch without an acknowledged event",
            vec![
                one(),
                acknowledged(2, 11),
                acknowledged(3, 12),
                vec![Watched(put(1, 10, 1, 10)), Watched(put(3, 12, 3, 10))],
            ],
            vec![
                Violation::Missing { key, change: write(2), revision: r(11) },
                Violation::Gap {
                    key,
                    delivered: r(12),
                    expected: "version 2, created 10".to_owned(),
                    got: "version 3, created 10".to_owned(),
                },
            ],
        ),
        (
            "an answer later than its revision, without an event",
            vec![
                one(),
                vec![Sent(write(2)), Watched(put(1, 10, 1, 10))],
                vec![Acknowledged(write(2), 9)],
            ],
            vec![Violation::Missing { key, change: write(2), revision: r(9) }],
        ),
        (
            "nothing more comes",
            vec![one(), vec![Watched(put(1, 10, 1, 10))], acknowledged(2, 10)],
            vec![Violation::Missing { key, change: write(2), revision: r(10) }],
        ),
        (
            "another revision than acknowledged",
            vec![one(), vec![Watched(put(1, 11, 1, 11))]],
            vec![
                Violation::Missing { key, change: write(1), revision: r(10) },
                Violation::Unsent { key, write: w(1), delivered: r(11) },
            ],
        ),
        (
            "an event before its answer at another revision",
            vec![vec![Sent(write(1)), Watched(put(1, 9, 1, 9)), Acknowledged(write(1), 10)]],
            vec![Violation::Misplaced { key, write: w(1), acknowledged: r(10), delivered: r(9) }],
        ),
        (
            "a write that happens twice",
            vec![one(), vec![Watched(put(1, 10, 1, 10)), Watched(put(1, 11, 2, 10))]],
            vec![Violation::Unsent { key, write: w(1), delivered: r(11) }],
        ),
        (
            "a refused write that happens",
            vec![vec![Sent(write(1)), Watched(put(1, 9, 1, 9)), Refused(write(1))]],
            vec![Violation::Misled { key, change: write(1), delivered: r(9) }],
        ),
        (
            "a deletion that nobody asked for",
            vec![one(), vec![Watched(put(1, 10, 1, 10)), Watched(delete(11))]],
            vec![Violation::UnaskedDelete { key, delivered: r(11) }],
        ),
        (
            "two writes at one revision",
            vec![one(), acknowledged(2, 10), vec![Watched(put(2, 10, 1, 10))]],
            vec![Violation::Shared {
                revision: r(10),
                key,
                change: write(2),
                other: key,
                other_change: write(1),
            }],
        ),
        (
            "a key that outlives its lease",
            vec![one(), vec![Watched(put(1, 10, 1, 10)), GoneBy(10)]],
            vec![Violation::Outlived {
                key,
                revision: r(10),
                found: State::Present { write: w(1), mod_revision: r(10) },
            }],
        ),
    ] {
        assert_eq!(wrong(steps.into_iter().flatten().collect()), want, "{name}");
    }
}
