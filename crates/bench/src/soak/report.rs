//! What a soak prints.

use super::{faults::Fault, memory::Memory, request::Kind, sequence};
use crate::{report::mib, stats::Spread};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// From which time on memory that is not flat counts: before, the key space still fills.
const LONG_SECONDS: f64 = 600.0;

/// What has come of requests of a kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Outcomes {
    pub(super) done: u64,
    /// They certainly did not happen.
    pub(super) refused: u64,
    /// An error that says nothing, or no answer in time.
    pub(super) unknown: u64,
}

/// How far the store came.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Revisions {
    pub(super) last: i64,
    pub(super) compacted: i64,
    pub(super) compactions: u64,
}

/// What one watch delivered.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Watch {
    events: u64,
    resumed: u64,
    /// How often what it had to deliver next was compacted.
    fell_behind: u64,
    /// Of all its events in their order.
    hash: String,
}

impl Watch {
    pub(super) fn of(watch: &sequence::Watch) -> Self {
        let (events, resumed, fell_behind) = (watch.events, watch.resumed, watch.fell_behind);
        Self { events, resumed, fell_behind, hash: format!("{:016x}", watch.hash) }
    }
}

/// What happened, and whether it was right.
#[derive(Debug, Clone, Serialize)]
pub struct SoakReport {
    pub(super) workload: String,
    pub(super) system: String,
    pub(super) seed: u64,
    /// Of load.
    pub(super) seconds: f64,
    pub(super) requests: BTreeMap<Kind, Outcomes>,
    /// What the first request was told that was refused, or whose outcome is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_error: Option<String>,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    /// The longest time without an acknowledged write, for each time.
    pub(super) faults: BTreeMap<Fault, Spread>,
    pub(super) revisions: Revisions,
    /// Keys at the end, all read back.
    pub(super) keys: usize,
    pub(super) watches: Vec<Watch>,
    /// `HashKV` of each member at the last revision.
    pub(super) hashes: BTreeMap<String, u32>,
    pub(super) memory: Memory,
    /// All of them, with those that are not listed.
    pub(super) violations_count: u64,
    pub(super) violations: Vec<String>,
}

impl SoakReport {
    /// Whether everything was right.
    #[must_use]
    pub fn held(&self) -> bool {
        self.violations_count == 0 && !self.grows()
    }

    fn grows(&self) -> bool {
        self.seconds >= LONG_SECONDS && !self.memory.flat
    }
}

/// Gaps by fault.
pub(super) fn spreads(gaps: Vec<(Fault, Duration)>) -> BTreeMap<Fault, Spread> {
    let mut by_fault: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    for (fault, gap) in gaps {
        by_fault.entry(fault).or_default().push(gap);
    }
    by_fault.into_iter().map(|(fault, gaps)| (fault, Spread::of(&gaps))).collect()
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {:.0} s of load, seed {}", self.system, self.seconds, self.seed)?;
        writeln!(f, "{:18} {:>9} {:>9} {:>9}", "requests", "done", "refused", "unknown")?;
        for (kind, outcomes) in &self.requests {
            let Outcomes { done, refused, unknown } = outcomes;
            writeln!(f, "{:18} {done:9} {refused:9} {unknown:9}", kind.label())?;
        }
        if let Some(error) = &self.first_error {
            writeln!(f, "first failure: {error}")?;
        }
        writeln!(f, "{:18} {:>9} {:>9} {:>9}", "no write, ms", "times", "median", "worst")?;
        for (fault, gap) in &self.faults {
            writeln!(f, "{fault:18} {:9} {:9.0} {:9.0}", gap.all.len(), gap.median, gap.max)?;
        }
        let Revisions { last, compacted, compactions } = self.revisions;
        writeln!(
            f,
            "revision {last}, {} writes acknowledged, {} keys read back; compacted {compactions} times, up to \
             {compacted}",
            self.acknowledged, self.keys
        )?;
        for (index, watch) in self.watches.iter().enumerate() {
            let Watch { events, resumed, fell_behind, hash } = watch;
            write!(f, "watch {index}: {events} events, resumed {resumed} times, hash {hash}")?;
            match fell_behind {
                0 => writeln!(f)?,
                times => writeln!(f, "; fell behind a compaction {times} times")?,
            }
        }
        let hashes = self.hashes.iter().map(|(member, hash)| format!("{member} {hash:08x}"));
        writeln!(f, "members: {}", hashes.collect::<Vec<_>>().join(", "))?;
        let Memory { min_bytes, max_bytes, growth, flat, sparkline } = &self.memory;
        writeln!(f, "{sparkline}")?;
        writeln!(
            f,
            "RSS of the largest member {} to {} MiB, last quarter over second {growth:.2}: {}",
            mib(*min_bytes),
            mib(*max_bytes),
            if *flat { "flat" } else { "not flat" }
        )?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        let unnamed = self.violations_count - self.violations.len() as u64;
        if unnamed > 0 {
            writeln!(f, "VIOLATION: and {unnamed} more")?;
        }
        if self.grows() {
            writeln!(f, "VIOLATION: memory grows")?;
        }
        Ok(())
    }
}
