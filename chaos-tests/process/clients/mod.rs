//! Programs that others write their clients with, against a real cluster: what they read, write and follow.

mod balancer;
mod churn;
mod copies;
#[cfg(feature = "kube-client")]
mod kube_rs;
mod ledger;
mod python;
mod resumed;
mod stream;

use std::hash::{BuildHasher as _, RandomState};

/// Numbers by chance, of which a test says the first.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        // Splitmix: good enough to choose from a few.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let at = self.below(all.len() as u64);
        &all[usize::try_from(at).unwrap()]
    }
}

/// A number from the environment, or this one.
fn setting(name: &str, usual: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration")]
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")))
}
