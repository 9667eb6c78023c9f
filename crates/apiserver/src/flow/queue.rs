//! Seats of one class of requests, and a short queue for them that is fair to those who wait.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// A seat whose answer nobody has taken on for so long is given to who waits.
const IDLE_MAX: Duration = Duration::from_millis(250);
/// Between two looks for such seats, while somebody waits.
const LOOK: Duration = Duration::from_millis(50);

/// How many requests of a class run beside each other, and how many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Seats; a request takes one, a long list more.
    pub(super) seats: u32,
    /// Requests that may wait.
    pub(super) queue: usize,
    /// How long each may.
    pub(super) patience: Duration,
}

/// Seats, and who waits for them.
#[derive(Debug)]
pub(super) struct Seats {
    size: Size,
    state: Mutex<State>,
    pub(super) refused: AtomicU64,
    pub(super) served: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    taken: u32,
    /// Seats taken, by user.
    running: BTreeMap<Arc<str>, u32>,
    waiting: BTreeMap<Arc<str>, VecDeque<Waiter>>,
    waiters: usize,
    next: u64,
    /// Holders whose seats can be taken back, by ticket.
    long: BTreeMap<u64, Arc<Held>>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    /// Its turn among those with as many seats: its ticket, or 0 for who had a seat already.
    turn: u64,
    cost: u32,
    grant: oneshot::Sender<Seat>,
}

/// What of a seat can be taken back by others.
#[derive(Debug)]
struct Held {
    user: Arc<str>,
    cost: u32,
    /// Set once, by who gives it back first.
    back: AtomicBool,
    /// When the holder last went on.
    touched: Mutex<Instant>,
}

/// A place among the running requests of a class, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    held: Arc<Held>,
    ticket: u64,
}

/// No seat became free in time, or too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Seats {
    pub(super) fn new(size: Size) -> Arc<Self> {
        let (refused, served) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { size, state: Mutex::default(), refused, served })
    }

    /// Running (in seats) and waiting (in requests) now.
    pub(super) fn now(&self) -> (u32, usize) {
        let state = self.lock();
        (state.taken, state.waiters)
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// A seat for a request of `user` that costs as much as `cost` others, at once or soon.
    pub(super) async fn enter(self: &Arc<Self>, user: &Arc<str>, cost: u32) -> Result<Seat, Full> {
        let entered = self.wait(user, cost, Some((self.size.queue, self.size.patience))).await;
        let counter = if entered.is_ok() { &self.served } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        entered
    }

    /// `bounds` are on the queue and on the time in it; without them, somebody waits who had a seat already.
    async fn wait(
        self: &Arc<Self>,
        user: &Arc<str>,
        cost: u32,
        bounds: Option<(usize, Duration)>,
    ) -> Result<Seat, Full> {
        let cost = cost.clamp(1, self.size.seats.max(1));
        let (mut granted, ticket) = {
            let mut state = self.lock();
            if state.waiters == 0 && state.taken + cost <= self.size.seats {
                return Ok(self.take(&mut state, user, cost));
            }
            let full = bounds.is_some_and(|(queue, _)| state.waiters >= queue);
            if full && !state.make_room(user) {
                return Err(Full);
            }
            let (grant, granted) = oneshot::channel();
            state.next += 1;
            state.waiters += 1;
            let ticket = state.next;
            let turn = if bounds.is_some() { ticket } else { 0 };
            let waiter = Waiter { ticket, turn, cost, grant };
            let queue = state.waiting.entry(Arc::clone(user)).or_default();
            match turn {
                0 => queue.push_front(waiter),
                _ => queue.push_back(waiter),
            }
            (granted, ticket)
        };
        let leave = Leave { seats: self, user, ticket };
        let deadline = bounds.and_then(|(_, patience)| Instant::now().checked_add(patience));
        loop {
            match timeout(LOOK, &mut granted).await {
                Ok(Ok(seat)) => return Ok(seat),
                Ok(Err(_)) => return Err(Full),
                Err(_) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                drop(leave);
                // One that was given in this moment goes on to the next.
                return granted.try_recv().map_err(|_| Full);
            }
            self.take_back_idle();
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, user: &Arc<str>, cost: u32) -> Seat {
        state.taken += cost;
        *state.running.entry(Arc::clone(user)).or_default() += cost;
        state.next += 1;
        let held = Held {
            user: Arc::clone(user),
            cost,
            back: AtomicBool::new(false),
            touched: Mutex::new(Instant::now()),
        };
        Seat { seats: Arc::clone(self), held: Arc::new(held), ticket: state.next }
    }

    fn give_back(self: &Arc<Self>, held: &Held, ticket: u64) {
        if held.back.swap(true, Ordering::AcqRel) {
            return;
        }
        let grants = {
            let mut state = self.lock();
            state.long.remove(&ticket);
            state.taken -= held.cost;
            if let Some(running) = state.running.get_mut(&held.user) {
                *running -= held.cost;
                if *running == 0 {
                    state.running.remove(&held.user);
                }
            }
            self.grants(&mut state)
        };
        // Outside of the lock: a seat that nobody waits for any more is given back at once.
        for (grant, seat) in grants {
            drop(grant.send(seat));
        }
    }

    /// Whose turn it is: the user who has the fewest seats, of these the one who has waited longest. Who
    /// needs several is waited for, so that it is not passed by for ever.
    fn grants(self: &Arc<Self>, state: &mut State) -> Vec<(oneshot::Sender<Seat>, Seat)> {
        let mut grants = Vec::new();
        loop {
            let running = |user: &Arc<str>| state.running.get(user).copied().unwrap_or_default();
            let fronts = state.waiting.iter();
            let fronts = fronts.filter_map(|(user, queue)| Some((user, queue.front()?)));
            let next = fronts.min_by_key(|(user, waiter)| (running(user), waiter.turn));
            let Some((user, waiter)) = next else { return grants };
            if state.taken + waiter.cost > self.size.seats {
                return grants;
            }
            let user = Arc::clone(user);
            let Some(waiter) = state.remove(&user, None) else { return grants };
            let seat = self.take(state, &user, waiter.cost);
            grants.push((waiter.grant, seat));
        }
    }

    /// Takes back the seats of answers that nobody reads on.
    fn take_back_idle(self: &Arc<Self>) {
        let now = Instant::now();
        let idle: Vec<(u64, Arc<Held>)> = {
            let state = self.lock();
            let long = state.long.iter();
            long.filter(|(_, held)| now.duration_since(*lock(&held.touched)) > IDLE_MAX)
                .map(|(ticket, held)| (*ticket, Arc::clone(held)))
                .collect()
        };
        for (ticket, held) in idle {
            self.give_back(&held, ticket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Removes a waiter of a user: the one with the ticket, or the first.
    fn remove(&mut self, user: &Arc<str>, ticket: Option<u64>) -> Option<Waiter> {
        let queue = self.waiting.get_mut(user)?;
        let place = match ticket {
            None => 0,
            Some(ticket) => queue.iter().position(|waiter| waiter.ticket == ticket)?,
        };
        let waiter = queue.remove(place)?;
        if queue.is_empty() {
            self.waiting.remove(user);
        }
        self.waiters -= 1;
        Some(waiter)
    }

    /// Sends away the last of whoever waits with the most, if `user` waits with fewer by two at least.
    fn make_room(&mut self, user: &Arc<str>) -> bool {
        let own = self.waiting.get(user).map_or(0, VecDeque::len);
        let most = self.waiting.iter().max_by_key(|(_, queue)| queue.len());
        let Some((most, queue)) = most.filter(|(_, queue)| queue.len() > own + 1) else {
            return false;
        };
        let (most, last) = (Arc::clone(most), queue.back().map(|waiter| waiter.ticket));
        self.remove(&most, last).is_some()
    }
}

/// Takes a waiter out that goes away.
struct Leave<'a> {
    seats: &'a Arc<Seats>,
    user: &'a Arc<str>,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let gone = self.seats.lock().remove(self.user, Some(self.ticket));
        if gone.is_some() {
            // It may have been the one that the others had to wait for.
            let grants = self.seats.grants(&mut self.seats.lock());
            for (grant, seat) in grants {
                drop(grant.send(seat));
            }
        }
    }
}

impl Seat {
    /// From now on the seat is of an answer that is sent piece by piece: it can be taken back while nobody
    /// reads.
    pub(crate) fn lend(&self) {
        let mut state = self.seats.lock();
        if !self.held.back.load(Ordering::Acquire) {
            state.long.insert(self.ticket, Arc::clone(&self.held));
        }
    }

    /// Before each piece: waits for another seat if this one was taken back.
    pub(crate) async fn go_on(&mut self) {
        *lock(&self.held.touched) = Instant::now();
        if !self.held.back.load(Ordering::Acquire) {
            return;
        }
        // Without an end: the answer has begun, and the client's patience is what counts.
        let user = Arc::clone(&self.held.user);
        let again = self.seats.wait(&user, self.held.cost, None).await;
        if let Ok(seat) = again {
            seat.lend();
            *self = seat;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.give_back(&self.held, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn seats(seats: u32, queue: usize) -> Arc<Seats> {
        Seats::new(Size { seats, queue, patience: Duration::from_secs(1) })
    }

    fn user(name: &str) -> Arc<str> {
        name.into()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_fewer_seats_comes_first_and_then_who_has_waited_longer() {
        let class = seats(3, 10);
        let (a, b, c) = (user("a"), user("b"), user("c"));
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(class.enter(&a, 1).await.unwrap());
        }
        let mut first = Box::pin(class.enter(&a, 1));
        let mut of_b = Box::pin(class.enter(&b, 1));
        let mut of_c = Box::pin(class.enter(&c, 1));
        for waits in [&mut first, &mut of_b, &mut of_c] {
            assert!(waits.now_or_never().is_none());
        }
        assert_eq!(class.now(), (3, 3));
        running.pop();
        let _b = of_b.await.unwrap();
        running.pop();
        let _c = of_c.await.unwrap();
        assert_eq!(class.now(), (3, 1), "who had most and came first still waits");
        running.pop();
        first.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_from_who_waits_with_the_most() {
        let class = seats(1, 2);
        let (a, b) = (user("a"), user("b"));
        let _running = class.enter(&a, 1).await.unwrap();
        let mut first = Box::pin(class.enter(&a, 1));
        let mut second = Box::pin(class.enter(&a, 1));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(class.enter(&a, 1).await.unwrap_err(), Full, "no more of the same");
        let mut other = Box::pin(class.enter(&b, 1));
        assert!((&mut other).now_or_never().is_none(), "waits");
        assert_eq!(second.await.unwrap_err(), Full, "had to go");
        assert_eq!(class.now(), (1, 2));
        assert_eq!(first.await.unwrap_err(), Full, "in time");
        drop(other);
        assert_eq!(class.now(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_needs_several_seats_is_not_passed_by() {
        let class = seats(3, 10);
        let (a, b) = (user("a"), user("b"));
        let small = class.enter(&a, 1).await.unwrap();
        let mut large = Box::pin(class.enter(&b, 100));
        let mut next = Box::pin(class.enter(&a, 1));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut next).now_or_never().is_none(), "behind it, though two seats are free");
        drop(small);
        let large = large.await.unwrap();
        assert_eq!(class.now(), (3, 1));
        drop(large);
        next.await.unwrap();
        assert_eq!(class.now(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_loses_its_seat_and_gets_another_when_it_goes_on() {
        let class = seats(1, 10);
        let (a, b) = (user("a"), user("b"));
        let mut slow = class.enter(&a, 1).await.unwrap();
        slow.lend();
        let other = class.enter(&b, 1).await.unwrap();
        assert_eq!(class.now(), (1, 0));
        let mut goes_on = Box::pin(slow.go_on());
        assert!((&mut goes_on).now_or_never().is_none(), "waits for another");
        drop(other);
        goes_on.await;
        assert_eq!(class.now(), (1, 0));
        drop(slow);
        assert_eq!(class.now(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_on_keeps_the_seat() {
        let class = seats(1, 10);
        let (a, b) = (user("a"), user("b"));
        let mut quick = class.enter(&a, 1).await.unwrap();
        quick.lend();
        let mut waits = Box::pin(class.enter(&b, 1));
        for _ in 0..5 {
            assert!(timeout(IDLE_MAX / 2, &mut waits).await.is_err());
            quick.go_on().await;
        }
        drop(quick);
        waits.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_nothing_behind() {
        let class = seats(1, 10);
        let a = user("a");
        let running = class.enter(&a, 1).await.unwrap();
        let mut waits = Box::pin(class.enter(&a, 1));
        assert!((&mut waits).now_or_never().is_none());
        drop(running);
        // It was given a seat, and is dropped before it looked.
        drop(waits);
        assert_eq!(class.now(), (0, 0));
    }
}
