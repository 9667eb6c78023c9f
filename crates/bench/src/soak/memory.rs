//! What members take over time, in one line.

use crate::stats::Summary;
use serde::Serialize;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const COLUMNS: usize = 60;
/// From which ratio on memory grows.
const FLAT: f64 = 1.3;

/// Resident memory of the member with most, once a second.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Memory {
    pub(super) min_bytes: u64,
    pub(super) max_bytes: u64,
    /// The median of the last quarter of the time over that of the second.
    pub(super) growth: f64,
    pub(super) flat: bool,
    pub(super) sparkline: String,
}

impl Memory {
    /// None of no samples.
    pub(super) fn of(samples: &[u64]) -> Option<Self> {
        let (min, max) = (*samples.iter().min()?, *samples.iter().max()?);
        let quarter = |from: usize, to: usize| {
            let part = samples.get(samples.len() * from / 4..samples.len() * to / 4);
            let part = part.filter(|part| !part.is_empty()).unwrap_or(samples);
            Summary::of(part.iter().map(|bytes| *bytes as f64)).map(|s| s.median)
        };
        let growth = quarter(3, 4)? / quarter(1, 2)?;
        let sparkline = sparkline(samples, min, max);
        Some(Self { min_bytes: min, max_bytes: max, growth, flat: growth <= FLAT, sparkline })
    }
}

/// A column is the largest of its samples; the lowest bar is `min`, the highest `max`.
fn sparkline(samples: &[u64], min: u64, max: u64) -> String {
    let columns = samples.len().min(COLUMNS);
    let column = |index: usize| {
        let from = samples.len() * index / columns;
        let part = samples.get(from..samples.len() * (index + 1) / columns)?;
        let height = u128::from(part.iter().max()? - min) * (BARS.len() as u128 - 1);
        let bar = height / u128::from((max - min).max(1));
        BARS.get(usize::try_from(bar).ok()?)
    };
    (0..columns).filter_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_flat_unless_the_end_is_a_third_above_the_second_quarter() {
        for (name, samples, flat) in [
            ("filled, then level", [10, 100, 101, 100], true),
            ("grows", [10, 100, 120, 131], false),
            ("shrinks", [100, 100, 50, 20], true),
        ] {
            let samples: Vec<u64> = samples.into_iter().flat_map(|mib| [mib << 20; 50]).collect();
            let memory = Memory::of(&samples).unwrap();
            assert_eq!(memory.flat, flat, "{name}: {memory:?}");
            assert_eq!(memory.sparkline.chars().count(), COLUMNS, "{name}");
        }
        assert!(Memory::of(&[]).is_none());
        assert!(Memory::of(&[5]).unwrap().flat, "one sample");
    }

    #[test]
    fn a_sparkline_goes_from_the_lowest_bar_to_the_highest() {
        let memory = Memory::of(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        assert_eq!(memory.sparkline, "▁▂▃▄▅▆▇█");
        assert_eq!(Memory::of(&[3, 3]).unwrap().sparkline, "▁▁");
    }
}
