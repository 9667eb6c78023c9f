//! Planes that are drawn from seeds: what they promise holds, and they run the same again.

use sim::{
    plane::run_seed,
    trace::{Detail, Trace},
};

fn holds(seed: u64) {
    let outcome = run_seed(seed, &Trace::default());
    assert_eq!(outcome.violations, [], "seed {seed}");
    assert!(outcome.history.records.len() > 100, "seed {seed}: clients were at work");
}

#[test]
fn what_is_promised_of_planes_holds() {
    (0..3).for_each(holds);
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    for seed in [1, 4] {
        let trace = || {
            let trace = Trace::new(Detail::Everything, false);
            let outcome = run_seed(seed, &trace);
            (trace.text(), outcome.history)
        };
        let (one, other) = (trace(), trace());
        let differs = one.0.lines().zip(other.0.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one == other, "seed {seed}: one is longer");
    }
}
