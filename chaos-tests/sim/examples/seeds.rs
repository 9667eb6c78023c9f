//! Runs seeds one after the other and says of each what did not hold: for `chaos-tests/mutations/run`, which
//! builds this again and again and nothing else.

use sim::{hunt::Part, layer::Layer, trace::Detail};
use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let bad =
        || io::Error::other("usage: seeds store|plane FIRST LAST [MILLISECONDS-UNTIL-HEALED]");
    let number = |text: String| text.parse::<u64>().map_err(|_| bad());
    let mut arguments = std::env::args().skip(1);
    let layer: Layer = arguments.next().ok_or_else(bad)?.parse().map_err(|_| bad())?;
    let first = arguments.next().ok_or_else(bad).and_then(number)?;
    let last = arguments.next().ok_or_else(bad).and_then(number)?;
    let fire = arguments.next().map(number).transpose()?;
    let part = Part { fire, ..Part::default() };
    let mut out = io::stdout().lock();
    for seed in first..=last {
        let report = match layer {
            Layer::Store => sim::run(&part.of(seed), Detail::Nothing, false),
            Layer::Plane => layer.run(seed, Detail::Nothing),
        };
        match report.failure {
            None => writeln!(out, "{seed} held")?,
            Some(failure) => writeln!(out, "{seed} failed: {}", failure.property)?,
        }
        out.flush()?;
    }
    Ok(())
}
