//! Runs seeds one after the other and says of each what did not hold: for `chaos-tests/mutations/run`, which
//! builds this again and again and nothing else.
//!
//! A seed that takes too long ends the process, since nothing else ends what goes round in circles: whoever has
//! started it goes on with the seed after it.

use sim::{hunt::Part, layer::Layer, trace::Detail};
use std::{
    io::{self, Write as _},
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};
use tokio::time::Instant;

const USAGE: &str =
    "usage: seeds store|plane FIRST LAST [ENOUGH [SECONDS-MAX [MILLISECONDS-UNTIL-HEALED]]]

Stops after ENOUGH seeds have failed (default: never). A seed may take SECONDS-MAX (default: 120).";

fn main() -> io::Result<()> {
    let bad = || io::Error::other(USAGE);
    let mut arguments = std::env::args().skip(1);
    let layer: Layer = arguments.next().ok_or_else(bad)?.parse().map_err(|_| bad())?;
    let mut number =
        || arguments.next().map(|text| text.parse::<u64>().map_err(|_| bad())).transpose();
    let (first, last) = (number()?.ok_or_else(bad)?, number()?.ok_or_else(bad)?);
    let enough = number()?.unwrap_or(u64::MAX);
    let seconds_max = number()?.unwrap_or(120);
    let all = number()?.map(Duration::from_secs);
    let begun = Instant::now();
    let part = Part { fire: number()?, ..Part::default() };
    let mut failed = 0;
    for seed in first..=last {
        if failed >= enough || all.is_some_and(|all| begun.elapsed() >= all) {
            break;
        }
        let (ended, waiting) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let late = waiting.recv_timeout(Duration::from_secs(seconds_max));
            if late == Err(RecvTimeoutError::Timeout) {
                // The simulation may hold any lock but this.
                let _ =
                    writeln!(io::stdout(), "{seed} failed: it took longer than {seconds_max} s");
                process::exit(3);
            }
        });
        let report = match layer {
            Layer::Store => sim::run(&part.of(seed), Detail::Nothing, false),
            Layer::Plane => layer.run(seed, Detail::Nothing),
        };
        drop(ended);
        let _ = watchdog.join();
        match report.failure {
            None => writeln!(io::stdout(), "{seed} held")?,
            Some(failure) => {
                failed += 1;
                writeln!(io::stdout(), "{seed} failed: {}", failure.property)?;
            }
        }
    }
    Ok(())
}
