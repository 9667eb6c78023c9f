//! `trireme bench`: what users can measure for themselves, on a cluster that is made for it.

mod failover;
mod hollow;
mod start;
mod steady;

pub use failover::{Failover, failover, leader};
pub use hollow::{Pods, PodsOptions, Quantiles, pods};
pub use start::{Starts, starts};
pub use steady::{Steady, SteadyLoad, steady};

use serde::Serialize;
use std::time::Duration;

/// How a number of durations are spread, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    /// Half of them are shorter.
    pub median: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// In the order in which they were measured.
    pub all: Vec<f64>,
}

impl Spread {
    /// Of at least one.
    #[must_use]
    pub fn of(all: &[Duration]) -> Self {
        let ms = |d: &Duration| (d.as_secs_f64() * 10_000.0).round() / 10.0;
        let mut sorted: Vec<f64> = all.iter().map(ms).collect();
        let in_order = sorted.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let index = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
            sorted.get(index).copied().unwrap_or_default()
        };
        Self { median: at(50), p99: at(99), max: at(100), all: in_order }
    }
}
