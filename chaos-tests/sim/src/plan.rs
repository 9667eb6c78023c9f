//! What a seed says: the cluster, how its network and clocks are, who asks, and what goes wrong when.

use crate::{Millis, disk::DiskFaults, net::Link};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{fmt, time::Duration};

/// Seeds before this one all have long runs: they are those that tests and tables name.
const SHORT_SEEDS: u64 = 1_000;
/// Of how many later seeds one has a long run, too; the others are over soon, so that many of them can be tried.
const SEEDS_PER_LONG: u64 = 8;

/// Whether the seed has a long run.
pub(crate) fn is_long(seed: u64) -> bool {
    // The lower bits follow those of the seed.
    seed < SHORT_SEEDS || (derive(seed, "length", 0) >> 32).is_multiple_of(SEEDS_PER_LONG)
}

/// A whole run. The same seed gives the same plan; a shrunk one has parts of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// From which all of it, and all chance in the run, is drawn.
    pub seed: u64,
    /// Members at the start.
    pub replicas: usize,
    /// Timers for long ways.
    pub wan: bool,
    /// How every link is while nothing is wrong with it.
    pub link: Link,
    /// Milliseconds that a sync takes at most while nothing is wrong with the disk.
    pub sync_max: Millis,
    /// Of each replica, how fast its monotonic clock goes, and how wrong its wall clock is, in microseconds.
    pub clocks: Vec<(f64, i64)>,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Entries after which a snapshot is written.
    pub snapshot_entries: u64,
    /// Clients that ask.
    pub clients: usize,
    /// Requests of each at most.
    pub requests: usize,
    /// Keys that they ask for.
    pub keys: usize,
    /// Milliseconds between two requests of one at most.
    pub pause_max: Millis,
    /// How long things go wrong.
    pub fire: Millis,
    /// What may go wrong: some seeds leave out much, so that the rest comes often and in a row.
    pub kinds: Vec<(Kind, u32)>,
    /// What goes wrong, by when it begins.
    pub faults: Vec<Fault>,
}

/// What may go wrong, without saying where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`What::Kill`].
    Kill,
    /// [`What::CrashAgain`].
    CrashAgain,
    /// [`What::CutInElection`].
    CutInElection,
    /// [`What::PowerCut`].
    PowerCut,
    /// [`What::Blackout`].
    Blackout,
    /// [`What::Stop`].
    Stop,
    /// [`What::Partition`].
    Partition,
    /// [`What::OneWay`].
    OneWay,
    /// [`What::Slow`].
    Slow,
    /// [`What::Loss`].
    Loss,
    /// [`What::SlowDisk`].
    SlowDisk,
    /// [`What::StalledDisk`].
    StalledDisk,
    /// [`What::FailSync`].
    FailSync,
    /// [`What::FailWrite`].
    FailWrite,
    /// [`What::FullDisk`].
    FullDisk,
    /// [`What::ClockJump`].
    ClockJump,
    /// [`What::Drift`].
    Drift,
    /// [`What::Snapshot`].
    Snapshot,
    /// [`What::Transfer`].
    Transfer,
    /// [`What::Add`].
    Add,
    /// [`What::Remove`].
    Remove,
}

/// How likely each is to the others.
const KINDS: [(Kind, u32); 21] = [
    (Kind::Kill, 14),
    (Kind::CrashAgain, 6),
    (Kind::CutInElection, 6),
    (Kind::PowerCut, 12),
    (Kind::Blackout, 6),
    (Kind::Stop, 8),
    (Kind::Partition, 10),
    (Kind::OneWay, 6),
    (Kind::Slow, 6),
    (Kind::Loss, 4),
    (Kind::SlowDisk, 5),
    (Kind::StalledDisk, 6),
    (Kind::FailSync, 3),
    (Kind::FailWrite, 2),
    (Kind::FullDisk, 4),
    (Kind::ClockJump, 3),
    (Kind::Drift, 3),
    (Kind::Snapshot, 2),
    (Kind::Transfer, 2),
    (Kind::Add, 2),
    (Kind::Remove, 2),
];

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Its number in the plan that the seed gives: a shrunk plan names those that are left.
    pub number: usize,
    /// When it begins.
    pub at: Millis,
    /// For how long.
    pub lasts: Millis,
    /// It hits whoever leads then, if anybody does.
    pub at_leader: bool,
    /// What.
    pub what: What,
}

/// What goes wrong. Replicas are numbered from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A process is killed, and started again at the end.
    Kill(usize),
    /// A process ends, by a kill or by a sync that fails, and its machine loses its power before one of the first
    /// syncs after its start: what the first crash had left in the page cache was not on the disk.
    CrashAgain {
        /// Whose.
        replica: usize,
        /// It ends by the sync, with something written that is not durable.
        by_sync: bool,
        /// Syncs after the start that are still carried out.
        syncs: u64,
    },
    /// A machine loses its power in the next election, before the so-manieth call to its disk from when somebody
    /// asks for votes.
    CutInElection {
        /// Whose.
        replica: usize,
        /// Calls that are still carried out.
        calls: u64,
    },
    /// A machine loses its power, before the so-manieth call to its disk from now.
    PowerCut {
        /// Whose.
        replica: usize,
        /// Calls that are still carried out.
        calls: u64,
    },
    /// All machines lose their power at the same moment.
    Blackout,
    /// A process is stopped (`SIGSTOP`) and continued.
    Stop(usize),
    /// Nothing comes through between these replicas and the others, nor their clients.
    Partition(Vec<usize>),
    /// What the first sends does not reach the second.
    OneWay(usize, usize),
    /// What the first sends to the second takes longer.
    Slow {
        /// Who sends.
        from: usize,
        /// To whom.
        to: usize,
        /// Milliseconds at most.
        latency: Millis,
        /// Bytes in a millisecond.
        bandwidth: u64,
    },
    /// Every link loses this part of what is sent.
    Loss(f64),
    /// A disk is slow.
    SlowDisk {
        /// Whose.
        replica: usize,
        /// Milliseconds of a sync at most.
        sync_max: Millis,
    },
    /// Syncs do not return.
    StalledDisk(usize),
    /// A sync fails.
    FailSync(usize),
    /// A write fails.
    FailWrite(usize),
    /// A disk has only so much room left.
    FullDisk {
        /// Whose.
        replica: usize,
        /// Bytes.
        room: u64,
    },
    /// A wall clock is set, by so many microseconds.
    ClockJump {
        /// Whose.
        replica: usize,
        /// Forwards, or backwards.
        by_us: i64,
    },
    /// A monotonic clock goes faster or slower.
    Drift {
        /// Whose.
        replica: usize,
        /// Its milliseconds for each of the world's.
        rate: f64,
    },
    /// Somebody has a snapshot written.
    Snapshot(usize),
    /// Somebody has the lead handed over.
    Transfer(usize),
    /// Somebody adds a member on a new machine.
    Add {
        /// Who is asked to.
        by: usize,
        /// It does not vote.
        learner: bool,
    },
    /// Somebody takes a member out.
    Remove {
        /// Who is asked to.
        by: usize,
        /// Whom.
        replica: usize,
    },
}

impl What {
    /// Hits this replica in place of the one that was drawn, where it is about one.
    pub(crate) fn aim_at(&mut self, leader: usize) {
        match self {
            Self::Kill(replica)
            | Self::CrashAgain { replica, .. }
            | Self::PowerCut { replica, .. }
            | Self::Stop(replica)
            | Self::SlowDisk { replica, .. }
            | Self::StalledDisk(replica)
            | Self::FailSync(replica)
            | Self::FailWrite(replica)
            | Self::FullDisk { replica, .. }
            | Self::ClockJump { replica, .. }
            | Self::Drift { replica, .. }
            | Self::Snapshot(replica)
            | Self::Transfer(replica) => *replica = leader,
            Self::OneWay(from, to) | Self::Slow { from, to, .. } => {
                if *to == leader {
                    *to = *from;
                }
                *from = leader;
            }
            Self::Partition(group) => {
                if let [one] = group.as_mut_slice() {
                    *one = leader;
                }
            }
            // Who leads does not lose an election, and members come and go whoever leads.
            Self::CutInElection { .. }
            | Self::Blackout
            | Self::Loss(_)
            | Self::Add { .. }
            | Self::Remove { .. } => {}
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |replica: &usize| format!("replica-{}", replica + 1);
        write!(f, "fault {}: ", self.number)?;
        match &self.what {
            What::Kill(replica) => write!(f, "kill {}", name(replica))?,
            What::CrashAgain { replica, by_sync, syncs } => {
                let first = if *by_sync { "a failed sync ends" } else { "kill" };
                let name = name(replica);
                write!(f, "{first} {name}, and its power goes {syncs} syncs after its start")?;
            }
            What::CutInElection { replica, calls } => {
                let name = name(replica);
                write!(
                    f,
                    "the power of {name} goes {calls} calls to its disk into the next election"
                )?;
            }
            What::PowerCut { replica, calls } => {
                write!(f, "cut the power of {} after {calls} calls to its disk", name(replica))?;
            }
            What::Blackout => write!(f, "cut the power of all")?,
            What::Stop(replica) => write!(f, "stop {}", name(replica))?,
            What::Partition(group) => {
                let group: Vec<String> = group.iter().map(name).collect();
                write!(f, "cut off {}", group.join(" and "))?;
            }
            What::OneWay(from, to) => write!(f, "cut {} -> {}", name(from), name(to))?,
            What::Slow { from, to, latency, bandwidth } => write!(
                f,
                "slow {} -> {}: up to {latency} ms, {bandwidth} B/ms",
                name(from),
                name(to)
            )?,
            What::Loss(part) => write!(f, "lose {:.1} % of all segments", part * 100.0)?,
            What::SlowDisk { replica, sync_max } => {
                write!(f, "syncs of {} take up to {sync_max} ms", name(replica))?;
            }
            What::StalledDisk(replica) => write!(f, "syncs of {} do not return", name(replica))?,
            What::FailSync(replica) => write!(f, "a sync of {} fails", name(replica))?,
            What::FailWrite(replica) => write!(f, "a write of {} fails", name(replica))?,
            What::FullDisk { replica, room } => {
                write!(f, "{} has {room} bytes of disk left", name(replica))?;
            }
            What::ClockJump { replica, by_us } => {
                write!(f, "the wall clock of {} jumps by {by_us} us", name(replica))?;
            }
            What::Drift { replica, rate } => {
                write!(f, "the clock of {} goes {rate:.3} times as fast", name(replica))?;
            }
            What::Snapshot(replica) => write!(f, "{} writes a snapshot", name(replica))?,
            What::Add { by, learner } => {
                let what = if *learner { "learner" } else { "voter" };
                write!(f, "{} is asked to add a {what}", name(by))?;
            }
            What::Remove { by, replica } => {
                write!(f, "{} is asked to take out {}", name(by), name(replica))?;
            }
            What::Transfer(replica) => {
                write!(f, "{} is asked to hand over the lead", name(replica))?
            }
        }
        write!(f, ", for {} ms", self.lasts)
    }
}

/// For people.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, wan, link, clients, fire, faults, .. } = self;
        let timers = if *wan { "wan" } else { "lan" };
        writeln!(
            f,
            "{replicas} replicas, {timers} timers, links of {} to {} ms, {clients} clients, {fire} ms of faults:",
            link.latency_min, link.latency_max
        )?;
        faults.iter().try_for_each(|fault| writeln!(f, "  at {} ms {fault}", fault.at))
    }
}

/// Chance for one purpose: what one draws moves none of the others.
#[must_use]
pub fn chance(seed: u64, purpose: &str, number: u64) -> StdRng {
    StdRng::seed_from_u64(derive(seed, purpose, number))
}

/// A seed for one purpose (FNV-1a).
#[must_use]
pub fn derive(seed: u64, purpose: &str, number: u64) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(number.to_le_bytes()).chain(purpose.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Plan {
    /// As the seed says.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = chance(seed, "plan", 0);
        let replicas = [3, 3, 3, 3, 3, 5, 5, 1].choose(&mut chance).copied().unwrap_or(3);
        let wan = chance.random_bool(0.15);
        let latency_min = if wan { chance.random_range(10..=60) } else { 1 };
        let spread = if wan { 40 } else { chance.random_range(0..=6) };
        let link = Link {
            latency_min,
            latency_max: latency_min + chance.random_range(0..=spread),
            loss: if chance.random_bool(0.2) { 0.002 } else { 0.0 },
            ..Link::default()
        };
        let clocks = (0..replicas).map(|_| {
            let rate = if chance.random_bool(0.5) {
                1.0
            } else {
                1.0 + chance.random_range(-0.000_5..0.000_5)
            };
            let wrong = if chance.random_bool(0.5) {
                0
            } else {
                chance.random_range(-5_000_000_i64..5_000_000)
            };
            (rate, wrong)
        });
        let clocks = clocks.collect();
        let fire = chance.random_range(6_000..=20_000);
        let storm = chance.random_bool(0.35);
        let count = if storm { chance.random_range(10..=40) } else { chance.random_range(1..=10) };
        let swarm = storm || chance.random_bool(0.3);
        let mut kinds: Vec<(Kind, u32)> =
            KINDS.into_iter().filter(|_| !swarm || chance.random_bool(0.35)).collect();
        if kinds.is_empty() {
            kinds = KINDS.to_vec();
        }
        let mut plan = Self {
            seed,
            replicas,
            wan,
            link,
            sync_max: chance.random_range(0..=4),
            clocks,
            segment_bytes: *[48 << 10, 128 << 10, 512 << 10].choose(&mut chance).unwrap_or(&65_536),
            snapshot_entries: chance.random_range(20..=400),
            clients: chance.random_range(2..=5),
            requests: usize::MAX,
            keys: chance.random_range(2..=8),
            pause_max: *[10, 40, 150, 500].choose(&mut chance).unwrap_or(&20),
            fire,
            kinds,
            faults: Vec::new(),
        };
        let count = if is_long(seed) { count } else { plan.shorten(&mut chance) };
        plan.faults = (0..count).map(|number| plan.fault(number)).collect();
        plan.faults.sort_by_key(|fault| fault.at);
        plan
    }

    /// When a fault begins: every other one shortly after the one before, which is still felt.
    fn begins(&self, number: usize) -> Millis {
        let mut chance = chance(self.seed, "begins", number as u64);
        let apart = chance.random_range(500..self.fire);
        match number.checked_sub(1) {
            Some(before) if chance.random_bool(0.5) => {
                let later = *[30, 200, 1_000].choose(&mut chance).unwrap_or(&200);
                (self.begins(before) + chance.random_range(0..later)).min(self.fire - 1)
            }
            Some(_) | None => apart,
        }
    }

    /// Makes it a run that is over soon, in which what comes with age comes early. Returns how many faults it has.
    fn shorten(&mut self, chance: &mut StdRng) -> usize {
        self.fire = chance.random_range(1_500..=6_000);
        self.clients = chance.random_range(2..=3);
        self.keys = chance.random_range(1..=4);
        self.pause_max = *[15, 40, 80].choose(chance).unwrap_or(&40);
        self.snapshot_entries = chance.random_range(10..=80);
        self.segment_bytes = *[24 << 10, 48 << 10].choose(chance).unwrap_or(&49_152);
        chance.random_range(1..=4)
    }

    fn fault(&self, number: usize) -> Fault {
        let mut chance = chance(self.seed, "fault", number as u64);
        let replica = chance.random_range(0..self.replicas);
        let other = (replica + chance.random_range(1..=self.replicas.max(2) - 1)) % self.replicas;
        let at = self.begins(number);
        let lasts = *[50, 300, 1_000, 3_000, 8_000].choose(&mut chance).unwrap_or(&1_000);
        let lasts = chance.random_range(lasts / 2..=lasts);
        let kind = self.kinds.choose_weighted(&mut chance, |(_, weight)| *weight);
        let what = match kind.map_or(Kind::Kill, |(kind, _)| *kind) {
            Kind::Kill => What::Kill(replica),
            Kind::CrashAgain => What::CrashAgain {
                replica,
                by_sync: chance.random_bool(0.7),
                syncs: chance.random_range(0..8),
            },
            Kind::CutInElection => What::CutInElection {
                replica,
                calls: *[1, 1, 2, 3].choose(&mut chance).unwrap_or(&1),
            },
            Kind::PowerCut => What::PowerCut {
                replica,
                calls: *[0, 1, 2, 3, 5, 10, 40].choose(&mut chance).unwrap_or(&0),
            },
            Kind::Blackout => What::Blackout,
            Kind::Stop => What::Stop(replica),
            Kind::Partition => {
                let group = if self.replicas > 3 && chance.random_bool(0.5) {
                    vec![replica, other]
                } else {
                    vec![replica]
                };
                What::Partition(group)
            }
            Kind::OneWay => What::OneWay(replica, other),
            Kind::Slow => What::Slow {
                from: replica,
                to: other,
                latency: chance.random_range(20..=400),
                bandwidth: *[0, 5, 50].choose(&mut chance).unwrap_or(&0),
            },
            Kind::Loss => What::Loss(chance.random_range(0.005..0.1)),
            Kind::SlowDisk => What::SlowDisk { replica, sync_max: chance.random_range(10..=300) },
            Kind::StalledDisk => What::StalledDisk(replica),
            Kind::FailSync => What::FailSync(replica),
            Kind::FailWrite => What::FailWrite(replica),
            Kind::FullDisk => {
                What::FullDisk { replica, room: chance.random_range(0..self.segment_bytes * 2) }
            }
            Kind::ClockJump => What::ClockJump {
                replica,
                by_us: chance.random_range(-3_600_000_000_i64..3_600_000_000),
            },
            Kind::Drift => What::Drift { replica, rate: chance.random_range(0.9..1.1) },
            Kind::Snapshot => What::Snapshot(replica),
            Kind::Transfer => What::Transfer(replica),
            Kind::Add => What::Add { by: replica, learner: chance.random_bool(0.3) },
            Kind::Remove if self.replicas > 1 => What::Remove { by: other, replica },
            Kind::Remove => What::Snapshot(replica),
        };
        Fault { number, at, lasts, at_leader: chance.random_bool(0.4), what }
    }

    /// Members that vote, unless some are added or taken out: then 0.
    #[must_use]
    pub fn voters(&self) -> u64 {
        let changes = |fault: &Fault| matches!(fault.what, What::Add { .. } | What::Remove { .. });
        if self.faults.iter().any(changes) { 0 } else { self.replicas as u64 }
    }

    /// How much faster or slower any clock goes at some time, in millionths.
    #[must_use]
    pub fn drift_ppm(&self) -> u64 {
        let drifts = self.faults.iter().filter_map(|fault| {
            if let What::Drift { rate, .. } = fault.what { Some(rate) } else { None }
        });
        let rates = self.clocks.iter().map(|(rate, _)| *rate).chain(drifts);
        let most = rates.map(|rate| (rate - 1.0).abs()).fold(0.0, f64::max);
        // Rates are within a tenth of 1.
        Duration::from_secs_f64(most).as_micros().try_into().unwrap_or(u64::MAX)
    }

    /// What is wrong with a replica's disk while these faults last.
    pub(crate) fn disk_faults(&self, replica: usize, active: &[&Fault]) -> DiskFaults {
        let mut faults = DiskFaults { sync_max: self.sync_max, ..DiskFaults::default() };
        for fault in active {
            if let What::SlowDisk { replica: which, sync_max } = fault.what
                && which == replica
            {
                (faults.sync_min, faults.sync_max) = (sync_max / 3, sync_max);
            }
            faults.stalled |= fault.what == What::StalledDisk(replica);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_the_same_again_and_every_kind_of_fault_is_drawn_by_some() {
        let (mut drawn, mut alone) = (BTreeSet::new(), 0);
        for seed in 0..300 {
            let plan = Plan::of(seed);
            assert_eq!(plan, Plan::of(seed));
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
            assert!(plan.faults.iter().all(|fault| fault.at < plan.fire));
            for fault in &plan.faults {
                let name = format!("{:?}", fault.what);
                drawn.insert(name.split(['(', ' ']).next().unwrap_or_default().to_owned());
            }
            alone += usize::from(plan.kinds.len() < KINDS.len() / 2);
        }
        assert_eq!(drawn.len(), KINDS.len(), "{drawn:?}");
        assert!((60..240).contains(&alone), "{alone} seeds leave most kinds out");
    }

    #[test]
    fn what_is_aimed_at_the_leader_hits_it_and_nobody_else() {
        let mut one_way = What::OneWay(0, 2);
        one_way.aim_at(2);
        assert_eq!(one_way, What::OneWay(2, 0));
        let mut partition = What::Partition(vec![0]);
        partition.aim_at(1);
        assert_eq!(partition, What::Partition(vec![1]));
        let mut kill = What::Kill(0);
        kill.aim_at(1);
        assert_eq!(kill, What::Kill(1));
    }

    #[test]
    fn later_seeds_are_short_but_for_some() {
        let later = SHORT_SEEDS..SHORT_SEEDS + 8_000;
        let long = later.clone().filter(|seed| is_long(*seed)).count();
        assert!((800..1_200).contains(&long), "{long}");
        for plan in later.take(300).filter(|seed| !is_long(*seed)).map(Plan::of) {
            assert!(plan.fire <= 6_000 && plan.faults.len() <= 4, "{plan}");
            assert!(plan.faults.iter().all(|fault| fault.at < plan.fire), "{plan}");
        }
        assert!((0..SHORT_SEEDS).all(is_long));
    }
}
