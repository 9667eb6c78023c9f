//! One run of a plan: first things go wrong and nothing may be lost, then all is healed and everything must go on.

use crate::{
    Millis, check,
    client::{self, Shared},
    logs,
    machine::{BEGINNING, Machine, UPTIME},
    net::Network,
    plan::{Fault, Plan, What, derive},
    replica::Replica,
    trace::{Detail, Trace},
};
use raft::RaftStore;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};
use store::{Cluster as _, MemberRole, Store as _};
use world::host::{Clocks, take_over};

/// Milliseconds in which a healed cluster must have answered at every replica and become the same everywhere.
const RECOVERY: Millis = 40_000;
/// The same with long ways.
const RECOVERY_WAN: Millis = 90_000;
/// Before a process that has ended by itself is started again.
const RESTART: Millis = 700;
/// Entries whose state hashes are remembered.
const HASHES: usize = 4096;
/// For a snapshot, or another member to take the lead.
const ADMIN: Duration = Duration::from_secs(2);

/// What a property was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub property: &'static str,
    /// What was seen.
    pub detail: String,
    /// When.
    pub at: Millis,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.property, self.at, self.detail)
    }
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// Milliseconds of simulated time.
    pub simulated: Millis,
    /// What was not as it must be, if anything.
    pub failure: Option<Failure>,
    /// As asked for.
    pub trace: String,
    /// Requests that were answered, refused, and of unknown outcome.
    pub requests: [usize; 3],
    /// Changes that watches were told of.
    pub watched: usize,
}

/// Runs a plan to its end or to the first failure, on a thread of its own.
///
/// # Panics
/// The simulator itself is wrong.
#[must_use]
pub fn run(plan: &Plan, detail: Detail, live: bool) -> Report {
    let plan = plan.clone();
    // A thread on which nothing was drawn yet.
    let simulation = thread::Builder::new().name(format!("seed {}", plan.seed));
    let simulation = simulation.stack_size(16 << 20).spawn(move || {
        let clocks = Clocks { monotonic: UPTIME, wall: BEGINNING };
        let _seized = take_over(derive(plan.seed, "chance", 0), clocks);
        logs::note_panics();
        let trace = Trace::new(detail, live);
        let shared = Shared { trace: trace.clone(), ..Shared::default() };
        let _logs = logs::trace_logs(&shared);
        let mut simulation = Simulation::new(plan, shared);
        let failure = simulation.run().err();
        if let Some(failure) = &failure {
            trace.event(simulation.now, "world", format_args!("FAILED: {failure}"));
        }
        simulation.report(failure)
    });
    let simulation = simulation.expect("a thread");
    simulation.join().unwrap_or_else(|_| panic!("the simulator has panicked"))
}

struct Simulation {
    plan: Arc<Plan>,
    shared: Shared,
    network: Network,
    replicas: Vec<Replica>,
    clients: Vec<Machine>,
    now: Millis,
    /// By when they end.
    active: Vec<(Millis, Fault)>,
    leaders: BTreeMap<u64, usize>,
    hashes: BTreeMap<u64, (u64, usize)>,
}

fn client_ip(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, u8::try_from(number + 1).unwrap_or(u8::MAX)).into()
}

impl Simulation {
    fn new(plan: Plan, shared: Shared) -> Self {
        let trace = shared.trace.clone();
        let network = Network::new(derive(plan.seed, "network", 0), plan.link, trace.clone());
        let replicas = (0..plan.replicas)
            .map(|number| Replica::new(&plan, number, &network, &trace))
            .collect();
        let mut simulation = Self {
            plan: Arc::new(plan),
            shared,
            network,
            replicas,
            clients: Vec::new(),
            now: 0,
            active: Vec::new(),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
        };
        simulation.start_clients();
        simulation
    }

    fn client_machine(&self, number: usize) -> Machine {
        let seed = derive(self.plan.seed, "client machine", number as u64);
        let (network, trace) = (self.network.clone(), self.shared.trace.clone());
        Machine::new(format!("client-{number}"), client_ip(number), network, seed, trace)
    }

    fn start_clients(&mut self) {
        for number in 0..self.plan.clients {
            let mut machine = self.client_machine(number);
            let (plan, shared) = (Arc::clone(&self.plan), self.shared.clone());
            let seed = derive(plan.seed, "client", number as u64);
            machine.start(self.now, seed, client::ask(plan, number as u64, shared));
            self.clients.push(machine);
        }
        let number = self.plan.clients;
        let mut machine = self.client_machine(number);
        let (plan, shared) = (Arc::clone(&self.plan), self.shared.clone());
        let seed = derive(plan.seed, "client", number as u64);
        machine.start(self.now, seed, client::follow(plan, number as u64, shared));
        self.clients.push(machine);
    }

    fn run(&mut self) -> Result<(), Failure> {
        let faults = self.plan.faults.clone();
        let mut faults = faults.into_iter().peekable();
        while self.now < self.plan.fire {
            while let Some(fault) = faults.next_if(|fault| fault.at <= self.now) {
                self.begin(fault);
            }
            self.end_faults(self.now);
            self.tick()?;
        }
        self.shared.trace.event(self.now, "world", format_args!("everything is healed"));
        self.end_faults(Millis::MAX);
        self.shared.over.store(true, Ordering::Relaxed);
        for replica in &mut self.replicas {
            replica.disk.keep_power();
            replica.up_at = replica.up_at.map(|_| self.now);
        }
        self.recover()?;
        let store = self.replicas.iter().find_map(Replica::store);
        let view = store.map(|store| store.view());
        let failed = |(property, detail)| Failure { property, detail, at: self.now };
        let view = view.ok_or_else(|| failed(("everything goes on", "nobody runs".to_owned())))?;
        check::after(&self.shared.history(), &view).map_err(failed)
    }

    /// Waits until everybody has answered and everything is the same.
    fn recover(&mut self) -> Result<(), Failure> {
        let patience = if self.plan.wan { RECOVERY_WAN } else { RECOVERY };
        let until = self.now + patience;
        let number = self.plan.clients + 1;
        let mut prober = self.client_machine(number);
        let (plan, shared) = (Arc::clone(&self.plan), self.shared.clone());
        let seed = derive(plan.seed, "client", number as u64);
        prober.start(self.now, seed, client::probe(plan, number as u64, shared));
        self.clients.push(prober);
        loop {
            self.tick()?;
            let done = self.clients.iter().all(|client| !client.runs());
            if done && self.is_same_everywhere() {
                return Ok(());
            }
            if self.now >= until {
                let states: Vec<String> = self
                    .replicas
                    .iter()
                    .map(|replica| match replica.store() {
                        Some(store) => {
                            format!("{}: {:?} {store:?}", replica.machine.name, store.local())
                        }
                        None => format!("{}: no store", replica.machine.name),
                    })
                    .collect();
                let busy = self.clients.iter().filter(|client| client.runs());
                let busy: Vec<&str> = busy.map(|client| &*client.name).collect();
                let detail = format!(
                    "{patience} ms after all was healed; clients that still wait: {busy:?}\n{}",
                    states.join("\n")
                );
                let property = "everything goes on";
                return Err(Failure { property, detail, at: self.now });
            }
        }
    }

    fn is_same_everywhere(&self) -> bool {
        let mut states = self.replicas.iter().map(|replica| {
            let store = replica.store()?;
            let local = store.local();
            local.leader?;
            Some((local.applied_index, store.view().hash()))
        });
        let Some(Some(first)) = states.next() else { return false };
        states.all(|state| state == Some(first))
    }

    /// A millisecond goes by.
    fn tick(&mut self) -> Result<(), Failure> {
        self.now += 1;
        self.shared.now.store(self.now, Ordering::Relaxed);
        self.network.advance(self.now);
        for number in 0..self.replicas.len() {
            self.step_replica(number)?;
        }
        for client in &mut self.clients {
            client.step(self.now);
        }
        match logs::take_panics().into_iter().next() {
            None => Ok(()),
            Some(detail) => Err(Failure { property: "nothing panics", detail, at: self.now }),
        }
    }

    fn step_replica(&mut self, number: usize) -> Result<(), Failure> {
        let now = self.now;
        let Some(replica) = self.replicas.get_mut(number) else { return Ok(()) };
        if replica.up_at.is_some_and(|at| at <= now) && !replica.machine.runs() {
            replica.start(&self.plan, now);
        }
        replica.disk.set_now(now);
        let ended = replica.machine.step(now);
        if replica.disk.went_dark() {
            replica.lose_power();
            let lasts = self.dark_for(number);
            if let Some(replica) = self.replicas.get_mut(number) {
                replica.up_at = Some(replica.up_at.unwrap_or_default().max(now + lasts));
            }
            return Ok(());
        }
        if let Some(why) = ended {
            replica.forget_store();
            replica.up_at = Some(replica.up_at.unwrap_or_default().max(now + RESTART));
            if Replica::is_damaged(&why) {
                let property = "a replica starts after any crash";
                return Err(Failure { property, detail: why, at: now });
            }
            return Ok(());
        }
        let Some(store) = replica.store() else { return Ok(()) };
        self.look_at(number, &store)
    }

    /// For how long a machine is to be without power, as the fault that took it says.
    fn dark_for(&self, number: usize) -> Millis {
        let ends = self.active.iter().filter(|(_, fault)| {
            let own = matches!(fault.what, What::PowerCut { replica, .. } if replica == number);
            own || fault.what == What::Blackout
        });
        ends.map(|(end, _)| end.saturating_sub(self.now)).max().unwrap_or(RESTART)
    }

    /// What can be told of a replica at any time.
    fn look_at(&mut self, number: usize, store: &Arc<RaftStore>) -> Result<(), Failure> {
        let local = store.local();
        let now = self.now;
        let failed = |property, detail| Err(Failure { property, detail, at: now });
        if local.role == MemberRole::Leader {
            let known = *self.leaders.entry(local.term).or_insert(number);
            if known != number {
                let (one, other) = (known + 1, number + 1);
                let detail = format!("replicas {one} and {other} lead in term {}", local.term);
                return failed("one leader a term", detail);
            }
        }
        let Some(replica) = self.replicas.get_mut(number) else { return Ok(()) };
        let index = local.applied_index;
        if index == replica.seen_index {
            return Ok(());
        }
        if index < replica.seen_index {
            let detail =
                format!("replica {} went back from {} to {index}", number + 1, replica.seen_index);
            return failed("what is applied stays", detail);
        }
        replica.seen_index = index;
        let hash = store.view().hash();
        self.shared.trace.small(
            now,
            &replica.machine.name,
            format_args!("has applied {index}, state {hash:016x}"),
        );
        let (known, by) = *self.hashes.entry(index).or_insert((hash, number));
        if known != hash {
            let detail = format!(
                "at index {index}: {known:016x} at replica {}, {hash:016x} at replica {}",
                by + 1,
                number + 1
            );
            return failed("states are equal at equal index", detail);
        }
        while self.hashes.len() > HASHES {
            self.hashes.pop_first();
        }
        Ok(())
    }

    fn begin(&mut self, fault: Fault) {
        self.shared.trace.event(self.now, "world", format_args!("{fault}"));
        let end = self.now + fault.lasts;
        let seed = derive(self.plan.seed, "fault's own", fault.number as u64);
        let now = self.now;
        let replicas = &mut self.replicas;
        match &fault.what {
            What::Kill(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.kill(now);
                    replica.up_at = Some(replica.up_at.unwrap_or_default().max(end));
                }
            }
            What::PowerCut { replica, calls } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    match calls {
                        0 => replica.disk.cut(seed),
                        calls => replica.disk.cut_after(*calls, seed),
                    }
                }
            }
            What::Blackout => {
                for (number, replica) in (0..).zip(replicas.iter()) {
                    replica.disk.cut(derive(seed, "blackout", number));
                }
            }
            What::Stop(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.machine.stopped = replica.machine.runs();
                }
            }
            What::FailSync(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.disk.change(|faults| faults.fail_sync = true);
                }
            }
            What::FailWrite(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.disk.change(|faults| faults.fail_write = true);
                }
            }
            What::FullDisk { replica, room } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.disk.change(|faults| faults.room = Some(*room));
                }
            }
            What::ClockJump { replica, by_us } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.machine.wall_offset_us += by_us;
                }
            }
            What::Drift { replica, rate } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.machine.rate = *rate;
                }
            }
            What::Snapshot(number) => {
                if let Some(replica) = replicas.get_mut(*number)
                    && let Some(store) = replica.store()
                {
                    replica.machine.spawn(async move {
                        let _ = tokio::time::timeout(ADMIN, store.snapshot()).await;
                    });
                }
            }
            What::Transfer(number) => {
                if let Some(replica) = replicas.get_mut(*number)
                    && let Some(store) = replica.store()
                {
                    replica.machine.spawn(async move {
                        let _ =
                            tokio::time::timeout(ADMIN, store.transfer_leader(None, ADMIN)).await;
                    });
                }
            }
            What::Partition(_)
            | What::OneWay(..)
            | What::Slow { .. }
            | What::Loss(_)
            | What::SlowDisk { .. }
            | What::StalledDisk(_) => {}
        }
        self.active.push((end, fault));
        self.apply_lasting();
    }

    fn end_faults(&mut self, upto: Millis) {
        let (ended, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(|(end, _)| *end <= upto);
        self.active = left;
        if ended.is_empty() {
            return;
        }
        for (_, fault) in ended {
            self.shared.trace.event(self.now, "world", format_args!("ends: {fault}"));
            match fault.what {
                What::Stop(number) => {
                    let others = self.active.iter().any(|(_, other)| other.what == fault.what);
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.machine.stopped &= others;
                    }
                }
                What::FullDisk { replica, .. } => {
                    if let Some(replica) = self.replicas.get_mut(replica) {
                        replica.disk.change(|faults| faults.room = None);
                    }
                }
                What::Drift { replica: number, .. } => {
                    let usual = self.plan.clocks.get(number).map_or(1.0, |(rate, _)| *rate);
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.machine.rate = usual;
                    }
                }
                What::PowerCut { replica, .. } => {
                    // It did not come to so many calls.
                    if let Some(replica) = self.replicas.get_mut(replica) {
                        replica.disk.keep_power();
                    }
                }
                What::FailSync(number) | What::FailWrite(number) => {
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.disk.change(|faults| {
                            (faults.fail_sync, faults.fail_write) = (false, false);
                        });
                    }
                }
                What::Kill(_)
                | What::Blackout
                | What::Partition(_)
                | What::OneWay(..)
                | What::Slow { .. }
                | What::Loss(_)
                | What::SlowDisk { .. }
                | What::StalledDisk(_)
                | What::ClockJump { .. }
                | What::Snapshot(_)
                | What::Transfer(_) => {}
            }
        }
        self.apply_lasting();
    }

    /// Links and disks as all that lasts together makes them.
    fn apply_lasting(&mut self) {
        let active: Vec<&Fault> = self.active.iter().map(|(_, fault)| fault).collect();
        for (number, replica) in self.replicas.iter().enumerate() {
            let wanted = self.plan.disk_faults(number, &active);
            replica.disk.change(|faults| {
                (faults.sync_min, faults.sync_max) = (wanted.sync_min, wanted.sync_max);
                faults.stalled = wanted.stalled;
            });
        }
        self.network.heal();
        let all: Vec<IpAddr> = self.replicas.iter().map(|replica| replica.machine.ip).collect();
        let clients: Vec<IpAddr> = self.clients.iter().map(|client| client.ip).collect();
        for fault in active {
            if let What::Partition(group) = &fault.what {
                let inside: Vec<IpAddr> =
                    group.iter().filter_map(|number| all.get(*number).copied()).collect();
                // Every other time clients are on the side of the others.
                let with_clients = fault.number.is_multiple_of(2);
                let outside = all.iter().chain(clients.iter().filter(|_| with_clients));
                for other in outside.filter(|ip| !inside.contains(ip)) {
                    for ip in &inside {
                        self.network.change(*ip, *other, |link| link.cut = true);
                        self.network.change(*other, *ip, |link| link.cut = true);
                    }
                }
            }
            if let What::OneWay(from, to) = &fault.what
                && let (Some(from), Some(to)) = (all.get(*from), all.get(*to))
            {
                self.network.change(*from, *to, |link| link.cut = true);
            }
            if let What::Slow { from, to, latency, bandwidth } = &fault.what
                && let (Some(from), Some(to)) = (all.get(*from), all.get(*to))
            {
                self.network.change(*from, *to, |link| {
                    link.latency_max = link.latency_max.max(*latency);
                    link.bandwidth = *bandwidth;
                });
            }
            if let What::Loss(part) = &fault.what {
                for from in all.iter().chain(&clients) {
                    for to in all.iter().chain(&clients) {
                        self.network.change(*from, *to, |link| link.loss = *part);
                    }
                }
            }
        }
    }

    fn report(&self, failure: Option<Failure>) -> Report {
        let history = self.shared.history();
        let mut requests = [0; 3];
        for operation in &history.operations {
            let [ok, failed, unknown] = &mut requests;
            *match operation.outcome {
                crate::history::Outcome::Ok(_) => ok,
                crate::history::Outcome::Failed(_) => failed,
                crate::history::Outcome::Unknown(_) => unknown,
            } += 1;
        }
        let told = history.watches.iter().flat_map(|watched| &watched.answers);
        let watched = told.map(|(_, changes)| changes.len()).sum();
        Report { simulated: self.now, failure, trace: self.shared.trace.text(), requests, watched }
    }
}
