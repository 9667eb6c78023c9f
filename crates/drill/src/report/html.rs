//! A page that needs nothing but itself, and a picture for a README.

use super::{Check, OURS, Report, ScenarioReport, plot};
use crate::chaos::ChaosRow;
use plot::{Frame, escaped};
use std::fmt::Write as _;

/// Colours, for light and for dark.
const COLOURS: &str = "
:root{--bg:#fbfaf8;--card:#fff;--ink:#1d2330;--dim:#6b7280;--line:#e3e1dc;--good:#1a7f4b;--bad:#c62f2f;
--writes:#2f6fdb;--reads:#12a08a;--events:#8a5cd6;--pods:#d9822b;--fault:#f6c9c4;--healing:#fbe7c1}
@media(prefers-color-scheme:dark){:root{--bg:#14171d;--card:#1b1f27;--ink:#e7e9ee;--dim:#9aa2b1;--line:#2d333e;
--good:#4cc38a;--bad:#ff7b72;--writes:#6aa1ff;--reads:#3fcdb5;--events:#b596f2;--pods:#f0a95a;--fault:#5a2a2a;
--healing:#4d4022}}
.writes{fill:var(--writes)}.reads{fill:var(--reads)}.events{fill:var(--events)}.pods{fill:var(--pods)}
.fault{fill:var(--fault)}.healing{fill:var(--healing)}.axis{stroke:var(--line);fill:none}
.label{fill:var(--dim);font-size:10.5px}.name{fill:var(--ink);font-size:12px;font-weight:600}
text{font-family:ui-sans-serif,system-ui,\"Segoe UI\",Roboto,sans-serif}
";

const LAYOUT: &str = "
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 ui-sans-serif,system-ui,\"Segoe UI\",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:32px 20px 80px}h1{font-size:28px;margin:0 0 4px}
h2{font-size:20px;margin:0}h3{font-size:13px;margin:22px 0 6px;color:var(--dim);font-weight:600;
text-transform:uppercase;letter-spacing:.05em}p{margin:6px 0}.dim{color:var(--dim)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 24px;margin:20px 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 8px;border-bottom:1px solid var(--line)}
th{font-size:12px;color:var(--dim);font-weight:600}th:first-child,td:first-child{text-align:left}
.left{text-align:left}.held{color:var(--good);font-weight:600}.broken{color:var(--bad);font-weight:600}
.badge{display:inline-block;padding:2px 12px;border-radius:99px;color:#fff;font-weight:600;font-size:14px}
.badge.held{background:var(--good)}.badge.broken{background:var(--bad)}
svg{width:100%;height:auto;display:block}summary{cursor:pointer;color:var(--dim);margin-top:14px}
li{margin:2px 0}code{font-size:13px}.key span{margin-right:16px}.key i{display:inline-block;width:10px;height:10px;
border-radius:2px;margin-right:5px}a{color:var(--writes);text-decoration:none}
.grid{display:flex;flex-wrap:wrap;gap:24px}.grid>div{flex:1 1 380px}
";

/// The whole report as one HTML document.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>trireme drill</title><style>{COLOURS}{LAYOUT}</style>\
         </head><body><main><h1>trireme drill {}</h1><p class=\"dim\">trireme {}, {}, seed {}</p>",
        badge(report.held()),
        escaped(&report.version),
        escaped(&report.machine),
        report.seed
    );
    overview(&mut html, report);
    for what in &report.left_out {
        let _ = write!(html, "<p class=\"dim\">Left out: {}</p>", escaped(what));
    }
    if !report.chaos.is_empty() {
        chaos(&mut html, &report.chaos);
    }
    for scenario in &report.scenarios {
        section(&mut html, scenario);
    }
    html.push_str("</main></body></html>\n");
    html
}

fn badge(held: bool) -> String {
    let (class, word) = word(held);
    format!("<span class=\"badge {class}\">{word}</span>")
}

fn word(held: bool) -> (&'static str, &'static str) {
    if held { ("held", "held") } else { ("broken", "broken") }
}

/// How a scenario is called where there are several systems.
fn title(scenario: &ScenarioReport) -> String {
    if scenario.system == OURS {
        scenario.name.clone()
    } else {
        format!("{} ({})", scenario.name, scenario.system)
    }
}

fn overview(html: &mut String, report: &Report) {
    html.push_str(
        "<section><table><thead><tr><th>scenario</th><th class=\"left\">verdict</th><th>no write</th><th>no \
         read</th><th>watch late</th><th>no node</th><th>acknowledged</th><th>checks</th></tr></thead><tbody>",
    );
    for s in &report.scenarios {
        let (class, word) = word(s.held);
        let schedule =
            s.pods.as_ref().map_or("–".to_owned(), |_| format!("{:.0} ms", s.schedule_gap_ms));
        let _ = write!(
            html,
            "<tr><td><a href=\"#{id}\">{title}</a></td><td class=\"left {class}\">{word}</td><td>{:.0} ms</td><td>\
             {:.0} ms</td><td>{:.0} ms</td><td>{schedule}</td><td>{}</td><td>{}</td></tr>",
            s.write_gap_ms,
            s.read_gap_ms,
            s.watch_gap_ms,
            s.acknowledged,
            s.checks.len(),
            id = id(s),
            title = escaped(&title(s)),
        );
    }
    html.push_str(
        "</tbody></table><p class=\"dim\">Each column: the longest of all faults. No write, no read: nobody anywhere \
         was answered; clients ask every replica all the time. Watch late: an event after its write was \
         acknowledged. No node: a new Pod waited for one.</p></section>",
    );
}

fn chaos(html: &mut String, rows: &[ChaosRow]) {
    html.push_str(
        "<section><h2>Faults, over all runs</h2><table><thead><tr><th>fault</th><th>runs</th><th>faults</th>\
         <th>requests</th><th>acknowledged</th><th>reads</th><th>events</th><th>Pods</th><th>unknown</th><th>no \
         write</th><th class=\"left\">verdict</th></tr></thead><tbody>",
    );
    for row in rows {
        let (class, word) = word(row.held);
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{:.0} ms</td><td class=\"left {class}\">{word} {}</td></tr>",
            escaped(&row.nemesis),
            row.runs,
            row.faults,
            row.operations,
            row.acknowledged,
            row.reads,
            row.events,
            row.pods,
            row.unknown,
            row.write_gap_ms,
            escaped(&row.broken.join("; "))
        );
    }
    html.push_str("</tbody></table></section>");
}

fn id(scenario: &ScenarioReport) -> String {
    format!("{}-{}", escaped(&scenario.name), escaped(&scenario.system))
}

fn section(html: &mut String, s: &ScenarioReport) {
    let _ = write!(
        html,
        "<section id=\"{}\"><h2>{} {}</h2><p>{}</p><p class=\"dim\">{} requests, {} writes acknowledged, {} \
         linearizable and {} serializable reads, {} failed, {} of unknown outcome; {} events delivered, {} watches \
         resumed.</p>",
        id(s),
        escaped(&title(s)),
        badge(s.held),
        escaped(&s.says),
        s.operations,
        s.acknowledged,
        s.reads,
        s.stale_reads,
        s.failed,
        s.unknown,
        s.events,
        s.resumed
    );
    if s.operations > 0 {
        served(html, s);
    }
    if let Some(pods) = &s.pods {
        let _ = write!(
            html,
            "<h3>Pods</h3><p>{} made, {} bound (median {:.0} ms, worst {:.0} ms), {} ran; {} containers restarted; {} \
             Pods evicted, {} replaced.</p>",
            pods.created,
            pods.bound,
            pods.bind_ms.median,
            pods.bind_ms.max,
            pods.running,
            pods.restarts,
            pods.evicted,
            pods.replaced
        );
    }
    let broken = s.checks.iter().filter(|check| !check.held).count();
    let looked: u64 = s.checks.iter().map(|check| check.examined).sum();
    let _ = write!(
        html,
        "<h3>What had to hold</h3><p class=\"dim\">{} things, of which {broken} did not; {looked} observations could \
         have shown it.</p><table><thead><tr><th>property</th><th class=\"left\">source</th><th>looked at</th><th \
         class=\"left\">verdict</th></tr></thead><tbody>",
        s.checks.len()
    );
    for held in [false, true] {
        for check in s.checks.iter().filter(|check| check.held == held) {
            row(html, check);
        }
    }
    let open = if s.held { "" } else { " open" };
    let _ = write!(
        html,
        "</tbody></table><details{open}><summary>What happened, step by step</summary><ol>"
    );
    for step in &s.steps {
        let _ =
            write!(html, "<li><code>{:.2} s</code> {}</li>", step.at_ms / 1e3, escaped(&step.text));
    }
    html.push_str("</ol></details></section>");
}

/// Plots of what clients saw.
fn served(html: &mut String, s: &ScenarioReport) {
    let _ = write!(
        html,
        "<h3>What was served</h3><p class=\"key dim\"><span><i style=\"background:var(--fault)\"></i>fault, by its number \
         below</span><span><i style=\"background:var(--healing)\"></i>until all was whole again</span></p>{}",
        plot::timeline(s)
    );
    if !s.faults.is_empty() {
        let _ = write!(html, "<h3>What each fault cost</h3>{}", plot::gaps(s));
    }
    html.push_str("<div class=\"grid\">");
    for (name, class, latency) in [
        ("Writes", "writes", &s.write_latency),
        ("Linearizable reads", "reads", &s.read_latency),
        ("Watches, after the acknowledgement", "events", &s.watch_lag),
    ] {
        if latency.histogram.iter().any(|count| *count > 0) {
            let _ = write!(
                html,
                "<div><h3>{name}</h3><p class=\"dim\">half within {} ms, 99 of 100 within {} ms</p>{}</div>",
                latency.p50_ms,
                latency.p99_ms,
                plot::histogram(class, latency)
            );
        }
    }
    html.push_str("</div>");
}

fn row(html: &mut String, check: &Check) {
    let (class, word) = word(check.held);
    let mut property = escaped(&check.property);
    for violation in &check.violations {
        let _ = write!(property, "<br><span class=\"broken\">{}</span>", escaped(violation));
    }
    let sources = check.sources.iter().map(|source| escaped(source)).collect::<Vec<_>>().join(", ");
    let _ = write!(
        html,
        "<tr><td>{property}</td><td class=\"left dim\">{sources}</td><td>{}</td><td class=\"left {class}\">{word}</td>\
         </tr>",
        check.examined
    );
}

/// The report as one SVG: a line a scenario.
#[must_use]
pub fn picture(report: &Report) -> String {
    let (width, row, top) = (960.0, 46.0, 96.0);
    let count = u32::try_from(report.scenarios.len()).unwrap_or(u32::MAX);
    let height = top + f64::from(count) * row + 52.0;
    let (class, word) = word(report.held());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"trireme drill\"><style>{COLOURS}\
         .back{{fill:var(--card);stroke:var(--line)}}.title{{fill:var(--ink);font-size:20px;font-weight:700}}\
         .figure{{fill:var(--ink);font-size:13px}}.held{{fill:var(--good);font-weight:700;font-size:13px}}\
         .broken{{fill:var(--bad);font-weight:700;font-size:13px}}</style>\
         <rect class=\"back\" x=\"1\" y=\"1\" width=\"{}\" height=\"{}\" rx=\"12\"/>\
         <text class=\"title\" x=\"24\" y=\"38\">trireme drill</text>\
         <text class=\"{class}\" x=\"170\" y=\"38\">{}</text>",
        width - 2.0,
        height - 2.0,
        if report.held() { "everything held" } else { word },
    );
    let columns = [
        (24.0, "start", "scenario"),
        (190.0, "start", "writes over time"),
        (610.0, "end", "no write for"),
        (700.0, "end", "watch late by"),
        (795.0, "end", "no node for"),
        (880.0, "end", "writes"),
        (936.0, "end", "verdict"),
    ];
    for (x, anchor, name) in columns {
        let _ = write!(
            svg,
            "<text class=\"label\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{name}</text>",
            top - 18.0
        );
    }
    for (x, class, name) in [(290.0, "fault", "fault"), (345.0, "healing", "until all is whole")] {
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\" rx=\"2\"/><text \
             class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            top - 27.0,
            x + 15.0,
            top - 18.0
        );
    }
    for (index, s) in (0u32..).zip(&report.scenarios) {
        let y = top + f64::from(index) * row;
        let at = Frame { x: 190.0, y: y - 8.0, width: 330.0, height: 30.0 };
        plot::spark(&mut svg, s, at);
        let (class, word) = self::word(s.held);
        let schedule =
            s.pods.as_ref().map_or("–".to_owned(), |_| format!("{:.0} ms", s.schedule_gap_ms));
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"24\" y=\"{y1:.1}\">{}</text>",
            escaped(&title(s)),
            y1 = y + 12.0
        );
        let seconds = s.series.writes.len() as u64 * s.series.bucket_ms / 1000;
        let _ =
            write!(svg, "<text class=\"label\" x=\"524\" y=\"{:.1}\">{seconds} s</text>", y + 22.0);
        let figures = [
            (610.0, "figure", format!("{:.0} ms", s.write_gap_ms)),
            (700.0, "figure", format!("{:.0} ms", s.watch_gap_ms)),
            (795.0, "figure", schedule),
            (880.0, "figure", s.acknowledged.to_string()),
            (936.0, class, word.to_owned()),
        ];
        for (x, class, text) in figures {
            let _ = write!(
                svg,
                "<text class=\"{class}\" x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                y + 12.0
            );
        }
    }
    let notes = [
        format!("trireme {}, {}. Times: the worst of all faults.", report.version, report.machine),
        "Checked over every history: lost writes, stale reads, gaps in watches, and all else that is promised."
            .to_owned(),
    ];
    for (line, note) in (0u32..).zip(notes) {
        let _ = write!(
            svg,
            "<text class=\"label\" x=\"24\" y=\"{:.1}\">{}</text>",
            height - 34.0 + f64::from(line) * 16.0,
            escaped(&note)
        );
    }
    svg.push_str("</svg>");
    svg.push('\n');
    svg
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_escapes_what_it_shows() {
        for held in [true, false] {
            let page = page(&report(held));
            for foreign in ["<script", "src=", "@import", "url(", "<link"] {
                assert!(!page.contains(foreign), "{foreign}");
            }
            assert!(page.contains("the leader &lt;dies&gt;"));
            assert!(page.contains("class=\"fault\""));
            assert_eq!(page.contains("is gone</span>"), !held);
            let verdict = if held { "badge held" } else { "badge broken" };
            assert!(page.contains(verdict));
        }
    }

    #[test]
    fn a_picture_is_one_element_with_every_scenario() {
        let picture = picture(&report(true));
        assert!(picture.starts_with("<svg xmlns"));
        assert_eq!(picture.matches("<svg").count(), 1);
        assert_eq!(picture.matches("</svg>").count(), 1);
        for text in ["everything held", "leader-kill", "212 ms", "1200"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
