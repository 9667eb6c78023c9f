//! Every fault alone, and then several at once, on one cluster, for as long as somebody likes.

use crate::{
    Options,
    cluster::{Cluster, Shape},
    nemesis::{Means, Need, Nemesis, ROWS},
    report::{Check, OURS, ScenarioReport},
    run::{self, Plan},
};
use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// How often a fault is injected in one run of its own.
const ALONE: usize = 2;
/// Faults of one run in which they are mixed.
const MIXED: usize = 4;
/// What such runs are called.
const MIX: &str = "mixed";
/// Short enough that a lost node is replaced while somebody waits, long enough for an agent that is killed.
const NODE_SILENCE: Duration = Duration::from_secs(10);
/// Runs that could not be finished before it is given up: each costs a cluster.
const UNFINISHED_MAX: u32 = 3;
const GAP_MAX: Duration = Duration::from_secs(5);

/// What one fault has come to, over all its runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChaosRow {
    /// Its name; `mixed` for several at once.
    pub nemesis: String,
    /// How often a run was made of it.
    pub runs: u64,
    /// How often it was injected.
    pub faults: u64,
    /// Requests of keys and leases.
    pub operations: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Events that watches delivered.
    pub events: u64,
    /// Pods that were made.
    pub pods: u64,
    /// Requests whose outcome is not known.
    pub unknown: u64,
    /// The longest time without an acknowledged write.
    pub write_gap_ms: f64,
    /// Whether everything held in every run.
    pub held: bool,
    /// What did not, each once.
    pub broken: Vec<String>,
}

impl ChaosRow {
    fn of(nemesis: &str) -> Self {
        Self { nemesis: nemesis.to_owned(), held: true, ..Self::default() }
    }

    fn add(&mut self, run: &ScenarioReport) {
        self.runs += 1;
        self.faults += run.faults.len() as u64;
        self.operations += run.operations;
        self.acknowledged += run.acknowledged;
        self.reads += run.reads + run.stale_reads;
        self.events += run.events;
        self.pods += run.pods.as_ref().map_or(0, |pods| pods.created);
        self.unknown += run.unknown;
        self.write_gap_ms = self.write_gap_ms.max(run.write_gap_ms);
        self.held &= run.held;
        for check in run.checks.iter().filter(|check| !check.held) {
            if !self.broken.contains(&check.property) {
                self.broken.push(check.property.clone());
            }
        }
    }
}

/// The faults of these names, or all that can be had.
///
/// # Errors
/// There is none of a name, or it cannot be had here.
pub(crate) fn chosen(
    names: &[String],
    means: &Means,
    left_out: &mut Vec<String>,
) -> anyhow::Result<Vec<Nemesis>> {
    if names.is_empty() {
        let mut all = Vec::new();
        for row in ROWS {
            match means.missing(row.nemesis) {
                None => all.push(row.nemesis),
                Some(why) => left_out.push(format!("{}: {why}", row.name)),
            }
        }
        return Ok(all);
    }
    let find = |name: &String| {
        let nemesis = Nemesis::named(name).with_context(|| {
            format!("no fault is called {name:?}: `trireme drill list` names them")
        })?;
        match means.missing(nemesis) {
            None => Ok(nemesis),
            Some(why) => anyhow::bail!("{name}: {why}"),
        }
    };
    names.iter().map(find).collect()
}

/// What all of them need to run on.
pub(crate) fn shape(chosen: &[Nemesis], options: &Options) -> Shape {
    let has = |nemesis| chosen.contains(&nemesis);
    let upgrade = has(Nemesis::Upgrade);
    Shape {
        nodes: if has(Nemesis::LoseNode) { 3 } else { 2 },
        node_silence: NODE_SILENCE,
        segment_bytes: if has(Nemesis::FillDisk) { 4 << 20 } else { 64 << 20 },
        // An older version need not know how to fail.
        faults: chosen.iter().any(|nemesis| nemesis.row().need == Need::Faults),
        power: has(Nemesis::CutPower),
        program: options.previous.clone().filter(|_| upgrade),
    }
}

/// What all runs have come to so far.
#[derive(Debug)]
pub(crate) struct Progress {
    until: Instant,
    random: StdRng,
    rows: Vec<ChaosRow>,
    /// One run of each name, and whatever did not hold.
    shown: Vec<ScenarioReport>,
    /// Of the next run.
    number: u64,
    /// Runs that could not be finished.
    unfinished: u32,
}

impl Progress {
    pub(crate) fn new(time: Duration, chosen: &[Nemesis], seed: u64) -> Self {
        let mut rows: Vec<ChaosRow> = chosen.iter().map(|n| ChaosRow::of(n.row().name)).collect();
        rows.push(ChaosRow::of(MIX));
        Self {
            until: Instant::now() + time,
            random: StdRng::seed_from_u64(seed),
            rows,
            shown: Vec::new(),
            number: 1,
            unfinished: 0,
        }
    }

    fn add(&mut self, run: ScenarioReport) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.nemesis == run.name) {
            row.add(&run);
        }
        if !run.held || !self.shown.iter().any(|other| other.name == run.name) {
            self.shown.push(run);
        }
    }

    /// What a cluster has left behind counts against the last run on it.
    pub(crate) fn ended(&mut self, left: Vec<String>) {
        let check = Check::promise("nothing is left on this machine", 1, left);
        if let Some(last) = self.shown.last_mut() {
            last.held &= check.held;
            last.checks.push(check);
        }
    }

    /// Runs to be shown, and a row for each fault.
    pub(crate) fn finish(mut self) -> (Vec<ScenarioReport>, Vec<ChaosRow>) {
        self.rows.retain(|row| row.runs > 0);
        (self.shown, self.rows)
    }
}

/// Runs one after another until the time is over; each fault has been alone once in any case. Whether it is over: if
/// not, a run could not be finished, and the cluster is of no use for another one.
pub(crate) async fn run(
    so_far: &mut Progress,
    chosen: &[Nemesis],
    shape: &Shape,
    options: &Options,
    cluster: &mut Cluster,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<bool> {
    let means = options.means();
    loop {
        let number = so_far.number;
        let turn = usize::try_from(number - 1).unwrap_or(usize::MAX);
        let alone = chosen.get(turn).copied();
        let over = Instant::now() >= so_far.until;
        if over && alone.is_none() && (number > 1 + chosen.len() as u64) {
            return Ok(true);
        }
        so_far.number += 1;
        // All of them have been alone: from then on it is mixed, and now and then one alone again.
        let random = &mut so_far.random;
        let again = random.random_bool(0.3).then(|| chosen.choose(random).copied()).flatten();
        let (name, faults) = match alone.or(again) {
            Some(nemesis) => (nemesis.row().name, vec![nemesis; ALONE]),
            None => (MIX, mix(chosen, random)),
        };
        say(format!("run {number}: {name}"));
        let plan = plan(name, faults, number, shape, options, &means)?;
        match Box::pin(run::run(&plan, cluster, random, say)).await {
            Ok(seen) => so_far.add(seen),
            Err(error) => {
                say(format!("run {number}, {name}: {error:#}"));
                so_far.add(run::broken(&plan, format!("{error:#}")));
                so_far.unfinished += 1;
                return Ok(so_far.unfinished >= UNFINISHED_MAX);
            }
        }
    }
}

fn mix(chosen: &[Nemesis], random: &mut StdRng) -> Vec<Nemesis> {
    (0..MIXED).filter_map(|_| chosen.choose(random).copied()).collect()
}

fn plan<'a>(
    name: &str,
    faults: Vec<Nemesis>,
    number: u64,
    shape: &Shape,
    options: &Options,
    means: &'a Means,
) -> anyhow::Result<Plan<'a>> {
    // By design, or for as long as all replicas take to start.
    let stops = [Nemesis::KillAll, Nemesis::CutPower, Nemesis::FillDisk, Nemesis::LoseQuorum];
    let moves = [Nemesis::LoseNode];
    let says = match name {
        MIX => {
            let names: Vec<&str> = faults.iter().map(|fault| fault.row().name).collect();
            format!("several, one into another: {}", names.join(", "))
        }
        _ => faults.first().map(|fault| fault.row().says.to_owned()).unwrap_or_default(),
    };
    Ok(Plan {
        name: name.to_owned(),
        says,
        system: OURS,
        write_gap_max: (!faults.iter().any(|fault| stops.contains(fault))).then_some(GAP_MAX),
        pods_stay: !faults.iter().any(|fault| moves.contains(fault)),
        overlap: name == MIX,
        faults,
        load: options.load(number),
        seed: options.seed,
        node_silence: shape.node_silence,
        means,
        keep: options.keep(&format!("{number:04}-{name}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Ground;

    fn means(ground: Ground) -> Means {
        Means { ground: Some(ground), ..Means::default() }
    }

    #[test]
    fn all_that_can_be_had_is_chosen_and_the_rest_is_said() {
        let mut left_out = Vec::new();
        let all = chosen(&[], &means(Ground::Own), &mut left_out).unwrap();
        assert_eq!(all.len() + 1, ROWS.len());
        assert_eq!(left_out, ["upgrade: another version of the program: --previous FILE"]);
        let few = chosen(&[], &means(Ground::Shared), &mut left_out).unwrap();
        assert!(few.contains(&Nemesis::KillLeader) && !few.contains(&Nemesis::CutLeader));
    }

    #[test]
    fn what_is_asked_for_by_name_is_had_or_refused() {
        let ask = |name: &str, ground| {
            let asked = chosen(&[name.to_owned()], &means(ground), &mut Vec::new());
            asked.map_err(|error| error.to_string())
        };
        assert_eq!(ask("mute-leader", Ground::Own), Ok(vec![Nemesis::Mute]));
        assert!(ask("mute-leader", Ground::Shared).unwrap_err().contains("needs root"));
        assert!(ask("nothing", Ground::Own).unwrap_err().contains("no fault is called"));
    }

    #[test]
    fn a_row_adds_up_its_runs_and_stays_broken() {
        let mut row = ChaosRow::of("kill-leader");
        for held in [true, false, true] {
            row.add(&crate::report::tests::scenario("kill-leader", held));
        }
        assert_eq!((row.runs, row.faults, row.acknowledged, row.held), (3, 3, 3600, false));
        assert_eq!(row.broken, ["every acknowledged write survives"]);
    }

    #[test]
    fn one_run_of_each_is_shown_and_whatever_did_not_hold() {
        let chosen = [Nemesis::KillLeader, Nemesis::PauseLeader, Nemesis::CutPower];
        let mut so_far = Progress::new(Duration::ZERO, &chosen, 1);
        for (name, held) in
            [("kill-leader", true), ("kill-leader", true), ("kill-leader", false), ("mixed", true)]
        {
            so_far.add(crate::report::tests::scenario(name, held));
        }
        so_far.ended(vec!["process 7".to_owned()]);
        let (shown, rows) = so_far.finish();
        let shown: Vec<(&str, bool)> = shown.iter().map(|s| (s.name.as_str(), s.held)).collect();
        assert_eq!(shown, [("kill-leader", true), ("kill-leader", false), ("mixed", false)]);
        let rows: Vec<(&str, u64)> = rows.iter().map(|r| (r.nemesis.as_str(), r.runs)).collect();
        assert_eq!(rows, [("kill-leader", 3), ("mixed", 1)], "and no row without a run");
    }
}
