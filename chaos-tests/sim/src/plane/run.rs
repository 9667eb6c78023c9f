//! One run of a plane: its machines side by side, what happens to them, and what is demanded in the end.

use super::{
    auditor::{self, Audited},
    caller::Caller,
    failure,
    load::{WATCHED, Worker},
    machines::{DAMAGED, Group, NodeMachine},
    recorder::Recorder,
    scenario::{Fault, Machine as Name, Scenario, What},
    watcher,
    witness::Witness,
};
use crate::{
    Failure, Millis,
    client::Shared,
    disk::SimDisk,
    logs,
    machine::{BEGINNING, Machine, UPTIME},
    net::{Link, Network},
    observer::Observer,
    patience::TOOK_TOO_LONG,
    plan::{chance, derive},
    trace::Trace,
};
use checkers::history::{History, Mark, Settings};
use client::{Client, endpoints::Endpoints, transport::Access};
use raft::{RaftStore, Timers};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Cluster as _, Store as _};
use tokio::task::JoinSet;
use world::host::{Clocks, take_over};

/// When clients begin.
const CLIENTS_BEGIN: Millis = 3_000;
/// For what clients have begun to end.
const CLIENTS_END: Millis = 60_000;
/// After all faults are over, everything has come to where it must be within this time: a lost node's silence,
/// the amnesty of a new leader, tolerations, graces, back-offs and retransmissions one after the other.
const SETTLES: Millis = 240_000;
/// Replicas have applied the same within this.
const AGREES: Millis = 10_000;
/// A process that has ended by itself is started again after this.
const RESTART: Millis = 500;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Milliseconds of simulated time.
    pub(crate) simulated: Millis,
    /// What was seen.
    pub(crate) history: History,
    /// What no history can show: a process panicked, replicas differ.
    pub(crate) failures: Vec<Failure>,
}

/// Runs a scenario to its end, on a thread on which nothing was drawn yet.
pub(crate) fn run(scenario: &Scenario, trace: &Trace) -> Ran {
    let clocks = Clocks { monotonic: UPTIME, wall: BEGINNING };
    let _seized = take_over(derive(scenario.seed, "chance", 0), clocks);
    logs::note_panics();
    let shared = Shared { trace: trace.clone(), ..Shared::default() };
    let _logs = logs::trace_logs(&shared);
    Plane::new(scenario, trace, shared.now).run()
}

struct ReplicaSide {
    machine: Machine,
    disk: SimDisk,
    /// Of the process that runs.
    store: Arc<Mutex<Weak<RaftStore>>>,
}

struct NodeSide {
    machine: Machine,
    node: NodeMachine,
}

struct Plane<'a> {
    scenario: &'a Scenario,
    now: Millis,
    /// The same, for logs.
    now_shared: Arc<AtomicU64>,
    /// In nanoseconds.
    clock: Arc<AtomicU64>,
    /// Processes started so far.
    starts: u64,
    network: Network,
    trace: Trace,
    recorder: Recorder,
    observer: Observer,
    witness: Witness,
    group: Group,
    replicas: BTreeMap<u64, ReplicaSide>,
    nodes: BTreeMap<u64, NodeSide>,
    clients: Vec<Machine>,
    watchers: Vec<Machine>,
    /// Faults that keep a machine down.
    down: BTreeMap<Name, u32>,
    /// When a process that has ended by itself is started again.
    restarts: BTreeMap<Name, Millis>,
    active: Vec<Fault>,
    failures: Vec<Failure>,
    /// Nobody waits for the end any more.
    given_up: bool,
}

fn ip(subnet: u8, host: u64) -> IpAddr {
    Ipv4Addr::new(10, 0, subnet, u8::try_from(host).unwrap_or(u8::MAX)).into()
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Plane<'a> {
    fn new(scenario: &'a Scenario, trace: &Trace, now_shared: Arc<AtomicU64>) -> Self {
        let mut drawn = chance(scenario.seed, "machines", 0);
        let usual = Link { latency_max: drawn.random_range(1..20), ..Link::default() };
        let network = Network::new(derive(scenario.seed, "network", 0), usual, trace.clone());
        let clock = Arc::new(AtomicU64::new(0));
        let reading = Arc::clone(&clock);
        // What happens one after the other in one step of the world is told apart.
        let now = move || reading.fetch_add(1, Ordering::Relaxed);
        let recorder = Recorder::new(Arc::new(now), trace.clone());
        let group = Group {
            replicas: (1..=scenario.replicas).map(|id| (id, ip(0, id))).collect(),
            timers: Timers::lan(),
            snapshot_entries: scenario.snapshot_entries,
            segment_bytes: scenario.segment_bytes,
            node_silence: scenario.node_silence,
            history: scenario.history,
        };
        let mut plane = Self {
            scenario,
            now: 0,
            now_shared,
            clock,
            starts: 0,
            network,
            trace: trace.clone(),
            witness: Witness::new(&WATCHED, &recorder),
            recorder,
            observer: Observer::default(),
            group,
            replicas: BTreeMap::new(),
            nodes: BTreeMap::new(),
            clients: Vec::new(),
            watchers: Vec::new(),
            down: BTreeMap::new(),
            restarts: BTreeMap::new(),
            active: Vec::new(),
            failures: Vec::new(),
            given_up: false,
        };
        for id in 1..=scenario.replicas {
            let name = Name::Replica(id).to_string();
            let disk = SimDisk::new(&name, derive(scenario.seed, "disk", id), trace.clone());
            let machine = plane.machine(name, ip(0, id));
            plane.replicas.insert(id, ReplicaSide { machine, disk, store: Arc::default() });
        }
        for at in 0..scenario.nodes {
            let (name, ip) = (Name::Node(at).to_string(), ip(1, at + 1));
            let node = NodeMachine::new(&name, ip, &plane.recorder, &mut drawn);
            let machine = plane.machine(name, ip);
            plane.nodes.insert(at, NodeSide { machine, node });
        }
        plane
    }

    fn machine(&self, name: String, ip: IpAddr) -> Machine {
        let seed = derive(self.scenario.seed, &name, 0);
        Machine::new(name, ip, self.network.clone(), seed, self.trace.clone())
    }

    /// For the next process.
    fn start_seed(&mut self) -> u64 {
        self.starts += 1;
        derive(self.scenario.seed, "start", self.starts)
    }

    fn run(mut self) -> Ran {
        for name in self.scenario.machines() {
            self.start(name);
        }
        self.work();
        if !self.given_up {
            self.heal();
            let stopped = self.until(CLIENTS_END, |plane| plane.clients.iter().all(|c| !c.runs()));
            if !stopped {
                self.fails("clients are answered", "a client waits for ever".to_owned());
            }
            self.settle();
        }
        if self.given_up {
            // What had no time to come is not missing.
            self.failures.clear();
            self.fails(TOOK_TOO_LONG, "it took too long".to_owned());
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let usual = Settings::default();
        // Whoever is down or cut off does what it must when it is back.
        let faults: Duration = self.scenario.faults.iter().map(|fault| fault.lasts).sum();
        let settings = Settings {
            lateness_ns: usual.lateness_ns.saturating_add(nanos(faults)),
            node_grace_ns: nanos(self.scenario.node_silence),
            steady_nodes: self.scenario.steady_nodes(),
            voters: self.scenario.replicas,
            ..usual
        };
        let history = History { settings, records: self.recorder.records() };
        Ran { simulated: self.now, history, failures: self.failures }
    }

    fn fails(&mut self, property: &'static str, detail: String) {
        self.failures.push(failure(property, self.now, detail));
    }

    /// Clients at work, and faults.
    fn work(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut faults = self.scenario.faults.iter().peekable();
        let busy = CLIENTS_BEGIN + millis(self.scenario.busy);
        while self.now < busy && !self.given_up {
            if self.now == CLIENTS_BEGIN {
                self.start_clients(&stop);
            }
            while let Some(fault) =
                faults.next_if(|fault| CLIENTS_BEGIN + millis(fault.at) <= self.now)
            {
                self.begin(fault);
            }
            let over = |fault: &Fault| CLIENTS_BEGIN + millis(fault.at + fault.lasts) <= self.now;
            let (ended, active): (Vec<Fault>, Vec<Fault>) =
                std::mem::take(&mut self.active).into_iter().partition(over);
            self.active = active;
            self.end(ended);
            self.step();
        }
        stop.store(true, Ordering::Relaxed);
    }

    fn heal(&mut self) {
        let active = std::mem::take(&mut self.active);
        self.end(active);
        self.network.heal();
        // Whose Node was deleted while its agent ran is registered by the next agent, as in Kubernetes.
        for at in 0..self.scenario.nodes {
            if let Some(machine) = self.machine_of(Name::Node(at)) {
                machine.stopped = false;
            }
            let now = self.now;
            if let Some(side) = self.nodes.get_mut(&at) {
                side.machine.kill(now);
            }
            self.start(Name::Node(at));
        }
        let at_ns = self.recorder.now_ns();
        self.recorder.mark(Mark::Healed { at_ns });
        self.trace.event(self.now, "world", format_args!("all faults are over"));
    }

    /// Steps until it is so, or the time is over.
    fn until(&mut self, limit: Millis, so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !so(self) {
            if self.now >= end || self.given_up {
                return false;
            }
            self.step();
        }
        true
    }

    fn settle(&mut self) {
        let since_ns = self.recorder.now_ns();
        let audited = Arc::new(Mutex::new(Audited::default()));
        let lookers: Vec<_> =
            self.nodes.values().map(|side| (side.node.name.clone(), side.node.looker())).collect();
        let callers = self.callers(1_000, 0);
        let finals: Vec<Caller> =
            self.group.replicas.keys().map(|id| self.caller_at(1_001, *id)).collect();
        let mut machine = self.machine("auditor".to_owned(), ip(3, 1));
        let shared = Arc::clone(&audited);
        let audit = auditor::audit(callers, finals, lookers, shared);
        machine.start(self.now, self.start_seed(), audit);
        self.clients.push(machine);
        let limit_ns = SETTLES * 1_000_000;
        let settled = self.until(SETTLES, |plane| plane.clients.iter().all(|c| !c.runs()));
        let seen = audited.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let until_ns = (settled && seen.settled).then(|| self.recorder.now_ns());
        let what = if until_ns.is_some() {
            "everything has come to rest".to_owned()
        } else {
            format!("everything comes to rest, but {}", seen.wrong.join("; "))
        };
        self.trace.event(self.now, "world", format_args!("{what}"));
        self.recorder.mark(Mark::Awaited { since_ns, until_ns, limit_ns, what });
        let agree = self.until(AGREES, |plane| {
            let mut states = plane.states().into_iter().map(|(index, ..)| index);
            let first = states.next();
            states.all(|index| Some(index) == first)
        });
        // Who watched a replica that had gone notices, and is told the rest by another one: what is judged is seen.
        self.until(2 * millis(watcher::SILENCE_MAX), |_| false);
        for side in self.replicas.values() {
            let store = side.store.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            let differs = store.and_then(|store| self.observer.difference(&store));
            if let Some(differs) = differs {
                let text = format!("{}: {differs}", side.machine.name);
                self.failures.push(failure(
                    "states are what the log makes of them",
                    self.now,
                    text,
                ));
            }
        }
        let states = self.states();
        let complete = states.len() == self.replicas.len();
        let equal = states.windows(2).all(|pair| pair.first() == pair.last());
        if !agree || !complete || !equal {
            let text = format!("applied index, hash and revision of each: {states:?}");
            self.fails("replicas agree in the end", text);
        }
    }

    /// Of every replica that runs: applied index, hash and revision.
    fn states(&self) -> Vec<(u64, u64, u64)> {
        self.replicas
            .values()
            .filter_map(|side| side.store.lock().unwrap_or_else(PoisonError::into_inner).upgrade())
            .map(|store| {
                let view = store.view();
                (store.local().applied_index, view.hash(), view.revision().get())
            })
            .collect()
    }

    /// A millisecond.
    fn step(&mut self) {
        self.now += 1;
        self.now_shared.store(self.now, Ordering::Relaxed);
        self.clock.store(self.now * 1_000_000, Ordering::Relaxed);
        self.given_up = !logs::goes_on(self.now);
        self.network.advance(self.now);
        let due: Vec<Name> = self
            .restarts
            .iter()
            .filter(|(_, at)| **at <= self.now)
            .map(|(name, _)| *name)
            .collect();
        for name in due {
            self.restarts.remove(&name);
            self.start(name);
        }
        let now = self.now;
        let mut ended = Vec::new();
        for (id, side) in &mut self.replicas {
            side.disk.set_now(now);
            ended.extend(side.machine.step(now).map(|why| (Name::Replica(*id), why)));
        }
        for (at, side) in &mut self.nodes {
            ended.extend(side.machine.step(now).map(|why| (Name::Node(*at), why)));
        }
        for (name, why) in ended {
            if why.starts_with(DAMAGED) {
                self.fails("a replica starts after any crash", format!("{name}: {why}"));
            }
            self.restarts.insert(name, now + RESTART);
        }
        for (id, side) in &self.replicas {
            let store = side.store.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            let at_ns = now * 1_000_000;
            match store.filter(|_| side.machine.runs()) {
                Some(store) => self.observer.look(at_ns, &store),
                None => self.observer.stopped(at_ns, *id),
            }
        }
        for seen in self.observer.take() {
            self.recorder.note(seen.into());
        }
        for change in self.observer.take_changes() {
            self.witness.note(&change);
        }
        for machine in self.clients.iter_mut().chain(&mut self.watchers) {
            machine.step(now);
        }
        for panic in logs::take_panics() {
            self.fails("nothing panics", panic);
        }
    }

    /// Starts a machine's process, unless a fault keeps it down.
    fn start(&mut self, name: Name) {
        if self.down.get(&name).is_some_and(|faults| *faults > 0) {
            return;
        }
        let seed = self.start_seed();
        match name {
            Name::Replica(id) => {
                let Some(side) = self.replicas.get_mut(&id) else { return };
                if side.machine.runs() {
                    return;
                }
                let (group, disk) = (self.group.clone(), Arc::new(side.disk.clone()));
                let store = Arc::clone(&side.store);
                side.machine.start(self.now, seed, async move {
                    let started = |started: &Arc<RaftStore>| {
                        *store.lock().unwrap_or_else(PoisonError::into_inner) =
                            Arc::downgrade(started);
                    };
                    group.replica(id, disk, started).await
                });
            }
            Name::Node(at) => {
                let urls = self.group.api_urls(usize::try_from(at).unwrap_or_default());
                let Some(side) = self.nodes.get_mut(&at) else { return };
                if side.machine.runs() {
                    return;
                }
                let agent = side.node.agent(urls);
                side.machine.start(self.now, seed, async move {
                    agent.await;
                    "done".to_owned()
                });
            }
        }
    }

    /// A client of all replicas, the `at`-th first.
    fn callers(&self, id: u64, at: usize) -> Caller {
        let endpoints = Endpoints::new(self.group.api_urls(at), Access::default());
        let client = Client::connect(endpoints).expect("its URLs are made here");
        Caller { id, client, recorder: self.recorder.clone(), replica: 0 }
    }

    /// A client of one replica.
    fn caller_at(&self, id: u64, replica: u64) -> Caller {
        let endpoints = Endpoints::new(vec![self.group.api_url(replica)], Access::default());
        let client = Client::connect(endpoints).expect("its URLs are made here");
        Caller { id, client, recorder: self.recorder.clone(), replica }
    }

    fn start_clients(&mut self, stop: &Arc<AtomicBool>) {
        for id in 1..=self.scenario.clients {
            let caller = self.callers(id, usize::try_from(id).unwrap_or_default());
            let drawn = chance(self.scenario.seed, "client", id);
            let worker = Worker::new(caller, self.scenario.load.clone(), drawn, Arc::clone(stop));
            let mut machine = self.machine(format!("client-{id}"), ip(2, id));
            machine.start(self.now, self.start_seed(), async move {
                worker.run().await;
                "done".to_owned()
            });
            self.clients.push(machine);
        }
        for at in 0..self.scenario.watchers {
            let mut follows = Vec::new();
            for (kind, id) in WATCHED.into_iter().zip(100 + at * 10..) {
                let replicas = self.group.replicas.keys().copied().cycle();
                let skip = usize::try_from(id).unwrap_or_default();
                let replicas = replicas.skip(skip).take(self.group.replicas.len());
                let callers: Vec<Caller> =
                    replicas.map(|replica| self.caller_at(id, replica)).collect();
                let drawn = chance(self.scenario.seed, "watcher", id);
                follows.push(watcher::follow(callers, kind, drawn));
            }
            let mut machine = self.machine(format!("watcher-{at}"), ip(4, at + 1));
            machine.start(self.now, self.start_seed(), async move {
                let mut all = JoinSet::new();
                for follow in follows {
                    all.spawn(follow);
                }
                while all.join_next().await.is_some() {}
                "done".to_owned()
            });
            self.watchers.push(machine);
        }
    }

    fn machine_of(&mut self, name: Name) -> Option<&mut Machine> {
        match name {
            Name::Replica(id) => self.replicas.get_mut(&id).map(|side| &mut side.machine),
            Name::Node(at) => self.nodes.get_mut(&at).map(|side| &mut side.machine),
        }
    }

    fn begin(&mut self, fault: &Fault) {
        self.trace.event(self.now, "world", format_args!("{fault}"));
        let at_ns = self.recorder.now_ns();
        self.recorder.mark(Mark::Fault { at_ns, what: fault.to_string() });
        match fault.what {
            What::Kill | What::PowerCut | What::Damage => {
                *self.down.entry(fault.whom).or_default() += 1;
                self.restarts.remove(&fault.whom);
                self.take_down(fault);
            }
            What::Stop => {
                if let Some(machine) = self.machine_of(fault.whom).filter(|machine| machine.runs())
                {
                    machine.stopped = true;
                }
            }
            What::Clock(jump) => {
                if let Some(machine) = self.machine_of(fault.whom) {
                    machine.wall_offset_us += jump * 1_000;
                }
            }
            What::Cut | What::Mute | What::Slow(_) => {}
        }
        self.active.push(fault.clone());
        self.link();
    }

    fn take_down(&mut self, fault: &Fault) {
        let now = self.now;
        let seed = derive(self.scenario.seed, "fault's own", now);
        let power = fault.what == What::PowerCut;
        match fault.whom {
            Name::Replica(id) => {
                let Some(side) = self.replicas.get_mut(&id) else { return };
                if power {
                    side.disk.cut(seed);
                    side.machine.lose_power();
                    // Whoever saw it is gone.
                    let _ = side.disk.went_dark();
                } else {
                    side.machine.kill(now);
                }
            }
            Name::Node(at) => {
                let Some(side) = self.nodes.get_mut(&at) else { return };
                if power {
                    side.machine.lose_power();
                    let wall = side.machine.wall_us(now);
                    side.node.power_cut(wall, &mut StdRng::seed_from_u64(seed));
                } else {
                    side.machine.kill(now);
                    if fault.what == What::Damage {
                        side.node.damage_disk();
                    }
                }
            }
        }
    }

    fn end(&mut self, faults: Vec<Fault>) {
        let any = !faults.is_empty();
        for fault in faults {
            self.trace.event(self.now, "world", format_args!("over: {fault}"));
            match fault.what {
                What::Kill | What::PowerCut | What::Damage => {
                    let down = self.down.entry(fault.whom).or_default();
                    *down = down.saturating_sub(1);
                    if *down > 0 {
                        continue;
                    }
                    if let Some(machine) =
                        self.machine_of(fault.whom).filter(|machine| !machine.runs())
                    {
                        // Its ports and connections are another start's; for one that had power all the
                        // time, that changes nothing.
                        machine.switch_on();
                    }
                    self.start(fault.whom);
                }
                What::Stop => {
                    if let Some(machine) = self.machine_of(fault.whom) {
                        machine.stopped = false;
                    }
                }
                What::Clock(_) | What::Cut | What::Mute | What::Slow(_) => {}
            }
        }
        if any {
            self.link();
        }
    }

    /// Brings the links to what the faults of now make of them.
    fn link(&mut self) {
        self.network.heal();
        let all: Vec<IpAddr> = (self.replicas.values().map(|side| side.machine.ip))
            .chain(self.nodes.values().map(|side| side.machine.ip))
            .chain(self.clients.iter().chain(&self.watchers).map(|machine| machine.ip))
            .collect();
        let faults: Vec<(Name, What)> =
            self.active.iter().map(|fault| (fault.whom, fault.what)).collect();
        for (whom, what) in faults {
            let Some(ip) = self.machine_of(whom).map(|machine| machine.ip) else { continue };
            for other in all.iter().filter(|other| **other != ip) {
                if let What::Slow(latency) = what {
                    self.network.change(ip, *other, |link| {
                        link.latency_max = link.latency_max.max(latency);
                    });
                }
                if matches!(what, What::Cut | What::Mute) {
                    self.network.change(ip, *other, |link| link.cut = true);
                }
                if what == What::Cut {
                    self.network.change(*other, ip, |link| link.cut = true);
                }
            }
        }
    }
}
