//! What this member has counted since it started, for its metrics.

use crate::proto::DESCRIPTION;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;
use tonic::Code;

/// Every message and service here, as described.
pub(crate) static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTION).expect("made by the build"));

/// Every gRPC code, in order, by the name that it has in etcd's metrics.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The calls of one method.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) started: AtomicU64,
    pub(crate) handled: [AtomicU64; CODES.len()],
    /// Nanoseconds from the head of each call to the end of its answer.
    pub(crate) handling_ns: AtomicU64,
}

impl Method {
    fn of(descriptor: &MethodDescriptor) -> Self {
        Self {
            service: descriptor.parent_service().full_name().to_owned(),
            name: descriptor.name().to_owned(),
            kind: match (descriptor.is_client_streaming(), descriptor.is_server_streaming()) {
                (false, false) => "unary",
                (true, false) => "client_stream",
                (false, true) => "server_stream",
                (true, true) => "bidi_stream",
            },
            started: AtomicU64::new(0),
            handled: Default::default(),
            handling_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn ended(&self, code: Code, begun: Instant) {
        add(&self.handling_ns, u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if let Some(handled) =
            usize::try_from(i32::from(code)).ok().and_then(|c| self.handled.get(c))
        {
            add(handled, 1);
        }
    }
}

/// A check of health, by the door through which it was asked for and its name.
pub(crate) type Check = (&'static str, &'static str);

#[derive(Debug)]
pub(crate) struct Counters {
    /// By path: `/SERVICE/METHOD`.
    pub(crate) methods: BTreeMap<String, Arc<Method>>,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) proposals_pending: Arc<AtomicU64>,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) watchers: Arc<AtomicU64>,
    /// Member id; 0 before the first.
    leader: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) health_successes: AtomicU64,
    pub(crate) health_failures: AtomicU64,
    checks: Mutex<BTreeMap<Check, CheckCount>>,
}

/// How often a check went well and badly.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CheckCount {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) last_succeeded: bool,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn new() -> Self {
        let methods = POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let method = |descriptor: MethodDescriptor| {
            let method = Method::of(&descriptor);
            (format!("/{}/{}", method.service, method.name), Arc::new(method))
        };
        Self {
            methods: methods.map(method).collect(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            proposals_pending: Arc::default(),
            proposals_failed: AtomicU64::new(0),
            watchers: Arc::default(),
            leader: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            health_successes: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            checks: Mutex::default(),
        }
    }

    /// Another leader than the last one is a change; that there is none is not.
    pub(crate) fn saw_leader(&self, leader: Option<u64>) {
        let Some(leader) = leader else { return };
        if read(&self.leader) != leader && self.leader.swap(leader, Ordering::Relaxed) != leader {
            add(&self.leader_changes, 1);
        }
    }

    /// Counts a proposal while it is under way, and if it fails.
    pub(crate) async fn proposal<T, E>(
        &self,
        proposal: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut pending = Gauge::new(&self.proposals_pending);
        pending.set(1);
        let result = proposal.await;
        if result.is_err() {
            add(&self.proposals_failed, 1);
        }
        result
    }

    /// For one stream of watches.
    pub(crate) fn watchers(&self) -> Gauge {
        Gauge::new(&self.watchers)
    }

    pub(crate) fn checked(&self, check: Check, succeeded: bool) {
        let mut checks = self.lock_checks();
        let count = checks.entry(check).or_default();
        count.last_succeeded = succeeded;
        match succeeded {
            true => count.successes += 1,
            false => count.failures += 1,
        }
    }

    pub(crate) fn checks(&self) -> BTreeMap<Check, CheckCount> {
        self.lock_checks().clone()
    }

    fn lock_checks(&self) -> MutexGuard<'_, BTreeMap<Check, CheckCount>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part of a sum, which goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Gauge {
    sum: Arc<AtomicU64>,
    part: u64,
}

impl Gauge {
    fn new(sum: &Arc<AtomicU64>) -> Self {
        Self { sum: Arc::clone(sum), part: 0 }
    }

    pub(crate) fn set(&mut self, part: usize) {
        let part = part as u64;
        if part != self.part {
            // Modulo 2^64, so that a part that shrinks is added, too.
            self.sum.fetch_add(part.wrapping_sub(self.part), Ordering::Relaxed);
            self.part = part;
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_comes_back_after_nobody_is_no_change() {
        let counters = Counters::new();
        for leader in [None, Some(1), Some(1), None, Some(1), Some(2), Some(1)] {
            counters.saw_leader(leader);
        }
        assert_eq!(read(&counters.leader_changes), 3);
    }

    #[test]
    fn a_gauge_is_gone_when_it_is_dropped() {
        let sum = Arc::new(AtomicU64::new(0));
        let (mut one, mut other) = (Gauge::new(&sum), Gauge::new(&sum));
        one.set(5);
        other.set(3);
        one.set(1);
        assert_eq!(read(&sum), 4);
        drop(one);
        assert_eq!(read(&sum), 3);
    }
}
