//! When requests are sent: as soon as a client is free, or at times that do not ask whether it is.

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use std::{
    cell::Cell,
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

/// The times at which an open loop means to send: evenly, and fixed before the first one is sent.
///
/// A request that waits for a free client was due all the same, and its wait counts: a server that
/// stands still for a second is seen by all requests of that second, not only by those under way.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    per_second: u64,
    next: Cell<u64>,
}

impl Schedule {
    pub(crate) fn new(start: Instant, per_second: u64) -> Self {
        Self { start, per_second: per_second.max(1), next: Cell::new(0) }
    }

    /// When the next request is due; each is given to one client only.
    pub(crate) fn take(&self) -> Instant {
        let number = self.next.get();
        self.next.set(number + 1);
        let (seconds, rest) = (number / self.per_second, number % self.per_second);
        let nanos = rest * 1_000_000_000 / self.per_second;
        self.start + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
    }
}

/// Waits for an instant.
pub(crate) trait Timer {
    /// Returns at `due`, at once if it has passed.
    async fn until(&self, due: Instant);
}

/// tokio's own, to a millisecond: for tests, whose time stands still.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct CoarseTimer;

#[cfg(test)]
impl Timer for CoarseTimer {
    async fn until(&self, due: Instant) {
        sleep_until(due).await;
    }
}

/// The kernel's, to some ten microseconds. One for each client.
#[derive(Debug)]
pub(crate) struct FineTimer(AsyncFd<KernelTimer>);

#[derive(Debug)]
struct KernelTimer(TimerFd);

impl AsRawFd for KernelTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FineTimer {
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(deprecated, reason = "its successor is unsafe; this one owns its descriptor")]
        let registered = AsyncFd::try_new(KernelTimer(timer))?;
        Ok(Self(registered))
    }
}

impl Timer for FineTimer {
    async fn until(&self, due: Instant) {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        let at = Expiration::OneShot(TimeSpec::from_duration(wait));
        if self.0.get_ref().0.set(at, TimerSetTimeFlags::empty()).is_err() {
            return sleep_until(due).await;
        }
        while let Ok(mut ready) = self.0.readable().await {
            let read = |fd: &AsyncFd<KernelTimer>| {
                let mut fired = [0; 8];
                Ok(nix::unistd::read(fd.get_ref().0.as_fd(), &mut fired)?)
            };
            if ready.try_io(read).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_hours_to_a_nanosecond() {
        let start = Instant::now();
        for rate in [1, 3, 7, 1000, 29_999] {
            let schedule = Schedule::new(start, rate);
            schedule.next.set(rate * 7200);
            assert_eq!(schedule.take() - start, Duration::from_secs(7200), "{rate}");
            let step = schedule.take() - start - Duration::from_secs(7200);
            assert_eq!(step, Duration::from_nanos(1_000_000_000 / rate), "{rate}");
        }
    }

    #[tokio::test]
    async fn the_fine_timer_is_never_early_and_rarely_a_millisecond_late() {
        let timer = FineTimer::new().unwrap();
        let mut late = Vec::new();
        for _ in 0..20 {
            let due = Instant::now() + Duration::from_micros(300);
            timer.until(due).await;
            let now = Instant::now();
            assert!(now >= due);
            late.push(now - due);
        }
        late.sort();
        assert!(late[5] < Duration::from_millis(1), "{late:?}");
        timer.until(Instant::now()).await;
    }
}
