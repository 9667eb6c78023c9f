//! A model of what must never happen between a scheduler, the nodes and the store, checked in every order in
//! which their messages may be lost, repeated and overtaken.
//!
//! It covers the epoch fence (FEN-6), the conditions of a binding (FEN-11), those of a node's last deletion
//! (DEL-30, FEN-28), the session of a node's agent (FEN-30) and what an agent may begin with after a restart
//! (FEN-37, FEN-47), and holds them against INV-1, INV-2, INV-3, INV-8 and INV-9. Each of these conditions can be
//! left out; the model then shows what happens, which is how we know that it would.
//!
//! What stands for what: [`Store::bind`] for `apiserver::registry` with `store::state` below it,
//! [`Store::finish`] for the same at the end of a Pod, an [`Agent`] for a kubelet with the containers of its
//! machine, a [`Scheduler`] for one that leads or still believes so. Time does not exist: whatever may happen
//! late may happen at any time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic in a test is its failure"
)]

use stateright::{Checker as _, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;

/// Names that Pods have; each is used again after a Pod is gone.
const NAMES: usize = 2;
const NODES: usize = 2;
/// Pods that fit on a node.
const CAPACITY: usize = 1;
/// Requests on their way at once. Each may be lost, and arrive any number of times.
const IN_FLIGHT: usize = 2;
/// Agents at most, and of one node.
const AGENTS: usize = 2;
const SESSIONS: u8 = 2;
/// Leaders at most, one after the other.
const EPOCHS: usize = 2;
/// Restarts of agents in all.
const RESTARTS: u8 = 1;

/// How much there is of everything: all of it at once has too many states to be seen to the end.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Pods at most, over all names.
    uids: u8,
    /// Leaders one after the other.
    epochs: u8,
    /// The node of each agent; two of the same are two machines that both take its name.
    agents: &'static [u8],
}

/// Two leaders, the first of which does not know that it is none; nothing ever runs.
const LEADERS: Scope = Scope { uids: 3, epochs: 2, agents: &[] };
/// One leader, and two machines that are node 0 one after the other.
const MACHINES: Scope = Scope { uids: 2, epochs: 1, agents: &[0, 0] };
/// Two leaders, and a node.
const BOTH: Scope = Scope { uids: 2, epochs: 2, agents: &[0] };

/// The conditions that are checked; all of them, as it should be, or all but one.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// A decision of an epoch that is over is refused (FEN-6).
    fence: bool,
    /// A binding is for one uid (FEN-11).
    bind_uid: bool,
    /// Only what is bound nowhere is bound (FEN-11).
    bind_once: bool,
    /// What is on the node is counted when the binding is applied (FEN-11).
    capacity: bool,
    /// The last deletion is for one uid (FEN-28).
    delete_uid: bool,
    /// Nothing is left of the containers when it is asked for (DEL-30).
    stopped_first: bool,
    /// It comes from the node's current agent (FEN-30).
    session: bool,
    /// An agent that starts begins with the newest state, not with that of any replica (FEN-37, FEN-47).
    fresh: bool,
}

impl Rules {
    const ALL: Self = Self {
        fence: true,
        bind_uid: true,
        bind_once: true,
        capacity: true,
        delete_uid: true,
        stopped_first: true,
        session: true,
        fresh: true,
    };
}

#[derive(Clone, Copy, Debug)]
struct Design {
    rules: Rules,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pod {
    uid: u8,
    node: Option<u8>,
    terminating: bool,
}

/// What is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    pods: [Option<Pod>; NAMES],
    /// Of the last Pod created.
    uid: u8,
    epoch: u8,
    /// Of each node's agent that counts.
    sessions: [u8; NODES],
}

/// What a node's agent knows of one of its Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    uid: u8,
    terminating: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Agent {
    /// 0 before it has registered.
    session: u8,
    /// By name; `None` before it has listed.
    known: Option<[Option<Known>; NAMES]>,
    /// Uids whose containers are there. They outlive the agent.
    running: BTreeSet<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Scheduler {
    epoch: u8,
    /// The Pods as it last saw them.
    seen: [Option<Pod>; NAMES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    Bind { epoch: u8, name: u8, uid: u8, node: u8 },
    Finish { node: u8, session: u8, name: u8, uid: u8 },
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Broken {
    /// INV-9
    OldEpochHadAnEffect,
    /// INV-8
    MeantForAnotherPod,
    /// INV-1
    BoundTwice,
    /// DEL-30
    RemovedWhileItRuns,
    /// INV-3, INV-8
    StartedAfterItsEnd,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    store: Store,
    /// A replica that is behind.
    behind: Store,
    schedulers: [Scheduler; EPOCHS],
    agents: [Agent; AGENTS],
    requests: BTreeSet<Request>,
    restarts: u8,
    broken: BTreeSet<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Create(u8),
    Delete(u8),
    /// The next scheduler leads.
    Lead,
    /// A scheduler's copy comes up to date; it need not lead.
    Look(u8),
    Decide {
        scheduler: u8,
        name: u8,
        node: u8,
    },
    Deliver(Request),
    Lose(Request),
    CatchUp,
    Register(u8),
    /// An agent's copy comes up to date.
    Watch(u8),
    /// An agent that knows nothing lists from the replica that is behind.
    ListBehind(u8),
    Restart(u8),
    Start {
        agent: u8,
        name: u8,
    },
    Stop {
        agent: u8,
        uid: u8,
    },
    Finish {
        agent: u8,
        name: u8,
    },
}

impl Store {
    fn pod(&mut self, name: u8) -> Option<&mut Pod> {
        self.pods.get_mut(usize::from(name))?.as_mut()
    }

    fn on_node(&self, node: u8) -> usize {
        self.pods.iter().flatten().filter(|pod| pod.node == Some(node)).count()
    }

    fn create(&mut self, name: u8) {
        self.uid += 1;
        self.pods[usize::from(name)] = Some(Pod { uid: self.uid, node: None, terminating: false });
    }

    /// What nobody runs goes at once, everything else when its node says so (DELAPI-1).
    fn delete(&mut self, name: u8) {
        match self.pod(name) {
            Some(pod) if pod.node.is_some() => pod.terminating = true,
            _ => self.pods[usize::from(name)] = None,
        }
    }

    fn bind(&mut self, rules: Rules, broken: &mut BTreeSet<Broken>, request: Request) {
        let Request::Bind { epoch, name, uid, node } = request else { return };
        let (current, full) = (self.epoch, self.on_node(node) >= CAPACITY);
        let Some(pod) = self.pod(name) else { return };
        let refused = (rules.fence && epoch != current)
            || (rules.bind_uid && pod.uid != uid)
            || (rules.bind_once && pod.node.is_some())
            || (rules.capacity && full && pod.node != Some(node))
            || pod.terminating;
        if refused || pod.node == Some(node) {
            return;
        }
        if epoch != current {
            broken.insert(Broken::OldEpochHadAnEffect);
        }
        if pod.uid != uid {
            broken.insert(Broken::MeantForAnotherPod);
        }
        if pod.node.is_some() {
            broken.insert(Broken::BoundTwice);
        }
        pod.node = Some(node);
    }

    fn finish(
        &mut self,
        rules: Rules,
        broken: &mut BTreeSet<Broken>,
        agents: impl Iterator<Item = (u8, Agent)>,
        request: Request,
    ) {
        let Request::Finish { node, session, name, uid } = request else { return };
        let current = self.sessions[usize::from(node)];
        let Some(pod) = self.pod(name).copied() else { return };
        let refused = (rules.delete_uid && pod.uid != uid)
            || (rules.session && session != current)
            || pod.node != Some(node)
            || !pod.terminating;
        if refused {
            return;
        }
        if pod.uid != uid {
            broken.insert(Broken::MeantForAnotherPod);
        }
        let mut own = agents.filter(|(at, agent)| *at == node && agent.session == current);
        let runs = own.any(|(_, agent)| agent.running.contains(&pod.uid));
        if runs {
            broken.insert(Broken::RemovedWhileItRuns);
        }
        self.pods[usize::from(name)] = None;
    }

    /// As an agent of a node lists them.
    fn of_node(&self, node: u8) -> [Option<Known>; NAMES] {
        self.pods.map(|pod| {
            pod.filter(|pod| pod.node == Some(node))
                .map(|pod| Known { uid: pod.uid, terminating: pod.terminating })
        })
    }
}

fn numbers(count: usize) -> impl Iterator<Item = u8> {
    0..u8::try_from(count).unwrap()
}

impl Model for Design {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Self { rules, scope } = self;
        let room = state.requests.len() < IN_FLIGHT;
        for name in numbers(NAMES) {
            match state.store.pods[usize::from(name)] {
                None if state.store.uid < scope.uids => actions.push(Action::Create(name)),
                Some(pod) if !pod.terminating => actions.push(Action::Delete(name)),
                None | Some(_) => {}
            }
        }
        if state.store.epoch < scope.epochs {
            actions.push(Action::Lead);
        }
        for (i, scheduler) in (0..).zip(&state.schedulers) {
            if scheduler.epoch == 0 {
                continue;
            }
            if scheduler.seen != state.store.pods {
                actions.push(Action::Look(i));
            }
            for name in numbers(NAMES) {
                let wants = scheduler.seen[usize::from(name)]
                    .is_some_and(|pod| pod.node.is_none() && !pod.terminating);
                for node in numbers(NODES).filter(|_| wants && room) {
                    let there = scheduler.seen.iter().flatten();
                    if there.filter(|pod| pod.node == Some(node)).count() < CAPACITY {
                        actions.push(Action::Decide { scheduler: i, name, node });
                    }
                }
            }
        }
        for request in &state.requests {
            actions.extend([Action::Deliver(*request), Action::Lose(*request)]);
        }
        if !rules.fresh && state.behind != state.store {
            actions.push(Action::CatchUp);
        }
        for ((i, node), agent) in (0..).zip(scope.agents).zip(&state.agents) {
            let node = *node;
            if agent.session == 0 {
                if state.store.sessions[usize::from(node)] < SESSIONS {
                    actions.push(Action::Register(i));
                }
                continue;
            }
            if agent.known != Some(state.store.of_node(node)) {
                actions.push(Action::Watch(i));
            }
            let Some(known) = &agent.known else {
                if !rules.fresh {
                    actions.push(Action::ListBehind(i));
                }
                continue;
            };
            if !rules.fresh && state.restarts < RESTARTS {
                actions.push(Action::Restart(i));
            }
            for (name, known) in (0..).zip(known) {
                let Some(known) = known else { continue };
                let runs = agent.running.contains(&known.uid);
                if !known.terminating && !runs {
                    actions.push(Action::Start { agent: i, name });
                }
                if known.terminating && room && !(rules.stopped_first && runs) {
                    actions.push(Action::Finish { agent: i, name });
                }
            }
            for uid in &agent.running {
                let wanted = known.iter().flatten().any(|k| k.uid == *uid && !k.terminating);
                if !wanted {
                    actions.push(Action::Stop { agent: i, uid: *uid });
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let Self { rules, scope } = *self;
        let node = |agent: u8| scope.agents[usize::from(agent)];
        let mut state = last.clone();
        match action {
            Action::Create(name) => state.store.create(name),
            Action::Delete(name) => state.store.delete(name),
            Action::Lead => {
                // What it knows is the state that its own epoch began in (FEN-7).
                let next = &mut state.schedulers[usize::from(state.store.epoch)];
                state.store.epoch += 1;
                *next = Scheduler { epoch: state.store.epoch, seen: state.store.pods };
            }
            Action::Look(i) => state.schedulers[usize::from(i)].seen = state.store.pods,
            Action::Decide { scheduler, name, node } => {
                let scheduler = &state.schedulers[usize::from(scheduler)];
                let uid = scheduler.seen[usize::from(name)]?.uid;
                let bind = Request::Bind { epoch: scheduler.epoch, name, uid, node };
                state.requests.insert(bind);
            }
            Action::Deliver(request @ Request::Bind { .. }) => {
                state.store.bind(rules, &mut state.broken, request);
            }
            Action::Deliver(request @ Request::Finish { .. }) => {
                let agents = scope.agents.iter().copied().zip(last.agents.iter().cloned());
                state.store.finish(rules, &mut state.broken, agents, request);
            }
            Action::Lose(request) => drop(state.requests.remove(&request)),
            Action::CatchUp => state.behind = state.store.clone(),
            Action::Register(i) => {
                let session = &mut state.store.sessions[usize::from(node(i))];
                *session += 1;
                state.agents[usize::from(i)].session = *session;
            }
            Action::Watch(i) => {
                let known = state.store.of_node(node(i));
                state.agents[usize::from(i)].known = Some(known);
            }
            Action::ListBehind(i) => {
                let known = state.behind.of_node(node(i));
                state.agents[usize::from(i)].known = Some(known);
            }
            Action::Restart(i) => {
                state.restarts += 1;
                state.agents[usize::from(i)].known = None;
            }
            Action::Start { agent, name } => {
                let node = node(agent);
                let agent = &mut state.agents[usize::from(agent)];
                let uid = agent.known?[usize::from(name)]?.uid;
                agent.running.insert(uid);
                let bound = |pod: &Pod| pod.uid == uid && pod.node == Some(node);
                let counts = agent.session == state.store.sessions[usize::from(node)];
                if counts && !state.store.pods.iter().flatten().any(bound) {
                    state.broken.insert(Broken::StartedAfterItsEnd);
                }
            }
            Action::Stop { agent, uid } => {
                state.agents[usize::from(agent)].running.remove(&uid);
            }
            Action::Finish { agent, name } => {
                let node = node(agent);
                let agent = &state.agents[usize::from(agent)];
                let uid = agent.known?[usize::from(name)]?.uid;
                let finish = Request::Finish { node, session: agent.session, name, uid };
                state.requests.insert(finish);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FENCED, |_, s: &State| {
                !s.broken.contains(&Broken::OldEpochHadAnEffect)
            }),
            Property::always(OWN_POD, |_, s: &State| {
                !s.broken.contains(&Broken::MeantForAnotherPod)
            }),
            Property::always(BOUND_ONCE, |_, s: &State| !s.broken.contains(&Broken::BoundTwice)),
            Property::always(FITS, |_, s: &State| {
                numbers(NODES).all(|node| s.store.on_node(node) <= CAPACITY)
            }),
            Property::always(ENDED, |_, s: &State| !s.broken.contains(&Broken::RemovedWhileItRuns)),
            Property::always(ALIVE, |_, s: &State| !s.broken.contains(&Broken::StartedAfterItsEnd)),
            // Or nothing would be shown by the others.
            Property::sometimes("the last leader binds the last Pod", |design, s: &State| {
                let last = |pod: &Pod| pod.uid == design.scope.uids && pod.node.is_some();
                s.store.epoch == design.scope.epochs && s.store.pods.iter().flatten().any(last)
            }),
            Property::sometimes(
                "a Pod runs under the name of one that ran",
                |design, s: &State| {
                    let mut runs = s.agents.iter().flat_map(|agent| &agent.running);
                    let reused = s.store.pods[1].is_none() && s.store.uid == design.scope.uids;
                    design.scope.agents.is_empty()
                        || (reused && runs.any(|uid| *uid == s.store.uid))
                },
            ),
            Property::sometimes("each agent takes over and ends a Pod", |design, s: &State| {
                let all = u8::try_from(design.scope.agents.len()).unwrap();
                s.store.sessions[0] == all && s.store.uid > 0 && s.store.pods == [None; NAMES]
            }),
        ]
    }
}

const FENCED: &str = "INV-9: a decision of an epoch that is over changes nothing";
const OWN_POD: &str = "INV-8: what is meant for one Pod never happens to another of its name";
const BOUND_ONCE: &str = "INV-1: a Pod is bound once";
const FITS: &str = "INV-2: no node has more than fits";
const ENDED: &str = "DEL-30: a Pod goes when nothing of it runs";
const ALIVE: &str = "INV-3: an agent starts only what is bound to its node, and never what is gone";

#[test]
fn in_no_order_of_events_anything_happens_that_must_not() {
    for scope in [LEADERS, MACHINES, BOTH] {
        let design = Design { rules: Rules::ALL, scope };
        let checker = design.checker().threads(2).spawn_bfs().join();
        println!("{scope:?}: {} states", checker.unique_state_count());
        checker.assert_properties();
    }
}

#[test]
fn each_condition_is_needed() {
    for (rules, scope, broken) in [
        (Rules { fence: false, ..Rules::ALL }, LEADERS, FENCED),
        (Rules { bind_uid: false, ..Rules::ALL }, LEADERS, OWN_POD),
        (Rules { bind_once: false, ..Rules::ALL }, LEADERS, BOUND_ONCE),
        (Rules { capacity: false, ..Rules::ALL }, LEADERS, FITS),
        (Rules { delete_uid: false, ..Rules::ALL }, BOTH, OWN_POD),
        (Rules { stopped_first: false, ..Rules::ALL }, BOTH, ENDED),
        (Rules { session: false, ..Rules::ALL }, MACHINES, ENDED),
        (Rules { fresh: false, ..Rules::ALL }, BOTH, ALIVE),
    ] {
        let design = Design { rules, scope };
        let only = HasDiscoveries::AnyOf([broken].into());
        let checker = design.checker().threads(2).finish_when(only).spawn_bfs().join();
        let path =
            checker.discovery(broken).unwrap_or_else(|| panic!("{design:?}: {broken} holds"));
        println!("{broken}: {rules:?} fails after {:?}", path.into_actions());
    }
}
