//! The only place that reads the wall clock.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::sleep;

/// By how many microseconds this process's clock is wrong on purpose.
static ERROR_MICROS: AtomicI64 = AtomicI64::new(0);

/// Between two looks at the file that says how wrong.
const LOOK: Duration = Duration::from_millis(50);

/// Microseconds since the Unix epoch; 0 for a clock set before it.
#[must_use]
pub fn unix_micros() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "everything else takes a clock from here")]
    let now = SystemTime::now();
    let right = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    right.saturating_add_signed(ERROR_MICROS.load(Ordering::Relaxed))
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

/// Makes this process's clock wrong by what a file says, in milliseconds, and right while there is none. What
/// cannot be read changes nothing.
pub(crate) fn read_error(file: &Path) {
    let millis = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().ok(),
        Err(_) => Some(0i64),
    };
    let Some(millis) = millis else {
        tracing::error!(file = %file.display(), "not a number of milliseconds: the clock stays as it is");
        return;
    };
    let micros = millis.saturating_mul(1000);
    if ERROR_MICROS.swap(micros, Ordering::Relaxed) != micros {
        tracing::warn!(millis, "the clock is wrong on purpose");
    }
}

/// Goes on doing so.
pub(crate) async fn follow_error(file: PathBuf) {
    loop {
        sleep(LOOK).await;
        read_error(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test of the process-wide error: others would see it.
    #[test]
    fn a_clock_is_wrong_by_what_the_file_says_and_right_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let right = unix_micros();
        let error = || i64::try_from(unix_micros()).unwrap() - i64::try_from(right).unwrap();
        let second = 1_000_000;
        for (text, micros) in
            [("3600000\n", 3600 * second), ("-60000", -60 * second), ("x", -60 * second)]
        {
            std::fs::write(&file, text).unwrap();
            read_error(&file);
            // The test itself takes a while.
            assert!((error() - micros).abs() < 30 * second, "{text:?}: {}", error());
        }
        std::fs::remove_file(&file).unwrap();
        read_error(&file);
        assert!(error().abs() < 30 * second);
    }
}
