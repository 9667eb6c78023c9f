//! Clients with a session: a lease with several keys, renewed in time as long as anybody answers, as locks, elections
//! and nodes have it.

use crate::{
    client::{Asker, Shared},
    history::{Call, Outcome},
    plan::{Plan, chance, derive},
};
use rand::{Rng as _, rngs::StdRng};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::sleep;

/// For an answer: a replica that says nothing must not cost the lease.
const PATIENCE: Duration = Duration::from_millis(400);

/// Opens one session after the other until the world says that it is over.
pub(crate) async fn hold(plan: Arc<Plan>, client: u64, shared: Shared) -> String {
    let mut holder = Holder {
        asker: Asker::new(&plan, client, PATIENCE),
        chance: chance(plan.seed, "session", client),
        plan,
        client,
        shared,
        number: 0,
    };
    while !holder.is_over() {
        holder.session().await;
        holder.pause(1..500).await;
    }
    "done".to_owned()
}

struct Holder {
    asker: Asker,
    chance: StdRng,
    plan: Arc<Plan>,
    client: u64,
    shared: Shared,
    /// Of requests so far.
    number: u64,
}

impl Holder {
    fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.chance.random_range(millis))).await;
    }

    /// At any replica, one after the other, until one answers or it is over.
    async fn ask(&mut self, call: Call, tries: usize) -> Outcome {
        let mut last = Outcome::Failed("nobody was asked".to_owned());
        for _ in 0..tries {
            let replica = self.chance.random_range(0..self.plan.replicas);
            last = self.asker.ask(replica, call.clone(), &self.shared).await;
            if !matches!(last, Outcome::Unknown(_)) || self.is_over() {
                break;
            }
        }
        last
    }

    /// A lease, its keys, and renewals until it is lost, or given up.
    async fn session(&mut self) {
        self.number += 1;
        let id = derive(self.plan.seed, "session's lease", self.client << 32 | self.number);
        let lease = i64::try_from(id >> 2).unwrap_or(1);
        let ttl = self.chance.random_range(1..=4);
        // Once only: a lease that was asked for twice says nothing of how long it lives.
        if !matches!(self.ask(Call::Grant { lease, ttl }, 1).await, Outcome::Ok(_)) {
            return;
        }
        let keys = self.chance.random_range(1..=3);
        for number in 0..keys {
            let key = format!("key-of-{}-{number}", self.client);
            let value = format!("{}-{}-{number}", self.client, self.number);
            self.ask(Call::Put { key, value, lease }, 1).await;
        }
        let renewals = self.chance.random_range(0..40);
        for _ in 0..renewals {
            self.pause(100..u64::try_from(ttl).unwrap_or(1) * 400).await;
            if self.is_over() {
                return;
            }
            match self.ask(Call::KeepAlive { lease }, 3).await {
                Outcome::Ok(answer) if answer.ttl == 0 => return,
                Outcome::Failed(_) => return,
                Outcome::Ok(_) | Outcome::Unknown(_) => {}
            }
        }
        // Some end it themselves, the others are not heard of any more.
        if self.chance.random_bool(0.3) {
            self.ask(Call::Revoke { lease }, 1).await;
        }
    }
}
