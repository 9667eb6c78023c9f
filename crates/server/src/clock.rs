//! The only place that reads the wall clock.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Microseconds since the Unix epoch; 0 for a clock set before it.
#[must_use]
pub fn unix_micros() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "everything else takes a clock from here")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Now, as certificates count time.
#[must_use]
pub fn moment() -> pki::Moment {
    pki::Moment(i64::try_from(unix_micros() / 1_000_000).unwrap_or(i64::MAX))
}

/// The clock as the store's proposers take it.
#[must_use]
pub fn store_clock() -> Arc<dyn Fn() -> store::Timestamp + Send + Sync> {
    Arc::new(|| store::Timestamp(unix_micros()))
}
