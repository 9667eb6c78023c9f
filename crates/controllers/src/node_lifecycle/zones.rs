//! How fast Pods are evicted from nodes that are not ready, by zone (NOD-13).

use super::plan::{is_ready, ready};
use api::{core::Node, scheduling::taints};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// One node each.
const INTERVAL: Duration = Duration::from_secs(10);
const SLOW_INTERVAL: Duration = Duration::from_secs(100);
/// A zone with no more nodes than this waits when part of it is lost.
const LARGE: usize = 50;

/// What counts of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    zone: String,
    ready: bool,
    /// Its Pods are evicted already.
    evicted: bool,
}

impl Member {
    pub(super) fn of(node: &Node) -> Self {
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key).cloned());
        let part = |key: &str| label(key).unwrap_or_default();
        let evicts = |key: &str| key.starts_with("node.kubernetes.io/");
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            zone: format!("{}/{}", part(REGION), part(ZONE)),
            // One that has not said anything yet is nobody's loss.
            ready: is_ready(node) || ready(node).is_none(),
            evicted: taints(node).iter().any(|t| {
                t.effect == "NoExecute"
                    && evicts(&t.key)
                    && (t.key.ends_with("/not-ready") || t.key.ends_with("/unreachable"))
            }),
        }
    }
}

/// How much of a zone is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Normal,
    Partial,
    Full,
}

fn mode(nodes: usize, lost: usize) -> Mode {
    if nodes > 0 && lost == nodes {
        Mode::Full
    } else if lost >= 3 && lost * 100 >= nodes * 55 {
        Mode::Partial
    } else {
        Mode::Normal
    }
}

/// Whose Pods go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whose turn it is now.
    pub(super) evict: BTreeSet<String>,
    /// Every zone is lost: it must be the control plane that is cut off.
    pub(super) nobody: bool,
}

#[derive(Debug)]
pub(super) struct Zones {
    /// When the next node of each zone may have its turn.
    next: BTreeMap<String, Instant>,
    amnesty_until: Instant,
    all_lost: bool,
}

impl Zones {
    /// Nobody's turn comes before `amnesty_until`.
    pub(super) fn new(amnesty_until: Instant) -> Self {
        Self { next: BTreeMap::new(), amnesty_until, all_lost: false }
    }

    pub(super) fn pardon(&mut self, until: Instant) {
        self.amnesty_until = until.max(self.amnesty_until);
    }

    /// `amnesty` is what all get when the cluster is no longer lost as a whole.
    pub(super) fn decide(&mut self, nodes: &[Member], now: Instant, amnesty: Duration) -> Decision {
        let mut zones: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for node in nodes {
            zones.entry(&node.zone).or_default().push(node);
        }
        let lost = |zone: &[&Member]| zone.iter().filter(|node| !node.ready).count();
        let modes: BTreeMap<&str, Mode> =
            zones.iter().map(|(name, zone)| (*name, mode(zone.len(), lost(zone)))).collect();
        let all_lost = !modes.is_empty() && modes.values().all(|mode| *mode == Mode::Full);
        if self.all_lost && !all_lost {
            self.pardon(now + amnesty);
        }
        self.all_lost = all_lost;
        if all_lost {
            return Decision { nobody: true, ..Decision::default() };
        }
        let mut decision = Decision::default();
        if now < self.amnesty_until {
            return decision;
        }
        self.next.retain(|zone, _| zones.contains_key(zone.as_str()));
        for (name, zone) in zones {
            let interval = match modes.get(name) {
                Some(Mode::Partial) if zone.len() > LARGE => SLOW_INTERVAL,
                Some(Mode::Partial) => continue,
                Some(Mode::Normal | Mode::Full) | None => INTERVAL,
            };
            let next = self.next.entry(name.to_owned()).or_insert(now);
            if *next > now {
                continue;
            }
            if let Some(node) = zone.iter().find(|node| !node.ready && !node.evicted) {
                *next = now + interval;
                decision.evict.insert(node.name.clone());
            }
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMNESTY: Duration = Duration::from_secs(50);

    fn zone(name: &str, nodes: usize, lost: usize) -> Vec<Member> {
        (0..nodes)
            .map(|i| Member {
                name: format!("{name}{i:02}"),
                zone: name.to_owned(),
                ready: i >= lost,
                evicted: false,
            })
            .collect()
    }

    #[test]
    fn a_zone_is_judged_by_how_much_of_it_is_lost() {
        // NOD-13
        for (nodes, lost, want) in [
            (3, 0, Mode::Normal),
            (3, 2, Mode::Normal),
            (3, 3, Mode::Full),
            (1, 1, Mode::Full),
            (5, 3, Mode::Partial),
            (6, 3, Mode::Normal),
            (100, 55, Mode::Partial),
            (100, 54, Mode::Normal),
        ] {
            assert_eq!(mode(nodes, lost), want, "{lost} of {nodes}");
        }
    }

    /// How many turns there are in so many seconds, when nobody recovers.
    fn turns(nodes: &mut [Member], seconds: u64) -> usize {
        let start = Instant::now();
        let mut zones = Zones::new(start);
        let mut turns = 0;
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            for name in zones.decide(nodes, now, AMNESTY).evict {
                nodes.iter_mut().find(|n| n.name == name).unwrap().evicted = true;
                turns += 1;
            }
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_have_their_turn_one_by_one_and_slower_the_more_is_lost() {
        // NOD-13
        let beside = || zone("b", 3, 0);
        for (name, mut nodes, want) in [
            ("one of three", zone("a", 3, 1), 1),
            ("two of six", zone("a", 6, 2), 2),
            ("ten of a hundred in half a minute", zone("a", 100, 10), 3),
            ("most of a small zone", zone("a", 5, 3), 0),
            ("most of a large zone", zone("a", 60, 40), 1),
            ("a whole zone beside another", [zone("a", 3, 3), beside()].concat(), 3),
            ("everything", zone("a", 3, 3), 0),
        ] {
            assert_eq!(turns(&mut nodes, 30), want, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_is_lost_nobody_is_evicted_and_all_get_their_time_again() {
        // NOD-13, A13
        let start = Instant::now();
        let mut zones = Zones::new(start);
        let cut = zones.decide(&zone("a", 3, 3), start, AMNESTY);
        assert_eq!(cut, Decision { nobody: true, evict: BTreeSet::new() });
        let healed = zone("a", 3, 1);
        assert_eq!(zones.decide(&healed, start, AMNESTY), Decision::default(), "one is slower");
        let almost = start + AMNESTY - Duration::from_secs(1);
        assert_eq!(zones.decide(&healed, almost, AMNESTY), Decision::default());
        assert_eq!(zones.decide(&healed, start + AMNESTY, AMNESTY).evict.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_gives_every_node_its_time() {
        // FEN-42, INV-11
        let start = Instant::now();
        let mut zones = Zones::new(start + AMNESTY);
        let nodes = zone("a", 3, 1);
        assert_eq!(zones.decide(&nodes, start, AMNESTY), Decision::default());
        assert_eq!(zones.decide(&nodes, start + AMNESTY, AMNESTY).evict.len(), 1);
    }
}
