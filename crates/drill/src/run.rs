//! One scenario from its cluster's start to its end: load, faults, recovery, verdict.

use crate::{
    cluster::Cluster,
    measure::{self, Pods, Seen, Window},
    nemesis::{self, Hold, Injected, Means, Nemesis},
    record::Recorder,
    report::{self, Check, FaultReport, Latency, ScenarioReport, Series, Step, millis},
    verdict::{self, FaultSeen, Promises},
    workload::{Board, Load, Target, Workload},
};
use anyhow::Context as _;
use bench::Spread;
use checkers::history::{History, Mark, Settings};
use rand::rngs::StdRng;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::sleep;

/// For something that should take well under a second.
const SOON: Duration = Duration::from_secs(30);
/// For all sorts of load to be seen on a new cluster: its nodes make their image for the first Pod.
const BEGIN: Duration = Duration::from_secs(120);
/// For a node to be found lost and its Pods to be replaced: a new leader evicts nobody for 50 s (NOD-11), and nodes
/// go one in 10 s (NOD-13).
const REPLACE: Duration = Duration::from_secs(180);
/// Writes before the first fault, and after each.
const STEADY: u64 = 100;
/// Events for each watcher before the first fault.
const STEADY_EVENTS: u64 = 20;

const WHOLE: &str = "all is whole again after each fault";
const GOES_ON: &str = "writes go on while the fault lasts";
const REFUSED: &str = "nothing is acknowledged without a majority";
const TOLD: &str = "clients of a replica that is left are told that there is no majority";
const STALE: &str = "a replica that is left goes on with serializable reads";
const FULL: &str = "a full disk is told to clients";
const READS: &str = "reads go on while the disk is full";
const REPLACED: &str = "Pods of a lost node are evicted and replaced";

/// What a run is about.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    pub(crate) says: String,
    /// What reports call who is drilled.
    pub(crate) system: &'static str,
    pub(crate) faults: Vec<Nemesis>,
    /// Whether the second fault comes while the first one lasts, and so on in pairs, where both can be.
    pub(crate) overlap: bool,
    pub(crate) write_gap_max: Option<Duration>,
    pub(crate) pods_stay: bool,
    pub(crate) load: Load,
    /// Of random choices; keys are under it, too.
    pub(crate) seed: u64,
    pub(crate) node_silence: Duration,
    pub(crate) means: &'a Means,
    /// Where the history is written, too.
    pub(crate) keep: Option<PathBuf>,
}

/// Steps as they happen: kept, and said at once.
struct Diary<'a> {
    recorder: Arc<Recorder>,
    steps: Vec<Step>,
    say: &'a mut dyn FnMut(String),
}

impl Diary<'_> {
    fn note(&mut self, text: impl Into<String>) {
        let at_ms = millis(Duration::from_nanos(self.recorder.now()));
        let text = text.into();
        (self.say)(format!("{:>8.2} s  {text}", at_ms / 1e3));
        self.steps.push(Step { at_ms, text });
    }
}

/// Under which all keys of a drill are: those of another one in the same cluster are not its.
pub(crate) fn prefix(seed: u64) -> String {
    format!("trireme-drill/{seed}/")
}

/// Who is under load.
fn target(cluster: &Cluster, prefix: String) -> Target {
    let api = cluster.endpoints();
    Target {
        etcd_urls: cluster.etcd_urls(),
        access: api.as_ref().map(|endpoints| endpoints.access.clone()).unwrap_or_default(),
        progress_is_true: api.is_some(),
        api,
        prefix,
    }
}

/// Runs it on a cluster that is whole, and leaves it whole.
///
/// # Errors
/// The cluster cannot be loaded or broken at all. That it did not hold is in the report.
pub(crate) async fn run(
    plan: &Plan<'_>,
    cluster: &mut Cluster,
    random: &mut StdRng,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<ScenarioReport> {
    let recorder = Arc::new(Recorder::new());
    let mut diary = Diary { recorder: Arc::clone(&recorder), steps: Vec::new(), say };
    let target = target(cluster, format!("{}{}/", prefix(plan.seed), plan.load.run));
    let workload = Workload::start(target, plan.load, Arc::clone(&recorder), plan.seed).await?;
    let wanted = u64::from(plan.load.steady_pods);
    let steady = recorder.wait(BEGIN, "load before the first fault", |tally| {
        let watched = tally.events.values().filter(|events| **events >= STEADY_EVENTS).count();
        tally.writes >= STEADY
            && watched == cluster.replicas().len()
            && (plan.load.pod_interval.is_none() || tally.running > wanted)
    });
    steady.await.with_context(|| format!("the cluster's logs:\n{}", cluster.log_tails()))?;
    diary.note("clients write, read and watch at every replica; Pods run");
    let mut faults = Vec::new();
    let mut lost_ns = None;
    let mut hit = Vec::new();
    for pair in plan.faults.chunks(if plan.overlap { 2 } else { 1 }) {
        let mut faulty = Faulty { plan, cluster, workload: &workload, random, diary: &mut diary };
        for fault in faulty.together(pair).await? {
            if fault.nemesis == Nemesis::LoseNode.row().name {
                lost_ns = Some(fault.window.from_ns);
            }
            hit.extend(fault.node.clone());
            faults.push(fault);
        }
    }
    let (board, left) = workload.finish().await?;
    diary.note("the load has ended; what is left is compared and checked");
    let settings = Settings {
        node_grace_ns: u64::try_from(plan.node_silence.as_nanos()).unwrap_or(u64::MAX),
        steady_nodes: cluster.nodes().into_iter().filter(|node| !hit.contains(node)).collect(),
        // This machine is looked at now and then.
        runtime_is_complete: false,
        ..Settings::default()
    };
    let history = History { settings, records: recorder.take() };
    keep(plan, &history)?;
    let mut report = judge(plan, &history, &board, &faults, lost_ns, recorder.now(), diary.steps);
    if plan.load.pod_interval.is_some() {
        let broken = left.iter().map(|name| format!("{name} is still there")).collect();
        let made = board.len() as u64;
        report.checks.push(Check::promise("Pods that are deleted go", made, broken));
    }
    report.held = report.checks.iter().all(|check| check.held);
    Ok(report)
}

fn keep(plan: &Plan<'_>, history: &History) -> anyhow::Result<()> {
    let Some(path) = &plan.keep else { return Ok(()) };
    let file = std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    checkers::history::write_lines(history, std::io::BufWriter::new(file))
        .with_context(|| format!("write {}", path.display()))
}

/// A cluster with faults in it.
struct Faulty<'a, 'd> {
    plan: &'a Plan<'a>,
    cluster: &'a mut Cluster,
    workload: &'a Workload,
    random: &'a mut StdRng,
    diary: &'a mut Diary<'d>,
}

impl Faulty<'_, '_> {
    /// One fault, or one that comes while another one lasts; and all is whole again.
    async fn together(&mut self, pair: &[Nemesis]) -> anyhow::Result<Vec<FaultSeen>> {
        let mut seen = Vec::new();
        if let Some((around, inside)) = nemesis::nested(pair) {
            // What goes on inside may take another replica away.
            let (injected, mut fault) = self.begin(around, !inside.only_hinders()).await?;
            seen.push(self.whole(inside).await?);
            self.end(&injected, &mut fault).await;
            seen.push(fault);
        } else {
            for nemesis in pair {
                seen.push(self.whole(*nemesis).await?);
            }
        }
        Ok(seen)
    }

    /// From the injection until all is whole again.
    async fn whole(&mut self, nemesis: Nemesis) -> anyhow::Result<FaultSeen> {
        let (injected, mut fault) = self.begin(nemesis, false).await?;
        hold(&injected, &mut fault, self.cluster, self.workload, self.diary).await;
        self.end(&injected, &mut fault).await;
        Ok(fault)
    }

    async fn begin(
        &mut self,
        nemesis: Nemesis,
        is_needed: bool,
    ) -> anyhow::Result<(Injected, FaultSeen)> {
        let recorder = Arc::clone(&self.diary.recorder);
        let from_ns = recorder.now();
        let (cluster, means) = (&mut *self.cluster, self.plan.means);
        let injected = nemesis::inject(nemesis, is_needed, cluster, means, self.random)
            .await
            .with_context(|| format!("inject {}", nemesis.row().name))?;
        recorder.mark(Mark::Fault { at_ns: from_ns, what: injected.what.clone() });
        self.diary.note(injected.what.clone());
        let fault = FaultSeen {
            nemesis: nemesis.row().name,
            what: injected.what.clone(),
            node: injected.node.clone(),
            window: Window { from_ns, until_ns: from_ns },
            healed_ns: from_ns,
            broken: Vec::new(),
            kept: vec![(WHOLE, 1)],
        };
        Ok((injected, fault))
    }

    async fn end(&mut self, injected: &Injected, fault: &mut FaultSeen) {
        let recorder = Arc::clone(&self.diary.recorder);
        fault.healed_ns = recorder.now();
        let healed = nemesis::heal(injected, self.cluster).await;
        // What was sent before must not be taken for a sign that it goes on.
        let before = recorder.tally();
        let goes_on = recorder.wait(SOON, "writes after the fault", |tally| {
            let watched = tally.events.iter().all(|(watcher, events)| {
                *events > before.events.get(watcher).copied().unwrap_or_default()
            });
            tally.writes >= before.writes + STEADY && watched
        });
        for broken in [healed.err(), goes_on.await.err()].into_iter().flatten() {
            fault.broken.push((WHOLE, format!("{}: {broken:#}", injected.what)));
        }
        let now = recorder.now();
        fault.window.until_ns = now;
        recorder.mark(Mark::Healed { at_ns: now });
        let took = millis(Duration::from_nanos(now - fault.healed_ns));
        self.diary.note(format!("taken back; all is whole again after {took:.0} ms"));
    }
}

/// Waits as long as the fault lasts, and looks at what must hold meanwhile.
async fn hold(
    injected: &Injected,
    fault: &mut FaultSeen,
    cluster: &Cluster,
    workload: &Workload,
    diary: &mut Diary<'_>,
) {
    let recorder = Arc::clone(&diary.recorder);
    let before = recorder.tally();
    let mut check = |name: &'static str, seen: anyhow::Result<()>| {
        fault.kept.push((name, 1));
        if let Err(why) = seen {
            fault.broken.push((name, format!("{}: {why:#}", injected.what)));
        }
    };
    match injected.nemesis.row().hold {
        Hold::Done => {}
        Hold::Writes(count, at_least) => {
            let goes_on = recorder
                .wait(SOON, "writes during the fault", |t| t.writes >= before.writes + count)
                .await;
            check(GOES_ON, goes_on);
            diary.note("writes go on");
            // How long a fault lasts is the drill's to say.
            sleep(at_least).await;
        }
        Hold::Refused(lasts) => {
            // Whatever was under way when the majority went is answered by then, one way or the other.
            let left = cluster.up();
            let told = recorder
                .wait(SOON, "an answer at a replica that is left", |tally| {
                    left.iter().all(|id| told(tally, *id) > told(&before, *id) + 5)
                })
                .await;
            check(TOLD, told);
            let at_first = recorder.tally();
            sleep(lasts).await;
            let at_last = recorder.tally();
            let more = at_last.writes - at_first.writes;
            let none = if more == 0 { Ok(()) } else { Err(anyhow::anyhow!("{more} writes")) };
            check(REFUSED, none);
            let stale = |tally: &crate::record::Tally| {
                left.iter()
                    .map(|id| tally.stale_reads.get(id).copied().unwrap_or_default())
                    .sum::<u64>()
            };
            let reads = stale(&at_last) - stale(&at_first);
            let some = if reads > 0 { Ok(()) } else { Err(anyhow::anyhow!("none in {lasts:?}")) };
            check(STALE, some);
            diary.note(format!(
                "no write is acknowledged, every client is told; {reads} serializable reads at who is left"
            ));
        }
        Hold::Full => {
            let refused = recorder
                .wait(SOON, "writes that are refused for want of room", |t| {
                    t.refused_for_room > before.refused_for_room
                })
                .await;
            check(FULL, refused);
            let full = recorder.tally();
            let reads = recorder
                .wait(SOON, "reads while the disk is full", |t| t.reads > full.reads + 20)
                .await;
            check(READS, reads);
            diary.note("writes are refused for want of room, reads go on");
        }
        Hold::Replaced => {
            let node = injected.node.clone().unwrap_or_default();
            let board = workload.board();
            // What an earlier fault had evicted has its place elsewhere by now.
            let steady = board.values().filter(|seen| seen.steady && seen.evicted_ns.is_none());
            let there = steady.filter(|seen| seen.node == node).count();
            let wanted = before.replaced + there as u64;
            let replaced = recorder
                .wait(REPLACE, "Pods in the place of those that were lost", |t| {
                    t.replaced >= wanted
                })
                .await;
            check(REPLACED, replaced);
            diary.note(format!("{there} Pods that stay were evicted, and run elsewhere"));
        }
    }
}

fn told(tally: &crate::record::Tally, replica: u64) -> u64 {
    tally.told.get(&replica).copied().unwrap_or_default()
}

/// The report on what was seen.
fn judge(
    plan: &Plan<'_>,
    history: &History,
    board: &Board,
    faults: &[FaultSeen],
    lost_ns: Option<u64>,
    end_ns: u64,
    steps: Vec<Step>,
) -> ScenarioReport {
    let seen = Seen::of(&history.records);
    let has_pods = plan.load.pod_interval.is_some();
    let mut checks = verdict::of_history(history);
    let promises = Promises {
        write_gap_max: plan.write_gap_max,
        pods_stay: plan.pods_stay,
        has_pods,
        always_leads: !plan.faults.contains(&Nemesis::LoseQuorum),
    };
    checks.extend(verdict::of_measures(&seen, board, faults, promises));
    let pods = has_pods.then(|| Pods::of(board, lost_ns));
    summarize(Summary {
        name: plan.name.clone(),
        says: plan.says.clone(),
        system: plan.system.to_owned(),
        seen: &seen,
        board,
        faults,
        checks,
        pods,
        end_ns,
        steps,
    })
}

/// Of a run that did not come to its end.
pub(crate) fn broken(plan: &Plan<'_>, why: String) -> ScenarioReport {
    let (seen, board) = (Seen::default(), Board::new());
    summarize(Summary {
        name: plan.name.clone(),
        says: plan.says.clone(),
        system: plan.system.to_owned(),
        seen: &seen,
        board: &board,
        faults: &[],
        checks: vec![Check::promise("the drill can be run to its end", 1, vec![why])],
        pods: None,
        end_ns: 0,
        steps: Vec::new(),
    })
}

/// What a report is made of.
pub(crate) struct Summary<'a> {
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) system: String,
    pub(crate) seen: &'a Seen,
    pub(crate) board: &'a Board,
    pub(crate) faults: &'a [FaultSeen],
    pub(crate) checks: Vec<Check>,
    pub(crate) pods: Option<Pods>,
    pub(crate) end_ns: u64,
    pub(crate) steps: Vec<Step>,
}

pub(crate) fn summarize(of: Summary<'_>) -> ScenarioReport {
    let Summary { name, says, system, seen, board, faults, checks, pods, end_ns, steps } = of;
    let ms = |at_ns| millis(Duration::from_nanos(at_ns));
    let reports: Vec<FaultReport> = faults
        .iter()
        .map(|fault| FaultReport {
            nemesis: fault.nemesis.to_owned(),
            what: fault.what.clone(),
            at_ms: ms(fault.window.from_ns),
            healed_ms: ms(fault.healed_ns),
            whole_ms: ms(fault.window.until_ns),
            write_gap_ms: millis(seen.writes.longest_gap(fault.window)),
            read_gap_ms: millis(seen.reads.longest_gap(fault.window)),
            stale_read_gap_ms: millis(seen.stale_reads.longest_gap(fault.window)),
            watch_gap_ms: millis(seen.longest_lag(fault.window)),
            schedule_gap_ms: millis(measure::longest_bind(board, fault.window)),
        })
        .collect();
    let longest = |of: fn(&FaultReport) -> f64| reports.iter().map(of).fold(0.0, f64::max);
    let gaps: Vec<Duration> =
        faults.iter().map(|fault| seen.writes.longest_gap(fault.window)).collect();
    let width_ns = report::BUCKET_MS * 1_000_000;
    let buckets = |times: &mut dyn Iterator<Item = u64>| measure::buckets(times, width_ns, end_ns);
    ScenarioReport {
        name,
        says,
        system,
        held: checks.iter().all(|check| check.held),
        checks,
        write_gap_ms: longest(|fault| fault.write_gap_ms),
        read_gap_ms: longest(|fault| fault.read_gap_ms),
        stale_read_gap_ms: longest(|fault| fault.stale_read_gap_ms),
        watch_gap_ms: longest(|fault| fault.watch_gap_ms),
        schedule_gap_ms: longest(|fault| fault.schedule_gap_ms),
        write_gaps_ms: Spread::of(&gaps),
        steps,
        operations: seen.operations,
        acknowledged: seen.writes.count(),
        reads: seen.reads.count(),
        stale_reads: seen.stale_reads.count(),
        unknown: seen.unknown,
        failed: seen.failed,
        first_error: seen.first_error.clone(),
        events: seen.events,
        resumed: seen.resumed,
        write_latency: Latency::of(&seen.writes.histogram(), seen.writes.took()),
        read_latency: Latency::of(&seen.reads.histogram(), seen.reads.took()),
        watch_lag: Latency::of(&seen.lag_histogram(), seen.lags()),
        pods,
        series: Series {
            bucket_ms: report::BUCKET_MS,
            writes: buckets(&mut seen.writes.times()),
            reads: buckets(&mut seen.reads.times()),
            events: buckets(&mut seen.event_times()),
        },
        faults: reports,
    }
}
