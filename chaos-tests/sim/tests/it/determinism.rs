//! Two runs of a seed are the same.

use sim::{plan::Plan, run, trace::Detail};

/// Short runs, of which each message, sync and applied entry is compared.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::of(seed);
    plan.fire = plan.fire.min(4_000);
    plan.faults.retain(|fault| fault.at < 4_000);
    plan
}

#[test]
fn two_runs_of_a_seed_give_the_same_trace_to_the_last_byte() {
    for seed in [1, 2, 3, 7, 11] {
        let one = run(&plan(seed), Detail::Everything, false);
        let other = run(&plan(seed), Detail::Everything, false);
        let differs = one.trace.lines().zip(other.trace.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
        assert_eq!(one.simulated, other.simulated, "seed {seed}");
        for what in ["data", "sync of", "has applied", "Put"] {
            assert!(one.trace.contains(what), "seed {seed} has no {what:?}");
        }
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let traces = [1, 2].map(|seed| run(&plan(seed), Detail::Everything, false).trace);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn a_trace_that_nobody_reads_changes_nothing() {
    let read = run(&plan(5), Detail::Everything, false);
    let unread = run(&plan(5), Detail::Nothing, false);
    assert_eq!((read.simulated, read.requests), (unread.simulated, unread.requests));
}
