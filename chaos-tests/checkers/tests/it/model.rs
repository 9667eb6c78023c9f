//! Right histories by chance: a store in a few lines, clients whose requests overlap, watches that break.

use checkers::history::{
    Answer, Body, Call, Compare, CompareOperator, CompareTarget, Event, History, Kv, Mark, Opened,
    Operation, Outcome, Put, Range, RangeRequest, Record, ReplicaFact, ReplicaSeen, Scope,
    Settings, Step, StepAnswer, Txn, Watch, WatchStep,
};
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;
/// Of the watches that follow everything, the places in [`run`]'s answer.
pub(crate) const REPLICAS: u64 = 3;

/// Numbers by chance, from a seed (xorshift64*).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).unwrap();
        (count > 0).then(|| &items[usize::try_from(self.below(count)).unwrap()])
    }
}

#[derive(Debug, Default)]
struct Store {
    revision: u64,
    kvs: BTreeMap<String, Kv>,
    /// All changes of each revision.
    log: Vec<Vec<Event>>,
}

impl Store {
    fn put(&mut self, put: &Put, revision: u64) -> Event {
        let before = self.kvs.get(&put.key);
        let (create_revision, version) =
            before.map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv = Kv {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision,
            mod_revision: revision,
            version,
            lease: put.lease,
        };
        self.kvs.insert(put.key.clone(), kv);
        Event {
            key: put.key.clone(),
            mod_revision: revision,
            value: Some(put.value.clone()),
            create_revision,
            version,
            lease: put.lease,
        }
    }

    fn delete(&mut self, range: &Range, revision: u64) -> Vec<Event> {
        let keys: Vec<String> =
            self.kvs.keys().filter(|key| range.contains(key)).cloned().collect();
        let events = keys.into_iter().map(|key| {
            self.kvs.remove(&key);
            let (mod_revision, value) = (revision, None);
            Event { key, mod_revision, value, create_revision: 0, version: 0, lease: 0 }
        });
        events.collect()
    }

    fn range(&self, range: &Range) -> Vec<Kv> {
        self.kvs.values().filter(|kv| range.contains(&kv.key)).cloned().collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let CompareTarget::ModRevision(wanted) = compare.target else { return true };
        self.kvs.get(&compare.key).map_or(0, |kv| kv.mod_revision) == wanted
    }

    fn apply(&mut self, call: &Call) -> Answer {
        let next = self.revision + 1;
        let (events, body) = match call {
            Call::Put(put) => (vec![self.put(put, next)], Body::Done),
            Call::Delete(range) => {
                let events = self.delete(range, next);
                let count = u64::try_from(events.len()).unwrap();
                (events, Body::Deleted { count })
            }
            Call::Range(request) => {
                (Vec::new(), Body::Range { kvs: self.range(&request.range), more: false })
            }
            Call::Txn(txn) => {
                let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
                let branch = if succeeded { &txn.success } else { &txn.failure };
                let (mut events, mut steps) = (Vec::new(), Vec::new());
                for step in branch {
                    steps.push(match step {
                        Step::Put(put) => {
                            events.push(self.put(put, next));
                            StepAnswer::Put
                        }
                        Step::Delete(range) => {
                            let deleted = self.delete(range, next);
                            let count = u64::try_from(deleted.len()).unwrap();
                            events.extend(deleted);
                            StepAnswer::Deleted { count }
                        }
                        Step::Range(range) => StepAnswer::Range { kvs: self.range(range) },
                    });
                }
                (events, Body::Txn { succeeded, steps })
            }
            _ => (Vec::new(), Body::Done),
        };
        if !events.is_empty() {
            self.revision = next;
            self.log.push(events);
        }
        Answer { revision: self.revision, body }
    }
}

/// A right history of so many requests over so many keys.
pub(crate) fn run(seed: u64, requests: u64, keys: u64) -> History {
    let mut chance = Chance::new(seed);
    let mut store = Store { revision: 1, ..Store::default() };
    let mut records = Vec::new();
    let mut applied = 0;
    for number in 1..=requests {
        let call = draw(&mut chance, &store, keys, number);
        let at_ns = (1_000 + number * 10) * MS;
        let invoked_ns = at_ns - chance.below(40) * MS - 1;
        let answered_ns = at_ns + chance.below(40) * MS + 1;
        let is_unknown = chance.below(20) == 0;
        let happens = !is_unknown || chance.below(2) == 0;
        let answer = happens.then(|| store.apply(&call));
        let outcome = match answer.filter(|_| !is_unknown) {
            Some(answer) => Outcome::Ok(answer),
            None => Outcome::Unknown { reason: "timed out".to_owned() },
        };
        let (client, replica) = (number % 7, 1 + number % REPLICAS);
        records.push(Record::from(Operation {
            client,
            replica,
            invoked_ns,
            answered_ns,
            call,
            outcome,
        }));
        if happens {
            applied += 1;
            for replica in 1..=REPLICAS {
                let fact = ReplicaFact::Applied {
                    index: applied,
                    term: 1,
                    state_hash: applied.wrapping_mul(0x9e37_79b9),
                    revision: store.revision,
                    epoch: 1,
                };
                records.push(ReplicaSeen { at_ns, replica, fact }.into());
            }
        }
    }
    let end_ns = (2_000 + requests * 10) * MS;
    let mut streams = 0;
    watch(&mut records, &mut streams, &store, (Range::prefix(""), 2), None);
    // One that breaks in the middle and goes on elsewhere.
    let middle = 2 + chance.below(store.revision - 1);
    watch(&mut records, &mut streams, &store, (Range::prefix(""), 2), Some(middle));
    let one = Range::one(format!("k{}", chance.below(keys)));
    watch(&mut records, &mut streams, &store, (one, 2), None);
    for replica in 1..=REPLICAS {
        let (range, revision) = (Range::prefix(""), store.revision);
        let kvs = store.range(&range);
        records.push(Mark::FinalKeys { at_ns: end_ns, replica, range, revision, kvs }.into());
    }
    History { settings: Settings::default(), records }
}

fn draw(chance: &mut Chance, store: &Store, keys: u64, number: u64) -> Call {
    let key = format!("k{}", chance.below(keys));
    let value = number.to_string();
    let put = |key: String, value: String| Put { key, value, lease: 0 };
    let read = |range, serializable| {
        Call::Range(RangeRequest { range, serializable, revision: 0, limit: 0 })
    };
    match chance.below(20) {
        0..8 => Call::Put(put(key, value)),
        8..10 => Call::Delete(Range::one(key)),
        10 => Call::Delete(Range { end: Some(format!("{key}~")), key }),
        11..15 => read(Range::one(key), false),
        15 => read(Range::prefix("k"), false),
        16 => read(Range::prefix("k"), true),
        17 => {
            let other = format!("{key}x");
            let success =
                vec![Step::Put(put(key, value.clone())), Step::Put(put(other, value + "x"))];
            Call::Txn(Txn { compare: Vec::new(), success, failure: Vec::new() })
        }
        _ => {
            // Often of what is there, sometimes of something else.
            let known = store.kvs.get(&key).map_or(0, |kv| kv.mod_revision);
            let target = CompareTarget::ModRevision(known.saturating_sub(chance.below(5) / 4));
            let compare = Compare { key: key.clone(), operator: CompareOperator::Equal, target };
            let failure = vec![Step::Range(Range::one(key.clone()))];
            Call::Txn(Txn {
                compare: vec![compare],
                success: vec![Step::Put(put(key, value))],
                failure,
            })
        }
    }
}

/// A watch of a range from a revision on; one that breaks is resumed by another.
fn watch(
    records: &mut Vec<Record>,
    streams: &mut u64,
    store: &Store,
    (range, from): (Range, u64),
    breaks_after: Option<u64>,
) {
    *streams += 1;
    let mut stream = *streams;
    let mut sequence = 0;
    let opened = |resumes: Option<u64>, from| {
        let scope = Scope::Keys(range.clone());
        WatchStep::Opened(Opened { client: 100, replica: 1, scope, from, resumes })
    };
    let record = |stream, sequence, step| Record::from(Watch { at_ns: 0, stream, sequence, step });
    records.push(record(stream, sequence, opened(None, from)));
    for all in store.log.iter().filter(|all| all[0].mod_revision >= from) {
        let revision = all[0].mod_revision;
        let events: Vec<Event> =
            all.iter().filter(|event| range.contains(&event.key)).cloned().collect();
        if !events.is_empty() {
            sequence += 1;
            records.push(record(stream, sequence, WatchStep::Events { events }));
        }
        if breaks_after == Some(revision) {
            let before = stream;
            *streams += 1;
            (stream, sequence) = (*streams, 0);
            records.push(record(stream, sequence, opened(Some(before), revision + 1)));
        }
    }
    let step = WatchStep::Progress { revision: store.revision };
    records.push(record(stream, sequence + 1, step));
}
