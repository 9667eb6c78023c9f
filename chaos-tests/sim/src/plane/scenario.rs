//! A run of the plane, drawn from its seed: how large it is, what is asked of it, and what happens to it.

use super::load::{Load, Op};
use crate::{part::Part, plan::is_long};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{fmt, time::Duration};

/// Everything that a run is made of; equal scenarios run equally.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) replicas: u64,
    pub(crate) nodes: u64,
    pub(crate) clients: u64,
    /// Each follows every kind that is watched.
    pub(crate) watchers: u64,
    /// Silence after which the control plane takes a node for lost.
    pub(crate) node_silence: Duration,
    /// How long old revisions are kept.
    pub(crate) history: Duration,
    pub(crate) snapshot_entries: u64,
    /// Of the log.
    pub(crate) segment_bytes: u64,
    pub(crate) load: Load,
    /// Until then clients are at work and faults happen; after that everything is healed.
    pub(crate) busy: Duration,
    /// In order of time.
    pub(crate) faults: Vec<Fault>,
}

/// Something that happens to a machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// Its number in the scenario that the seed draws.
    pub(crate) number: usize,
    /// Since the start of the run.
    pub(crate) at: Duration,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    pub(crate) what: What,
    pub(crate) whom: Machine,
}

/// A machine of the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Machine {
    /// By id, from 1.
    Replica(u64),
    /// From 0.
    Node(u64),
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "replica-{id}"),
            Self::Node(at) => write!(f, "node-{at}"),
        }
    }
}

/// What happens to a machine. What has ended begins again when the fault is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Its process is killed; on a node, what it runs goes on.
    Kill,
    /// It loses its power.
    PowerCut,
    /// Its process stands still.
    Stop,
    /// It reaches nobody, and nobody reaches it.
    Cut,
    /// Nothing of what it says arrives; what is said to it does.
    Mute,
    /// What it says takes up to so many milliseconds.
    Slow(u64),
    /// Its wall clock jumps, by so many milliseconds, and stays so.
    Clock(i64),
    /// A node's agent is killed, and what it has kept is damaged.
    Damage,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, lasts, what, whom } = self;
        let (at, lasts) = (at.as_secs_f64(), lasts.as_secs_f64());
        write!(f, "fault {number}: {at:.3}s {whom}: {what:?} for {lasts:.3}s")
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, nodes, clients, watchers, busy, load, .. } = self;
        let ops: Vec<String> = load
            .weights
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(op, weight)| format!("{op:?} {weight}"))
            .collect();
        writeln!(
            f,
            "{replicas} replicas, {nodes} nodes, {clients} clients and {watchers} watchers for {:.3}s: {}",
            busy.as_secs_f64(),
            ops.join(", "),
        )?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// At most, of what happens in a short run.
const SHORT_FAULT: Duration = Duration::from_secs(8);
const NAMESPACES: [&str; 3] = ["default", "east", "west"];

fn seconds(chance: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(chance.random_range(range.start * 1000..range.end * 1000))
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let chance = &mut chance;
        let replicas = [3, 3, 3, 3, 1, 5].choose(chance).copied().unwrap_or(3);
        let nodes = chance.random_range(1..7);
        let busy = seconds(chance, 20..90);
        let weights = Op::ALL.map(|(op, weight)| {
            // Some runs never do some things, and others do little else.
            let factor = [0, 1, 1, 1, 4].choose(chance).copied().unwrap_or(1);
            (op, if op == Op::Create { weight } else { weight * factor })
        });
        let namespaces = chance.random_range(1..=NAMESPACES.len());
        let load = Load {
            namespaces: NAMESPACES.iter().take(namespaces).map(|n| (*n).to_owned()).collect(),
            nodes: (0..nodes).map(|at| Machine::Node(at).to_string()).collect(),
            // With few names, what comes late for a Pod meets the next one of its name.
            pods: [2, 4, 12].choose(chance).copied().unwrap_or(12),
            pause_max: Duration::from_millis(
                [40, 150, 600, 1500].choose(chance).copied().unwrap_or(600),
            ),
            weights: weights.to_vec(),
        };
        let faults = (0..chance.random_range(0..10))
            .map(|number| Fault::draw(chance, number, replicas, nodes, busy))
            .collect();
        let mut drawn = Self {
            seed,
            replicas,
            nodes,
            clients: chance.random_range(2..5),
            watchers: chance.random_range(1..3),
            node_silence: seconds(chance, 3..15),
            history: [Duration::from_secs(5), Duration::from_secs(300)]
                .choose(chance)
                .copied()
                .unwrap_or_default(),
            snapshot_entries: chance.random_range(50..2000),
            segment_bytes: 16 << 20,
            load,
            busy,
            faults,
        };
        if !is_long(seed) {
            drawn.shorten(chance);
        }
        drawn.faults.sort_by_key(|fault| fault.at);
        drawn
    }

    /// Of what a seed draws, a part.
    pub(crate) fn part(seed: u64, part: &Part) -> Self {
        let mut scenario = Self::draw(seed);
        let Part { faults, fire, requests: _, clients, watchers, ops } = part;
        scenario.busy = fire.map_or(scenario.busy, Duration::from_millis);
        let busy = scenario.busy;
        let kept = |fault: &Fault| faults.as_ref().is_none_or(|kept| kept.contains(&fault.number));
        scenario.faults.retain(|fault| kept(fault) && fault.at < busy);
        scenario.clients = clients.unwrap_or(scenario.clients);
        scenario.watchers = watchers.unwrap_or(scenario.watchers);
        if let Some(kept) = ops {
            scenario.load.weights.retain(|(op, _)| kept.contains(&format!("{op:?}")));
        }
        scenario
    }

    /// Makes it a run that is over soon.
    fn shorten(&mut self, chance: &mut StdRng) {
        self.busy = seconds(chance, 4..15);
        self.nodes = self.nodes.min(3);
        self.load
            .nodes
            .retain(|name| (0..self.nodes).any(|at| Machine::Node(at).to_string() == *name));
        self.load.pause_max = Duration::from_millis(chance.random_range(50..500));
        self.clients = chance.random_range(1..4);
        self.watchers = 1;
        self.node_silence = seconds(chance, 3..6);
        self.snapshot_entries = chance.random_range(30..300);
        self.segment_bytes = *[128 << 10, 512 << 10, 2 << 20].choose(chance).unwrap_or(&524_288);
        self.faults = (0..chance.random_range(0..5))
            .map(|number| Fault::draw(chance, number, self.replicas, self.nodes, self.busy))
            .map(|fault| Fault { lasts: fault.lasts.min(SHORT_FAULT), ..fault })
            .collect();
    }

    /// The machines of the plane.
    pub(crate) fn machines(&self) -> impl Iterator<Item = Machine> + use<> {
        let replicas = (1..=self.replicas).map(Machine::Replica);
        replicas.chain((0..self.nodes).map(Machine::Node))
    }

    /// Nodes to which nothing happens.
    pub(crate) fn steady_nodes(&self) -> Vec<String> {
        (0..self.nodes)
            .map(Machine::Node)
            .filter(|node| self.faults.iter().all(|fault| fault.whom != *node))
            .map(|node| node.to_string())
            .collect()
    }
}

impl Fault {
    fn draw(chance: &mut StdRng, number: usize, replicas: u64, nodes: u64, busy: Duration) -> Self {
        let of_replica = chance.random_bool(0.5);
        let whom = if of_replica {
            Machine::Replica(chance.random_range(1..=replicas))
        } else {
            Machine::Node(chance.random_range(0..nodes))
        };
        let jump = chance.random_range(-30_000..30_000);
        let slow = chance.random_range(50..550);
        let mut all = vec![
            What::Kill,
            What::Kill,
            What::PowerCut,
            What::Stop,
            What::Cut,
            What::Mute,
            What::Slow(slow),
            What::Clock(jump),
        ];
        if !of_replica {
            all.push(What::Damage);
        }
        Self {
            number,
            at: chance.random_range(Duration::ZERO..busy),
            lasts: if chance.random_bool(0.5) {
                Duration::from_millis(chance.random_range(1..3000))
            } else {
                seconds(chance, 3..40)
            },
            what: all.choose(chance).copied().unwrap_or(What::Kill),
            whom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_the_same_again_and_all_faults_are_drawn_by_some() {
        let mut drawn = BTreeSet::new();
        for seed in 0..200 {
            let scenario = Scenario::draw(seed);
            assert_eq!(scenario, Scenario::draw(seed));
            assert!(scenario.faults.is_sorted_by_key(|fault| fault.at));
            for fault in &scenario.faults {
                assert!(fault.at < scenario.busy && !fault.lasts.is_zero(), "{fault}");
                let kind = format!("{:?}", fault.what);
                let kind = kind.split('(').next().unwrap().to_owned();
                drawn.insert((matches!(fault.whom, Machine::Node(_)), kind));
            }
        }
        assert_eq!(drawn.len(), 7 + 8, "{drawn:?}");
    }
}
