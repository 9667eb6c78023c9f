//! One run of a plan: first things go wrong and nothing may be lost, then all is healed and everything must go on.

mod faults;
mod membership;

use crate::{
    Millis, check,
    client::{self, Shared},
    history::Record,
    judge, logs,
    machine::{BEGINNING, Machine, UPTIME},
    net::Network,
    observer::Observer,
    patience::{self, TOOK_TOO_LONG},
    plan::{Fault, Plan, derive},
    replica::Replica,
    session,
    trace::{Detail, Trace},
};
use membership::Admitted;
use raft::RaftStore;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use store::{Cluster as _, MemberRole, Store as _, state::View};
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

impl Report {
    /// Of a run of which nothing is known but that it did not end.
    pub(crate) fn given_up(failure: Failure, trace: &Trace) -> Self {
        Self {
            simulated: failure.at,
            failure: Some(failure),
            trace: trace.text(),
            requests: [0; 3],
            watched: 0,
        }
    }
}

/// Runs a plan to its end or to the first failure, on a thread of its own.
///
/// # Panics
/// The simulator itself is wrong.
#[must_use]
pub fn run(plan: &Plan, detail: Detail, live: bool) -> Report {
    run_within(plan, None, detail, live)
}

/// As [`run`], for so long of real time at most.
///
/// # Panics
/// The simulator itself is wrong.
#[must_use]
pub fn run_within(plan: &Plan, limit: Option<Duration>, detail: Detail, live: bool) -> Report {
    let (plan, trace) = (plan.clone(), Trace::new(detail, live));
    let so_far = trace.clone();
    let ended = patience::run_within(plan.seed, limit, move || {
        let clocks = Clocks { monotonic: UPTIME, wall: BEGINNING };
        let _seized = take_over(derive(plan.seed, "chance", 0), clocks);
        logs::note_panics();
        let shared = Shared { trace: trace.clone(), ..Shared::default() };
        let _logs = logs::trace_logs(&shared);
        let mut simulation = Simulation::new(plan, shared);
        let failure = simulation.run().err();
        if let Some(failure) = &failure {
            trace.event(simulation.now, "world", format_args!("FAILED: {failure}"));
        }
        simulation.report(failure)
    });
    ended.unwrap_or_else(|failure| Report::given_up(failure, &so_far))
}

type Lane = fn(Arc<Plan>, u64, Shared) -> Pin<Box<dyn Future<Output = String> + Send>>;

/// Clients that do one thing only, beside those who do everything.
const LANES: [Lane; 6] = [
    |plan, client, shared| Box::pin(client::follow(plan, client, shared)),
    |plan, client, shared| Box::pin(client::follow(plan, client, shared)),
    |plan, client, shared| Box::pin(client::follow(plan, client, shared)),
    |plan, client, shared| Box::pin(client::look_back(plan, client, shared)),
    |plan, client, shared| Box::pin(session::hold(plan, client, shared)),
    |plan, client, shared| Box::pin(session::hold(plan, client, shared)),
];

struct Simulation {
    plan: Arc<Plan>,
    shared: Shared,
    network: Network,
    replicas: Vec<Replica>,
    clients: Vec<Machine>,
    now: Millis,
    /// By when they end.
    active: Vec<(Millis, Fault)>,
    /// Members that were added and are to be started.
    admitted: Admitted,
    /// Of machines that were to be added.
    ordered: usize,
    record: Record,
    observer: Observer,
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
            .map(|number| Replica::founding(&plan, number, &network, &trace))
            .collect();
        let mut simulation = Self {
            plan: Arc::new(plan),
            shared,
            network,
            replicas,
            clients: Vec::new(),
            now: 0,
            active: Vec::new(),
            admitted: Admitted::default(),
            ordered: 0,
            record: Record::default(),
            observer: Observer::default(),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
        };
        simulation.record.drift_ppm = simulation.plan.drift_ppm();
        simulation.record.voters = simulation.plan.voters();
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
        for number in self.plan.clients.. {
            let Some(lane) = LANES.get(number - self.plan.clients) else { break };
            let mut machine = self.client_machine(number);
            let (plan, shared) = (Arc::clone(&self.plan), self.shared.clone());
            let seed = derive(plan.seed, "client", number as u64);
            machine.start(self.now, seed, lane(plan, number as u64, shared));
            self.clients.push(machine);
        }
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
            replica.cut_at_start = None;
            replica.up_at = replica.up_at.map(|at| if at == Millis::MAX { at } else { self.now });
        }
        self.record.healed = self.now;
        self.recover()?;
        self.record.recovered = self.now;
        logs::step_of(&Arc::from("a checker"));
        let failed = |(property, detail)| Failure { property, detail, at: self.now };
        self.record.replicas = self.observer.take();
        for replica in &self.replicas {
            if let Some(store) = replica.store()
                && let Some(difference) = self.observer.difference(&store)
            {
                let detail = format!("{}: {difference}", replica.machine.name);
                return Err(failed(("states are what the log makes of them", detail)));
            }
        }
        let views = self.views();
        for view in views.values() {
            check::after(&self.shared.history(), view).map_err(failed)?;
        }
        let history = judge::history(&self.shared.history(), &self.record, &views, self.now);
        judge::verdict(&history).map_err(failed)
    }

    /// What members have, by their ids.
    fn views(&self) -> BTreeMap<u64, View> {
        let members = self.shared.members();
        let members = self.replicas.iter().filter(|replica| members.contains(&replica.id));
        members.filter_map(|replica| Some((replica.id, replica.store()?.view()))).collect()
    }

    /// Waits until everybody has answered and everything is the same.
    fn recover(&mut self) -> Result<(), Failure> {
        let patience = if self.plan.wan { RECOVERY_WAN } else { RECOVERY };
        self.record.patience = patience;
        let until = self.now + patience;
        let number = self.plan.clients + LANES.len();
        let mut prober = self.client_machine(number);
        let (plan, shared) = (Arc::clone(&self.plan), self.shared.clone());
        let seed = derive(plan.seed, "client", number as u64);
        prober.start(self.now, seed, client::probe(plan, number as u64, shared));
        self.clients.push(prober);
        loop {
            self.note_members();
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
        let members = self.shared.members();
        let members = self.replicas.iter().filter(|replica| members.contains(&replica.id));
        let mut states = members.map(|replica| {
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
        if !logs::goes_on(self.now) {
            let [answered, refused, unknown] = self.requests();
            let detail = format!(
                "it took too long; {answered} requests answered, {refused} refused, {unknown} unknown"
            );
            return Err(Failure { property: TOOK_TOO_LONG, detail, at: self.now });
        }
        self.network.advance(self.now);
        self.start_admitted();
        let term = self.observer.term();
        for number in 0..self.replicas.len() {
            self.step_replica(number)?;
        }
        if self.observer.term() > term {
            self.begin_election();
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
            // Whoever was removed never starts again.
            let again = if Replica::was_removed(&why) { Millis::MAX } else { now + RESTART };
            replica.up_at = Some(replica.up_at.unwrap_or_default().max(again));
            if Replica::is_damaged(&why) {
                let property = "a replica starts after any crash";
                return Err(Failure { property, detail: why, at: now });
            }
            return Ok(());
        }
        let Some(store) = replica.store() else {
            self.observer.stopped(judge::ns(now), replica.id);
            return Ok(());
        };
        self.observer.look(judge::ns(now), &store);
        self.look_at(number, &store)
    }

    /// What can be told of a replica at any time.
    fn look_at(&mut self, number: usize, store: &Arc<RaftStore>) -> Result<(), Failure> {
        let local = store.local();
        let now = self.now;
        let failed = |property, detail| Err(Failure { property, detail, at: now });
        if local.role == MemberRole::Leader {
            let new = !self.leaders.contains_key(&local.term);
            let known = *self.leaders.entry(local.term).or_insert(number);
            if new {
                let what = format_args!("leads in term {}", local.term);
                self.shared.trace.event(now, &format!("replica-{}", number + 1), what);
            }
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

    /// That were answered, refused, and of unknown outcome.
    fn requests(&self) -> [usize; 3] {
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
        requests
    }

    fn report(&self, failure: Option<Failure>) -> Report {
        let requests = self.requests();
        let history = self.shared.history();
        let told = history.watches.iter().flat_map(|watched| &watched.answers);
        let watched = told.map(|(_, changes)| changes.len()).sum();
        Report { simulated: self.now, failure, trace: self.shared.trace.text(), requests, watched }
    }
}
