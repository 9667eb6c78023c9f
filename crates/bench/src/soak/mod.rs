//! `bench soak`: mixed load for a long time on members that are killed, stopped, added and removed, and
//! every answer and every event held against what may be.

mod checker;
mod faults;
mod history;
mod keys;
mod lease;
mod ledger;
mod load;
mod memory;
mod report;
mod request;
mod sequence;
mod settle;
mod violation;
mod watches;

pub use self::report::SoakReport;

use self::{
    checker::{Checker, Outcome},
    faults::{Deck, Fault, Gap},
    keys::Revision,
    load::Load,
    memory::Memory,
    report::{Outcomes, Revisions},
    request::Kind,
    watches::WATCHES,
};
use crate::{
    cluster::{Cluster, System},
    compare::directory,
    own_thread::on_own_thread,
    usage,
    wire::{CallError, Connection, path},
};
use anyhow::Context as _;
use etcd::proto::etcdserverpb::{CompactionRequest, CompactionResponse};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until, timeout},
};

/// How old a revision is when everything before it is forgotten.
const KEPT: Duration = Duration::from_secs(5);
/// Between two looks at memory and revision.
const SAMPLE: Duration = Duration::from_secs(1);
/// For a compaction.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two compactions, in times between two faults.
const COMPACTION: std::ops::Range<f64> = 2.0..3.0;

/// What is done to whom.
#[derive(Debug, Clone)]
pub struct SoakPlan {
    /// Who.
    pub system: System,
    /// How long there is load.
    pub time: Duration,
    /// Requests a second, over all members.
    pub rate: u64,
    /// Between the beginnings of two faults, if the first is over by then.
    pub fault_every: Duration,
    /// Of load and faults; what members do of it is theirs.
    pub seed: u64,
    /// Below which directory the members keep theirs; the default one for temporary files if none.
    pub data_dir: Option<PathBuf>,
}

/// For a run that repeats none; few digits, to be typed again.
#[must_use]
pub fn fresh_seed() -> u64 {
    rand::rng().random_range(0..1_000_000)
}

/// What is there for clients and for whoever looks at processes.
#[derive(Debug, Clone, Default)]
struct View {
    urls: Vec<String>,
    pids: Vec<u32>,
}

impl View {
    /// The endpoint at a place; places go round.
    fn url(&self, place: usize) -> String {
        let index = place.checked_rem(self.urls.len()).unwrap_or_default();
        self.urls.get(index).cloned().unwrap_or_default()
    }
}

/// What all tasks share; they are on one thread.
struct Shared {
    checker: RefCell<Checker>,
    requests: RefCell<BTreeMap<Kind, Outcomes>>,
    first_error: RefCell<Option<String>>,
    gap: RefCell<Gap>,
    /// Memory of the member with most.
    rss_bytes: RefCell<Vec<u64>>,
    /// Which revision there was when, of the last seconds.
    marks: RefCell<VecDeque<(Instant, Revision)>>,
    compactions: Cell<u64>,
    /// Violations that were said while it ran.
    said: Cell<usize>,
    /// No more requests are sent.
    closing: Cell<bool>,
}

impl Shared {
    fn new(seed: u64) -> Self {
        Self {
            checker: RefCell::new(Checker::new(seed, WATCHES)),
            requests: RefCell::default(),
            first_error: RefCell::default(),
            gap: RefCell::new(Gap::new(Instant::now())),
            rss_bytes: RefCell::default(),
            marks: RefCell::default(),
            compactions: Cell::default(),
            said: Cell::default(),
            closing: Cell::default(),
        }
    }

    fn count(&self, kind: Kind, outcome: Outcome) {
        let mut requests = self.requests.borrow_mut();
        let outcomes = requests.entry(kind).or_default();
        match outcome {
            Outcome::Wrote | Outcome::Done => outcomes.done += 1,
            Outcome::Refused => outcomes.refused += 1,
            Outcome::Unknown => outcomes.unknown += 1,
        }
    }

    /// Those that were not said yet.
    fn say_violations(&self, say: &mut impl FnMut(String)) {
        let checker = self.checker.borrow();
        for violation in checker.violations.iter().skip(self.said.get()) {
            say(format!("VIOLATION: {violation}"));
        }
        self.said.set(checker.violations.len());
    }

    fn failed(&self, kind: Kind, error: &CallError) {
        let source = std::error::Error::source(error).map(|source| format!(": {source}"));
        let text = || format!("{}: {error}{}", kind.label(), source.unwrap_or_default());
        self.first_error.borrow_mut().get_or_insert_with(text);
    }
}

/// Does it, on a thread of its own.
///
/// Dropping the future ends everything that was started; the runtime waits for that when it is dropped.
///
/// # Errors
/// The system does not start, or does not come back from a fault.
pub async fn soak(
    plan: SoakPlan,
    say: impl FnMut(String) + Send + 'static,
) -> anyhow::Result<SoakReport> {
    on_own_thread(move || run(plan, say)).await
}

async fn run(plan: SoakPlan, mut say: impl FnMut(String)) -> anyhow::Result<SoakReport> {
    let dir = directory(plan.data_dir.as_deref())?;
    say(format!("soak {}: seed {}", plan.system.name, plan.seed));
    let shared = Rc::new(Shared::new(plan.seed));
    let result = Box::pin(run_below(&plan, &shared, dir.path(), &mut say)).await;
    if result.is_err() {
        shared.say_violations(&mut say);
    }
    if !result.as_ref().is_ok_and(SoakReport::held) {
        say(format!("data and logs of the members are kept: {}", dir.keep().display()));
    }
    result.with_context(|| format!("soak of {}, seed {}", plan.system.name, plan.seed))
}

async fn run_below(
    plan: &SoakPlan,
    shared: &Rc<Shared>,
    dir: &std::path::Path,
    say: &mut impl FnMut(String),
) -> anyhow::Result<SoakReport> {
    let mut cluster = Box::pin(Cluster::start(plan.system.clone(), dir, None)).await?;
    let (publish, view) = watch::channel(view_of(&cluster));
    let watches = watches::start(shared, &view);
    let mut besides = JoinSet::new();
    besides.spawn_local(sample(Rc::clone(shared), view.clone()));
    besides.spawn_local(compact(Rc::clone(shared), view.clone(), plan.clone()));
    let load = Load::start(shared, &view, plan.rate)?;
    let faults = Box::pin(strike(plan, shared, &mut cluster, &publish, say)).await?;
    drop(besides);
    load.finish().await;
    let settled = Box::pin(settle::settle(shared, &mut cluster)).await?;
    drop(watches);
    cluster.stop().await?;
    let checker = shared.checker.borrow();
    let memory = Memory::of(&shared.rss_bytes.borrow()).context("no look at memory")?;
    Ok(SoakReport {
        workload: "soak".to_owned(),
        system: plan.system.name.clone(),
        seed: plan.seed,
        seconds: plan.time.as_secs_f64(),
        requests: shared.requests.take(),
        first_error: shared.first_error.take(),
        acknowledged: checker.acknowledged,
        faults: report::spreads(faults),
        revisions: Revisions {
            last: settled.revision.0,
            compacted: checker.compacted.0,
            compactions: shared.compactions.get(),
        },
        keys: settled.keys,
        watches: checker.sequence.watches().iter().map(report::Watch::of).collect(),
        hashes: settled.hashes,
        memory,
        violations_count: checker.violations_count,
        violations: checker.violations.iter().map(ToString::to_string).collect(),
    })
}

fn view_of(cluster: &Cluster) -> View {
    View { urls: cluster.endpoints(), pids: cluster.pids() }
}

/// Faults until the time is over; returns the longest time without an acknowledged write for each.
async fn strike(
    plan: &SoakPlan,
    shared: &Shared,
    cluster: &mut Cluster,
    publish: &watch::Sender<View>,
    say: &mut impl FnMut(String),
) -> anyhow::Result<Vec<(Fault, Duration)>> {
    let begin = Instant::now();
    let end = begin + plan.time;
    let mut deck = Deck::new(plan.seed);
    let mut gaps = Vec::new();
    let mut due = begin + plan.fault_every;
    while due < end {
        sleep_until(due).await;
        due = Instant::now() + plan.fault_every;
        let fault = deck.deal(cluster.endpoints().len());
        shared.gap.borrow_mut().begin();
        let hit = deck.strike(fault, cluster).await.with_context(|| fault.to_string())?;
        cluster.wait_ready().await.with_context(|| format!("after {fault} {hit}"))?;
        let gap = shared.gap.borrow().longest(Instant::now());
        gaps.push((fault, gap));
        publish.send_replace(view_of(cluster));
        let revision = shared.checker.borrow().seen();
        say(format!(
            "{:4.0} s  {fault:13} {hit}: no write for {:.0} ms; {} members, revision {revision}",
            begin.elapsed().as_secs_f64(),
            gap.as_secs_f64() * 1e3,
            cluster.endpoints().len(),
        ));
        shared.say_violations(say);
        due = due.max(Instant::now());
    }
    sleep_until(end).await;
    Ok(gaps)
}

/// Looks at memory and revision until it is dropped.
async fn sample(shared: Rc<Shared>, view: watch::Receiver<View>) {
    let mut ticks = interval(SAMPLE);
    loop {
        let now = ticks.tick().await;
        // One that was killed has none.
        let rss = view.borrow().pids.iter().filter_map(|pid| usage::rss_bytes(*pid).ok()).max();
        shared.rss_bytes.borrow_mut().extend(rss);
        // What no watch has delivered is not forgotten.
        let revision = shared.checker.borrow().history.delivered();
        let mut marks = shared.marks.borrow_mut();
        marks.push_back((now, revision));
        while marks.get(1).is_some_and(|(at, _)| now - *at >= KEPT) {
            marks.pop_front();
        }
    }
}

/// Forgets old revisions now and then, until it is dropped.
async fn compact(shared: Rc<Shared>, view: watch::Receiver<View>, plan: SoakPlan) {
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    loop {
        sleep(plan.fault_every.mul_f64(rng.random_range(COMPACTION))).await;
        let mark = shared.marks.borrow().front().copied();
        let old = mark.filter(|(at, _)| at.elapsed() >= KEPT).map(|(_, revision)| revision);
        let Some(revision) = old.filter(|old| *old > shared.checker.borrow().compacted) else {
            continue;
        };
        shared.checker.borrow_mut().compacted = revision;
        let url = view.borrow().url(rng.random_range(0..WATCHES));
        let ask = async {
            let request = CompactionRequest { revision: revision.0, physical: false };
            let connection = Connection::open(&url).await?;
            connection.unary::<CompactionResponse>(path::COMPACT, &request).await
        };
        // Whatever came of this one, the next goes further.
        if let Ok(Ok(_)) = timeout(PATIENCE, ask).await {
            shared.compactions.set(shared.compactions.get() + 1);
        }
    }
}
