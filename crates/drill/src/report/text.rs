//! To people, at a terminal.

use super::{Check, Latency, OURS, Report, ScenarioReport};
use crate::chaos::ChaosRow;
use std::fmt::{self, Display, Formatter};

/// Of a histogram's longest bar.
const BAR: u64 = 40;
/// Steps that are shown of one scenario; the page shows all.
const STEPS_MAX: usize = 60;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for scenario in &self.scenarios {
            writeln!(f, "{scenario}")?;
        }
        writeln!(
            f,
            "{:16} {:8} {:6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}",
            "scenario",
            "system",
            "",
            "no write",
            "no read",
            "no watch",
            "no node",
            "acked",
            "faults"
        )?;
        for s in &self.scenarios {
            writeln!(
                f,
                "{:16} {:8} {:6} {:>6.0} ms {:>6.0} ms {:>6.0} ms {:>6} ms {:>8} {:>7}",
                s.name,
                s.system,
                verdict(s.held),
                s.write_gap_ms,
                s.read_gap_ms,
                s.watch_gap_ms,
                s.pods.as_ref().map_or("-".to_owned(), |_| format!("{:.0}", s.schedule_gap_ms)),
                s.acknowledged,
                s.faults.len()
            )?;
        }
        if !self.chaos.is_empty() {
            chaos(f, &self.chaos)?;
        }
        for what in &self.left_out {
            writeln!(f, "left out: {what}")?;
        }
        write!(
            f,
            "{} ({}; seed {})",
            if self.held() { "EVERYTHING HELD" } else { "NOT EVERYTHING HELD" },
            self.machine,
            self.seed
        )
    }
}

fn chaos(f: &mut Formatter<'_>, rows: &[ChaosRow]) -> fmt::Result {
    writeln!(
        f,
        "\n{:16} {:>5} {:>7} {:>10} {:>9} {:>9} {:>9} {:>7} {:>8} {:>10}  verdict",
        "fault",
        "runs",
        "faults",
        "requests",
        "acked",
        "reads",
        "events",
        "Pods",
        "unknown",
        "no write"
    )?;
    for row in rows {
        writeln!(
            f,
            "{:16} {:>5} {:>7} {:>10} {:>9} {:>9} {:>9} {:>7} {:>8} {:>7.0} ms  {} {}",
            row.nemesis,
            row.runs,
            row.faults,
            row.operations,
            row.acknowledged,
            row.reads,
            row.events,
            row.pods,
            row.unknown,
            row.write_gap_ms,
            verdict(row.held),
            row.broken.join("; ")
        )?;
    }
    Ok(())
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "BROKEN" }
}

impl Display for ScenarioReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = if self.system == OURS { String::new() } else { format!(" ({})", self.system) };
        writeln!(f, "== {}{of}: {}", self.name, self.says)?;
        for step in self.steps.iter().take(STEPS_MAX) {
            writeln!(f, "  {:>8.2} s  {}", step.at_ms / 1e3, step.text)?;
        }
        if let Some(more) = self.steps.len().checked_sub(STEPS_MAX).filter(|more| *more > 0) {
            writeln!(f, "             and {more} more")?;
        }
        writeln!(
            f,
            "  {} requests: {} writes acknowledged, {} linearizable and {} serializable reads, {} failed, {} of \
             unknown outcome; {} events to watches, {} of them resumed",
            self.operations,
            self.acknowledged,
            self.reads,
            self.stale_reads,
            self.failed,
            self.unknown,
            self.events,
            self.resumed
        )?;
        let gaps = &self.write_gaps_ms;
        writeln!(
            f,
            "  longest time without a write: median {:.0} ms, worst {:.0} ms of {} faults; without a read {:.0} ms, a \
             watch event {:.0} ms late",
            gaps.median,
            gaps.max,
            gaps.all.len(),
            self.read_gap_ms,
            self.watch_gap_ms
        )?;
        if let Some(pods) = &self.pods {
            writeln!(
                f,
                "  {} Pods made, {} bound (median {:.0} ms, worst {:.0}), {} ran; {} containers restarted, {} Pods \
                 evicted, {} replaced",
                pods.created,
                pods.bound,
                pods.bind_ms.median,
                pods.bind_ms.max,
                pods.running,
                pods.restarts,
                pods.evicted,
                pods.replaced
            )?;
            if !pods.replace_ms.all.is_empty() {
                writeln!(
                    f,
                    "  from the loss of the node to a replacement that runs: {:.1} to {:.1} s",
                    pods.replace_ms.all.iter().copied().fold(f64::INFINITY, f64::min) / 1e3,
                    pods.replace_ms.max / 1e3
                )?;
            }
        }
        histogram(f, "writes", &self.write_latency)?;
        for check in &self.checks {
            writeln!(f, "  {check}")?;
        }
        Ok(())
    }
}

fn histogram(f: &mut Formatter<'_>, what: &str, latency: &Latency) -> fmt::Result {
    let most = latency.histogram.iter().copied().max().unwrap_or_default();
    if most == 0 {
        return Ok(());
    }
    writeln!(
        f,
        "  {what}: half within {} ms, 99 of 100 within {} ms",
        latency.p50_ms, latency.p99_ms
    )?;
    let first = latency.histogram.iter().position(|count| *count > 0).unwrap_or_default();
    for (power, count) in latency.histogram.iter().enumerate().skip(first) {
        let up_to = 2f64.powi(i32::try_from(power).unwrap_or(i32::MAX)) / 1e3;
        // One is seen, however many there are beside it.
        let bar = (count * BAR).div_ceil(most);
        let bar = "#".repeat(usize::try_from(bar).unwrap_or_default());
        writeln!(f, "  {up_to:>9.3} ms {count:>7} {bar}")?;
    }
    Ok(())
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:6} {}", verdict(self.held), self.property)?;
        if !self.sources.is_empty() {
            write!(f, " [{}]", self.sources.join(", "))?;
        }
        if self.examined == 0 {
            write!(f, " (nothing to look at)")?;
        }
        for violation in &self.violations {
            write!(f, "\n           {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn people_are_told_what_held_what_did_not_and_by_what() {
        let good = report(true).to_string();
        assert!(good.ends_with("EVERYTHING HELD (2 cores; seed 7)"), "{good}");
        assert!(good.contains("held   every acknowledged write survives [INV-5]"), "{good}");
        let bad = report(false).to_string();
        assert!(bad.contains("NOT EVERYTHING HELD"), "{bad}");
        assert!(bad.contains("BROKEN every acknowledged write survives"), "{bad}");
        assert!(bad.contains("k00 = v7 was acknowledged & is gone"), "{bad}");
        assert!(bad.contains("0.008 ms     900 ####"), "{bad}");
    }
}
