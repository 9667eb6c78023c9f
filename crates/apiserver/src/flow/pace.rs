//! Who goes first where all wait for the same processors: small requests before the next piece of a long
//! answer, and what many watches have to say not each time at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::yield_now, time::sleep};

/// A long answer rests so long before its next piece while small requests are under way.
const REST: Duration = Duration::from_millis(1);
/// Writes of all watches together, in a second, while much goes on.
const WATCH_WRITES_PER_SECOND: u64 = 5000;
/// Between two writes of one watch at most.
const WATCH_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// How many there are of something, until they are dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(super) fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets small requests go before the pieces of one long answer.
#[derive(Debug)]
pub(crate) struct Turns {
    small: Count,
    begun: bool,
}

impl Turns {
    pub(super) fn new(small: &Count) -> Self {
        Self { small: small.clone(), begun: false }
    }

    /// Before each piece. A connection that takes all at once would otherwise go on for some ten
    /// milliseconds, and whoever has come meanwhile would wait.
    pub(crate) async fn next(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            return;
        }
        if self.small.now() > 0 {
            sleep(REST).await;
        } else {
            yield_now().await;
        }
    }
}

/// One of the watches of clients.
#[derive(Debug)]
pub(crate) struct WatchPace(Counted);

impl WatchPace {
    pub(super) fn new(watches: &Count) -> Self {
        Self(watches.enter())
    }

    /// Between two writes of this watch, the more the more watches there are: what comes meanwhile is
    /// written together. A watch that had nothing to say for so long writes at once.
    pub(crate) fn interval(&self) -> Duration {
        let watches = u64::try_from(self.0.0.now()).unwrap_or(u64::MAX);
        let millis = watches.saturating_mul(1000) / WATCH_WRITES_PER_SECOND;
        Duration::from_millis(millis).min(WATCH_INTERVAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_rests_while_small_requests_are_under_way() {
        let small = Count::default();
        let mut turns = Turns::new(&small);
        assert!(turns.next().now_or_never().is_some(), "it begins at once");
        assert!(turns.next().now_or_never().is_none(), "and lets others have their turn");
        let begun = tokio::time::Instant::now();
        turns.next().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody is in a hurry");
        let one = small.enter();
        turns.next().await;
        assert!(begun.elapsed() >= REST);
        drop(one);
        let begun = tokio::time::Instant::now();
        turns.next().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn watches_write_the_less_often_the_more_there_are() {
        let watches = Count::default();
        let one = WatchPace::new(&watches);
        assert_eq!(one.interval(), Duration::ZERO);
        let many: Vec<WatchPace> = (0..249).map(|_| WatchPace::new(&watches)).collect();
        assert_eq!(one.interval(), Duration::from_millis(50));
        let more: Vec<WatchPace> = (0..9750).map(|_| WatchPace::new(&watches)).collect();
        assert_eq!(one.interval(), WATCH_INTERVAL_MAX);
        drop((many, more));
        assert_eq!(one.interval(), Duration::ZERO);
    }
}
