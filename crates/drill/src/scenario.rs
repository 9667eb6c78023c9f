//! What can be drilled: one row a scenario.

use crate::{cluster::Shape, nemesis::Nemesis};
use std::time::Duration;

/// A drill.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What a user sees of it.
    pub(crate) says: &'static str,
    /// Injected in turn, each with its recovery.
    pub(crate) faults: &'static [Nemesis],
    /// How often all of them.
    pub(crate) rounds: u32,
    /// How long nobody's write may be acknowledged; none where that is the drill.
    pub(crate) write_gap_max: Option<Duration>,
    /// Whether the same Pods must run all the time.
    pub(crate) pods_stay: bool,
}

const SOON: Option<Duration> = Some(Duration::from_secs(3));

/// All of them, in the order of `all`.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "leader-kill",
        says: "the leader dies, again and again; another one takes over",
        faults: &[Nemesis::KillLeader],
        rounds: 5,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "replica-pause",
        says: "the leader, then a follower, stands still and goes on later as if nothing had been",
        faults: &[Nemesis::PauseLeader, Nemesis::PauseFollower],
        rounds: 2,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "partition",
        says: "the network is cut: around the leader, between two, and in one direction only",
        faults: &[Nemesis::CutLeader, Nemesis::CutBetween, Nemesis::Mute, Nemesis::Deafen],
        rounds: 1,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "disk-stall",
        says: "the leader's disk hangs, then is slow",
        faults: &[Nemesis::StallDisk, Nemesis::SlowDisk],
        rounds: 2,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "disk-full",
        says: "the leader's disk is full: writes are refused with the reason, reads go on, and it ends with the cause",
        faults: &[Nemesis::FillDisk],
        rounds: 2,
        write_gap_max: None,
        pods_stay: true,
    },
    Scenario {
        name: "clock-skew",
        says: "the leader's clock jumps by an hour, ahead and back; leases must not notice",
        faults: &[Nemesis::ClockAhead, Nemesis::ClockBehind],
        rounds: 2,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "hand-over",
        says: "the leader is asked to hand over, as before it is taken down; the only drill that every live cluster \
               takes",
        faults: &[Nemesis::HandOver],
        rounds: 5,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "rolling-restart",
        says: "every replica is restarted in turn, as an upgrade does",
        faults: &[Nemesis::RollingRestart],
        rounds: 2,
        write_gap_max: SOON,
        pods_stay: true,
    },
    Scenario {
        name: "node-loss",
        says: "a node dies with all that it runs; its Pods are evicted, others take their place",
        faults: &[Nemesis::LoseNode],
        rounds: 1,
        write_gap_max: SOON,
        pods_stay: false,
    },
    Scenario {
        name: "quorum-loss",
        says: "two of three replicas die: nothing may be acknowledged until a majority is back, and nothing may be \
               lost then",
        faults: &[Nemesis::LoseQuorum],
        rounds: 2,
        write_gap_max: None,
        pods_stay: true,
    },
];

/// By its name.
pub(crate) fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// What it needs to run on.
    pub(crate) fn shape(&self) -> Shape {
        let has = |nemesis| self.faults.contains(&nemesis);
        let lost = has(Nemesis::LoseNode);
        Shape {
            // So that those that are left have a choice.
            nodes: if lost { 3 } else { 2 },
            node_silence: Duration::from_secs(if lost { 3 } else { 50 }),
            segment_bytes: if has(Nemesis::FillDisk) { 4 << 20 } else { 64 << 20 },
            ..Shape::default()
        }
    }
}

/// Every scenario, a line each.
#[must_use]
pub fn list() -> String {
    let mut text = String::new();
    for scenario in SCENARIOS {
        let line = format!("{:16} {}\n", scenario.name, scenario.says);
        text.push_str(&line);
    }
    text.push_str(
        "all              all of them, one after another, each on a cluster of its own\n",
    );
    text.push_str(
        "chaos            every fault, alone and then mixed, on one cluster, as long as you like (--minutes)\n",
    );
    text.push_str("\nfaults of chaos (--nemesis):\n");
    for row in crate::nemesis::ROWS {
        text.push_str(&format!("{:16} {}\n", row.name, row.says));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_are_those_that_are_promised() {
        let names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        let promised = [
            "leader-kill",
            "replica-pause",
            "partition",
            "disk-stall",
            "disk-full",
            "clock-skew",
            "hand-over",
            "rolling-restart",
            "node-loss",
            "quorum-loss",
        ];
        assert_eq!(names, promised);
        assert!(promised.iter().all(|name| named(name).is_some() && list().contains(name)));
        assert!(named("all").is_none());
    }
}
