//! Lanes that send requests at fixed times, however many are unanswered, to the members that there are.

use super::{
    Shared, View,
    checker::Outcome,
    request::{Request, ask},
};
use crate::{
    pace::{FineTimer, Schedule, Timer as _},
    wire::{CallError, Connection},
};
use anyhow::Context as _;
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// So that as many go to each of three members, and of four.
const LANES: usize = 12;
/// Requests of a lane that may be unanswered: then it pauses.
const OUTSTANDING_MAX: usize = 500;
/// For one answer: longer than any member stands still.
const DEADLINE: Duration = Duration::from_secs(12);
/// Before a lane tries the next endpoint, having found one dead.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// All lanes.
pub(super) struct Load {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Together `rate` requests a second.
    pub(super) fn start(
        shared: &Rc<Shared>,
        view: &watch::Receiver<View>,
        rate: u64,
    ) -> anyhow::Result<Self> {
        let schedule = Rc::new(Schedule::new(Instant::now(), rate));
        let mut tasks = JoinSet::new();
        for lane in 0..LANES {
            let timer = FineTimer::new().context("timer")?;
            let lane = Lane {
                shared: Rc::clone(shared),
                schedule: Rc::clone(&schedule),
                view: view.clone(),
                lane,
                connection: None,
                lost: Rc::default(),
                tries: 0,
            };
            tasks.spawn_local(lane.run(timer));
        }
        Ok(Self { shared: Rc::clone(shared), tasks })
    }

    /// Sends no more, and waits until every request was answered or given up.
    pub(super) async fn finish(mut self) {
        self.shared.closing.set(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Lane {
    shared: Rc<Shared>,
    schedule: Rc<Schedule>,
    view: watch::Receiver<View>,
    lane: usize,
    connection: Option<Connection>,
    /// A request on the connection in use found it broken, or no answer in time.
    lost: Rc<Cell<bool>>,
    /// Endpoints found dead since the lane was last at home.
    tries: usize,
}

impl Lane {
    async fn run(mut self, timer: FineTimer) {
        let mut requests = JoinSet::new();
        while !self.shared.closing.get() {
            while requests.try_join_next().is_some() {}
            let Some(connection) = self.connection().await else { continue };
            let mut due = self.schedule.take();
            // What could not be sent while there was no connection is not made up for.
            while due + Duration::from_millis(20) < Instant::now() {
                due = self.schedule.take();
            }
            timer.until(due).await;
            if requests.len() >= OUTSTANDING_MAX {
                requests.join_next().await;
            }
            let drawn = self.shared.checker.borrow_mut().draw(Instant::now());
            if let Some(request) = drawn {
                let (shared, lost) = (Rc::clone(&self.shared), Rc::clone(&self.lost));
                requests.spawn_local(send(shared, connection, request, lost));
            }
        }
        while requests.join_next().await.is_some() {}
    }

    /// The one in use, or a new one: at home once the cluster is whole, otherwise where somebody answers.
    async fn connection(&mut self) -> Option<Connection> {
        if self.view.has_changed().unwrap_or(false) {
            (self.connection, self.tries) = (None, 0);
            self.lost = Rc::default();
            self.view.mark_unchanged();
        }
        if self.lost.get() {
            self.connection = None;
            self.tries += 1;
        }
        if self.connection.is_none() {
            self.lost = Rc::default();
            let url = self.view.borrow().url(self.lane + self.tries);
            match Connection::open(&url).await {
                Ok(open) => self.connection = Some(open),
                Err(_) => {
                    self.lost.set(true);
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
        self.connection.clone()
    }
}

async fn send(shared: Rc<Shared>, connection: Connection, request: Request, lost: Rc<Cell<bool>>) {
    let message = request.message(&shared.checker.borrow().values);
    let answer = timeout(DEADLINE, ask(&connection, message)).await;
    let result = answer.unwrap_or_else(|_| {
        lost.set(true);
        let endpoint = "the server".to_owned();
        Err(CallError::Silent { endpoint })
    });
    if let Err(error) = &result {
        if !error.is_answer() {
            lost.set(true);
        }
        shared.failed(request.kind(), error);
    }
    let now = Instant::now();
    let outcome = shared.checker.borrow_mut().end(&request, result, now);
    shared.count(request.kind(), outcome);
    if outcome == Outcome::Wrote {
        shared.gap.borrow_mut().acknowledged(now);
    }
}
