//! Draws requests, and holds each answer against what may be. It does no I/O: a test can feed it any history.

mod answers;

use super::{
    history::{History, describe},
    keys::{Change, Event, Found, KEYS, Key, LEASED, Revision, State, Values, Write},
    lease::Lease,
    ledger::{Account, Quiet},
    request::{Answer, Asked, NOT_FOUND, Request, TTL_SECONDS, refusal},
    sequence::Sequence,
    violation::Violation,
};
use crate::wire::CallError;
use etcd::proto::mvccpb::KeyValue;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::{collections::VecDeque, ops::Range, time::Duration};
use tokio::time::Instant;

/// Violations that a report names; the others are counted.
const NAMED: usize = 100;
/// Keys drawn before it is given up to find one that nobody uses.
const DRAWS: usize = 16;
/// Keys last written: what is read soon after it was written shows most.
const RECENT: usize = 64;
/// Keys ahead of a page's first whose state is noted.
const AHEAD: u32 = 100;

/// What has come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something was written.
    Wrote,
    /// It was answered.
    Done,
    /// It certainly did not happen.
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Checker {
    rng: SmallRng,
    /// Keys that are drawn, with and without leases.
    leased: Range<u32>,
    plain: Range<u32>,
    pub(super) values: Values,
    accounts: Vec<Account>,
    leases: Vec<Lease>,
    pub(super) history: History,
    pub(super) sequence: Sequence,
    /// The largest revision of a linearizable answer.
    seen: Revision,
    /// The largest revision that a compaction was asked for.
    pub(super) compacted: Revision,
    writes: u64,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    recent: VecDeque<Key>,
    pub(super) violations: Vec<Violation>,
    /// With those that are not named.
    pub(super) violations_count: u64,
}

impl Checker {
    pub(super) fn new(seed: u64, watches: usize) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            leased: 0..LEASED,
            plain: LEASED..KEYS,
            values: Values::default(),
            accounts: (0..KEYS).map(|_| Account::default()).collect(),
            leases: (0..LEASED).map(|_| Lease::Free).collect(),
            history: History::default(),
            sequence: Sequence::new(watches),
            seen: Revision::default(),
            compacted: Revision::default(),
            writes: 0,
            acknowledged: 0,
            recent: VecDeque::new(),
            violations: Vec::new(),
            violations_count: 0,
        }
    }

    pub(super) fn violated(&mut self, violation: Violation) {
        self.violations_count += 1;
        if self.violations.len() < NAMED {
            self.violations.push(violation);
        }
    }

    fn hold(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            self.violated(violation);
        }
    }

    fn account(&mut self, key: Key) -> &mut Account {
        self.accounts.get_mut(key.0 as usize).expect("keys are below KEYS")
    }

    fn lease(&mut self, key: Key) -> &mut Lease {
        self.leases.get_mut(key.0 as usize).expect("only leased keys have one")
    }

    fn next_write(&mut self) -> Write {
        self.writes += 1;
        Write(self.writes)
    }

    /// The largest revision of a linearizable answer.
    pub(super) fn seen(&self) -> Revision {
        self.seen
    }

    /// Draws a request of the mix and takes its key; none if no key is free.
    pub(super) fn draw(&mut self, now: Instant) -> Option<Request> {
        match self.rng.random_range(0..100) {
            0..30 => {
                let (key, _) = self.take(self.plain.clone(), now)?;
                let write = self.next_write();
                Some(self.send(key, Asked::Put { write }, now))
            }
            30..38 => {
                let (key, _) = self.take(self.plain.clone(), now)?;
                Some(self.send(key, Asked::Delete, now))
            }
            38..50 => {
                let (key, known) = self.take(self.plain.clone(), now)?;
                let compared = match known {
                    State::Absent => Revision::default(),
                    State::Present { mod_revision, .. } => mod_revision,
                };
                let write = self.next_write();
                Some(self.send(key, Asked::Txn { write, compared }, now))
            }
            50..70 => {
                let key = self.take_to_read(now)?;
                Some(self.send(key, Asked::Get { serializable: false }, now))
            }
            70..80 => {
                let keys = self.any();
                let key = Key(self.rng.random_range(keys));
                Some(self.send(key, Asked::Get { serializable: true }, now))
            }
            80..85 => {
                let keys = self.any();
                let from = self.rng.random_range(keys);
                let linearizable = self.rng.random_bool(0.5);
                let quiet = linearizable.then(|| self.quiet(from..KEYS.min(from + AHEAD)));
                Some(self.send(Key(from), Asked::Page { quiet }, now))
            }
            _ => {
                let (key, _) = self.take(self.leased.clone(), now)?;
                let (write, lease) = (self.next_write(), self.rng.random_range(1..i64::MAX));
                let asked = self.lease(key).next_step(write, lease);
                Some(self.send(key, asked, now))
            }
        }
    }

    fn take(&mut self, keys: Range<u32>, now: Instant) -> Option<(Key, State)> {
        (0..DRAWS).find_map(|_| {
            let key = Key(self.rng.random_range(keys.clone()));
            Some((key, self.take_one(key, now)?))
        })
    }

    pub(super) fn take_one(&mut self, key: Key, now: Instant) -> Option<State> {
        let watched = self.history.now(key).as_ref().map_or(State::Absent, Found::state);
        self.account(key).take(watched, now)
    }

    fn take_to_read(&mut self, now: Instant) -> Option<Key> {
        if !self.recent.is_empty() && self.rng.random_bool(0.5) {
            let index = self.rng.random_range(0..self.recent.len());
            let recent = self.recent.get(index).copied();
            if let Some(key) = recent.filter(|key| self.take_one(*key, now).is_some()) {
                return Some(key);
            }
        }
        let keys = self.any();
        self.take(keys, now).map(|(key, _)| key)
    }

    fn any(&mut self) -> Range<u32> {
        if self.rng.random_bool(0.1) { self.leased.clone() } else { self.plain.clone() }
    }

    fn quiet(&self, keys: Range<u32>) -> Vec<(Key, Quiet)> {
        let accounts = keys.filter_map(|key| Some((Key(key), self.accounts.get(key as usize)?)));
        accounts.filter_map(|(key, account)| Some((key, account.quiet()?))).collect()
    }

    pub(super) fn send(&mut self, key: Key, asked: Asked, now: Instant) -> Request {
        let request = Request { key, asked, seen: self.seen, at: now };
        if let Some(change) = request.change() {
            self.history.sent(key, change, now);
        }
        request
    }

    /// Learns what has come of a request.
    pub(super) fn end(
        &mut self,
        request: &Request,
        result: Result<Answer, CallError>,
        now: Instant,
    ) -> Outcome {
        let key = request.key;
        let outcome = match result {
            Ok(answer) => self.answered(request, &answer, now),
            Err(error) => match refusal(&error) {
                Some(code) => {
                    self.refused(request, code == NOT_FOUND, now);
                    Outcome::Refused
                }
                None => {
                    self.unanswered(request, now);
                    Outcome::Unknown
                }
            },
        };
        if request.takes_its_key() {
            self.account(key).give_back();
        }
        outcome
    }

    fn refused(&mut self, request: &Request, not_found: bool, now: Instant) {
        let key = request.key;
        if let Asked::Revoke { .. } = request.asked {
            if not_found {
                self.account(key).lease_ended(Revision::default());
            }
            // An earlier try may have taken the key with it.
            let unknown = self.history.unknown(key, Change::Delete, now);
            self.hold(unknown);
        } else if let Some(change) = request.change() {
            let refused = self.history.refused(key, change);
            self.hold(refused);
        }
        if not_found
            && key.is_leased()
            && let Some((lease, since)) = self.lease(key).not_found(request)
        {
            let age = now.duration_since(since);
            if age < Duration::from_secs(TTL_SECONDS.unsigned_abs()) {
                let (ttl_seconds, age_seconds) = (TTL_SECONDS, age.as_secs());
                self.violated(Violation::LeaseGone { key, lease, ttl_seconds, age_seconds });
            }
        }
    }

    fn unanswered(&mut self, request: &Request, now: Instant) {
        let key = request.key;
        if let Some(change) = request.change() {
            self.account(key).unknown(change, now);
            let unknown = self.history.unknown(key, change, now);
            self.hold(unknown);
        }
        if key.is_leased() {
            self.lease(key).unanswered(request);
        }
    }

    /// Learns what a watch delivers.
    pub(super) fn delivered(&mut self, watch: usize, event: Event) {
        match self.sequence.deliver(watch, &event) {
            Ok(true) => {
                let mut wrong = Vec::new();
                self.history.deliver(event, &mut wrong);
                wrong.into_iter().for_each(|violation| self.violated(violation));
            }
            Ok(false) => {}
            Err(violation) => self.violated(violation),
        }
    }

    /// Learns that a watch is told that what comes next is compacted.
    pub(super) fn compacted(&mut self, watch: usize, compacted: Revision) {
        let behind = self.sequence.fall_behind(watch, compacted, self.compacted);
        self.hold(behind);
    }

    /// Nothing more will come after `last`.
    pub(super) fn watched_until(&mut self, last: Revision) {
        let mut wrong = Vec::new();
        self.history.pass(Revision(last.0 + 1), &mut wrong);
        for (watch, delivered) in self.sequence.watches().iter().enumerate() {
            if delivered.last < last {
                wrong.push(Violation::Behind { watch, last: delivered.last, until: last });
            }
        }
        wrong.into_iter().for_each(|violation| self.violated(violation));
    }

    /// Holds all keys, as they were read at a revision, against answers and watches.
    pub(super) fn read_back(&mut self, kvs: &[KeyValue], at: Revision) {
        let mut all: Vec<Option<Found>> = vec![None; KEYS as usize];
        for kv in kvs {
            if let Some(found) = self.read(kv, at)
                && let Some(slot) = all.get_mut(found.key.0 as usize)
            {
                *slot = Some(found);
            }
        }
        for (key, found) in (0..KEYS).map(Key).zip(all) {
            let state = found.as_ref().map_or(State::Absent, Found::state);
            let explained = self.account(key).found(key, state, at);
            self.hold(explained);
            let watched = self.history.now(key);
            if watched != found {
                let (watched, found) = (describe(watched), describe(found));
                self.violated(Violation::NotAsWatched { key, at, watched, found });
            }
        }
    }
}

#[cfg(test)]
mod tests;
