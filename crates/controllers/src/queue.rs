//! A queue of keys to bring up to date (CTL-2).

use client::informer::{Change, Informer, Key};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{
        Notify,
        broadcast::{Receiver, error::RecvError},
    },
    time::{Instant, sleep_until},
};

const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);
/// Retries of all keys together: one each interval, and so many at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_BURST: u32 = 100;

/// Holds each key once; a key that is being worked on comes again afterwards, never beside it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    queued: BTreeSet<Key>,
    running: BTreeSet<Key>,
    /// Added while running.
    again: BTreeSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    failures: BTreeMap<Key, u32>,
    /// When the bucket of retries is full again.
    bucket: Option<Instant>,
}

impl State {
    fn add(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The next key, or when to look again.
    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.add(key);
        }
        let Some(key) = self.ready.pop_front() else {
            return Err(self.later.first().map(|(at, _)| *at));
        };
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Ok(key)
    }

    fn done(&mut self, key: &Key, well: bool, now: Instant) {
        self.running.remove(key);
        if well {
            self.failures.remove(key);
        } else {
            let failures = self.failures.entry(key.clone()).or_default();
            let own = RETRY_MIN.saturating_mul(2_u32.saturating_pow(*failures)).min(RETRY_MAX);
            *failures = failures.saturating_add(1);
            let full = self.bucket.map_or(now, |full| full.max(now)) + RETRY_INTERVAL;
            self.bucket = Some(full);
            let common = (full - now).saturating_sub(RETRY_INTERVAL * RETRY_BURST);
            self.later.insert((now + own.max(common), key.clone()));
        }
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, key: Key) {
        self.state().add(key);
        self.shared.wake.notify_one();
    }

    /// Not before `at`.
    pub(crate) fn add_at(&self, key: Key, at: Instant) {
        self.state().later.insert((at, key));
        self.shared.wake.notify_one();
    }

    async fn next(&self) -> Key {
        loop {
            let woken = self.shared.wake.notified();
            let until = {
                let mut state = self.state();
                match state.take(Instant::now()) {
                    Ok(key) => {
                        if !state.ready.is_empty() {
                            self.shared.wake.notify_one();
                        }
                        return key;
                    }
                    Err(until) => until,
                }
            };
            match until {
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(at) => {}
                },
                None => woken.await,
            }
        }
    }

    /// Brings keys up to date for ever, up to `workers` of them at once. A key that fails comes again
    /// after a while that doubles.
    pub(crate) async fn work<E, F>(&self, workers: usize, sync: impl Fn(Key) -> F)
    where
        E: std::fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        futures::future::join_all((0..workers).map(|_| self.worker(&sync))).await;
    }

    async fn worker<E, F>(&self, sync: &impl Fn(Key) -> F)
    where
        E: std::fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        loop {
            let key = self.next().await;
            let result = sync(key.clone()).await;
            if let Err(error) = &result {
                let Key { namespace, name } = &key;
                tracing::debug!(namespace, name, %error, "not brought up to date; again later");
            }
            self.state().done(&key, result.is_ok(), Instant::now());
            self.shared.wake.notify_one();
        }
    }

    /// Adds what every change concerns; `all` adds everything, at first and when changes were missed.
    pub(crate) async fn feed<K>(
        &self,
        informer: &Informer<K>,
        concerns: impl Fn(&Change<K>) -> Vec<Key>,
        all: impl Fn() -> Vec<Key>,
    ) where
        K: api::k8s_openapi::Resource
            + api::k8s_openapi::Metadata<Ty = api::core::ObjectMeta>
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let mut changes = informer.subscribe();
        informer.synced().await;
        all().into_iter().for_each(|key| self.add(key));
        loop {
            match next(&mut changes).await {
                Some(change) => concerns(&change).into_iter().for_each(|key| self.add(key)),
                None => all().into_iter().for_each(|key| self.add(key)),
            }
        }
    }
}

/// `None` when changes were missed.
async fn next<K>(changes: &mut Receiver<Change<K>>) -> Option<Change<K>> {
    match changes.recv().await {
        Ok(change) => Some(change),
        Err(RecvError::Lagged(_)) => None,
        // The informer ends with the shutdown, which is seen beside this.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: String::new(), name: name.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_held_once_and_never_worked_on_twice_at_once() {
        // CTL-2
        let now = Instant::now();
        let mut state = State::default();
        state.add(key("a"));
        state.add(key("a"));
        assert_eq!(state.take(now), Ok(key("a")));
        assert_eq!(state.take(now), Err(None));
        state.add(key("a"));
        state.add(key("a"));
        assert_eq!(state.take(now), Err(None), "it is being worked on");
        state.done(&key("a"), true, now);
        assert_eq!(state.take(now), Ok(key("a")), "what came meanwhile");
        state.done(&key("a"), true, now);
        assert_eq!(state.take(now), Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_waits_twice_as_long_each_time_until_it_succeeds() {
        // CTL-2
        let mut now = Instant::now();
        let mut state = State::default();
        state.add(key("a"));
        for wait in [5, 10, 20, 40] {
            assert_eq!(state.take(now), Ok(key("a")));
            state.done(&key("a"), false, now);
            let at = now + Duration::from_millis(wait);
            assert_eq!(state.take(now), Err(Some(at)));
            now = at;
        }
        assert_eq!(state.take(now), Ok(key("a")));
        state.done(&key("a"), true, now);
        state.add(key("a"));
        assert_eq!(state.take(now), Ok(key("a")));
        state.done(&key("a"), false, now);
        assert_eq!(state.take(now), Err(Some(now + RETRY_MIN)), "success resets the delay");
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_share_one_bucket() {
        // CTL-2: ten a second after the first hundred.
        let now = Instant::now();
        let mut state = State::default();
        for i in 0..110 {
            state.add(key(&i.to_string()));
            let taken = state.take(now).unwrap();
            state.done(&taken, false, now);
        }
        let last = state.later.last().unwrap().0;
        assert_eq!(last, now + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn workers_run_beside_each_other_and_each_key_alone() {
        // CTL-2
        let queue = Queue::default();
        let running = Mutex::new(BTreeMap::<String, usize>::new());
        let most = Mutex::new(0);
        let done = Mutex::new(0);
        for i in 0..20 {
            queue.add(key(&format!("k{}", i % 4)));
        }
        let (running, most, done) = (&running, &most, &done);
        let sync = |key: Key| async move {
            {
                let mut running = running.lock().unwrap();
                *running.entry(key.name.clone()).or_default() += 1;
                assert_eq!(running[&key.name], 1, "one key, two workers");
                let mut most = most.lock().unwrap();
                *most = (*most).max(running.values().sum::<usize>());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            *running.lock().unwrap().get_mut(&key.name).unwrap() -= 1;
            *done.lock().unwrap() += 1;
            Ok::<(), std::fmt::Error>(())
        };
        tokio::select! {
            () = queue.work(3, sync) => {}
            () = tokio::time::sleep(Duration::from_secs(10)) => {}
        }
        assert_eq!((*most.lock().unwrap(), *done.lock().unwrap()), (3, 4));
    }
}
