//! How long of real time a run may take. A process that goes round in circles without letting go of its thread
//! cannot be interrupted, only left alone: the run is given up, and where it stood is told.

use crate::{Failure, Millis, logs};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Of runs that were given up.
pub(crate) const TOOK_TOO_LONG: &str = "a run ends";
/// For a run that was told to end to say how far it has come. A step of the world takes microseconds.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Where a run stands, for whoever waits for it.
#[derive(Debug)]
pub(crate) struct Progress {
    now: AtomicU64,
    /// Whose process is being stepped.
    who: Mutex<Arc<str>>,
    over: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            now: AtomicU64::default(),
            who: Mutex::new("world".into()),
            over: AtomicBool::default(),
        }
    }
}

impl Progress {
    /// The world goes on; false: nobody waits any more.
    pub(crate) fn goes_on(&self, now: Millis) -> bool {
        self.now.store(now, Ordering::Relaxed);
        !self.over.load(Ordering::Relaxed)
    }

    /// Somebody's process is stepped.
    pub(crate) fn step_of(&self, name: &Arc<str>) {
        *self.who.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(name);
    }

    /// Whose process is being stepped, or was last.
    pub(crate) fn who(&self) -> Arc<str> {
        Arc::clone(&self.who.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs something on a thread of its own, on which nothing was drawn yet, for so long at most. It is to end soon when
/// its progress does not go on any more.
///
/// # Errors
/// It has not ended in time, and not when it was told to either: it is left alone, and takes the time of a processor
/// until the program ends.
///
/// # Panics
/// The simulator itself is wrong.
pub(crate) fn run_within<T: Send + 'static>(
    seed: u64,
    limit: Option<Duration>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    run_for(seed, limit, LAST_WORDS, run)
}

fn run_for<T: Send + 'static>(
    seed: u64,
    limit: Option<Duration>,
    last_words: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let progress = Arc::new(Progress::default());
    let (done, waits) = mpsc::sync_channel(1);
    let stepped = Arc::clone(&progress);
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20);
    let thread = thread.spawn(move || {
        logs::follow(stepped);
        // Whoever does not wait any more does not need it.
        let _ = done.send(run());
    });
    let thread = thread.expect("a thread");
    let first = limit.map_or_else(
        || waits.recv().map_err(RecvTimeoutError::from),
        |limit| waits.recv_timeout(limit),
    );
    let ended = match first {
        Err(RecvTimeoutError::Timeout) => {
            progress.over.store(true, Ordering::Relaxed);
            waits.recv_timeout(last_words)
        }
        ended => ended,
    };
    match ended {
        Ok(ended) => Ok(ended),
        Err(RecvTimeoutError::Timeout) => {
            let took = limit.unwrap_or_default() + last_words;
            let who = progress.who();
            let detail = format!("after {took:?}, {who} does not let go of its thread");
            let at = progress.now.load(Ordering::Relaxed);
            Err(Failure { property: TOOK_TOO_LONG, detail, at })
        }
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err();
            let text = panic.as_ref().and_then(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                text.or_else(|| panic.downcast_ref::<&str>().copied())
            });
            panic!("the simulator has panicked: {}", text.unwrap_or("without a word"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn a_run_that_ends_in_time_is_waited_for() {
        for limit in [None, Some(Duration::from_secs(60))] {
            assert_eq!(run_within(1, limit, || 7), Ok(7));
        }
    }

    #[test]
    fn a_run_that_is_told_to_end_says_how_far_it_has_come() {
        let run = || {
            let mut now = 0;
            while logs::goes_on(now) {
                now += 1;
                thread::yield_now();
            }
            now
        };
        assert!(run_for(1, Some(SOON), Duration::MAX, run).unwrap() > 0);
    }

    #[test]
    fn a_run_that_never_ends_is_left_alone() {
        let run = || {
            assert!(logs::goes_on(42));
            logs::step_of(&Arc::from("replica-2"));
            loop {
                thread::park();
            }
        };
        let failure = run_for::<()>(1, Some(SOON), SOON, run).unwrap_err();
        assert_eq!((failure.property, failure.at), (TOOK_TOO_LONG, 42));
        assert!(failure.detail.contains("replica-2"), "{failure}");
    }

    #[test]
    #[should_panic = "the simulator has panicked: by itself"]
    fn a_run_that_panics_says_why() {
        let _ = run_within::<()>(1, None, || panic!("by itself"));
    }
}
