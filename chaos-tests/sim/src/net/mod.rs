//! A network of TCP connections: bytes that arrive later, much later, or never.
//!
//! What TCP shows of a network is modelled, not its packets. A lost segment arrives after a retransmission, and all
//! behind it with it. Where a link is cut, segments wait and are tried again less and less often, until the
//! connection breaks. A port that nobody listens on refuses; a machine without power says nothing; one that has
//! come back resets what it does not know. Each direction of a link has its own faults.

mod socket;

use crate::{Millis, trace::Trace};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};
use tokio::sync::oneshot;

pub use socket::Nic;

/// Before a segment is sent again for the first time, in milliseconds; twice as long each time after that.
const RETRANSMIT: Millis = 200;
/// At most, between two tries.
const RETRANSMIT_MAX: Millis = 8_000;
/// Tries before a connection is given up: about half a minute.
const TRIES: u32 = 8;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

/// How one direction of a link is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Milliseconds that a segment takes at least, 1 or more.
    pub latency_min: Millis,
    /// At most.
    pub latency_max: Millis,
    /// Of segments, how many are lost.
    pub loss: f64,
    /// Nothing comes through.
    pub cut: bool,
    /// Bytes in a millisecond; 0 is no limit.
    pub bandwidth: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency_min: 1, latency_max: 1, loss: 0.0, cut: false, bandwidth: 0 }
    }
}

/// Whether a machine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Power {
    on: bool,
    /// Counts its starts: connections of an earlier one are not known any more.
    start: u64,
}

/// Of a connection: 0 is who connected, 1 who was connected to.
type Side = usize;

#[derive(Debug)]
enum Segment {
    Data(Bytes),
    /// No more will come.
    Fin,
    /// The other end is gone.
    Reset,
}

impl Segment {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Fin | Self::Reset => 0,
        }
    }
}

#[derive(Debug)]
enum Event {
    /// Somebody wants to connect.
    Syn { connection: u64, tries: u32 },
    /// The answer.
    Answer { connection: u64, accepted: bool, tries: u32 },
    /// Something sent by a side.
    Segment { connection: u64, from: Side, segment: Segment },
    /// What a side has sent and did not come through is sent again.
    Again { connection: u64, from: Side, tries: u32 },
}

/// One side of a connection.
#[derive(Debug)]
struct End {
    address: SocketAddr,
    /// Of its machine, when the connection was made.
    start: u64,
    arrived: VecDeque<Bytes>,
    finished: bool,
    /// Why nothing comes or goes any more.
    broken: Option<io::ErrorKind>,
    /// Sent by this side, and lost until it is sent again.
    stuck: VecDeque<Segment>,
    /// Sent by this side and not read by the other.
    unread: usize,
    /// When what was sent last arrives.
    last_arrival: Millis,
    reader: Option<Waker>,
    writer: Option<Waker>,
    closed: bool,
}

impl End {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn break_off(&mut self, why: io::ErrorKind) {
        if self.broken.is_none() {
            self.broken = Some(why);
        }
        self.wake();
    }
}

struct Connected {
    ends: [End; 2],
    /// Told when the connection is made, or why not.
    connecting: Option<oneshot::Sender<io::Result<()>>>,
}

struct Port {
    waiting: VecDeque<u64>,
    waker: Option<Waker>,
}

struct State {
    now: Millis,
    chance: StdRng,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    usual: Link,
    /// Until when a slow link has something to send.
    busy: BTreeMap<(IpAddr, IpAddr), Millis>,
    machines: BTreeMap<IpAddr, Power>,
    ports: BTreeMap<SocketAddr, Port>,
    connections: BTreeMap<u64, Connected>,
    next_connection: u64,
    next_port: u16,
    events: BTreeMap<(Millis, u64), Event>,
    next_event: u64,
    trace: Trace,
}

/// The network; clones are the same.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// Without machines.
    #[must_use]
    pub fn new(seed: u64, usual: Link, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: 0,
            chance: StdRng::seed_from_u64(seed),
            links: BTreeMap::new(),
            usual,
            busy: BTreeMap::new(),
            machines: BTreeMap::new(),
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_port: 40_000,
            events: BTreeMap::new(),
            next_event: 0,
            trace,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What arrives up to `now`, arrives.
    pub fn advance(&self, now: Millis) {
        let mut state = self.state();
        state.now = now;
        while let Some(entry) = state.events.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let event = entry.remove();
            state.carry_out(event);
        }
    }

    /// When the next thing arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Millis> {
        self.state().events.keys().next().map(|(at, _)| *at)
    }

    /// Changes one direction of a link.
    pub fn change(&self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let usual = state.usual;
        change(state.links.entry((from, to)).or_insert(usual));
    }

    /// Every link is as usual again. What is stuck comes through when it is sent again.
    pub fn heal(&self) {
        let mut state = self.state();
        state.links.clear();
        state.busy.clear();
    }

    /// A machine is switched on; its ports are closed.
    pub fn switch_on(&self, ip: IpAddr) {
        let mut state = self.state();
        let start = state.machines.get(&ip).map_or(1, |power| power.start + 1);
        state.machines.insert(ip, Power { on: true, start });
    }

    /// A machine has no power any more: it says nothing to anybody.
    pub fn switch_off(&self, ip: IpAddr) {
        let mut state = self.state();
        if let Some(power) = state.machines.get_mut(&ip) {
            power.on = false;
        }
        state.ports.retain(|address, _| address.ip() != ip);
        // Nobody is left there to be told.
        for connection in state.connections.values_mut() {
            for end in &mut connection.ends {
                if end.address.ip() == ip {
                    (end.reader, end.writer, end.closed) = (None, None, true);
                }
            }
        }
        state.forget_closed();
    }

    /// What a process that ends leaves behind is closed by its machine, which goes on: its connections end,
    /// its ports refuse.
    pub fn process_ended(&self, ip: IpAddr) {
        let mut state = self.state();
        state.ports.retain(|address, _| address.ip() != ip);
        let ends: Vec<(u64, Side, bool)> = state
            .connections
            .iter()
            .flat_map(|(id, connection)| {
                let sides = connection.ends.iter().enumerate();
                let open = sides.filter(|(_, end)| end.address.ip() == ip && !end.closed);
                open.map(|(side, end)| (*id, side, end.arrived.is_empty())).collect::<Vec<_>>()
            })
            .collect();
        for (id, side, read) in ends {
            state.send(id, side, if read { Segment::Fin } else { Segment::Reset });
            state.close(id, side);
        }
        state.forget_closed();
    }

    /// Connections that are open or half open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().connections.len()
    }
}

impl State {
    fn link(&self, from: IpAddr, to: IpAddr) -> Link {
        if from == to {
            return Link { latency_min: 1, latency_max: 1, ..Link::default() };
        }
        self.links.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    fn schedule(&mut self, at: Millis, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// When something that is sent now arrives.
    fn arrival(&mut self, from: IpAddr, to: IpAddr, bytes: usize) -> Millis {
        let link = self.link(from, to);
        let latency =
            self.chance.random_range(link.latency_min..=link.latency_max.max(link.latency_min));
        let mut sent = self.now;
        if let Some(time) = (bytes as u64).checked_div(link.bandwidth) {
            let busy = self.busy.entry((from, to)).or_default();
            sent = sent.max(*busy) + time;
            *busy = sent;
        }
        sent + latency.max(1)
    }

    /// Whether something that arrives now gets through. A machine without power acknowledges nothing.
    fn passes(&mut self, from: IpAddr, to: IpAddr) -> bool {
        let link = self.link(from, to);
        self.is_on(to) && !link.cut && (link.loss == 0.0 || !self.chance.random_bool(link.loss))
    }

    fn is_on(&self, ip: IpAddr) -> bool {
        self.machines.get(&ip).is_some_and(|power| power.on)
    }

    fn addresses(&self, id: u64, from: Side) -> Option<(SocketAddr, SocketAddr)> {
        let [one, other] = &self.connections.get(&id)?.ends;
        Some(if from == 0 { (one.address, other.address) } else { (other.address, one.address) })
    }

    fn end(&mut self, id: u64, side: Side) -> Option<&mut End> {
        self.connections.get_mut(&id)?.ends.get_mut(side)
    }

    fn send(&mut self, id: u64, from: Side, segment: Segment) {
        let Some((here, there)) = self.addresses(id, from) else { return };
        if !self.is_on(here.ip()) {
            return;
        }
        let arrival = self.arrival(here.ip(), there.ip(), segment.bytes());
        let now = self.now;
        let Some(end) = self.end(id, from) else { return };
        let arrival = arrival.max(end.last_arrival);
        end.last_arrival = arrival;
        let bytes = segment.bytes();
        end.unread += bytes;
        let name = segment_name(&segment);
        let what = format_args!("#{id} {here} -> {there} {name} {bytes} B, there at {arrival}");
        self.trace.small(now, "net", what);
        self.schedule(arrival, Event::Segment { connection: id, from, segment });
    }

    fn close(&mut self, id: u64, side: Side) {
        if let Some(end) = self.end(id, side) {
            end.closed = true;
            (end.reader, end.writer) = (None, None);
        }
        if self.connections.get(&id).is_some_and(|known| known.ends.iter().all(|end| end.closed)) {
            self.connections.remove(&id);
        }
    }

    /// Forgets connections that both sides have closed and that have nothing under way.
    fn forget_closed(&mut self) {
        let machines = &self.machines;
        self.connections.retain(|_, connection| {
            !connection.ends.iter().all(|end| {
                let known = machines.get(&end.address.ip());
                end.closed || known.is_none_or(|power| power.start != end.start)
            })
        });
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::Syn { connection, tries } => self.syn(connection, tries),
            Event::Answer { connection, accepted, tries } => {
                self.answer(connection, accepted, tries);
            }
            Event::Segment { connection, from, segment } => {
                let Some((here, there)) = self.addresses(connection, from) else { return };
                let waits = self.end(connection, from).is_some_and(|end| !end.stuck.is_empty());
                if waits || !self.passes(here.ip(), there.ip()) {
                    let now = self.now;
                    let Some(end) = self.end(connection, from) else { return };
                    end.stuck.push_back(segment);
                    if !waits {
                        let again = Event::Again { connection, from, tries: 1 };
                        self.schedule(now + RETRANSMIT, again);
                    }
                    return;
                }
                self.arrive(connection, from, segment);
            }
            Event::Again { connection, from, tries } => {
                let Some((here, there)) = self.addresses(connection, from) else { return };
                if !self.is_on(here.ip()) {
                    return;
                }
                if self.passes(here.ip(), there.ip()) {
                    let Some(end) = self.end(connection, from) else { return };
                    for segment in std::mem::take(&mut end.stuck) {
                        self.arrive(connection, from, segment);
                    }
                } else if tries >= TRIES {
                    if let Some(end) = self.end(connection, from) {
                        end.stuck.clear();
                        end.break_off(io::ErrorKind::TimedOut);
                    }
                } else {
                    let wait = (RETRANSMIT << tries).min(RETRANSMIT_MAX);
                    let wait = wait + self.chance.random_range(0..=wait / 8);
                    let again = Event::Again { connection, from, tries: tries + 1 };
                    self.schedule(self.now + wait, again);
                }
            }
        }
    }

    fn syn(&mut self, connection: u64, tries: u32) {
        let Some((here, there)) = self.addresses(connection, 0) else { return };
        if !self.is_on(here.ip()) {
            return;
        }
        if !self.passes(here.ip(), there.ip()) {
            if tries < TRIES {
                let wait = 1_000 << tries.min(5);
                self.schedule(self.now + wait, Event::Syn { connection, tries: tries + 1 });
            } else {
                self.connected(connection, Err(io::ErrorKind::TimedOut.into()));
            }
            return;
        }
        let accepted = match self.ports.get_mut(&there) {
            Some(port) if port.waiting.len() < BACKLOG => {
                port.waiting.push_back(connection);
                if let Some(waker) = port.waker.take() {
                    waker.wake();
                }
                true
            }
            Some(_) | None => false,
        };
        if accepted {
            let start = self.machines.get(&there.ip()).map_or(0, |power| power.start);
            if let Some(end) = self.end(connection, 1) {
                end.start = start;
            }
        }
        let arrival = self.arrival(there.ip(), here.ip(), 0);
        if let Some(end) = self.end(connection, 1) {
            // What it sends comes behind that.
            end.last_arrival = arrival;
        }
        self.schedule(arrival, Event::Answer { connection, accepted, tries: 0 });
    }

    fn answer(&mut self, connection: u64, accepted: bool, tries: u32) {
        let Some((there, here)) = self.addresses(connection, 1) else { return };
        if !self.passes(there.ip(), here.ip()) {
            if tries < TRIES {
                let wait = 1_000 << tries.min(5);
                let again = Event::Answer { connection, accepted, tries: tries + 1 };
                self.schedule(self.now + wait, again);
            } else {
                self.connected(connection, Err(io::ErrorKind::TimedOut.into()));
            }
            return;
        }
        let result = if accepted { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) };
        self.connected(connection, result);
    }

    fn connected(&mut self, id: u64, result: io::Result<()>) {
        let now = self.now;
        if let Some((here, there)) = self.addresses(id, 0) {
            let name = if result.is_ok() { "connected" } else { "not connected" };
            self.trace.small(now, "net", format_args!("#{id} {here} -> {there} {name}"));
        }
        let failed = result.is_err();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let told = connection.connecting.take().map(|connecting| connecting.send(result).is_ok());
        match told {
            Some(true) if !failed => {}
            // Nobody waits for it any more: it is closed again.
            Some(false) if !failed => {
                self.send(id, 0, Segment::Reset);
                self.close(id, 0);
            }
            Some(_) | None => {
                self.connections.remove(&id);
            }
        }
    }

    fn arrive(&mut self, id: u64, from: Side, segment: Segment) {
        let Some((here, there)) = self.addresses(id, from) else { return };
        if !self.is_on(there.ip()) {
            return;
        }
        let start = self.machines.get(&there.ip()).map(|power| power.start);
        let now = self.now;
        let (name, bytes) = (segment_name(&segment), segment.bytes());
        let what = format_args!("#{id} {here} -> {there} {name} {bytes} B is there");
        self.trace.small(now, "net", what);
        let Some(end) = self.end(id, 1 - from) else { return };
        if end.closed || Some(end.start) != start {
            // Nobody has this connection open there.
            if !matches!(segment, Segment::Reset) {
                let arrival = self.arrival(there.ip(), here.ip(), 0);
                let event =
                    Event::Segment { connection: id, from: 1 - from, segment: Segment::Reset };
                self.schedule(arrival, event);
            }
            return;
        }
        match segment {
            Segment::Data(bytes) => end.arrived.push_back(bytes),
            Segment::Fin => end.finished = true,
            Segment::Reset => {
                end.break_off(io::ErrorKind::ConnectionReset);
                return;
            }
        }
        if let Some(reader) = end.reader.take() {
            reader.wake();
        }
    }
}

fn segment_name(segment: &Segment) -> &'static str {
    match segment {
        Segment::Data(_) => "data",
        Segment::Fin => "end",
        Segment::Reset => "reset",
    }
}
