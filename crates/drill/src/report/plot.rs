//! Plots as SVG, without anything from elsewhere. Colours are classes, so that page and picture choose them.

use super::{Latency, ScenarioReport};
use std::fmt::Write as _;

/// Where a plot is, in a picture's own units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Frame {
    fn bottom(self) -> f64 {
        self.y + self.height
    }
}

/// Text that may stand in a document.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// For a plot: counts far below 2 to the power of 52.
fn number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// A scale's end: 1, 2 or 5 times a power of ten, not below `most`.
fn round_up(most: f64) -> f64 {
    let mut unit = 1.0;
    while unit * 10.0 < most {
        unit *= 10.0;
    }
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * unit)
        .into_iter()
        .find(|end| *end >= most)
        .unwrap_or(most)
}

/// Milliseconds since the beginning until the last thing that is drawn.
fn end_ms(scenario: &ScenarioReport) -> f64 {
    let series = &scenario.series;
    let counted = series.writes.len().max(series.events.len()) as u64 * series.bucket_ms;
    let whole = scenario.faults.iter().map(|fault| fault.whole_ms).fold(0.0, f64::max);
    number(counted).max(whole).max(1.0)
}

/// Each fault as a band: while it lasted, and until all was whole again.
fn bands(svg: &mut String, scenario: &ScenarioReport, at: Frame) {
    let scale = at.width / end_ms(scenario);
    for fault in &scenario.faults {
        for (class, from, until) in
            [("fault", fault.at_ms, fault.healed_ms), ("healing", fault.healed_ms, fault.whole_ms)]
        {
            let (x, width) = (at.x + from * scale, ((until - from) * scale).max(1.0));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}\
                 </title></rect>",
                at.y,
                at.height,
                escaped(&fault.what)
            );
        }
    }
}

/// Counts over time, as an area from the bottom.
fn area(svg: &mut String, class: &str, counts: &[u64], most: f64, step: f64, at: Frame) {
    let _ = write!(svg, "<path class=\"{class}\" d=\"M{:.1} {:.1}", at.x, at.bottom());
    for (index, count) in (1u32..).zip(counts) {
        let y = at.bottom() - (number(*count) / most).min(1.0) * at.height;
        let _ = write!(svg, "V{y:.1}H{:.1}", at.x + f64::from(index) * step);
    }
    let _ = write!(svg, "V{:.1}Z\"/>", at.bottom());
}

/// Where a plot of counts is cut off: what waited during a fault is answered at once after it, and would make all else
/// look like nothing.
fn top(counts: &[u64]) -> f64 {
    let mut some: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
    some.sort_unstable();
    // Twice the median.
    number(some.get(some.len() / 2).copied().unwrap_or_default() * 2).max(1.0)
}

/// The same counts in fewer stretches, `columns` at most; and how many of the old ones are one now.
fn coarser(counts: &[u64], columns: usize) -> (Vec<u64>, usize) {
    let together = counts.len().div_ceil(columns.max(1)).max(1);
    (counts.chunks(together).map(|counts| counts.iter().sum()).collect(), together)
}

/// Columns of a plot over time.
const COLUMNS: usize = 420;
/// Columns of a small plot: few, for a picture that is small as a file, too.
const SPARK_COLUMNS: usize = 250;

/// Acknowledged writes over time, with the faults behind them; small and without words.
pub(super) fn spark(svg: &mut String, scenario: &ScenarioReport, at: Frame) {
    bands(svg, scenario, at);
    let (writes, together) = coarser(&scenario.series.writes, SPARK_COLUMNS);
    let step = at.width / end_ms(scenario) * number(scenario.series.bucket_ms * together as u64);
    area(svg, "writes", &writes, top(&writes), step, at);
    let _ = write!(
        svg,
        "<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/>",
        at.x,
        at.bottom(),
        at.x + at.width
    );
}

/// Writes, reads and events over time, each on a scale of its own, with the faults behind them.
pub(super) fn timeline(scenario: &ScenarioReport) -> String {
    let (width, row, left) = (900.0, 64.0, 64.0);
    let series = &scenario.series;
    let rows = [
        ("writes", "writes/s", &series.writes),
        ("reads", "reads/s", &series.reads),
        ("events", "events/s", &series.events),
    ];
    let height = 3.0 * (row + 14.0) + 30.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"what was served over time\">"
    );
    let inner = width - left - 10.0;
    let end = end_ms(scenario);
    let step = inner / end * number(series.bucket_ms);
    let per_second = 1e3 / number(series.bucket_ms).max(1.0);
    let all = Frame { x: left, y: 6.0, width: inner, height: height - 36.0 };
    bands(&mut svg, scenario, all);
    for (number, fault) in (1..).zip(&scenario.faults) {
        let x = left + fault.at_ms / end * inner + 3.0;
        let _ = write!(svg, "<text class=\"label\" x=\"{x:.1}\" y=\"14\">{number}</text>");
    }
    for (index, (class, name, counts)) in (0u32..).zip(rows) {
        let y = 6.0 + f64::from(index) * (row + 14.0);
        let at = Frame { x: left, y, width: inner, height: row };
        let (counts, together) = coarser(counts, COLUMNS);
        let (most, times) = (top(&counts), number(together as u64));
        area(&mut svg, class, &counts, most, step * times, at);
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{left} {y0:.1}H{x1:.1}\"/><text class=\"label\" x=\"{x}\" y=\"{y1:.1}\" \
             text-anchor=\"end\">{top:.0}</text><text class=\"label\" x=\"{x}\" y=\"{y2:.1}\" \
             text-anchor=\"end\">{name}</text>",
            y0 = at.bottom(),
            x1 = left + inner,
            x = left - 6.0,
            y1 = y + 10.0,
            top = most * per_second / times,
            y2 = at.bottom(),
        );
    }
    let seconds = round_up(end / 1e3 / 12.0);
    let mut at = 0.0;
    while at * 1e3 <= end {
        let x = left + at * 1e3 / end * inner;
        let _ = write!(
            svg,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
            height - 8.0
        );
        at += seconds;
    }
    svg.push_str("</svg>");
    svg
}

/// What each fault cost, a group of bars for each.
pub(super) fn gaps(scenario: &ScenarioReport) -> String {
    let faults = &scenario.faults;
    let (width, bar, left) = (900.0, 13.0, 190.0);
    let kinds = if scenario.pods.is_some() { 4 } else { 3 };
    let group = f64::from(kinds) * (bar + 2.0) + 12.0;
    let count = u32::try_from(faults.len()).unwrap_or(u32::MAX);
    let height = f64::from(count) * group + 8.0;
    let of = |fault: &super::FaultReport| {
        let all = [
            ("writes", "write", fault.write_gap_ms),
            ("reads", "read", fault.read_gap_ms),
            ("events", "watch", fault.watch_gap_ms),
            ("pods", "schedule", fault.schedule_gap_ms),
        ];
        all.into_iter().take(usize::try_from(kinds).unwrap_or_default()).collect::<Vec<_>>()
    };
    let most = faults.iter().flat_map(of).map(|(_, _, ms)| ms).fold(1.0, f64::max);
    let scale = (width - left - 90.0) / round_up(most);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"what each fault cost\">"
    );
    for (index, fault) in (0u32..).zip(faults) {
        let top = f64::from(index) * group + 6.0;
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"0\" y=\"{:.1}\">{} {}<title>{}</title></text>",
            top + 11.0,
            index + 1,
            escaped(&fault.nemesis),
            escaped(&fault.what)
        );
        for (row, (class, name, ms)) in (0u32..).zip(of(fault)) {
            let y = top + f64::from(row) * (bar + 2.0);
            let long = (ms * scale).max(1.0);
            let _ = write!(
                svg,
                "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text><rect \
                 class=\"{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{bar}\" rx=\"2\"/><text \
                 class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{ms:.0} ms</text>",
                left - 6.0,
                y + 10.5,
                left + long + 6.0,
                y + 10.5
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// 2 to the power of one less, in microseconds, is the end of a histogram's first column.
const SHORT: usize = 8;

/// How many took how long; each column is twice as long as the one before.
pub(super) fn histogram(class: &str, latency: &Latency) -> String {
    // What took next to nothing is one column.
    let (short, long) = latency.histogram.split_at(SHORT.min(latency.histogram.len()));
    let short = short.iter().sum::<u64>();
    let counts: Vec<u64> = std::iter::once(short).chain(long.iter().copied()).collect();
    let first = counts.iter().position(|count| *count > 0).unwrap_or_default();
    let shown = counts.get(first..).unwrap_or_default();
    let (column, height) = (46.0, 130.0);
    let columns = u32::try_from(shown.len()).unwrap_or(u32::MAX).max(1);
    let width = f64::from(columns) * column + 10.0;
    let most = number(shown.iter().copied().max().unwrap_or_default()).max(1.0);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" aria-label=\"how many took \
         how long\">"
    );
    for (index, (power, count)) in (0u32..).zip((first..).zip(shown)) {
        let x = f64::from(index) * column + 5.0;
        // By the logarithm: the few that took long are what matters.
        let share = (number(*count) + 1.0).ln() / (most + 1.0).ln();
        let tall = share * (height - 44.0);
        let y = height - 24.0 - tall;
        let power = i32::try_from(power + SHORT - 1).unwrap_or(i32::MAX);
        let up_to = match 2f64.powi(power) / 1e3 {
            millis if millis >= 1e3 => format!("{:.1} s", millis / 1e3),
            millis if millis >= 1.0 => format!("{millis:.0} ms"),
            millis => format!("{millis:.1} ms"),
        };
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" rx=\"2\"/><text \
             class=\"label\" x=\"{m:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text><text class=\"label\" \
             x=\"{m:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{up_to}</text>",
            x + 3.0,
            column - 6.0,
            y - 4.0,
            height - 8.0,
            m = x + column / 2.0
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (most, end) in
            [(0.4, 1.0), (1.0, 1.0), (1.1, 2.0), (30.0, 50.0), (212.5, 500.0), (600.0, 1000.0)]
        {
            assert!((round_up(most) - end).abs() < 1e-9, "{most}: {}", round_up(most));
        }
    }

    #[test]
    fn a_plot_is_cut_off_above_what_is_usual_and_a_gap_stays_one_when_it_is_made_coarser() {
        assert!((top(&[0, 0, 4, 5, 5, 6, 90]) - 10.0).abs() < 1e-9);
        assert!((top(&[0, 0]) - 1.0).abs() < 1e-9);
        let counts = [5, 5, 0, 0, 0, 0, 9, 1, 1];
        assert_eq!(coarser(&counts, 5), (vec![10, 0, 0, 10, 1], 2));
        assert_eq!(coarser(&counts, 100), (counts.to_vec(), 1));
        assert_eq!(coarser(&[], 5), (Vec::new(), 1));
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
