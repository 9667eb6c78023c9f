//! What the log did, how long it took, and for how long it has been waiting.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use store::SyncTimes;

/// Sync times remembered.
const SYNCS_REMEMBERED: usize = 1024;

/// What the log did since it was opened.
#[derive(Debug)]
pub struct Counters {
    begun: Instant,
    syncs: AtomicU64,
    entries: AtomicU64,
    votes: AtomicU64,
    bytes: AtomicU64,
    sync_us: Mutex<VecDeque<u64>>,
    sync_counts: [AtomicU64; 15],
    sync_sum_us: AtomicU64,
    /// Bytes that were there when the log was opened.
    found: AtomicU64,
    /// When the oldest record that is not durable was queued, in microseconds since `begun` and one
    /// more; 0 when all are durable.
    waiting: AtomicU64,
    no_room: AtomicBool,
}

impl Default for Counters {
    #[expect(clippy::disallowed_methods, reason = "measures the disk on its own thread")]
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            syncs: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            votes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            sync_us: Mutex::default(),
            sync_counts: Default::default(),
            sync_sum_us: AtomicU64::new(0),
            found: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            no_room: AtomicBool::new(false),
        }
    }
}

impl Counters {
    /// For how long the oldest record that is not durable has been waiting for the disk.
    #[must_use]
    pub fn waiting(&self) -> Duration {
        match self.waiting.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.now().saturating_sub(since)),
        }
    }

    /// There is no room for the next segment.
    #[must_use]
    pub fn no_room(&self) -> bool {
        self.no_room.load(Ordering::Relaxed)
    }

    pub(super) fn set_no_room(&self, none: bool) {
        self.no_room.store(none, Ordering::Relaxed);
    }

    /// Microseconds since the log was opened, never 0.
    #[expect(clippy::disallowed_methods, reason = "measures the disk on its own thread")]
    pub(super) fn now(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.begun);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(super) fn waits_since(&self, queued: u64) {
        self.waiting.store(queued, Ordering::Release);
    }

    pub(super) fn waits_no_more(&self) {
        self.waiting.store(0, Ordering::Release);
    }

    /// Bytes that were found when the log was opened.
    pub(super) fn found(&self, bytes: usize) {
        self.found.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// `fdatasync` calls.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Entries written.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Votes written, each synced before it was given.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.votes.load(Ordering::Relaxed)
    }

    /// Bytes written, those that were there when the log was opened included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.found.load(Ordering::Relaxed)
    }

    /// Microseconds that 99 of 100 of the last syncs took at most; 0 before the first.
    #[must_use]
    pub fn sync_p99_us(&self) -> u64 {
        let mut times: Vec<u64> = lock(&self.sync_us).iter().copied().collect();
        times.sort_unstable();
        times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    /// How long the syncs took.
    #[must_use]
    pub fn sync_times(&self) -> SyncTimes {
        SyncTimes {
            counts: std::array::from_fn(|place| {
                self.sync_counts.get(place).map_or(0, |count| count.load(Ordering::Relaxed))
            }),
            sum_us: self.sync_sum_us.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn vote(&self) {
        self.votes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, bytes: usize, entries: usize, us: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
        self.sync_sum_us.fetch_add(us, Ordering::Relaxed);
        if let Some(count) = self.sync_counts.get(SyncTimes::place(us)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut times = lock(&self.sync_us);
        if times.len() == SYNCS_REMEMBERED {
            times.pop_front();
        }
        times.push_back(us);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
