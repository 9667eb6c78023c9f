//! `trireme sim`: the deterministic simulation.

use anyhow::Context as _;
use clap::Args;
use sim::{
    hunt::{Part, hunt, shrink},
    layer::Layer,
    plan::Plan,
    plane,
    trace::Detail,
};
use std::{io::Write as _, ops::RangeInclusive, time::Duration};

/// For making a failing seed smaller.
const SHRINKING: Duration = Duration::from_secs(180);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run one seed.
    #[arg(long, required_unless_present = "seeds", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run seeds until one fails: `A..B`, both included.
    #[arg(long, value_parser = range)]
    seeds: Option<RangeInclusive<u64>>,
    /// What is simulated: `store` (replicas, the etcd API and its clients) or `plane` (all of it, down to the nodes'
    /// agents). By default, what the seed draws.
    #[arg(long)]
    layer: Option<Layer>,
    /// No longer than so many minutes.
    #[arg(long, requires = "seeds")]
    minutes: Option<f64>,
    /// Seeds that run beside each other.
    #[arg(long, default_value_t = 1, requires = "seeds")]
    jobs: usize,
    /// Print what happens: faults, what replicas log, what clients ask and are answered.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With `--trace`: also each message, sync and applied entry.
    #[arg(long, requires = "trace")]
    messages: bool,
    /// Of the seed's faults, only those of these numbers; may be empty.
    #[arg(long, requires = "seed", value_parser = numbers)]
    faults: Option<Numbers>,
    /// Requests of each client at most.
    #[arg(long, requires = "seed")]
    requests: Option<usize>,
    /// Heal everything after so many milliseconds.
    #[arg(long, requires = "seed")]
    fire_ms: Option<u64>,
}

#[derive(Debug, Clone)]
struct Numbers(Vec<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    let numbers = text.split(',').filter(|number| !number.is_empty());
    let parsed: Result<_, _> = numbers.map(|number| number.parse::<usize>()).collect();
    parsed.map(Numbers).map_err(|error| error.to_string())
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let bad = || format!("{text:?} must read A..B");
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let to = to.trim_start_matches('=');
    Ok(from.parse().map_err(|_| bad())?..=to.parse().map_err(|_| bad())?)
}

/// True when every property has held.
///
/// # Errors
/// Nothing can be printed.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<bool> {
    match (arguments.seed, arguments.seeds.clone()) {
        (Some(seed), _) => run_one(seed, arguments),
        (None, Some(seeds)) => run_many(seeds, &arguments),
        (None, None) => anyhow::bail!("--seed or --seeds"),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("print")
}

fn run_one(seed: u64, arguments: Arguments) -> anyhow::Result<bool> {
    let Arguments { layer, trace, messages, faults, requests, fire_ms, .. } = arguments;
    let part = Part { faults: faults.map(|numbers| numbers.0), requests, fire: fire_ms };
    let whole = part == Part::default();
    let layer = layer.unwrap_or_else(|| if whole { Layer::of(seed) } else { Layer::Store });
    anyhow::ensure!(whole || layer == Layer::Store, "of a plane, no part can be chosen");
    let detail = match (trace, messages) {
        (false, _) => Detail::Nothing,
        (true, false) => Detail::Timeline,
        (true, true) => Detail::Everything,
    };
    let report = match layer {
        Layer::Store => {
            let plan = part.of(seed);
            describe(&plan)?;
            sim::run(&plan, detail, false)
        }
        Layer::Plane => {
            say(&format!("seed {seed}: {}", plane::describe(seed).trim_end()))?;
            plane::run_seed(seed, detail, false)
        }
    };
    if trace {
        say(report.trace.trim_end())?;
    }
    let [answered, refused, unknown] = report.requests;
    say(&format!(
        "{:.1} simulated seconds; {answered} requests answered, {refused} refused, {unknown} unknown; \
         {} changes watched",
        Duration::from_millis(report.simulated).as_secs_f64(),
        report.watched
    ))?;
    let Some(failure) = report.failure else {
        say(&format!("seed {seed}: every property has held"))?;
        return Ok(true);
    };
    say(&failure.to_string())?;
    if !trace && whole {
        smaller(seed, layer, &failure)?;
    }
    say(&format!("seed {seed}: {}", failure.property))?;
    Ok(false)
}

fn describe(plan: &Plan) -> anyhow::Result<()> {
    let timers = if plan.wan { "wan" } else { "lan" };
    say(&format!(
        "seed {}: {} replicas, {timers} timers, links of {} to {} ms, {} clients, {} ms of faults:",
        plan.seed,
        plan.replicas,
        plan.link.latency_min,
        plan.link.latency_max,
        plan.clients,
        plan.fire
    ))?;
    for fault in &plan.faults {
        say(&format!("  at {} ms {fault}", fault.at))?;
    }
    Ok(())
}

fn smaller(seed: u64, layer: Layer, failure: &sim::Failure) -> anyhow::Result<()> {
    if layer == Layer::Plane {
        let (plane, failure) = plane::shrink_seed(seed, failure, SHRINKING);
        say(&format!("what is needed for it: {}", plane.trim_end()))?;
        say(&failure.to_string())?;
        return say(&format!("again: trireme sim --seed {seed} --layer plane --trace"));
    }
    let (part, failure) = shrink(seed, failure, SHRINKING);
    say("what is needed for it:")?;
    describe(&part.of(seed))?;
    say(&failure.to_string())?;
    say(&format!("again: trireme sim --seed {seed} --layer store"))?;
    say(&format!("again, what is needed: trireme sim --seed {seed}{part} --trace"))
}

fn run_many(seeds: RangeInclusive<u64>, arguments: &Arguments) -> anyhow::Result<bool> {
    let time = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let sum = hunt(seeds, arguments.layer, time, arguments.jobs, |_, _| {});
    say(&sum.to_string())?;
    let Some((seed, failure)) = sum.failed else {
        say("every property has held")?;
        return Ok(true);
    };
    say(&failure.to_string())?;
    smaller(seed, arguments.layer.unwrap_or_else(|| Layer::of(seed)), &failure)?;
    say(&format!("seed {seed}: {}", failure.property))?;
    Ok(false)
}
