//! Wrong answers and events, each of which must be seen, and right ones, however late, of which none may be.

use super::{
    super::request::{Kind, PAGE},
    *,
};
use std::collections::BTreeMap;

/// A store of one member, which does as it is asked, unless a test does something else to it.
#[derive(Default)]
struct Server {
    revision: i64,
    keys: BTreeMap<Key, KeyValue>,
    leases: BTreeMap<i64, Option<Key>>,
    events: Vec<Event>,
}

impl Server {
    fn put(&mut self, key: Key, write: Write) {
        self.revision += 1;
        let mut kv = self.keys.get(&key).cloned().unwrap_or_else(|| KeyValue {
            key: key.name(),
            create_revision: self.revision,
            ..KeyValue::default()
        });
        kv.value = Values::default().of(key, write);
        kv.mod_revision = self.revision;
        kv.version += 1;
        self.events.push(Event::Put(Values::default().read(&kv).unwrap()));
        self.keys.insert(key, kv);
    }

    fn delete(&mut self, key: Key) -> bool {
        let was_there = self.keys.remove(&key).is_some();
        if was_there {
            self.revision += 1;
            self.events.push(Event::Delete { key, mod_revision: Revision(self.revision) });
        }
        was_there
    }

    fn serve(&mut self, request: &Request) -> Result<Answer, CallError> {
        let key = request.key;
        let mut answer = Answer::default();
        match &request.asked {
            Asked::Put { write } => self.put(key, *write),
            Asked::Delete => answer.changed = self.delete(key),
            Asked::Txn { write, compared } => {
                answer.changed = self.mod_revision(key) == *compared;
                if answer.changed {
                    self.put(key, *write);
                } else {
                    answer.kvs.extend(self.keys.get(&key).cloned());
                }
            }
            Asked::Get { .. } => answer.kvs.extend(self.keys.get(&key).cloned()),
            Asked::Page { .. } => {
                let page = self.keys.range(key..).map(|(_, kv)| kv.clone());
                let limit = usize::try_from(PAGE).unwrap();
                answer.kvs = page.take(limit + 1).collect();
                answer.more = answer.kvs.len() > limit;
                answer.kvs.truncate(limit);
            }
            Asked::Grant { lease } => drop(self.leases.insert(*lease, None)),
            Asked::LeasedPut { write, lease } => {
                *self.leases.get_mut(lease).ok_or_else(not_found)? = Some(key);
                self.put(key, *write);
            }
            Asked::Revoke { lease } => {
                let attached = self.leases.remove(lease).ok_or_else(not_found)?;
                attached.map(|key| self.delete(key));
            }
        }
        answer.changed |= matches!(request.kind(), Kind::Put | Kind::LeasedPut);
        answer.header = Revision(self.revision);
        Ok(answer)
    }

    fn mod_revision(&self, key: Key) -> Revision {
        Revision(self.keys.get(&key).map_or(0, |kv| kv.mod_revision))
    }
}

fn not_found() -> CallError {
    CallError::Status { code: NOT_FOUND, message: "no such lease".to_owned() }
}

/// A checker and a server that have exchanged many requests; some answers came late or never, some
/// requests took effect long after they were given up.
struct Run {
    checker: Checker,
    server: Server,
    watched: [usize; 2],
}

impl Run {
    fn new(seed: u64, requests: usize) -> Self {
        let (checker, server) = (Checker::new(seed, 2), Server::default());
        let mut run = Self { checker, server, watched: [0; 2] };
        // Few, so that much happens to each.
        (run.checker.leased, run.checker.plain) = (0..10, MANY..MANY + 50);
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut under_way, mut late) = (Vec::new(), Vec::new());
        for _ in 0..requests {
            let now = Instant::now();
            let Some(request) = run.checker.draw(now) else { continue };
            match rng.random_range(0..10) {
                0 => {
                    run.checker.end(&request, Err(CallError::Ended), now);
                    late.push(request);
                }
                1 => {
                    let _ = run.server.serve(&request);
                    run.checker.end(&request, Err(CallError::Ended), now);
                }
                _ => {
                    let answer = run.server.serve(&request);
                    under_way.push((request, answer));
                }
            }
            if rng.random_bool(0.2) && !late.is_empty() {
                let request = late.swap_remove(rng.random_range(0..late.len()));
                let _ = run.server.serve(&request);
            }
            while under_way.len() > rng.random_range(0..8) {
                let index = rng.random_range(0..under_way.len());
                let (request, answer) = under_way.swap_remove(index);
                run.checker.end(&request, answer, now);
            }
            run.watch(rng.random_range(0..2), rng.random_range(0..5));
        }
        for (request, answer) in under_way {
            run.checker.end(&request, answer, Instant::now());
        }
        run
    }

    fn watch(&mut self, watch: usize, events: usize) {
        for _ in 0..events {
            let Some(event) = self.server.events.get(self.watched[watch]) else { return };
            self.watched[watch] += 1;
            self.checker.delivered(watch, *event);
        }
    }

    /// The violations of the whole, all events delivered and all keys read back.
    fn end(mut self) -> Vec<Violation> {
        let last = Revision(self.server.revision);
        for watch in 0..2 {
            self.watch(watch, usize::MAX);
        }
        self.checker.watched_until(last);
        let kvs: Vec<KeyValue> = self.server.keys.into_values().collect();
        self.checker.read_back(&kvs, last);
        self.checker.violations
    }

    /// A request of the checker for a key, answered.
    fn request(&mut self, key: Key, asked: Asked) {
        let now = Instant::now();
        self.checker.take_one(key, now).expect("nobody has the key");
        let request = self.checker.send(key, asked, now);
        let answer = self.server.serve(&request);
        self.checker.end(&request, answer, now);
    }

    fn put(&mut self, key: Key) {
        let write = self.checker.next_write();
        self.request(key, Asked::Put { write });
    }
}

/// The first that are drawn.
const MANY: u32 = LEASED + 1000;
/// One whose outcomes are all known.
const KEY: Key = Key(LEASED + 1);

fn run_with_a_key() -> Run {
    let mut run = Run::new(1, 2000);
    run.put(KEY);
    run.put(KEY);
    run
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_as_it_is_asked_is_never_accused() {
    for seed in 0..40 {
        let run = Run::new(seed, 3000);
        let events = run.server.events.len();
        assert!(events > 300, "seed {seed}: only {events} events");
        let violations = run.end();
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_caught_by_its_revision_and_by_its_value() {
    let mut run = run_with_a_key();
    run.watch(0, usize::MAX);
    let stale = run.server.keys[&KEY].clone();
    let at = Revision(run.server.revision);
    run.put(KEY);
    let last = run.server.keys.insert(KEY, stale).unwrap();
    run.request(KEY, Asked::Get { serializable: false });
    let [Violation::Unexpected { key: KEY, found, expected, .. }] = &run.checker.violations[..]
    else {
        panic!("{:?}", run.checker.violations);
    };
    assert_eq!(*found, State::Present { write: Write(run.checker.writes - 1), mod_revision: at });
    assert_eq!(*expected, format!("write {} of revision {}", run.checker.writes, at.0 + 1));
    // The same from a member that is behind altogether: its header says so.
    run.checker.violations.clear();
    run.server.keys.insert(KEY, last);
    run.server.revision -= 1;
    run.request(Key(LEASED + 3), Asked::Get { serializable: false });
    let [Violation::WentBack { header, .. }] = run.checker.violations[..] else {
        panic!("{:?}", run.checker.violations);
    };
    assert_eq!(header, at);
}

#[tokio::test(start_paused = true)]
async fn a_lost_key_is_caught_when_it_is_read_paged_and_read_back() {
    let page = |run: &Run| Asked::Page { quiet: Some(run.checker.quiet(KEY.0..KEY.0 + 9)) };
    for name in ["read", "paged", "read back"] {
        let mut run = run_with_a_key();
        let kv = run.server.keys.remove(&KEY).unwrap();
        if name == "read" {
            run.request(KEY, Asked::Get { serializable: false });
        } else if name == "paged" {
            let asked = page(&run);
            let request = run.checker.send(KEY, asked, Instant::now());
            let answer = run.server.serve(&request);
            run.checker.end(&request, answer, Instant::now());
        }
        let (write, mod_revision) = (Write(run.checker.writes), Revision(kv.mod_revision));
        let violations = run.end();
        let lost = violations.iter().any(|violation| {
            matches!(violation, Violation::Unexpected { key: KEY, found: State::Absent, expected, .. }
                if *expected == State::Present { write, mod_revision }.to_string())
        });
        assert!(lost, "{name}: {violations:?}");
        let watched = violations.iter().any(|v| matches!(v, Violation::NotAsWatched { .. }));
        assert!(watched, "{name}: {violations:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_one_watch_or_all_leave_out_is_caught() {
    let mut run = run_with_a_key();
    run.watch(0, usize::MAX);
    run.watched[1] += 1;
    let violations = run.end();
    assert!(matches!(violations[..], [Violation::Parted { watch: 1, .. }]), "{violations:?}");
    let mut run = run_with_a_key();
    for watch in 0..2 {
        run.watch(watch, usize::MAX);
    }
    run.put(KEY);
    let revision = Revision(run.server.revision);
    for watched in &mut run.watched {
        *watched += 1;
    }
    run.put(Key(LEASED + 2));
    let violations = run.end();
    let missing = violations.iter().any(|violation| {
        matches!(violation, Violation::Missing { key: KEY, revision: at, .. } if *at == revision)
    });
    assert!(missing, "{violations:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_later_than_what_was_seen_is_caught() {
    let mut run = run_with_a_key();
    run.server.revision -= 1;
    run.put(KEY);
    let later = run.checker.violations.iter().any(|v| matches!(v, Violation::NotLater { .. }));
    assert!(later, "{:?}", run.checker.violations);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_takes_one_state_for_two_is_caught() {
    let mut run = run_with_a_key();
    let now = Instant::now();
    let compared = run.server.mod_revision(KEY);
    run.checker.take_one(KEY, now).unwrap();
    let write = run.checker.next_write();
    let request = run.checker.send(KEY, Asked::Txn { write, compared }, now);
    let kvs = vec![run.server.keys[&KEY].clone()];
    let header = Revision(run.server.revision);
    run.checker.end(&request, Ok(Answer { header, kvs, ..Answer::default() }), now);
    let violations = &run.checker.violations;
    assert!(
        matches!(violations[..], [Violation::Contradiction { key: KEY, .. }]),
        "{violations:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_goes_before_its_time_is_caught() {
    let mut run = Run::new(1, 0);
    let (key, lease) = (Key(3), 77);
    run.request(key, Asked::Grant { lease });
    let write = run.checker.next_write();
    run.request(key, Asked::LeasedPut { write, lease });
    run.server.leases.clear();
    run.request(key, Asked::Revoke { lease });
    let violations = &run.checker.violations;
    assert!(matches!(violations[..], [Violation::LeaseGone { .. }]), "{violations:?}");
}
