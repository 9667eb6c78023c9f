//! Answers to earlier requests, so that a repeat changes nothing (FEN-33).
//!
//! Bounded in every direction. What goes first is the payload of old answers, then old answers, then
//! clients that were silent longest; of those it is still remembered for a while that they were
//! there. Whoever asks again for an answer that is gone is told so, and never served twice.

use crate::types::{Applied, KeyValue, Outcome, Rejection, RequestId, TxnOpResult, TxnResult};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// How much is remembered. Constants of the format: members that differ in them would diverge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// Answers kept for each client. A client has at most this many requests under way at a time.
    answers_per_client: u64,
    /// Answers of all clients together, which take some 300 bytes each. A few times as many as the members
    /// of a large cluster use: every start of a member leaves the answers to the process before it behind.
    answers: u64,
    /// Clients with answers.
    clients: usize,
    /// Clients without, of which only the last sequence is known. A repeat of a client that is not
    /// among these either would be carried out again: so many others have come since.
    silent_clients: usize,
    /// Keys and values in all answers together. Beyond it the oldest answers keep only what
    /// happened, see [`shorten`].
    payload_bytes: u64,
}

const LIMITS: Limits = Limits {
    answers_per_client: 1024,
    answers: 64 << 10,
    clients: 1024,
    silent_clients: 64 << 10,
    payload_bytes: 16 << 20,
};

/// The table. Part of the state, so that every member repeats the same answers, but not of what readers
/// are shown: it changes with every command, and costs least where nobody else holds it.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    limits: Limits,
    clients: BTreeMap<u64, Client>,
    /// Of all clients.
    answers: u64,
    silent: BTreeMap<u64, ClientAnswers>,
    /// Every answer with a payload, oldest first. Some are gone: see [`Requests::shorten_oldest`].
    payloads: VecDeque<Payload>,
    payload_bytes: u64,
    /// Counts recorded answers: the table's clock.
    tick: u64,
}

#[derive(Debug, Clone, Default)]
struct Client {
    known: ClientAnswers,
    /// By sequence, which mostly ascends as they come.
    answers: VecDeque<(u64, Arc<Answer>)>,
}

impl Client {
    /// Where the answer to `sequence` is, or would be.
    fn place(&self, sequence: u64) -> Result<usize, usize> {
        match self.answers.back() {
            Some((last, _)) if *last < sequence => Err(self.answers.len()),
            Some(_) | None => self.answers.binary_search_by_key(&sequence, |(s, _)| *s),
        }
    }

    fn answer(&self, sequence: u64) -> Option<&Arc<Answer>> {
        self.place(sequence).ok().and_then(|at| self.answers.get(at)).map(|(_, answer)| answer)
    }
}

#[derive(Debug, Clone, Copy)]
struct Payload {
    /// Of the answer.
    tick: u64,
    client: u64,
    sequence: u64,
    bytes: u64,
}

/// One remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    tick: u64,
    applied: Applied,
}

/// What is known of one client beside its answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAnswers {
    /// When it last asked.
    tick: u64,
    /// Answers kept.
    kept: u64,
    /// The largest sequence answered.
    highest: u64,
    /// Sequences at or below it have no answer any more, unless they are kept.
    forgotten: u64,
}

impl Default for Requests {
    fn default() -> Self {
        Self::new(LIMITS)
    }
}

impl Requests {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            clients: BTreeMap::new(),
            answers: 0,
            silent: BTreeMap::new(),
            payloads: VecDeque::new(),
            payload_bytes: 0,
            tick: 0,
        }
    }

    /// The first answer to a request, `None` to a new one.
    ///
    /// # Errors
    /// It may have been carried out, but the answer is [`Rejection::Forgotten`].
    pub(super) fn look_up(&self, request: RequestId) -> Result<Option<Applied>, Rejection> {
        let RequestId { client, sequence } = request;
        if let Some(client) = self.clients.get(&client) {
            if sequence > client.known.highest {
                return Ok(None);
            }
            if let Some(answer) = client.answer(sequence) {
                return Ok(Some(answer.applied.clone()));
            }
            if sequence > client.known.forgotten {
                // Overtaken by a later one of the same client.
                return Ok(None);
            }
            return Err(Rejection::Forgotten { sequence });
        }
        match self.silent.get(&client) {
            Some(known) if sequence <= known.highest => Err(Rejection::Forgotten { sequence }),
            Some(_) | None => Ok(None),
        }
    }

    pub(super) fn record(&mut self, request: RequestId, applied: &Applied) {
        let RequestId { client: id, sequence } = request;
        self.tick += 1;
        let tick = self.tick;
        let silent = &mut self.silent;
        let client = self.clients.entry(id).or_insert_with(|| Client {
            known: returning(silent.remove(&id)),
            ..Client::default()
        });
        client.known.tick = tick;
        client.known.highest = client.known.highest.max(sequence);
        let answer = Arc::new(Answer { tick, applied: applied.clone() });
        let bytes = payload_bytes(applied);
        if let Err(at) = client.place(sequence) {
            client.answers.insert(at, (sequence, answer));
            client.known.kept += 1;
            self.answers += 1;
        }
        let mut dropped = None;
        if client.known.kept > self.limits.answers_per_client {
            dropped = client.answers.pop_front();
            client.known.kept -= 1;
            self.answers -= 1;
        }
        if let Some((oldest, _)) = &dropped {
            client.known.forgotten = client.known.forgotten.max(*oldest);
        }
        if bytes > 0 {
            self.payloads.push_back(Payload { tick, client: id, sequence, bytes });
            self.payload_bytes += bytes;
        }
        if let Some((_, answer)) = dropped {
            self.payload_bytes -= payload_bytes(&answer.applied);
        }
        self.silence_oldest();
        self.shorten_oldest();
    }

    /// Only a client that comes anew makes one too many, and who goes mostly takes many answers along: looking
    /// at all of them is rare.
    fn silence_oldest(&mut self) {
        while (self.clients.len() > self.limits.clients || self.answers > self.limits.answers)
            && self.clients.len() > 1
            && let Some(id) = oldest(self.clients.iter().map(|(id, c)| (*id, c.known.tick)))
            && let Some(client) = self.clients.remove(&id)
        {
            let payloads = client.answers.iter().map(|(_, a)| payload_bytes(&a.applied));
            self.payload_bytes -= payloads.sum::<u64>();
            self.answers -= client.known.kept;
            self.silent.insert(id, ClientAnswers { kept: 0, ..client.known });
        }
        if self.silent.len() > self.limits.silent_clients
            && let Some(id) = oldest(self.silent.iter().map(|(id, known)| (*id, known.tick)))
        {
            self.silent.remove(&id);
        }
    }

    fn shorten_oldest(&mut self) {
        while self.payload_bytes > self.limits.payload_bytes
            && let Some(payload) = self.payloads.pop_front()
        {
            let Payload { tick, client, sequence, bytes } = payload;
            let Some(client) = self.clients.get_mut(&client) else { continue };
            let Ok(at) = client.place(sequence) else { continue };
            if let Some((_, answer)) = client.answers.get_mut(at)
                && answer.tick == tick
            {
                shorten(&mut Arc::make_mut(answer).applied);
                self.payload_bytes -= bytes;
            }
        }
        // What answers took along that went by themselves must not pile up before the limit is met.
        while let Some(payload) = self.payloads.front()
            && self.is_gone(payload)
        {
            self.payloads.pop_front();
        }
    }

    fn is_gone(&self, payload: &Payload) -> bool {
        let answer = self.clients.get(&payload.client).and_then(|c| c.answer(payload.sequence));
        answer.is_none_or(|answer| answer.tick != payload.tick)
    }

    /// Every client with its answers by sequence, for a snapshot.
    pub(super) fn export(&self) -> impl Iterator<Item = (u64, ClientAnswers, Vec<(u64, Answer)>)> {
        let with_answers = self.clients.iter().map(|(id, client)| {
            let answers = client.answers.iter().map(|(sequence, a)| (*sequence, (**a).clone()));
            (*id, client.known, answers.collect())
        });
        let silent = self.silent.iter().map(|(id, known)| (*id, *known, Vec::new()));
        with_answers.chain(silent)
    }

    pub(super) fn restore(&mut self, id: u64, known: ClientAnswers, answers: Vec<(u64, Answer)>) {
        self.tick = self.tick.max(known.tick);
        if answers.is_empty() {
            self.silent.insert(id, known);
            return;
        }
        for (sequence, answer) in &answers {
            let bytes = payload_bytes(&answer.applied);
            if bytes > 0 {
                let payload = Payload { tick: answer.tick, client: id, sequence: *sequence, bytes };
                self.payloads.push_back(payload);
                self.payload_bytes += bytes;
            }
        }
        let answers: VecDeque<_> =
            answers.into_iter().map(|(s, answer)| (s, Arc::new(answer))).collect();
        self.answers += answers.len() as u64;
        self.clients.insert(id, Client { known, answers });
    }
}

impl Requests {
    /// Everything has been restored.
    pub(super) fn restored(&mut self) {
        self.payloads.make_contiguous().sort_unstable_by_key(|payload| payload.tick);
    }
}

/// What stays known of a client that had no answers any more and asks again.
fn returning(silent: Option<ClientAnswers>) -> ClientAnswers {
    silent.map_or_else(ClientAnswers::default, |known| ClientAnswers {
        kept: 0,
        forgotten: known.highest,
        ..known
    })
}

fn oldest(clients: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    clients.min_by_key(|(_, tick)| *tick).map(|(id, _)| id)
}

fn payload_bytes(applied: &Applied) -> u64 {
    fn pairs(kvs: &[KeyValue]) -> u64 {
        kvs.iter().map(KeyValue::bytes).sum()
    }
    fn txn(result: &TxnResult) -> u64 {
        let step = |step: &TxnOpResult| match step {
            TxnOpResult::Range(range) => pairs(&range.kvs),
            TxnOpResult::Put(prev) => prev.as_ref().map_or(0, KeyValue::bytes),
            TxnOpResult::DeleteRange { prev_kvs, .. } => pairs(prev_kvs),
            TxnOpResult::Txn(nested) => txn(nested),
        };
        result.results.iter().map(step).sum()
    }
    match &applied.outcome {
        Ok(Outcome::Txn(result)) => txn(result),
        Ok(Outcome::Atomic(results)) => results.iter().map(|(_, result)| txn(result)).sum(),
        Ok(Outcome::LeaseRevoked { .. } | Outcome::Done | Outcome::Alarm { .. }) | Err(_) => 0,
    }
}

/// Leaves the pairs out. What was done, and at which revision, stays; a range says that there is
/// `more` than the pairs it shows.
fn shorten(applied: &mut Applied) {
    fn txn(result: &mut TxnResult) {
        for step in &mut result.results {
            match step {
                TxnOpResult::Range(range) => {
                    range.more |= !range.kvs.is_empty();
                    range.kvs = Vec::new();
                }
                TxnOpResult::Put(prev) => *prev = None,
                TxnOpResult::DeleteRange { prev_kvs, .. } => *prev_kvs = Vec::new(),
                TxnOpResult::Txn(nested) => txn(nested),
            }
        }
    }
    match &mut applied.outcome {
        Ok(Outcome::Txn(result)) => txn(result),
        Ok(Outcome::Atomic(results)) => results.iter_mut().for_each(|(_, result)| txn(result)),
        Ok(Outcome::LeaseRevoked { .. } | Outcome::Done | Outcome::Alarm { .. }) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaseId, RangeResult, Revision};
    use bytes::Bytes;

    const SMALL: Limits = Limits {
        answers_per_client: 3,
        answers: 5,
        clients: 2,
        silent_clients: 2,
        payload_bytes: 100,
    };

    fn id(client: u64, sequence: u64) -> RequestId {
        RequestId { client, sequence }
    }

    fn done(revision: u64) -> Applied {
        Applied { revision: Revision::new(revision), outcome: Ok(Outcome::Done) }
    }

    fn read(bytes: usize) -> Applied {
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            value: vec![7; bytes - 1].into(),
            create_revision: Revision::new(1),
            mod_revision: Revision::new(1),
            version: 1,
            lease: LeaseId::NONE,
        };
        let range = RangeResult { kvs: vec![kv], more: false, count: 1 };
        let results = vec![TxnOpResult::Range(range)];
        let outcome = Ok(Outcome::Txn(TxnResult { succeeded: true, results }));
        Applied { revision: Revision::new(9), outcome }
    }

    #[test]
    fn a_client_is_answered_again_within_its_window_and_told_when_behind_it() {
        let mut table = Requests::new(SMALL);
        for sequence in [1, 2, 4, 5] {
            table.record(id(1, sequence), &done(sequence));
        }
        for (sequence, want) in [
            (1, Err(Rejection::Forgotten { sequence: 1 })),
            (2, Ok(Some(done(2)))),
            (3, Ok(None)),
            (4, Ok(Some(done(4)))),
            (6, Ok(None)),
        ] {
            assert_eq!(table.look_up(id(1, sequence)), want, "sequence {sequence}");
        }
    }

    #[test]
    fn the_client_that_was_silent_longest_goes_first_and_is_never_served_twice() {
        let mut table = Requests::new(SMALL);
        table.record(id(1, 5), &done(1));
        table.record(id(2, 1), &done(2));
        table.record(id(1, 6), &done(3));
        table.record(id(3, 1), &done(4));
        assert_eq!(table.look_up(id(2, 1)), Err(Rejection::Forgotten { sequence: 1 }));
        assert_eq!(table.look_up(id(1, 5)), Ok(Some(done(1))), "the other one stays");
        assert_eq!(table.look_up(id(2, 2)), Ok(None), "it may go on");
        table.record(id(2, 2), &done(5));
        assert_eq!(table.look_up(id(2, 2)), Ok(Some(done(5))));
        assert_eq!(table.look_up(id(2, 1)), Err(Rejection::Forgotten { sequence: 1 }));
        for client in 10..20 {
            table.record(id(client, 1), &done(client));
        }
        let answers: usize = table.clients.values().map(|client| client.answers.len()).sum();
        assert_eq!((table.clients.len(), table.silent.len(), answers), (2, 2, 2));
    }

    #[test]
    fn all_clients_together_keep_only_so_many_answers() {
        let mut table =
            Requests::new(Limits { answers: 6, clients: 100, silent_clients: 100, ..SMALL });
        for client in 1..=20 {
            for sequence in 1..=2 {
                table.record(id(client, sequence), &done(sequence));
            }
        }
        let answers: usize = table.clients.values().map(|client| client.answers.len()).sum();
        assert_eq!((table.clients.len(), answers, table.answers), (3, 6, 6));
        assert_eq!(table.look_up(id(17, 2)), Err(Rejection::Forgotten { sequence: 2 }));
        assert_eq!(table.look_up(id(18, 1)), Ok(Some(done(1))));
        // One that goes on takes the place of whoever was silent longest.
        table.record(id(18, 3), &done(3));
        assert_eq!(table.look_up(id(19, 2)), Err(Rejection::Forgotten { sequence: 2 }));
        assert_eq!(table.look_up(id(18, 1)), Ok(Some(done(1))));
    }

    #[test]
    fn old_answers_lose_their_pairs_but_not_what_happened() {
        let mut table = Requests::new(SMALL);
        table.record(id(1, 1), &read(60));
        assert_eq!(table.look_up(id(1, 1)), Ok(Some(read(60))));
        table.record(id(1, 2), &read(50));
        let Ok(Some(Applied { revision, outcome: Ok(Outcome::Txn(result)) })) =
            table.look_up(id(1, 1))
        else {
            panic!("no answer")
        };
        assert_eq!((revision.get(), result.succeeded), (9, true));
        let short = RangeResult { kvs: vec![], more: true, count: 1 };
        assert_eq!(result.results, [TxnOpResult::Range(short)]);
        assert_eq!(table.look_up(id(1, 2)), Ok(Some(read(50))));
        assert_eq!((table.payload_bytes, table.payloads.len()), (50, 1));
    }

    #[test]
    fn a_table_from_a_snapshot_goes_on_like_the_one_it_was_taken_of() {
        let mut table = Requests::new(SMALL);
        let mut other = Requests::new(SMALL);
        for step in 0u64..200 {
            let request = id(step * step % 7, step / 3);
            let answer = if step % 2 == 0 { read(30) } else { done(step) };
            if step == 100 {
                let exported: Vec<_> = table.export().collect();
                other = Requests::new(SMALL);
                for (id, client, answers) in exported {
                    other.restore(id, client, answers);
                }
                other.restored();
            }
            assert_eq!(table.look_up(request), other.look_up(request));
            if table.look_up(request) == Ok(None) {
                table.record(request, &answer);
                other.record(request, &answer);
            }
            assert!(table.export().eq(other.export()), "at step {step}");
        }
    }
}
