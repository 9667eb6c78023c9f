//! What many figures say together.

use serde::Serialize;
use std::time::Duration;

/// Figures of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// `None` of nothing.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// How a number of durations are spread, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// 99 of 100 are not longer; of fewer than 100 the longest.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// In the order in which they were measured.
    pub all: Vec<f64>,
}

impl Spread {
    /// All zero of nothing.
    #[must_use]
    pub fn of(durations: &[Duration]) -> Self {
        let all: Vec<f64> = durations.iter().copied().map(millis).collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        let median = Summary::of(sorted.iter().copied()).map(|s| s.median).unwrap_or_default();
        Self { median, p99: at(99), max: at(100), all }
    }
}

/// Milliseconds, rounded to a microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_does_not_depend_on_the_order() {
        for (values, median) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)]
        {
            let got = Summary::of(values.clone()).unwrap();
            let max = values.iter().copied().fold(f64::MIN, f64::max);
            let min = values.iter().copied().fold(f64::MAX, f64::min);
            assert_eq!(got, Summary { median, min, max }, "{values:?}");
        }
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_spread_keeps_the_order_and_names_the_ranks() {
        let ms = |n: u64| Duration::from_millis(n);
        let spread = Spread::of(&(1..=200).rev().map(ms).collect::<Vec<_>>());
        assert_eq!((spread.median, spread.p99, spread.max), (100.5, 198.0, 200.0));
        assert_eq!(spread.all.first(), Some(&200.0));
        let few = Spread::of(&[ms(1), ms(5), ms(3)]);
        assert_eq!((few.median, few.p99, few.max), (3.0, 5.0, 5.0));
        assert_eq!(Spread::of(&[]).max, 0.0);
    }
}
