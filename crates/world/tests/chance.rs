//! On a thread that was taken over, everything that is drawn or read from a clock is the simulator's.

use rand::TryRngCore as _;
use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    thread,
    time::{Duration, Instant, SystemTime},
};
use world::host::{Clocks, set_clocks, take_over};

/// One of each, on a thread that has drawn nothing.
fn drawn(seed: u64) -> Vec<(&'static str, u64)> {
    let draw = move || {
        let _seized = take_over(seed, Clocks::default());
        let (first, _) = uuid::Uuid::new_v4().as_u64_pair();
        vec![
            ("keys of a map", RandomState::new().hash_one(1_u8)),
            ("rand", rand::random()),
            ("uuid", first),
            ("rand's source", rand::rngs::OsRng.try_next_u64().expect("chance")),
        ]
    };
    thread::spawn(draw).join().expect("draws")
}

#[test]
fn what_is_drawn_is_the_seeds() {
    let (one, again, other) = (drawn(1), drawn(1), drawn(2));
    for ((one, again), other) in one.iter().zip(&again).zip(&other) {
        assert_eq!(one, again, "the same seed");
        assert_ne!(one, other, "another seed");
    }
    let values: HashSet<u64> = one.iter().map(|(_, value)| *value).collect();
    assert_eq!(values.len(), one.len(), "one after the other");
}

#[expect(clippy::disallowed_methods, reason = "is about them")]
#[test]
fn chance_and_clocks_are_the_systems_on_other_threads() {
    let _seized = take_over(1, Clocks::default());
    let real = || (RandomState::new().hash_one(1_u8), SystemTime::now());
    let (one, now) = thread::spawn(real).join().unwrap();
    let (other, _) = thread::spawn(real).join().unwrap();
    assert_ne!(one, other);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(since > Duration::from_secs(1_600_000_000), "{since:?}");
}

#[expect(clippy::disallowed_methods, reason = "is about them")]
#[test]
fn clocks_stand_still_until_they_are_set() {
    let clocks = |seconds: u64| Clocks {
        monotonic: Duration::from_secs(1_000 + seconds),
        wall: Duration::from_secs(1_900_000_000 - seconds),
    };
    let _seized = take_over(1, clocks(0));
    let (begun, now) = (Instant::now(), SystemTime::now());
    assert_eq!((begun.elapsed(), now), (Duration::ZERO, SystemTime::now()));
    assert_eq!(now.duration_since(SystemTime::UNIX_EPOCH).unwrap(), clocks(0).wall);
    set_clocks(clocks(5));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(now.duration_since(SystemTime::now()).unwrap(), Duration::from_secs(5));
}

#[expect(clippy::disallowed_methods, reason = "is about them")]
#[test]
fn a_thread_that_was_given_back_has_the_systems_chance_and_clocks() {
    drop(take_over(1, Clocks::default()));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(now > Duration::from_secs(1_600_000_000), "{now:?}");
    set_clocks(Clocks::default());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(now > Duration::from_secs(1_600_000_000), "{now:?}");
}
