//! Large histories are checked in seconds.

use crate::model::run;
use checkers::check;
use std::time::Duration;

/// A hundred thousand requests, in a build without optimisation on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_hundred_thousand_requests_are_checked_in_time() {
    let history = run(7, 100_000, 100);
    #[expect(clippy::disallowed_methods, reason = "real time is what is asked about")]
    let began = std::time::Instant::now();
    let verdicts = check(&history);
    let took = began.elapsed();
    let wrong: Vec<_> = verdicts.iter().filter(|v| !v.held || v.undecided > 0).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn one_key_that_everybody_uses_is_checked_in_time() {
    let verdicts = check(&run(8, 10_000, 1));
    let wrong: Vec<_> = verdicts.iter().filter(|v| !v.held || v.undecided > 0).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
