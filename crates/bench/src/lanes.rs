//! Writers that are never told to wait: at fixed times each sends another put, without a deadline, however
//! many are unanswered. So a request that nobody answers hides nothing of what the others see.

use crate::{
    operation::value,
    pace::{FineTimer, Schedule, Timer as _},
    wire::{CallError, Connection, frame, path},
};
use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use etcd::proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Requests of a lane that may be unanswered: then it pauses.
const OUTSTANDING_MAX: usize = 10_000;
/// Before a lane tries the next endpoint, having found one dead.
const RECONNECT_PAUSE: Duration = Duration::from_millis(2);
/// For answers to what is still on its way when a round ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys read back in one request.
const PAGE: i64 = 1000;
const VALUE_BYTES: usize = 256;

/// One put.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Which endpoint it went to.
    pub(crate) endpoint: usize,
    pub(crate) at: Instant,
    /// When it was answered, and whether with success; none while it is not.
    pub(crate) answer: Option<(Instant, bool)>,
}

/// What all lanes have sent. Numbers are never used twice, in no round.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Of this round, by number.
    sent: RefCell<BTreeMap<u64, Sent>>,
    /// Of all rounds.
    acknowledged: RefCell<BTreeSet<u64>>,
    next: Cell<u64>,
    failed: Cell<u64>,
    unanswered: Cell<u64>,
    first_error: RefCell<Option<String>>,
    progress: Notify,
    closing: Cell<bool>,
}

impl Ledger {
    /// Acknowledged puts of all rounds.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.borrow().len() as u64
    }

    /// Requests of all rounds that were answered with an error.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.get()
    }

    /// Requests of all rounds that were not answered even after the fault had ended.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.get()
    }

    /// What the first of the failed ones was told.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.first_error.borrow().clone()
    }

    /// Requests of this round.
    pub(crate) fn round(&self) -> Vec<Sent> {
        self.sent.borrow().values().cloned().collect()
    }

    /// Returns when `done` says so of this round's requests.
    ///
    /// # Errors
    /// It does not in time.
    pub(crate) async fn wait(
        &self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut(&mut dyn Iterator<Item = &Sent>) -> bool,
    ) -> anyhow::Result<()> {
        let wait = async {
            loop {
                let progress = self.progress.notified();
                if done(&mut self.sent.borrow().values()) {
                    return;
                }
                progress.await;
            }
        };
        timeout(patience, wait).await.with_context(|| format!("{what}: not within {patience:?}"))
    }

    fn answered(&self, number: u64, result: Result<(), CallError>) -> bool {
        let ok = result.is_ok();
        if let Some(sent) = self.sent.borrow_mut().get_mut(&number) {
            sent.answer = Some((Instant::now(), ok));
        }
        match result {
            Ok(()) => drop(self.acknowledged.borrow_mut().insert(number)),
            Err(error) => {
                self.failed.set(self.failed.get() + 1);
                self.first_error.borrow_mut().get_or_insert_with(|| explain(&error));
            }
        }
        self.progress.notify_waiters();
        ok
    }
}

fn explain(error: &CallError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The longest time without an answer of success from the last one before `fault` on.
///
/// None if nothing was acknowledged before it, or nothing after.
pub(crate) fn longest_gap(round: &[Sent], fault: Instant) -> Option<(Duration, Instant)> {
    let mut acks: Vec<Instant> =
        round.iter().filter_map(|sent| sent.answer).filter(|a| a.1).map(|a| a.0).collect();
    acks.sort();
    let first_after = acks.partition_point(|at| *at <= fault);
    let from = acks.get(first_after.checked_sub(1)?..)?;
    from.windows(2).filter_map(|w| Some((*w.last()? - *w.first()?, *w.last()?))).max()
}

/// Lanes of one round.
pub(crate) struct Lanes {
    ledger: Rc<Ledger>,
    tasks: JoinSet<()>,
}

impl Lanes {
    /// One lane for each endpoint, together `rate` puts a second.
    pub(crate) fn start(
        ledger: &Rc<Ledger>,
        endpoints: &[String],
        rate: u64,
    ) -> anyhow::Result<Self> {
        ledger.sent.borrow_mut().clear();
        ledger.closing.set(false);
        let schedule = Rc::new(Schedule::new(Instant::now(), rate));
        let mut tasks = JoinSet::new();
        for lane in 0..endpoints.len() {
            let (ledger, schedule) = (Rc::clone(ledger), Rc::clone(&schedule));
            let (endpoints, timer) = (endpoints.to_vec(), FineTimer::new().context("timer")?);
            tasks.spawn_local(run_lane(ledger, schedule, endpoints, lane, timer));
        }
        Ok(Self { ledger: Rc::clone(ledger), tasks })
    }

    /// Sends no more, and waits for the answers to what was sent.
    pub(crate) async fn finish(mut self) {
        self.ledger.closing.set(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(PATIENCE, all).await.is_err() {
            let left = self.ledger.sent.borrow().values().filter(|s| s.answer.is_none()).count();
            self.ledger.unanswered.set(self.ledger.unanswered.get() + left as u64);
        }
    }
}

async fn run_lane(
    ledger: Rc<Ledger>,
    schedule: Rc<Schedule>,
    endpoints: Vec<String>,
    lane: usize,
    timer: FineTimer,
) {
    let mut endpoint = lane;
    let mut connection = None;
    // Of the connection in use: a request on it found it broken, or was refused.
    let lost = Rc::new(Cell::new(false));
    let mut lost_now = Rc::clone(&lost);
    let mut requests = JoinSet::new();
    let mut due = schedule.take();
    while !ledger.closing.get() {
        while requests.try_join_next().is_some() {}
        if lost_now.get() {
            connection = None;
            endpoint = (endpoint + 1) % endpoints.len();
        }
        let open: &Connection = match &mut connection {
            Some(open) => open,
            none => {
                let url = endpoints.get(endpoint).map(String::as_str).unwrap_or_default();
                match Connection::open(url).await {
                    Ok(open) => {
                        lost_now = Rc::default();
                        none.insert(open)
                    }
                    Err(_) => {
                        lost_now.set(true);
                        sleep(RECONNECT_PAUSE).await;
                        continue;
                    }
                }
            }
        };
        // What could not be sent while there was no connection is not made up for.
        let now = Instant::now();
        while due < now && schedule_is_behind(due, now) {
            due = schedule.take();
        }
        timer.until(due).await;
        due = schedule.take();
        if requests.len() >= OUTSTANDING_MAX {
            requests.join_next().await;
        }
        let number = ledger.next.get();
        ledger.next.set(number + 1);
        let sent = Sent { endpoint, at: Instant::now(), answer: None };
        ledger.sent.borrow_mut().insert(number, sent);
        let route = open.route(path::PUT);
        let (ledger, lost) = (Rc::clone(&ledger), Rc::clone(&lost_now));
        requests.spawn_local(async move {
            let put = PutRequest { key: key(number), value: text(number), ..PutRequest::default() };
            let result = route.call_blind(frame(&put)).await;
            if !ledger.answered(number, result) {
                lost.set(true);
            }
        });
    }
    while requests.join_next().await.is_some() {}
}

/// More than a hiccup of this process.
fn schedule_is_behind(due: Instant, now: Instant) -> bool {
    now - due > Duration::from_millis(20)
}

const PREFIX: &str = "trireme-failover/";
const PREFIX_END: &str = "trireme-failover0";

fn key(number: u64) -> Bytes {
    format!("{PREFIX}{number:012}").into()
}

fn text(number: u64) -> Bytes {
    let mut text = BytesMut::from(format!("{number:012}").as_bytes());
    text.extend_from_slice(&value(VALUE_BYTES - text.len()));
    text.freeze()
}

/// Reads every key back, linearizably, and returns how many acknowledged puts are not there.
///
/// # Errors
/// A read fails.
pub(crate) async fn count_lost(ledger: &Ledger, endpoint: &str) -> anyhow::Result<u64> {
    let connection = Connection::open(endpoint).await?;
    let mut missing = ledger.acknowledged.borrow().clone();
    let mut from = Bytes::from(PREFIX);
    loop {
        let page = RangeRequest {
            key: from,
            range_end: PREFIX_END.into(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        let page: RangeResponse =
            connection.unary(path::RANGE, &page).await.context("read keys back")?;
        let Some(last) = page.kvs.last() else { break };
        let mut next = BytesMut::from(&*last.key);
        next.extend_from_slice(b"\0");
        from = next.freeze();
        for kv in page.kvs {
            let number = kv.key.get(PREFIX.len()..).and_then(|d| str::from_utf8(d).ok());
            let number: u64 = number.and_then(|d| d.parse().ok()).context("a key of the bench")?;
            ensure!(number < ledger.next.get(), "key {number} was never written");
            if kv.value == text(number) {
                missing.remove(&number);
            }
        }
    }
    Ok(missing.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gap_is_between_two_acknowledgements_around_or_after_the_fault() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let sent = |end: u64, ok| Sent { endpoint: 0, at: zero, answer: Some((at(end), ok)) };
        let silent = Sent { endpoint: 0, at: zero, answer: None };
        // A long silence before the fault does not count, an error is no acknowledgement, and the order
        // of answers is not that of requests.
        let mut round = vec![sent(0, true), sent(900, true), sent(1350, true), sent(1000, true)];
        round.extend([sent(1200, false), silent, sent(1360, true)]);
        let (gap, end) = longest_gap(&round, at(1001)).unwrap();
        assert_eq!((gap, end), (Duration::from_millis(350), at(1350)));
        assert!(longest_gap(&round, at(2000)).is_none(), "nothing was acknowledged after it");
        assert!(longest_gap(&round[1..2], at(100)).is_none(), "nothing was acknowledged before it");
    }

    #[test]
    fn keys_and_values_name_their_number() {
        assert_eq!(key(7), "trireme-failover/000000000007");
        assert!(text(7).starts_with(b"000000000007") && text(7).len() == VALUE_BYTES);
        assert!(key(u64::from(u32::MAX)) < PREFIX_END);
    }
}
