//! `bench failover`: the leader goes in one of four ways, again and again, under writers without deadlines.

use crate::{
    cluster::{Cluster, MEMBERS, System},
    compare::{directory, distinct},
    lanes::{Lanes, Ledger, Sent, count_lost, longest_gap},
    netns::{self, Network},
    own_thread::on_own_thread,
    stats::{Spread, Summary},
    wire::{Connection, path},
};
use anyhow::Context as _;
use etcd::proto::etcdserverpb::{MoveLeaderRequest, MoveLeaderResponse};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::{fmt, path::PathBuf, rc::Rc, time::Duration};
use tokio::time::Instant;

/// For writes to go on, or for all to be told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Acknowledged puts before and after each fault.
const STEADY: usize = 200;

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// SIGKILL; it is started again afterwards.
    Kill,
    /// SIGSTOP; SIGCONT afterwards.
    Stop,
    /// Its network is cut, to the other members and to clients, without a word.
    Cut,
    /// It is asked to hand over, as before a planned restart.
    Transfer,
}

/// What is done to whom.
#[derive(Debug, Clone)]
pub struct FailoverPlan {
    /// Who, in turn.
    pub systems: Vec<System>,
    /// What.
    pub fault: Fault,
    /// How often.
    pub rounds: u32,
    /// Puts a second, over all members.
    pub rate: u64,
    /// Below which directory the members keep theirs; the default one for temporary files if none.
    pub data_dir: Option<PathBuf>,
}

/// What happened to one system's clients.
#[derive(Debug, Clone, Serialize)]
pub struct SystemFailover {
    /// Which system.
    pub system: String,
    /// Longest time without an acknowledged write, for each fault.
    pub gap_ms: Spread,
    /// Of the requests that the fault made wait, at members that it did not hit: how long until the last one
    /// was told something, success or not, for each fault.
    pub told_ms: Spread,
    /// The same at the member that was the leader. One that stands still or is cut off cannot tell: then it is
    /// the time until the fault had ended.
    pub told_by_leader_ms: Spread,
    /// Puts that were acknowledged.
    pub acknowledged: u64,
    /// Of those, not there when all were read back.
    pub lost: u64,
    /// Requests that were answered with an error; the outcome of most is unknown.
    pub failed: u64,
    /// Requests that were not answered even after the fault had ended.
    pub unanswered: u64,
    /// What the first of the failed ones was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// The first system's gap over the second's, round by round.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverRatio {
    /// Below 1: shorter.
    pub gap_ms: Summary,
}

/// All systems; the first one's figures stand at the top, too.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverReport {
    /// `failover`.
    pub workload: String,
    /// What was done.
    pub fault: Fault,
    #[serde(flatten)]
    first: SystemFailover,
    /// Each of them.
    pub systems: Vec<SystemFailover>,
    /// Where two systems were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<FailoverRatio>,
}

impl FailoverReport {
    /// Whether nothing acknowledged was lost.
    #[must_use]
    pub fn held(&self) -> bool {
        self.systems.iter().all(|system| system.lost == 0)
    }
}

/// Does it, on a thread of its own: for [`Fault::Cut`] that thread leaves the host's network.
///
/// Dropping the future ends everything that was started; the runtime waits for that when it is dropped.
///
/// # Errors
/// A system does not start, or does not come back from a fault; `Cut` needs root.
pub async fn failover(
    plan: FailoverPlan,
    say: impl FnMut(String) + Send + 'static,
) -> anyhow::Result<FailoverReport> {
    on_own_thread(move || run(plan, say)).await
}

/// One system and what its rounds gave.
struct Subject {
    cluster: Cluster,
    ledger: Rc<Ledger>,
    gaps: Vec<Duration>,
    told: Vec<Duration>,
    told_by_leader: Vec<Duration>,
}

async fn run(plan: FailoverPlan, mut say: impl FnMut(String)) -> anyhow::Result<FailoverReport> {
    if plan.fault == Fault::Cut {
        netns::leave_host().context("--fault cut")?;
    }
    let dir = directory(plan.data_dir.as_deref())?;
    let mut subjects = Vec::new();
    let systems = distinct(plan.systems.clone());
    let network = match plan.fault {
        Fault::Cut => Some(Rc::new(Network::new(MEMBERS * systems.len()).await?)),
        Fault::Kill | Fault::Stop | Fault::Transfer => None,
    };
    for (index, system) in systems.into_iter().enumerate() {
        let below = dir.path().join(&system.name);
        let network = network.clone().map(|network| (network, index * MEMBERS));
        let cluster = Box::pin(Cluster::start(system, &below, network)).await?;
        subjects.push(Subject {
            cluster,
            ledger: Rc::default(),
            gaps: Vec::new(),
            told: Vec::new(),
            told_by_leader: Vec::new(),
        });
    }
    for round in 1..=plan.rounds {
        let forwards = round % 2 == 1;
        let count = subjects.len();
        for index in (0..count).map(|i| if forwards { i } else { count - 1 - i }) {
            let Some(subject) = subjects.get_mut(index) else { continue };
            let name = subject.cluster.name().to_owned();
            let said = Box::pin(subject.round(&plan)).await;
            let said = said.with_context(|| format!("{name}, round {round}"))?;
            say(format!("{round}/{} {name}: {said}", plan.rounds));
        }
    }
    let mut done = Vec::new();
    for subject in subjects {
        done.push(subject.finish().await?);
    }
    let ratio = match done.as_slice() {
        [ours, theirs] => {
            let pairs = ours.gap_ms.all.iter().zip(&theirs.gap_ms.all);
            Summary::of(pairs.map(|(a, b)| a / b)).map(|gap_ms| FailoverRatio { gap_ms })
        }
        _ => None,
    };
    let first = done.first().context("no system")?.clone();
    let workload = "failover".to_owned();
    Ok(FailoverReport { workload, fault: plan.fault, first, systems: done, ratio })
}

impl Subject {
    async fn round(&mut self, plan: &FailoverPlan) -> anyhow::Result<String> {
        let endpoints = self.cluster.endpoints();
        self.cluster.wait_ready().await?;
        let ledger = Rc::clone(&self.ledger);
        let lanes = Lanes::start(&ledger, &endpoints, plan.rate)?;
        let steady = |sent: &mut dyn Iterator<Item = &Sent>| {
            sent.filter(|s| s.answer.is_some_and(|a| a.1)).count() >= STEADY
        };
        ledger.wait(PATIENCE, "writes before the fault", steady).await?;
        let leader = self.cluster.until_led().await?;
        let at = Instant::now();
        self.begin(plan.fault, leader).await?;
        let again = |sent: &mut dyn Iterator<Item = &Sent>| {
            sent.filter(|s| s.at > at && s.answer.is_some_and(|a| a.1)).count() >= STEADY
        };
        ledger.wait(PATIENCE, "writes after the fault", again).await?;
        let (gap, end) =
            longest_gap(&ledger.round(), at).context("no write before and after the fault")?;
        // Those who asked while nobody led, and asked somebody who still runs, must be told.
        let told = |sent: &mut dyn Iterator<Item = &Sent>| {
            let waits = |s: &&Sent| s.endpoint != leader && s.at < end && s.answer.is_none();
            sent.filter(waits).count() == 0
        };
        ledger.wait(PATIENCE, "an answer to what was sent during the gap", told).await?;
        self.end(plan.fault, leader).await?;
        self.cluster.wait_ready().await?;
        lanes.finish().await;
        let waited = |by_leader: bool| {
            let hit = ledger.round().into_iter().filter(|s| {
                (s.endpoint == leader) == by_leader
                    && s.at < end
                    && s.answer.is_some_and(|answer| answer.0 > at)
            });
            hit.filter_map(|s| Some(s.answer?.0 - s.at.max(at))).max().unwrap_or_default()
        };
        let (told, told_by_leader) = (waited(false), waited(true));
        self.gaps.push(gap);
        self.told.push(told);
        self.told_by_leader.push(told_by_leader);
        Ok(format!(
            "member-{}, no write for {:.0} ms, the last client told after {:.0} ms, the leader's own after \
             {:.0} ms",
            leader + 1,
            gap.as_secs_f64() * 1e3,
            told.as_secs_f64() * 1e3,
            told_by_leader.as_secs_f64() * 1e3
        ))
    }

    async fn begin(&mut self, fault: Fault, leader: usize) -> anyhow::Result<()> {
        match fault {
            // Reaped later: the writers are on this thread.
            Fault::Kill => self.cluster.signal(leader, Signal::SIGKILL),
            Fault::Stop => self.cluster.signal(leader, Signal::SIGSTOP),
            Fault::Cut => self.cluster.cut(leader, true).await,
            Fault::Transfer => {
                let target = self.cluster.member_id((leader + 1) % MEMBERS).await?;
                let endpoints = self.cluster.endpoints();
                let connection =
                    Connection::open(endpoints.get(leader).context("no such member")?).await?;
                let request = MoveLeaderRequest { target_id: target };
                let _: MoveLeaderResponse = connection
                    .unary(path::MOVE_LEADER, &request)
                    .await
                    .context("ask the leader to hand over")?;
                Ok(())
            }
        }
    }

    async fn end(&mut self, fault: Fault, leader: usize) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => {
                self.cluster.kill(leader)?;
                self.cluster.start_member(leader)
            }
            Fault::Stop => self.cluster.signal(leader, Signal::SIGCONT),
            Fault::Cut => self.cluster.cut(leader, false).await,
            Fault::Transfer => Ok(()),
        }
    }

    async fn finish(mut self) -> anyhow::Result<SystemFailover> {
        self.cluster.wait_ready().await?;
        let endpoints = self.cluster.endpoints();
        let lost = count_lost(&self.ledger, endpoints.first().context("no member")?).await?;
        self.cluster.stop().await?;
        Ok(SystemFailover {
            system: self.cluster.name().to_owned(),
            gap_ms: Spread::of(&self.gaps),
            told_ms: Spread::of(&self.told),
            told_by_leader_ms: Spread::of(&self.told_by_leader),
            acknowledged: self.ledger.acknowledged(),
            lost,
            failed: self.ledger.failed(),
            unanswered: self.ledger.unanswered(),
            first_error: self.ledger.first_error(),
        })
    }
}

impl fmt::Display for FailoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ms; median / p99 / max of {} faults", self.first.gap_ms.all.len())?;
        writeln!(
            f,
            "{:10} {:>22} {:>22} {:>22} {:>8} {:>5} {:>7}",
            "", "no write", "told by the others", "told by the leader", "acked", "lost", "failed"
        )?;
        for system in &self.systems {
            let spread = |s: &Spread| format!("{:.0} / {:.0} / {:.0}", s.median, s.p99, s.max);
            writeln!(
                f,
                "{:10} {:>22} {:>22} {:>22} {:>8} {:>5} {:>7}",
                system.system,
                spread(&system.gap_ms),
                spread(&system.told_ms),
                spread(&system.told_by_leader_ms),
                system.acknowledged,
                system.lost,
                system.failed
            )?;
            if let Some(error) = &system.first_error {
                writeln!(f, "{:10} first failure: {error}", "")?;
            }
        }
        if let Some(ratio) = &self.ratio {
            let s = &ratio.gap_ms;
            writeln!(f, "gap, first over second: {:.2} ({:.2} to {:.2})", s.median, s.min, s.max)?;
        }
        Ok(())
    }
}
