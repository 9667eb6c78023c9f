//! Runs one plane and prints what happens.

use sim::{plane, trace::Detail};

#[allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "an example")]
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let from: u64 = arguments[1].parse().unwrap();
    let to: u64 = arguments.get(2).map_or(from, |to| to.parse().unwrap());
    let live = std::env::args().any(|word| word == "live");
    for seed in from..=to {
        let begun = tokio::time::Instant::now();
        let detail = if live { Detail::Timeline } else { Detail::Nothing };
        let report = plane::run_seed(seed, detail, live);
        println!("{}", plane::describe(seed));
        println!(
            "seed {seed}: {} ms in {:?}, {:?} requests, {} watched, {:?}",
            report.simulated,
            begun.elapsed(),
            report.requests,
            report.watched,
            report.failure.map(|failure| failure.to_string())
        );
    }
}
