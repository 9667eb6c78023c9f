//! Planes that are drawn from seeds: what they promise holds, and they run the same again.

use sim::{plane, trace::Detail};

#[test]
fn what_is_promised_of_planes_holds() {
    for seed in 0..3 {
        let report = plane::run_seed(seed, Detail::Nothing, false);
        assert_eq!(report.failure.map(|failure| failure.to_string()), None, "seed {seed}");
        let [answered, ..] = report.requests;
        let watched = report.watched;
        assert!(
            answered > 20 && watched > 20,
            "seed {seed}: clients were at work: {answered} requests, {watched} changes watched"
        );
    }
}

#[test]
fn two_runs_of_a_plane_give_the_same_trace_to_the_last_byte() {
    for seed in [1, 4] {
        let trace = || plane::run_seed(seed, Detail::Everything, false).trace;
        let (one, other) = (trace(), trace());
        let differs = one.lines().zip(other.lines()).position(|(one, other)| one != other);
        let around = |trace: &str, at: usize| {
            let lines = trace.lines().skip(at.saturating_sub(8)).take(12);
            lines.collect::<Vec<_>>().join("\n")
        };
        if let Some(at) = differs {
            panic!("seed {seed}:\n{}\n--- and\n{}", around(&one, at), around(&other, at));
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
