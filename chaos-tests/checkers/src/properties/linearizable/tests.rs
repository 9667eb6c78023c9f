//! Known histories, right and wrong.

use super::*;
use crate::{
    history::{Compare, Put, Record, Step, Txn},
    testing::{
        delete, deleted, done, failed, found, get, get_prefix, get_serializable, hold, leased, ok,
        put, unknown,
    },
};

fn cas(key: &str, from: &str, to: &str) -> Call {
    let target = CompareTarget::Value(from.to_owned());
    let compare = Compare { key: key.to_owned(), operator: CompareOperator::Equal, target };
    let put = Put { key: key.to_owned(), value: to.to_owned(), lease: 0 };
    Call::Txn(Txn { compare: vec![compare], success: vec![Step::Put(put)], failure: Vec::new() })
}

/// INV-5
#[test]
fn answers_that_no_order_explains_are_caught() {
    // Revisions lie on purpose, or say nothing: this looks at values.
    let one = || done(1, (0, 1), put("a", "1"), 0);
    let two = || done(1, (2, 3), put("a", "2"), 0);
    let read = |ms, value: &str| ok(2, ms, get("a"), 0, found(&[("a", value, 0)]));
    let absent = |ms| ok(2, ms, get("a"), 0, found(&[]));
    let then = |succeeded| Body::Txn { succeeded, steps: Vec::new() };
    let lost = || unknown(3, (2, 3), put("a", "3"));
    let cases: Vec<(&str, Vec<Record>, Option<&str>)> = vec![
        ("the last write", vec![one(), two(), read((4, 5), "2")], None),
        ("either of two at once", vec![one(), two(), read((2, 5), "1")], None),
        ("a stale read", vec![one(), two(), read((4, 5), "1")], Some("no order explains client 2")),
        (
            "a stale serializable read",
            vec![one(), two(), ok(2, (4, 5), get_serializable("a"), 0, found(&[("a", "1", 0)]))],
            None,
        ),
        ("a lost write", vec![one(), absent((4, 5))], Some("nothing")),
        ("a value that nobody wrote", vec![one(), read((4, 5), "9")], Some("a=\"9\"")),
        (
            "new, then old",
            vec![one(), done(1, (2, 9), put("a", "2"), 0), read((3, 4), "2"), {
                ok(4, (5, 6), get("a"), 0, found(&[("a", "1", 0)]))
            }],
            Some("client 4"),
        ),
        (
            "an unknown outcome late",
            vec![one(), lost(), read((4, 5), "1"), read((6, 7), "3")],
            None,
        ),
        (
            "an unknown outcome and back",
            vec![one(), lost(), read((4, 5), "3"), read((6, 7), "1")],
            Some("no order explains"),
        ),
        ("before it was sent", vec![read((0, 1), "3"), lost()], Some("no order explains")),
        ("a refused write", vec![one(), failed(3, (2, 3), put("a", "3")), read((4, 5), "3")], {
            Some("no order explains")
        }),
        ("deleted", vec![one(), ok(1, (2, 3), delete("a"), 0, deleted(1)), absent((4, 5))], None),
        (
            "deleted twice",
            vec![one(), ok(1, (2, 3), delete("a"), 0, deleted(1)), {
                ok(1, (4, 5), delete("a"), 0, deleted(1))
            }],
            Some("1 deleted"),
        ),
        ("nothing to delete", vec![one(), ok(1, (2, 3), delete("a"), 0, deleted(0))], {
            Some("0 deleted")
        }),
        (
            "a lease ended",
            vec![done(1, (0, 1), leased("a", "1", 7), 0), read((2, 3), "1"), absent((4, 5))],
            None,
        ),
        (
            "a swap",
            vec![one(), ok(1, (2, 3), cas("a", "1", "2"), 0, then(true)), read((4, 5), "2")],
            None,
        ),
        (
            "two swaps of one value",
            vec![
                one(),
                ok(1, (2, 9), cas("a", "1", "2"), 0, then(true)),
                ok(2, (2, 9), cas("a", "1", "3"), 0, then(true)),
            ],
            Some("no order explains"),
        ),
        (
            "a swap that must not fail",
            vec![one(), ok(1, (2, 3), cas("a", "1", "2"), 0, then(false))],
            { Some("no order explains") },
        ),
        (
            "a prefix without a key",
            vec![one(), done(1, (2, 3), put("b", "1"), 0), {
                ok(2, (4, 5), get_prefix(""), 0, found(&[("b", "1", 0)]))
            }],
            Some("a: no order explains"),
        ),
    ];
    hold(&PROPERTY, cases);
}
