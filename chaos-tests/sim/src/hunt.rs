//! Runs of many seeds.

pub use crate::part::{Part, shrink_seed};

use crate::{Failure, Millis, Report, layer::Layer, trace::Detail};
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// What seeds are run, and how long.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// Which; each is run once.
    pub seeds: RangeInclusive<u64>,
    /// All of one layer, or each of the layer that it draws.
    pub layer: Option<Layer>,
    /// After this time none is begun any more.
    pub time: Option<Duration>,
    /// One that takes longer has failed.
    pub seed_time: Option<Duration>,
    /// Seeds that run beside each other.
    pub jobs: usize,
    /// After so many failures none is begun any more.
    pub failures_max: usize,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// It.
    pub seed: u64,
    /// What it was about.
    pub layer: Layer,
    /// How.
    pub failure: Failure,
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
    /// In the order of the seeds.
    pub failed: Vec<Failed>,
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
             {answered} requests answered, {refused} refused, {unknown} unknown; {} changes watched; {} failed",
            self.seeds,
            simulated / 3600.0,
            simulated / took,
            self.watched,
            self.failed.len()
        )
    }
}

impl Sum {
    fn add(&mut self, seed: u64, layer: Layer, report: Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.watched += report.watched;
        for (all, more) in self.requests.iter_mut().zip(report.requests) {
            *all += more;
        }
        self.failed.extend(report.failure.map(|failure| Failed { seed, layer, failure }));
        self.failed.sort_by_key(|failed| failed.seed);
    }
}

impl Hunt {
    /// Runs the seeds; `told` hears of each when it has ended.
    #[must_use]
    pub fn run(&self, told: impl Fn(u64, Layer, &Report) + Sync) -> Sum {
        self.run_each(|seed, layer| {
            let report = layer.run_part(seed, &Part::default(), self.seed_time, Detail::Nothing);
            told(seed, layer, &report);
            report
        })
    }

    fn run_each(&self, run: impl Fn(u64, Layer) -> Report + Sync) -> Sum {
        let begun = Instant::now();
        let next = AtomicU64::new(*self.seeds.start());
        let sum = Mutex::new(Sum::default());
        let sum_so_far = || sum.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while sum_so_far().failed.len() < self.failures_max.max(1)
                        && self.time.is_none_or(|time| begun.elapsed() < time)
                    {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if !self.seeds.contains(&seed) {
                            break;
                        }
                        let layer = self.layer.unwrap_or_else(|| Layer::of(seed));
                        let report = run(seed, layer);
                        sum_so_far().add(seed, layer, report);
                    }
                });
            }
        });
        let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        Sum { took: begun.elapsed(), ..sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::TOOK_TOO_LONG;

    const ALL: Hunt = Hunt {
        seeds: 1..=20,
        layer: Some(Layer::Store),
        time: None,
        seed_time: None,
        jobs: 3,
        failures_max: usize::MAX,
    };

    fn report(fails: bool) -> Report {
        let failure = Failure { property: "it holds", detail: String::new(), at: 7 };
        Report {
            simulated: 2_000,
            failure: fails.then_some(failure),
            trace: String::new(),
            requests: [3, 2, 1],
            watched: 4,
        }
    }

    #[test]
    fn every_seed_is_run_once_and_what_fails_is_told_in_order() {
        let sum = ALL.run_each(|seed, _| report(seed.is_multiple_of(6)));
        let failed: Vec<u64> = sum.failed.iter().map(|failed| failed.seed).collect();
        assert_eq!((sum.seeds, failed), (20, vec![6, 12, 18]));
        assert_eq!((sum.simulated, sum.requests, sum.watched), (40_000, [60, 40, 20], 80));
    }

    #[test]
    fn it_stops_after_enough_failures() {
        let hunt = Hunt { jobs: 1, failures_max: 2, ..ALL };
        let sum = hunt.run_each(|seed, _| report(seed.is_multiple_of(6)));
        assert_eq!((sum.seeds, sum.failed.len()), (12, 2));
    }

    #[test]
    fn it_stops_when_the_time_is_over() {
        let hunt = Hunt { time: Some(Duration::ZERO), ..ALL };
        assert_eq!(hunt.run_each(|_, _| report(false)).seeds, 0);
    }

    #[test]
    fn a_run_that_takes_too_long_has_failed() {
        let hunt = Hunt { seeds: 1..=1, seed_time: Some(Duration::ZERO), ..ALL };
        let sum = hunt.run(|_, _, _| ());
        let how = sum.failed.first().map(|failed| failed.failure.property);
        assert_eq!(how, Some(TOOK_TOO_LONG));
    }
}
