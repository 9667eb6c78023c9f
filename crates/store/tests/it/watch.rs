//! Watches miss nothing, repeat nothing and never wait for a slow reader.

use crate::{delete, put, txn};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use store::{
    Event, KeyRange, Op, Origin, Proposal, RequestId, Revision, Store, Timestamp,
    local::LocalStore,
    state::State,
    watch::{Hub, WatchError, WatchMessage, WatchRequest, Watcher},
};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(15);

async fn write(store: &LocalStore, sequence: u64, op: Op) {
    let request = RequestId { client: 1, sequence };
    let proposal = Proposal { request, origin: Origin::Client, op };
    store.propose(proposal, Duration::from_secs(1)).await.unwrap().outcome.unwrap();
}

fn store() -> LocalStore {
    LocalStore::new(Arc::new(|| Timestamp(0)))
}

fn from(start: u64) -> WatchRequest {
    WatchRequest { range: KeyRange::From(Bytes::from_static(b"a")), start: Revision::new(start) }
}

async fn next_revision(watcher: &mut Watcher) -> u64 {
    match tokio::time::timeout(DEADLINE, watcher.next()).await {
        Ok(Some(WatchMessage::Events(batch))) => batch.revision.get(),
        other => panic!("no events but {other:?}"),
    }
}

#[tokio::test]
async fn a_watch_from_the_past_goes_over_into_the_present_without_gap_or_repeat() {
    let store = store();
    for sequence in 1..=5 {
        write(&store, sequence, txn(vec![put("a", "x"), put("b", "y")])).await;
    }
    let mut watcher = store.watch(from(3)).unwrap();
    for sequence in 6..=8 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    for want in 3..=9 {
        assert_eq!(next_revision(&mut watcher).await, want);
    }
    assert_eq!(watcher.progress(), Revision::new(9));
}

#[tokio::test]
async fn events_of_one_revision_come_together_and_only_those_of_the_range() {
    let store = store();
    let range = KeyRange::prefix("b");
    let mut watcher = store.watch(WatchRequest { range, start: Revision::ZERO }).unwrap();
    write(&store, 1, txn(vec![put("a", ""), put("b1", ""), put("b2", "")])).await;
    write(&store, 2, txn(vec![put("a", "")])).await;
    write(&store, 3, txn(vec![put("b3", "")])).await;
    let Some(WatchMessage::Events(batch)) = watcher.next().await else { panic!("ended") };
    assert_eq!((batch.revision.get(), batch.events.len()), (2, 2));
    assert_eq!(next_revision(&mut watcher).await, 4);
}

#[tokio::test]
async fn a_future_start_waits() {
    let store = store();
    let mut watcher = store.watch(from(3)).unwrap();
    for sequence in 1..=3 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    assert_eq!(next_revision(&mut watcher).await, 3);
}

#[tokio::test]
async fn a_slow_watcher_is_cancelled_with_where_to_resume_and_loses_nothing() {
    let store = store();
    let mut watcher = store.watch(from(2)).unwrap();
    for sequence in 1..=5000 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    let mut want = 2;
    let resume = loop {
        match watcher.next().await {
            Some(WatchMessage::Events(batch)) => {
                assert_eq!(batch.revision.get(), want);
                want += 1;
            }
            Some(WatchMessage::Canceled { reason, resume }) => {
                assert!(matches!(reason, WatchError::TooSlow { .. }));
                break resume;
            }
            None => panic!("ended without a word"),
        }
    };
    assert_eq!(resume.get(), want);
    assert!(watcher.next().await.is_none());
    let mut resumed = store.watch(from(resume.get())).unwrap();
    assert_eq!(next_revision(&mut resumed).await, want);
}

#[tokio::test]
async fn a_watch_may_start_at_the_compacted_revision_and_not_below() {
    let store = store();
    for sequence in 1..=4 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    write(&store, 5, Op::Compact { revision: Revision::new(3) }).await;
    let oldest = Revision::new(3);
    let requested = Revision::new(2);
    assert_eq!(store.watch(from(2)).unwrap_err(), WatchError::Compacted { requested, oldest });
    let mut watcher = store.watch(from(3)).unwrap();
    assert_eq!(next_revision(&mut watcher).await, 3);
}

/// Polls once: the message if there is one, else the wait is dropped.
fn poll(watcher: &mut Watcher) -> Option<WatchMessage> {
    let next = std::pin::pin!(watcher.next());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(message) => message,
        Poll::Pending => None,
    }
}

fn put_many(count: usize) -> Op {
    txn((0..count).map(|i| put(&format!("many-{i}"), "x")).collect())
}

#[tokio::test]
async fn one_revision_is_delivered_whole_however_large() {
    let store = store();
    let mut watcher = store.watch(from(1)).unwrap();
    write(&store, 1, put_many(6000)).await;
    let Some(WatchMessage::Events(batch)) = watcher.next().await else { panic!("ended") };
    assert_eq!((batch.revision.get(), batch.events.len()), (2, 6000));
}

#[tokio::test]
async fn who_catches_up_is_never_too_slow_for_what_comes_meanwhile() {
    let store = store();
    for sequence in 1..=3000 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    let mut watcher = store.watch(from(1)).unwrap();
    let mut written = 3000;
    for read in 1..=10_000 {
        assert_eq!(next_revision(&mut watcher).await, read + 1);
        // Two for each that it reads: more than may wait in a mailbox come before it is near.
        while written < (3000 + 2 * read).min(10_000) {
            written += 1;
            write(&store, written, txn(vec![put("a", "x")])).await;
        }
    }
    assert_eq!(watcher.progress(), Revision::new(10_001));
}

#[tokio::test]
async fn a_replay_over_changes_of_others_lets_other_tasks_run() {
    let store = store();
    for sequence in 1..=3000 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    let range = KeyRange::One(Bytes::from_static(b"b"));
    let mut watcher = store.watch(WatchRequest { range, start: Revision::new(1) }).unwrap();
    let mut last = watcher.progress();
    let mut polls = 0;
    while watcher.progress() < Revision::new(3001) {
        assert!(poll(&mut watcher).is_none());
        assert!(watcher.progress() > last, "a dropped wait loses its place");
        last = watcher.progress();
        polls += 1;
    }
    assert!(polls > 1, "it held the thread all along");
    write(&store, 3001, txn(vec![put("b", "x")])).await;
    assert_eq!(next_revision(&mut watcher).await, 3002);
}

/// States at revision 20, and at 12 of the same log.
fn ahead_and_behind() -> (State, State) {
    let (mut ahead, mut behind) = (State::default(), State::default());
    for revision in 2..=20 {
        let command = crate::command(revision, txn(vec![put("a", "x")]));
        ahead.apply(&command);
        if revision <= 12 {
            behind.apply(&command);
        }
    }
    (ahead, behind)
}

#[tokio::test]
async fn an_installed_snapshot_ends_every_watch_and_it_resumes_from_there() {
    let (mut ahead, behind) = ahead_and_behind();
    let hub = Hub::new(behind);
    let mut watcher = hub.watch(from(11)).unwrap();
    let mut future = hub.watch(from(30)).unwrap();
    for sequence in [12, 14] {
        ahead.apply(&crate::command(
            99 + sequence,
            Op::Compact { revision: Revision::new(sequence) },
        ));
        let installed = State::import(ahead.export()).unwrap();
        hub.replace(installed);
        if sequence == 12 {
            // What it had already is still delivered.
            assert_eq!(next_revision(&mut watcher).await, 11);
            assert_eq!(next_revision(&mut watcher).await, 12);
            let resume = Revision::new(13);
            let reason = WatchError::Compacted { requested: resume, oldest: Revision::new(12) };
            let end = Some(WatchMessage::Canceled { reason, resume });
            assert_eq!(watcher.next().await, end);
            assert_eq!(watcher.next().await, None);
            let end = future.next().await;
            assert!(
                matches!(end, Some(WatchMessage::Canceled { resume, .. }) if resume.get() == 30)
            );
            // The snapshot brought the changes along.
            assert_eq!(next_revision(&mut hub.watch(from(13)).unwrap()).await, 13);
        }
    }
    assert!(hub.watch(from(13)).is_err(), "now it is compacted");
}

/// A client that goes on at a replica that is behind it must not be told again what it knows, however the replica
/// catches up.
#[test]
fn a_watch_of_the_future_is_told_nothing_earlier_by_an_installed_snapshot() {
    let (ahead, behind) = ahead_and_behind();
    let hub = Hub::new(behind);
    let mut set = hub.watch_set();
    set.add(1, from(18)).unwrap();
    set.add(2, from(30)).unwrap();
    assert!(set.try_next().is_none());
    hub.replace(ahead);
    let mut told = Vec::new();
    // One step of each that is behind may tell nothing.
    for _ in 0..100 {
        if let Some((id, message)) = set.try_next() {
            let WatchMessage::Events(batch) = message else { panic!("{message:?}") };
            told.push((id, batch.revision.get()));
        }
    }
    assert_eq!(told, [(1, 18), (1, 19), (1, 20)]);
}

#[tokio::test]
async fn a_store_that_goes_away_says_so() {
    let hub = Hub::new(State::default());
    let mut watcher = hub.watch(from(2)).unwrap();
    let mut other = hub.watch(from(5)).unwrap();
    hub.close();
    assert_eq!(hub.watch(from(2)).unwrap_err(), WatchError::Stopped);
    let end = |resume| {
        let resume = Revision::new(resume);
        Some(WatchMessage::Canceled { reason: WatchError::Stopped, resume })
    };
    assert_eq!(watcher.next().await, end(2));
    drop(hub);
    assert_eq!(other.next().await, end(5));
}

#[tokio::test]
async fn a_dropped_hub_leaves_nobody_waiting() {
    let hub = Hub::new(State::default());
    let mut watcher = hub.watch(from(2)).unwrap();
    assert!(poll(&mut watcher).is_none());
    drop(hub);
    assert!(matches!(watcher.next().await, Some(WatchMessage::Canceled { .. })));
}

#[test]
fn a_dropped_watcher_leaves_nothing_behind() {
    let hub = Hub::new(State::default());
    let watchers: Vec<Watcher> = (0..100u8)
        .map(|i| {
            let range = KeyRange::prefix(vec![b'p', i % 10]);
            hub.watch(WatchRequest { range, start: Revision::ZERO }).unwrap()
        })
        .collect();
    assert_eq!(hub.watchers(), 100);
    drop(watchers);
    assert_eq!(hub.watchers(), 0);
}

#[tokio::test]
async fn many_who_follow_one_range_share_one_list() {
    let store = store();
    let mut watchers: Vec<Watcher> = (0..50).map(|_| store.watch(from(1)).unwrap()).collect();
    write(&store, 1, txn(vec![put("a", "x"), put("b", "x")])).await;
    let mut lists = Vec::new();
    for watcher in &mut watchers {
        let Some(WatchMessage::Events(batch)) = watcher.next().await else { panic!("ended") };
        lists.push(batch.events);
    }
    assert!(lists.iter().all(|list| Arc::ptr_eq(list, &lists[0])));
}

/// What a random run does next.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, bool)>),
    Compact(u64),
    /// Begins a watch of this range, so many revisions back; or, negative, ahead.
    Watch(KeyRange, i64),
    /// Lets a watcher read so many messages.
    Read(usize, usize),
    Drop(usize),
    /// Replaces the state by a copy of itself.
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0u8..6).prop_map(|k| Bytes::copy_from_slice(&[b'a' + k]));
    let range = prop_oneof![
        key().prop_map(KeyRange::One),
        (key(), key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
        key().prop_map(KeyRange::From),
    ];
    prop_oneof![
        12 => vec((0u8..6, proptest::bool::weighted(0.7)), 1..4).prop_map(Step::Write),
        1 => (0u64..10).prop_map(Step::Compact),
        4 => (range, -4i64..12).prop_map(|(range, back)| Step::Watch(range, back)),
        8 => (0usize..8, 1usize..5).prop_map(|(which, messages)| Step::Read(which, messages)),
        1 => (0usize..8).prop_map(Step::Drop),
        1 => Just(Step::Reset),
    ]
}

/// A watcher, and what it must still see.
struct Followed {
    watcher: Watcher,
    range: KeyRange,
    /// First revision not seen.
    next: u64,
}

impl Followed {
    /// Ordered, unique, reliable, atomic: the next message is the next revision of its range, whole.
    fn read(&mut self, history: &[(u64, Vec<Arc<Event>>)], hub: &Hub) -> bool {
        let want = history.iter().find_map(|(revision, events)| {
            let matching: Vec<_> =
                events.iter().filter(|e| self.range.contains(&e.kv.key)).cloned().collect();
            (*revision >= self.next && !matching.is_empty()).then_some((*revision, matching))
        });
        // Bookmarkable: nothing at or below the progress is still to come.
        let before = self.watcher.progress().get();
        assert!(want.as_ref().is_none_or(|(due, _)| *due > before), "{want:?} after {before}");
        let message = poll(&mut self.watcher);
        let progress = self.watcher.progress().get();
        assert!(progress <= hub.view().revision().get(), "progress beyond the store");
        match message {
            None => {
                assert!(want.is_none(), "nothing came but {want:?} was due");
                assert_eq!(progress, hub.view().revision().get(), "idle, so all is seen");
                true
            }
            Some(WatchMessage::Events(batch)) => {
                let (revision, events) = want.expect("something came but nothing was due");
                assert_eq!(batch.revision.get(), revision);
                let same = |a: &Event, b: &Event| a.kind == b.kind && a.kv == b.kv;
                assert!(batch.events.iter().zip(&events).all(|(a, b)| same(a, b)));
                assert_eq!(batch.events.len(), events.len(), "a revision in two parts");
                assert!(progress >= revision);
                self.next = revision + 1;
                true
            }
            Some(WatchMessage::Canceled { reason, resume }) => {
                assert!(matches!(reason, WatchError::Compacted { .. }));
                assert!(want.is_none_or(|(due, _)| resume.get() <= due), "resuming loses {resume}");
                self.next = resume.get();
                false
            }
        }
    }
}

proptest! {
    #[test]
    fn every_watch_sees_all_of_its_range_once_and_in_order(steps in vec(step(), 1..150)) {
        let hub = Hub::new(State::default());
        let apply = |command| hub.change(|state, events| {
            let transition = state.apply(&command);
            events.extend(transition.events.iter().cloned());
            transition
        });
        let mut history: Vec<(u64, Vec<Arc<Event>>)> = Vec::new();
        let mut followed: Vec<Followed> = Vec::new();
        for (sequence, step) in (1u64..).zip(steps) {
            let now = hub.view().revision().get();
            match step {
                Step::Write(changes) => {
                    let change = |(key, is_put): &(u8, bool)| {
                        let key = char::from(b'a' + key).to_string();
                        if *is_put { put(&key, "x") } else { delete(KeyRange::One(key.into())) }
                    };
                    let op = txn(changes.iter().map(change).collect());
                    let transition = apply(crate::command(sequence, op));
                    if let Some(first) = transition.events.first() {
                        history.push((first.kv.mod_revision.get(), transition.events.clone()));
                    }
                }
                Step::Compact(back) => {
                    let op = Op::Compact { revision: Revision::new(now.saturating_sub(back)) };
                    apply(crate::command(sequence, op));
                }
                Step::Watch(range, back) => {
                    let start = Revision::new(now.saturating_add_signed(-back));
                    let request = WatchRequest { range: range.clone(), start };
                    match hub.watch(request) {
                        Ok(watcher) => {
                            let next = if start == Revision::ZERO { now + 1 } else { start.get() };
                            followed.push(Followed { watcher, range, next });
                        }
                        Err(error) => {
                            let oldest = hub.view().compacted();
                            prop_assert!(start < oldest);
                            prop_assert_eq!(error, WatchError::Compacted { requested: start, oldest });
                        }
                    }
                }
                Step::Read(which, messages) => {
                    let count = followed.len().max(1);
                    for _ in 0..messages {
                        let Some(one) = followed.get_mut(which % count) else { break };
                        if !one.read(&history, &hub) {
                            // Resumable: a new watch goes on where the last one ended.
                            let start = Revision::new(one.next);
                            let request = WatchRequest { range: one.range.clone(), start };
                            match hub.watch(request) {
                                Ok(watcher) => one.watcher = watcher,
                                Err(_) => drop(followed.swap_remove(which % count)),
                            }
                            break;
                        }
                    }
                }
                Step::Drop(which) => {
                    let count = followed.len().max(1);
                    if which % count < followed.len() {
                        followed.swap_remove(which % count);
                    }
                }
                Step::Reset => {
                    hub.replace(State::import(hub.state().export()).unwrap());
                }
            }
        }
        for one in &mut followed {
            while one.read(&history, &hub) && one.watcher.progress() < hub.view().revision() {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_that_begin_amid_writes_see_every_revision() {
    const WRITES: u64 = 3000;
    const LAST: u64 = WRITES + 1;
    let store = Arc::new(store());
    let mut tasks = tokio::task::JoinSet::new();
    let writer = Arc::clone(&store);
    tasks.spawn(async move {
        for sequence in 1..=WRITES {
            write(&writer, sequence, txn(vec![put("a", "x")])).await;
            tokio::task::yield_now().await;
        }
    });
    for i in 0..20u64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            store.wait_for(Revision::new(i * WRITES / 20), DEADLINE).await.unwrap();
            let start = 2 + i * 37;
            let mut watcher = store.watch(from(start)).unwrap();
            let mut want = start;
            while want <= LAST {
                match tokio::time::timeout(DEADLINE, watcher.next()).await.unwrap() {
                    Some(WatchMessage::Events(batch)) => {
                        assert_eq!(batch.revision.get(), want);
                        want += 1;
                    }
                    Some(WatchMessage::Canceled { resume, .. }) => {
                        assert_eq!(resume.get(), want);
                        watcher = store.watch(from(want)).unwrap();
                    }
                    None => panic!("ended without a word"),
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.view().revision().get(), LAST);
}
