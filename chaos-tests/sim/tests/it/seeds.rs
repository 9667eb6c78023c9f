//! Seeds that have failed once, each with what mended it.

use sim::{plan::Plan, run, trace::Detail};

#[test]
fn seeds_that_failed_once_hold() {
    let kept = include_str!("../../../seeds.txt");
    let lines = kept.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let (seed, why) = line.split_once(' ').unwrap_or((line, ""));
        let seed: u64 = seed.parse().unwrap_or_else(|_| panic!("{line:?} begins with no seed"));
        assert!(!why.trim().is_empty(), "seed {seed} must say what mended it");
        let report = run(&Plan::of(seed), Detail::Nothing, false);
        assert_eq!(report.failure.map(|failure| failure.to_string()), None, "seed {seed}:{why}");
    }
}
