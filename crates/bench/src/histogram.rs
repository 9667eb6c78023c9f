//! Latencies counted in buckets that are never wider than 1/128 of what they hold.

use std::time::Duration;

/// Buckets for each doubling.
const SUB_BITS: u32 = 7;
/// Doublings above the first 128 values, up to `u64::MAX`.
const BUCKETS: usize = (65 - SUB_BITS as usize) << SUB_BITS;

/// Counts of durations; 59 KiB however many there are.
///
/// Exact below 128 ns, then log-linear: a quantile is at most 0.8 % above the true one, never below.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Takes over what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest, exactly; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// What `per_mille` of 1,000 do not exceed; zero if there is none.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(highest(index).min(self.max));
            }
        }
        self.max()
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    // The first 256 values are shift 0; each later doubling adds 128 buckets.
    let index = (u64::from(shift) << SUB_BITS) + (nanos >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> SUB_BITS).saturating_sub(1);
    let sub = index - (shift << SUB_BITS);
    u64::try_from(((u128::from(sub) + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_at_most_a_128th_wide() {
        let powers = (0..64).map(|bit| 1u64 << bit);
        for value in powers.flat_map(|p| [p - 1, p, p + 1, p + p / 3]).chain([u64::MAX]) {
            let index = bucket(value);
            assert!(index < BUCKETS, "{value}");
            let (high, below) = (highest(index), index.checked_sub(1).map(highest));
            assert!(high >= value, "{value} in a bucket up to {high}");
            assert!(below.is_none_or(|below| below < value), "{value} above {below:?}");
            assert!(high - value <= value / 128, "{value} counted as {high}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut whole = Histogram::default();
        let mut halves = [Histogram::default(), Histogram::default()];
        for i in 1..=10_000u64 {
            let duration = Duration::from_micros(i);
            whole.record(duration);
            halves[usize::from(i > 5000)].record(duration);
        }
        let [mut first, second] = halves;
        first.merge(&second);
        for histogram in [whole, first] {
            assert_eq!(histogram.count(), 10_000);
            for (per_mille, micros) in
                [(0, 1), (500, 5000), (990, 9900), (999, 9990), (1000, 10_000)]
            {
                let (got, want) = (histogram.quantile(per_mille), Duration::from_micros(micros));
                assert!(got >= want && got <= want + want / 128, "{per_mille}: {got:?}");
            }
            assert_eq!(histogram.max(), Duration::from_millis(10));
        }
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Histogram::default().quantile(990), Duration::ZERO);
    }
}
