//! What is done to a cluster: one row a fault, each with what it does, what it needs and how it is taken back.

use crate::{cluster::Cluster, place::Ground};
use anyhow::Context as _;
use bench::Link;
use nix::sys::signal::Signal;
use rand::{Rng as _, rngs::StdRng, seq::IteratorRandom as _};
use std::{path::PathBuf, time::Duration};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nemesis {
    KillLeader,
    KillFollower,
    KillAll,
    PauseLeader,
    PauseFollower,
    CutLeader,
    CutFollower,
    CutBetween,
    Mute,
    Deafen,
    SlowLink,
    StallDisk,
    SlowDisk,
    FillDisk,
    CutPower,
    ClockAhead,
    ClockBehind,
    HandOver,
    ChangeMembers,
    RollingRestart,
    Upgrade,
    KillAgent,
    LoseNode,
    LoseQuorum,
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Until so many more writes are acknowledged, and this long at least.
    Writes(u64, Duration),
    /// It is over when it is done.
    Done,
    /// Writes must not be acknowledged while it lasts, and every client must be told so.
    Refused(Duration),
    /// Until writes are refused for want of room.
    Full,
    /// Until the lost node's Pods are evicted and others run in their place.
    Replaced,
}

/// Of a machine, or of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// Networks of its own.
    Network,
    /// Disks and clocks that can be made to fail.
    Faults,
    /// A disk whose power can be cut.
    Power,
    /// Real containers.
    Containers,
    /// Another version of the program.
    Previous,
}

/// What is to be known of a fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) nemesis: Nemesis,
    /// On the command line.
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) need: Need,
    pub(crate) hold: Hold,
}

const LITTLE: Duration = Duration::from_millis(500);
const WHILE: Duration = Duration::from_secs(2);
/// Writes that show that a cluster goes on.
const GOES_ON: u64 = 100;

const fn row(
    nemesis: Nemesis,
    name: &'static str,
    says: &'static str,
    need: Need,
    hold: Hold,
) -> Row {
    Row { nemesis, name, says, need, hold }
}

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    row(
        Nemesis::KillLeader,
        "kill-leader",
        "SIGKILL to the leader",
        Need::Nothing,
        Hold::Writes(GOES_ON, LITTLE),
    ),
    row(
        Nemesis::KillFollower,
        "kill-follower",
        "SIGKILL to a follower",
        Need::Nothing,
        Hold::Writes(GOES_ON, LITTLE),
    ),
    row(Nemesis::KillAll, "kill-all", "SIGKILL to all replicas at once", Need::Nothing, Hold::Done),
    row(
        Nemesis::PauseLeader,
        "pause-leader",
        "SIGSTOP to the leader, SIGCONT later",
        Need::Nothing,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::PauseFollower,
        "pause-follower",
        "SIGSTOP to a follower, SIGCONT later",
        Need::Nothing,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::CutLeader,
        "cut-leader",
        "the leader's link is taken down, to replicas, nodes and clients",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::CutFollower,
        "cut-follower",
        "a follower's link is taken down",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::CutBetween,
        "cut-between",
        "leader and one follower do not reach each other; everybody else reaches both",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::Mute,
        "mute-leader",
        "what the leader sends to the other replicas is lost; it still hears them",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::Deafen,
        "deafen-leader",
        "what the other replicas send to the leader is lost; they still hear it",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::SlowLink,
        "slow-link",
        "the leader's link is slow and loses packets",
        Need::Network,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::StallDisk,
        "stall-disk",
        "syncs of the leader's disk do not return",
        Need::Faults,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::SlowDisk,
        "slow-disk",
        "each sync of the leader's disk takes 90 ms longer",
        Need::Faults,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(Nemesis::FillDisk, "fill-disk", "the leader's disk is full", Need::Faults, Hold::Full),
    row(
        Nemesis::CutPower,
        "cut-power",
        "the power of all disks is cut in mid-write: only what was synced is left",
        Need::Power,
        Hold::Done,
    ),
    row(
        Nemesis::ClockAhead,
        "clock-ahead",
        "the leader's clock jumps an hour ahead",
        Need::Faults,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::ClockBehind,
        "clock-behind",
        "the leader's clock jumps an hour back",
        Need::Faults,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::HandOver,
        "hand-over",
        "the leader is asked to hand over",
        Need::Nothing,
        Hold::Writes(GOES_ON, Duration::ZERO),
    ),
    row(
        Nemesis::ChangeMembers,
        "change-members",
        "a fourth replica joins with an empty disk and votes; later it is taken out again",
        Need::Nothing,
        Hold::Writes(GOES_ON, LITTLE),
    ),
    row(
        Nemesis::RollingRestart,
        "rolling-restart",
        "one replica after another is ended and started again",
        Need::Nothing,
        Hold::Done,
    ),
    row(
        Nemesis::Upgrade,
        "upgrade",
        "one replica after another goes on with the other version",
        Need::Previous,
        Hold::Done,
    ),
    row(
        Nemesis::KillAgent,
        "kill-agent",
        "SIGKILL to a node's agent; its Pods go on",
        Need::Containers,
        Hold::Writes(GOES_ON, WHILE),
    ),
    row(
        Nemesis::LoseNode,
        "lose-node",
        "a node ends with all that it runs",
        Need::Containers,
        Hold::Replaced,
    ),
    row(
        Nemesis::LoseQuorum,
        "lose-quorum",
        "SIGKILL to two of three replicas, the leader among them",
        Need::Nothing,
        Hold::Refused(WHILE),
    ),
];

impl Nemesis {
    /// What is to be known of it.
    pub(crate) fn row(self) -> &'static Row {
        let found = ROWS.iter().find(|row| row.nemesis == self);
        found.expect("every fault has a row: a test counts them")
    }

    /// Whether no replica is lost by it: each still runs and is connected, and as long as a majority needs it
    /// ([`inject`]), it goes on, if slowly.
    pub(crate) fn only_hinders(self) -> bool {
        match self {
            Self::SlowLink
            | Self::SlowDisk
            | Self::ClockAhead
            | Self::ClockBehind
            | Self::KillAgent => true,
            Self::KillLeader
            | Self::KillFollower
            | Self::KillAll
            | Self::PauseLeader
            | Self::PauseFollower
            | Self::CutLeader
            | Self::CutFollower
            | Self::CutBetween
            | Self::Mute
            | Self::Deafen
            | Self::StallDisk
            | Self::FillDisk
            | Self::CutPower
            | Self::HandOver
            | Self::ChangeMembers
            | Self::RollingRestart
            | Self::Upgrade
            | Self::LoseNode
            | Self::LoseQuorum => false,
        }
    }

    /// Whether it can be done to any replicated store, and not to Trireme alone.
    pub(crate) fn is_of_any_store(self) -> bool {
        matches!(self.row().need, Need::Nothing | Need::Network)
            && !matches!(self, Self::HandOver | Self::ChangeMembers)
    }

    /// Whether a majority is left that goes on as before.
    pub(crate) fn leaves_a_majority(self) -> bool {
        !matches!(self, Self::KillAll | Self::CutPower | Self::FillDisk | Self::LoseQuorum)
    }

    /// By its name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.nemesis)
    }
}

/// Which of two faults can last while the other one comes and goes, and that one; nothing if they cannot meet.
pub(crate) fn nested(pair: &[Nemesis]) -> Option<(Nemesis, Nemesis)> {
    let [first, second] = pair else { return None };
    let meet = first != second
        && first.leaves_a_majority()
        && second.leaves_a_majority()
        // They may hit the same node, which can be lost once.
        && !(first.row().need == Need::Containers && second.row().need == Need::Containers);
    // The one around takes no replica away, so that a majority is left to the one inside.
    match (meet, first.only_hinders(), second.only_hinders()) {
        (true, true, _) => Some((*first, *second)),
        (true, false, true) => Some((*second, *first)),
        (true, false, false) | (false, _, _) => None,
    }
}

/// What is there for faults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Means {
    /// Networks, mounts and containers.
    pub(crate) ground: Option<Ground>,
    /// Another version of the program.
    pub(crate) previous: Option<PathBuf>,
    /// A cluster that others use, too: only what is easily taken back.
    pub(crate) live: Option<Live>,
}

/// How much of a cluster that is not ours can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    /// Its API.
    Remote,
    /// Its processes, too, which somebody starts again when they end.
    Local,
}

impl Means {
    /// Why a fault cannot be had; nothing if it can.
    pub(crate) fn missing(&self, nemesis: Nemesis) -> Option<&'static str> {
        let need = nemesis.row().need;
        match self.live {
            _ if nemesis == Nemesis::HandOver => return None,
            Some(Live::Remote) => {
                return Some(
                    "processes on this machine: on a cluster elsewhere there is only hand-over",
                );
            }
            // Who starts them again does so at once, and not when a drill would like it.
            Some(Live::Local)
                if need != Need::Nothing
                    || matches!(nemesis, Nemesis::LoseQuorum | Nemesis::ChangeMembers) =>
            {
                return Some(
                    "a cluster of its own: on a live one, replicas are killed, paused or restarted",
                );
            }
            Some(Live::Local) | None => {}
        }
        let own = self.ground == Some(Ground::Own);
        match need {
            Need::Nothing | Need::Faults => None,
            Need::Network => (!own).then_some("a network for each replica: needs root"),
            Need::Power => (!own).then_some("a disk whose power can be cut: needs root"),
            Need::Containers => (!own).then_some("nodes with real containers: needs root"),
            Need::Previous => {
                self.previous.is_none().then_some("another version of the program: --previous FILE")
            }
        }
    }
}

/// A fault that has been injected.
#[derive(Debug)]
pub(crate) struct Injected {
    pub(crate) nemesis: Nemesis,
    /// For people: what, to whom.
    pub(crate) what: String,
    /// The replicas that were hit.
    pub(crate) victims: Vec<u64>,
    /// The node that was hit.
    pub(crate) node: Option<String>,
}

const HOUR_MILLIS: i64 = 3_600_000;

/// Does it. A replica that it only hinders goes on as well as a majority needs, if `is_needed` for one.
///
/// # Errors
/// It cannot be done here, or the cluster is not as it should be before it.
pub(crate) async fn inject(
    nemesis: Nemesis,
    is_needed: bool,
    cluster: &mut Cluster,
    means: &Means,
    random: &mut StdRng,
) -> anyhow::Result<Injected> {
    let leader = cluster.leader().await?;
    let follower = cluster.up().into_iter().filter(|id| *id != leader).choose(random);
    let follower = follower.context("no follower runs")?;
    let others: Vec<u64> = cluster.up().into_iter().filter(|id| *id != leader).collect();
    let (mut victims, mut node) = (vec![leader], None);
    match nemesis {
        Nemesis::KillLeader => cluster.kill(leader).await?,
        Nemesis::KillFollower => {
            victims = vec![follower];
            cluster.kill(follower).await?;
        }
        Nemesis::KillAll => {
            victims = cluster.up();
            cluster.kill_all().await?;
            cluster.make_whole().await?;
        }
        Nemesis::PauseLeader => cluster.signal(leader, Signal::SIGSTOP)?,
        Nemesis::PauseFollower => {
            victims = vec![follower];
            cluster.signal(follower, Signal::SIGSTOP)?;
        }
        Nemesis::CutLeader => cluster.cut(leader, true).await?,
        Nemesis::CutFollower => {
            victims = vec![follower];
            cluster.cut(follower, true).await?;
        }
        Nemesis::CutBetween => {
            victims = vec![leader, follower];
            cluster.silence(leader, follower, true).await?;
            cluster.silence(follower, leader, true).await?;
        }
        Nemesis::Mute => {
            for other in others {
                cluster.silence(leader, other, true).await?;
            }
        }
        Nemesis::Deafen => {
            for other in others {
                cluster.silence(other, leader, true).await?;
            }
        }
        Nemesis::SlowLink => {
            let quality = if is_needed { Link::Slow } else { Link::Poor };
            cluster.set_link(leader, quality).await?;
        }
        Nemesis::StallDisk => cluster.set_disk(leader, "stallSyncs = true\n")?,
        Nemesis::SlowDisk => cluster.set_disk(leader, "slowSyncsMs = 90\n")?,
        // There is room for what is under way, and for no segment more.
        Nemesis::FillDisk => cluster.set_disk(leader, "fullAfterBytes = 4194304\n")?,
        Nemesis::CutPower => {
            victims = cluster.up();
            cluster.cut_power().await?;
            cluster.make_whole().await?;
        }
        Nemesis::ClockAhead => cluster.set_clock(leader, HOUR_MILLIS)?,
        Nemesis::ClockBehind => cluster.set_clock(leader, -HOUR_MILLIS)?,
        Nemesis::HandOver => {
            // Nobody is told whom to hand over to: the leader knows best.
            let endpoints = cluster.endpoints().context("no API to ask for it")?;
            client::admin::transfer_leader(&endpoints, None).await?;
        }
        Nemesis::ChangeMembers => victims = vec![cluster.add_replica().await?],
        Nemesis::RollingRestart => {
            victims = cluster.up();
            roll(cluster, random).await?;
        }
        Nemesis::Upgrade => {
            victims = cluster.up();
            let previous = means.previous.clone();
            let back = random.random_bool(0.5);
            // Forwards, and as often back: an upgrade that goes wrong is taken back.
            cluster.use_program(if back { previous } else { None })?;
            roll(cluster, random).await?;
        }
        Nemesis::KillAgent => {
            victims = Vec::new();
            let name = cluster.nodes().into_iter().choose(random).context("no node")?;
            cluster.kill_agent(&name).await?;
            node = Some(name);
        }
        Nemesis::LoseNode => {
            victims = Vec::new();
            let name = cluster.nodes().into_iter().choose(random).context("no node")?;
            cluster.lose_node(&name).await?;
            node = Some(name);
        }
        Nemesis::LoseQuorum => {
            victims = vec![leader, follower];
            for id in [leader, follower] {
                cluster.kill(id).await?;
            }
        }
    }
    let whom: Vec<String> =
        victims.iter().map(|id| format!("replica-{id}")).chain(node.clone()).collect();
    let is_mild = nemesis == Nemesis::SlowLink && is_needed;
    let how = if is_mild { ", as much as a majority that needs it can bear" } else { "" };
    let what = format!("{}{how} ({})", nemesis.row().says, whom.join(", "));
    Ok(Injected { nemesis, what, victims, node })
}

/// One after another, in any order; the next one when all are well again.
async fn roll(cluster: &mut Cluster, random: &mut StdRng) -> anyhow::Result<()> {
    let all = cluster.up();
    let order = all.iter().copied().choose_multiple(random, all.len());
    for id in order {
        cluster.stop(id).await?;
        cluster.make_whole().await?;
    }
    Ok(())
}

/// Takes it back, and returns when the cluster is whole again.
///
/// # Errors
/// It does not come back.
pub(crate) async fn heal(injected: &Injected, cluster: &mut Cluster) -> anyhow::Result<()> {
    let victims = &injected.victims;
    match injected.nemesis {
        Nemesis::KillLeader
        | Nemesis::KillFollower
        | Nemesis::KillAll
        | Nemesis::CutPower
        | Nemesis::HandOver
        | Nemesis::RollingRestart
        | Nemesis::Upgrade
        | Nemesis::LoseQuorum => {}
        Nemesis::PauseLeader | Nemesis::PauseFollower => {
            for id in victims {
                cluster.signal(*id, Signal::SIGCONT)?;
            }
        }
        Nemesis::CutLeader | Nemesis::CutFollower => {
            for id in victims {
                cluster.cut(*id, false).await?;
            }
        }
        Nemesis::CutBetween => {
            if let [a, b] = victims.as_slice() {
                cluster.silence(*a, *b, false).await?;
                cluster.silence(*b, *a, false).await?;
            }
        }
        Nemesis::Mute | Nemesis::Deafen => {
            let muted = injected.nemesis == Nemesis::Mute;
            for id in victims {
                for other in cluster.replicas().into_iter().filter(|other| other != id) {
                    let (from, to) = if muted { (*id, other) } else { (other, *id) };
                    cluster.silence(from, to, false).await?;
                }
            }
        }
        Nemesis::ChangeMembers => {
            for id in victims {
                cluster.remove_replica(*id).await?;
            }
        }
        Nemesis::SlowLink => {
            for id in victims {
                cluster.set_link(*id, Link::Sound).await?;
            }
        }
        Nemesis::StallDisk | Nemesis::SlowDisk | Nemesis::FillDisk => {
            for id in victims {
                cluster.set_disk(*id, "")?;
            }
        }
        Nemesis::ClockAhead | Nemesis::ClockBehind => {
            for id in victims {
                cluster.set_clock(*id, 0)?;
            }
        }
        Nemesis::KillAgent | Nemesis::LoseNode => {
            if let Some(node) = &injected.node {
                cluster.start_node(node)?;
            }
        }
    }
    cluster.make_whole().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fault_has_one_row_and_one_name() {
        let last = Nemesis::LoseQuorum as usize;
        let faults: BTreeSet<Nemesis> = ROWS.iter().map(|row| row.nemesis).collect();
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!((faults.len(), names.len(), ROWS.len()), (last + 1, last + 1, last + 1));
        for row in ROWS {
            assert_eq!(Nemesis::named(row.name), Some(row.nemesis));
            assert_eq!(row.nemesis.row().name, row.name);
        }
    }

    #[test]
    fn a_fault_lasts_around_another_only_if_a_majority_is_left_to_both() {
        use Nemesis::{
            KillAgent, KillAll, KillLeader, LoseNode, PauseFollower, SlowDisk, SlowLink,
        };
        for (pair, want) in [
            ([SlowDisk, KillLeader], Some((SlowDisk, KillLeader))),
            ([KillLeader, SlowLink], Some((SlowLink, KillLeader))),
            ([SlowLink, SlowDisk], Some((SlowLink, SlowDisk))),
            ([SlowLink, SlowLink], None),
            ([KillLeader, PauseFollower], None),
            ([SlowDisk, KillAll], None),
            ([KillAgent, LoseNode], None),
        ] {
            assert_eq!(nested(&pair), want, "{pair:?}");
        }
        assert_eq!(nested(&[SlowDisk]), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = Means { ground: Some(Ground::Shared), ..Means::default() };
        for (nemesis, can) in [
            (Nemesis::KillLeader, true),
            (Nemesis::StallDisk, true),
            (Nemesis::CutLeader, false),
            (Nemesis::CutPower, false),
            (Nemesis::LoseNode, false),
            (Nemesis::Upgrade, false),
        ] {
            assert_eq!(nothing.missing(nemesis).is_none(), can, "{nemesis:?}");
        }
        let previous = Some("trireme-0.1".into());
        let all = Means { ground: Some(Ground::Own), previous, live: None };
        assert!(ROWS.iter().all(|row| all.missing(row.nemesis).is_none()));
    }

    #[test]
    fn a_live_cluster_is_spared_what_is_not_easily_taken_back() {
        let on = |live| Means { ground: Some(Ground::Shared), previous: None, live: Some(live) };
        let can = |live| {
            let rows = ROWS.iter().filter(|row| on(live).missing(row.nemesis).is_none());
            rows.map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(can(Live::Remote), ["hand-over"]);
        let local = [
            "kill-leader",
            "kill-follower",
            "kill-all",
            "pause-leader",
            "pause-follower",
            "hand-over",
            "rolling-restart",
        ];
        assert_eq!(can(Live::Local), local);
    }
}
