//! Clients in a closed or an open loop, and what they saw.

use crate::{
    histogram::Histogram,
    pace::{Schedule, Timer},
    wire::CallError,
};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long after its end a window waits for what was due in it and is still on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// When requests count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    pub(crate) fn holds(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// When a client's next request counts from: with a schedule when it is due, after waiting for that,
    /// else `now`, when the last one was answered. `None` when the run is over.
    pub(crate) async fn next(
        &self,
        schedule: Option<&Schedule>,
        timer: &impl Timer,
        now: Instant,
    ) -> Option<Instant> {
        let Some(schedule) = schedule else { return (now < self.until).then_some(now) };
        let due = schedule.take();
        if due >= self.until || now >= self.until + GRACE {
            return None;
        }
        timer.until(due).await;
        Some(due)
    }
}

/// What clients saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    /// Of requests that ended in the window (closed loop) or were due in it (open loop).
    pub(crate) latencies: Histogram,
    /// Requests that were answered in the window.
    pub(crate) completed: u64,
    /// Requests that the server refused, or never answered.
    pub(crate) errors: u64,
    /// How it refused the first of them.
    pub(crate) first_error: Option<String>,
}

impl Recorded {
    pub(crate) fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.completed += other.completed;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }

    /// Counts something that was due, or sent, at `since` and came at `end`.
    pub(crate) fn answer(&mut self, window: &Window, open: bool, since: Instant, end: Instant) {
        if window.holds(end) {
            self.completed += 1;
        }
        if window.holds(if open { since } else { end }) {
            self.latencies.record(end - since);
        }
    }
}

/// Has one request outstanding at a time.
pub(crate) trait Client: 'static {
    /// Makes one request.
    async fn one(&mut self) -> Result<(), CallError>;
}

/// Runs clients until the window ends; with a schedule, an open loop.
///
/// Must run inside a [`tokio::task::LocalSet`].
///
/// # Errors
/// A connection broke. Requests that the server refused are counted.
pub(crate) async fn drive<C: Client, T: Timer + 'static>(
    clients: impl IntoIterator<Item = (C, T)>,
    schedule: Option<Schedule>,
    window: Window,
    stop: &CancellationToken,
) -> Result<Recorded, CallError> {
    let recorded = Rc::new(RefCell::new(Recorded::default()));
    let schedule = Rc::new(schedule);
    let mut tasks = JoinSet::new();
    for (mut client, timer) in clients {
        let (recorded, schedule) = (Rc::clone(&recorded), Rc::clone(&schedule));
        let stop = stop.clone();
        tasks.spawn_local(async move {
            let open = schedule.is_some();
            let mut now = Instant::now();
            while !stop.is_cancelled() {
                let next = window.next(schedule.as_ref().as_ref(), &timer, now).await;
                let Some(since) = next else { break };
                let result = client.one().await;
                now = Instant::now();
                let mut recorded = recorded.borrow_mut();
                match result {
                    Ok(()) => recorded.answer(&window, open, since, now),
                    Err(error) if error.is_answer() => {
                        recorded.errors += u64::from(window.holds(now));
                        recorded.first_error.get_or_insert_with(|| error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
    }
    // One that is never answered must not hold up the rest.
    let end = window.until + GRACE;
    while let Ok(Some(result)) = timeout_at(end, tasks.join_next()).await {
        result.map_err(|_| CallError::Ended)??;
    }
    let mut recorded = recorded.take();
    if !tasks.is_empty() {
        recorded.errors += tasks.len() as u64;
        recorded
            .first_error
            .get_or_insert_with(|| format!("not answered {GRACE:?} after the end of the run"));
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::CoarseTimer;
    use tokio::{task::LocalSet, time::sleep};

    /// A server that takes 1 ms, and stands still for a second once.
    struct Stalls {
        served: Rc<RefCell<u32>>,
        at: u32,
    }

    impl Client for Stalls {
        async fn one(&mut self) -> Result<(), CallError> {
            let number = {
                let mut served = self.served.borrow_mut();
                *served += 1;
                *served
            };
            sleep(Duration::from_millis(if number == self.at { 1000 } else { 1 })).await;
            Ok(())
        }
    }

    async fn run(rate: Option<u64>, stall_at: u32) -> Recorded {
        let from = Instant::now();
        let window = Window { from, until: from + Duration::from_secs(10) };
        let client = Stalls { served: Rc::default(), at: stall_at };
        let schedule = rate.map(|rate| Schedule::new(from, rate));
        let stop = CancellationToken::new();
        LocalSet::new()
            .run_until(drive([(client, CoarseTimer)], schedule, window, &stop))
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_sees_a_stall_once() {
        let recorded = run(None, 100).await;
        assert_eq!(recorded.completed, recorded.latencies.count());
        assert!((8990..=9001).contains(&recorded.completed), "{}", recorded.completed);
        assert_eq!(recorded.latencies.max(), Duration::from_secs(1));
        assert!(recorded.latencies.quantile(999) < Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_sees_a_stall_in_every_request_that_was_due_meanwhile() {
        let recorded = run(Some(100), 100).await;
        // 100 of 1,000 requests were due during the second; half of those waited half of it.
        assert_eq!(recorded.latencies.count(), 1000);
        let (half, all) = (recorded.latencies.quantile(950), recorded.latencies.quantile(999));
        assert!((0.35..0.65).contains(&half.as_secs_f64()), "{half:?}");
        assert!((0.9..1.1).contains(&all.as_secs_f64()), "{all:?}");
        assert!(recorded.latencies.quantile(850) < Duration::from_millis(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_that_is_too_fast_shows_what_was_served_and_the_backlog() {
        // 1 ms a request and one client: 1,000 a second at most.
        let recorded = run(Some(1500), 0).await;
        assert!((9000..=10_001).contains(&recorded.completed), "{}", recorded.completed);
        assert!(recorded.latencies.max() > Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_ends_with_the_run() {
        struct Silent;
        impl Client for Silent {
            async fn one(&mut self) -> Result<(), CallError> {
                std::future::pending().await
            }
        }
        let from = Instant::now();
        let window = Window { from, until: from + Duration::from_secs(1) };
        let stop = CancellationToken::new();
        let recorded = LocalSet::new()
            .run_until(drive([(Silent, CoarseTimer), (Silent, CoarseTimer)], None, window, &stop))
            .await
            .unwrap();
        assert_eq!((recorded.completed, recorded.errors), (0, 2));
        assert!(recorded.first_error.unwrap().contains("not answered"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_refuses_is_counted_apart() {
        struct Refused;
        impl Client for Refused {
            async fn one(&mut self) -> Result<(), CallError> {
                sleep(Duration::from_millis(1)).await;
                Err(CallError::Status { code: 8, message: "no space".to_owned() })
            }
        }
        let from = Instant::now();
        let window = Window { from, until: from + Duration::from_secs(1) };
        let stop = CancellationToken::new();
        let recorded = LocalSet::new()
            .run_until(drive([(Refused, CoarseTimer)], None, window, &stop))
            .await
            .unwrap();
        assert_eq!((recorded.completed, recorded.latencies.count()), (0, 0));
        assert!(recorded.errors > 900, "{}", recorded.errors);
        assert!(recorded.first_error.unwrap().contains("no space"));
    }
}
