//! `trireme sim`: the deterministic simulation.

use anyhow::Context as _;
use clap::Args;
use sim::{
    Failure,
    hunt::{Failed, Hunt, Part, shrink_seed},
    layer::Layer,
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
    /// Run many seeds: `A..B`, both included.
    #[arg(long, value_parser = range)]
    seeds: Option<RangeInclusive<u64>>,
    /// What is simulated: `store` (replicas, the etcd API and its clients) or `plane` (all of it, down to the nodes'
    /// agents). By default, what the seed draws.
    #[arg(long)]
    layer: Option<Layer>,
    /// Begin no seed after so many minutes.
    #[arg(long, requires = "seeds")]
    minutes: Option<f64>,
    /// Begin no seed after so many have failed.
    #[arg(long, default_value_t = 1, requires = "seeds")]
    failures: usize,
    /// Of real time; a seed that takes longer has failed.
    #[arg(long, default_value_t = 600.0)]
    seed_seconds: f64,
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
    /// Heal everything after so many milliseconds.
    #[arg(long, requires = "seed")]
    fire_ms: Option<u64>,
    /// Of the store: requests of each client at most.
    #[arg(long, requires = "seed")]
    requests: Option<usize>,
    /// Of a plane: so many of its clients.
    #[arg(long, requires = "seed")]
    clients: Option<u64>,
    /// Of a plane: so many of its watchers.
    #[arg(long, requires = "seed")]
    watchers: Option<u64>,
    /// Of a plane: only these of the things that its clients do.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    ops: Option<Vec<String>>,
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

fn seed_time(arguments: &Arguments) -> Option<Duration> {
    Duration::try_from_secs_f64(arguments.seed_seconds).ok()
}

fn run_one(seed: u64, arguments: Arguments) -> anyhow::Result<bool> {
    let limit = seed_time(&arguments);
    let layer = arguments.layer.unwrap_or_else(|| Layer::of(seed));
    let Arguments { trace, messages, faults, requests, fire_ms, clients, watchers, ops, .. } =
        arguments;
    let faults = faults.map(|numbers| numbers.0);
    let part = Part { faults, fire: fire_ms, requests, clients, watchers, ops };
    part.fits(layer).map_err(anyhow::Error::msg)?;
    let detail = match (trace, messages) {
        (false, _) => Detail::Nothing,
        (true, false) => Detail::Timeline,
        (true, true) => Detail::Everything,
    };
    say(&format!("seed {seed}: {}", layer.describe(seed, &part).trim_end()))?;
    let report = layer.run_part(seed, &part, limit, detail);
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
    if !trace && part == Part::default() {
        smaller(layer, seed, &failure)?;
    }
    say(&format!("seed {seed}: {}", failure.property))?;
    Ok(false)
}

fn smaller(layer: Layer, seed: u64, failure: &Failure) -> anyhow::Result<()> {
    let (part, failure) = shrink_seed(layer, seed, failure, SHRINKING);
    say(&format!("what is needed for it: {}", layer.describe(seed, &part).trim_end()))?;
    say(&failure.to_string())?;
    say(&format!("again: trireme sim --seed {seed} --layer {layer}"))?;
    say(&format!("again, what is needed: trireme sim --seed {seed} --layer {layer}{part} --trace"))
}

fn run_many(seeds: RangeInclusive<u64>, arguments: &Arguments) -> anyhow::Result<bool> {
    let time = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let hunt = Hunt {
        seeds,
        layer: arguments.layer,
        time,
        seed_time: seed_time(arguments),
        jobs: arguments.jobs,
        failures_max: arguments.failures,
    };
    let sum = hunt.run(|_, _, _| ());
    for Failed { seed, layer, failure } in &sum.failed {
        say(&format!("{layer} {seed}: {failure}"))?;
        smaller(*layer, *seed, failure)?;
        say(&format!("for seeds.txt, with what mends it: {layer} {seed}"))?;
    }
    say(&sum.to_string())?;
    if sum.failed.is_empty() {
        say("every property has held")?;
        return Ok(true);
    }
    for Failed { seed, layer, failure } in &sum.failed {
        say(&format!("{layer} {seed}: {}", failure.property))?;
    }
    Ok(false)
}
