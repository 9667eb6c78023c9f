//! Whether an image is fetched before a container starts: a function of policy, presence and failures.

use std::time::Duration;
use tokio::time::Instant;

const WAIT_MIN: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// A failure is forgotten after this long without another one.
const QUIET: Duration = Duration::from_secs(600);

/// The last failure of one image for one Pod (BKO-2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// No other try before this has passed.
    pub wait: Duration,
    /// When it failed.
    pub at: Instant,
    /// How.
    pub error: String,
}

impl Failure {
    /// A failure after what failed before.
    #[must_use]
    pub fn after(before: Option<&Self>, error: String, now: Instant) -> Self {
        let recent = before.filter(|before| now.duration_since(before.at) <= QUIET);
        let wait = recent.map_or(WAIT_MIN, |before| (before.wait * 2).min(WAIT_MAX));
        Self { wait, at: now, error }
    }
}

/// What to do about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// It is here: start with it.
    Use,
    /// Fetch it.
    Fetch,
    /// It is not here and must not be fetched: `ErrImageNeverPull`.
    Never,
    /// Not before then: `ImagePullBackOff`.
    Wait(Instant),
}

/// Decides by `imagePullPolicy`.
#[must_use]
pub fn decide(policy: &str, present: bool, failure: Option<&Failure>, now: Instant) -> Pull {
    match (policy, present) {
        ("Never", false) => Pull::Never,
        ("Never", true) | ("IfNotPresent", true) => Pull::Use,
        _ => match failure.map(|failure| failure.at + failure.wait) {
            Some(until) if now < until => Pull::Wait(until),
            _ => Pull::Fetch,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_policy_says_whether_an_image_is_fetched() {
        // §3.2, §1.2 imagePullPolicy
        let now = Instant::now();
        let failure = Failure::after(None, "no".to_owned(), now);
        let until = now + WAIT_MIN;
        for (policy, present, failure, want) in [
            ("Always", true, None, Pull::Fetch),
            ("Always", false, None, Pull::Fetch),
            ("IfNotPresent", true, None, Pull::Use),
            ("IfNotPresent", true, Some(&failure), Pull::Use),
            ("IfNotPresent", false, None, Pull::Fetch),
            ("Never", true, None, Pull::Use),
            ("Never", false, None, Pull::Never),
            ("Always", true, Some(&failure), Pull::Wait(until)),
            ("IfNotPresent", false, Some(&failure), Pull::Wait(until)),
        ] {
            let decided = decide(policy, present, failure, now);
            assert_eq!(decided, want, "{policy} {present} {failure:?}");
        }
        assert_eq!(decide("Always", true, Some(&failure), until), Pull::Fetch, "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_are_forgotten_when_it_was_quiet() {
        // BKO-2
        let mut now = Instant::now();
        let mut failure = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let next = Failure::after(failure.as_ref(), "no".to_owned(), now);
            waits.push(next.wait.as_secs());
            now += next.wait;
            failure = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        let later = Failure::after(failure.as_ref(), "no".to_owned(), now + QUIET);
        assert_eq!(later.wait, WAIT_MIN);
    }
}
