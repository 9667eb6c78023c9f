//! Runs of many seeds, and what is left of one that fails when everything that is not needed is taken away.

use crate::{
    Millis,
    layer::Layer,
    plan::Plan,
    run::{Failure, Report, run},
    trace::Detail,
};
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// What of a seed's plan is run; by default all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The numbers of the faults.
    pub faults: Option<Vec<usize>>,
    /// Requests of each client at most.
    pub requests: Option<usize>,
    /// Milliseconds after which everything is healed.
    pub fire: Option<Millis>,
}

impl Part {
    /// The plan of a seed, and of it this part.
    #[must_use]
    pub fn of(&self, seed: u64) -> Plan {
        let mut plan = Plan::of(seed);
        if let Some(kept) = &self.faults {
            plan.faults.retain(|fault| kept.contains(&fault.number));
        }
        plan.requests = self.requests.unwrap_or(plan.requests);
        plan.fire = self.fire.unwrap_or(plan.fire);
        plan
    }
}

/// As the command line takes it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(faults) = &self.faults {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            write!(f, " --faults={}", faults.join(","))?;
        }
        if let Some(requests) = self.requests {
            write!(f, " --requests {requests}")?;
        }
        if let Some(fire) = self.fire {
            write!(f, " --fire-ms {fire}")?;
        }
        Ok(())
    }
}

/// What many runs came to.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// Runs that have ended.
    pub seeds: u64,
    /// Milliseconds of simulated time.
    pub simulated: Millis,
    /// Requests that were answered, refused, and of unknown outcome.
    pub requests: [usize; 3],
    /// Changes that watches were told of.
    pub watched: usize,
    /// How long it took.
    pub took: Duration,
    /// The lowest seed that failed.
    pub failed: Option<(u64, Failure)>,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, refused, unknown] = self.requests;
        // Rounded for people.
        let simulated = Duration::from_millis(self.simulated).as_secs_f64();
        let took = self.took.as_secs_f64().max(0.001);
        write!(
            f,
            "{} seeds, {:.2} simulated hours in {took:.1} s: {:.1} simulated seconds a second; \
             {answered} requests answered, {refused} refused, {unknown} unknown; {} changes watched",
            self.seeds,
            simulated / 3600.0,
            simulated / took,
            self.watched
        )
    }
}

/// Runs seeds one after the other, `jobs` beside each other, until one fails or the time is over; all of one
/// layer, or each of the layer that it draws.
pub fn hunt(
    seeds: RangeInclusive<u64>,
    layer: Option<Layer>,
    time: Option<Duration>,
    jobs: usize,
    told: impl Fn(u64, &Report) + Sync,
) -> Sum {
    let begun = Instant::now();
    let next = AtomicU64::new(*seeds.start());
    let (over, sum) = (AtomicBool::new(false), Mutex::new(Sum::default()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed)
                    && time.is_none_or(|time| begun.elapsed() < time)
                {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let layer = layer.unwrap_or_else(|| Layer::of(seed));
                    let report = layer.run(seed, Detail::Nothing);
                    told(seed, &report);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.seeds += 1;
                    sum.simulated += report.simulated;
                    sum.watched += report.watched;
                    for (all, more) in sum.requests.iter_mut().zip(report.requests) {
                        *all += more;
                    }
                    if let Some(failure) = report.failure {
                        over.store(true, Ordering::Relaxed);
                        if sum.failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                            sum.failed = Some((seed, failure));
                        }
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Sum { took: begun.elapsed(), ..sum }
}

/// The least part of a seed's plan found in time that breaks the same property, and how.
#[must_use]
pub fn shrink(seed: u64, failure: &Failure, time: Duration) -> (Part, Failure) {
    let begun = Instant::now();
    let mut best = (Part::default(), failure.clone());
    let fails = |part: &Part| {
        if begun.elapsed() >= time {
            return None;
        }
        let found = run(&part.of(seed), Detail::Nothing, false).failure?;
        (found.property == failure.property).then_some(found)
    };
    // Ever smaller pieces of the faults are left out.
    let mut faults: Vec<usize> = Plan::of(seed).faults.iter().map(|fault| fault.number).collect();
    let mut piece = faults.len();
    while piece > 0 {
        let mut at = 0;
        while at < faults.len() {
            let mut fewer = faults.clone();
            fewer.drain(at..(at + piece).min(faults.len()));
            let part = Part { faults: Some(fewer.clone()), ..best.0.clone() };
            match fails(&part) {
                Some(found) => {
                    best = (part, found);
                    faults = fewer;
                }
                None => at += piece,
            }
        }
        piece /= 2;
    }
    // Then requests, and the time after the last thing that is needed.
    let mut requests = 256;
    while requests > 0 {
        let part = Part { requests: Some(requests), ..best.0.clone() };
        match fails(&part) {
            Some(found) => best = (part, found),
            None => break,
        }
        requests /= 2;
    }
    let mut fire = Plan::of(seed).fire / 2;
    while fire > 100 {
        let part = Part { fire: Some(fire), ..best.0.clone() };
        match fails(&part) {
            Some(found) => best = (part, found),
            None => break,
        }
        fire /= 2;
    }
    best
}
