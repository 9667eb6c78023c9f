//! Seeds that have failed once, each with what mended it.

use sim::{layer::Layer, trace::Detail};

#[test]
fn seeds_that_failed_once_hold() {
    let kept = include_str!("../../../seeds.txt");
    let lines = kept.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let layer: Layer = words.next().unwrap_or_default().parse().unwrap();
        let seed = words.next().unwrap_or_default();
        let seed: u64 = seed.parse().unwrap_or_else(|_| panic!("{line:?} has no seed"));
        let why = words.next().unwrap_or_default().trim();
        assert!(!why.is_empty(), "{layer} {seed} must say what mended it");
        let report = layer.run(seed, Detail::Nothing);
        assert_eq!(
            report.failure.map(|failure| failure.to_string()),
            None,
            "{layer} {seed}: {why}"
        );
    }
}
