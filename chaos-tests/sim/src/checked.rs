//! A run as the checkers read it, and what they say about it.

use crate::{
    Millis,
    check::Broken,
    history::{Call, Ended, Fact, History, Kv, Operation, Outcome, Record, Watched},
};
use checkers::history as seen;
use std::collections::BTreeMap;
use store::{KeyRange, RangeRequest, Revision, state::View};

/// How much later than due the lead's timers may do what they must, once all is healed.
const LATENESS_NS: u64 = 10_000_000_000;

/// What the checkers say about a run.
///
/// # Errors
/// The first property that does not hold, with its first violations.
pub fn judge(
    history: &History,
    record: &Record,
    views: &BTreeMap<u64, View>,
    now: Millis,
) -> Result<(), Broken> {
    let wrong = checkers::check(&translate(history, record, views, now));
    match wrong.into_iter().find(|verdict| !verdict.held) {
        None => Ok(()),
        Some(verdict) => {
            let texts: Vec<String> = verdict.violations.into_iter().map(|v| v.text).collect();
            Err((verdict.property, texts.join("\n")))
        }
    }
}

/// The whole run, in the checkers' words.
#[must_use]
pub fn translate(
    history: &History,
    record: &Record,
    views: &BTreeMap<u64, View>,
    now: Millis,
) -> seen::History {
    let settings = seen::Settings {
        clock_drift_ppm: record.drift_ppm,
        lateness_ns: LATENESS_NS,
        ..seen::Settings::default()
    };
    let mut records: Vec<seen::Record> =
        history.operations.iter().map(|operation| self::operation(operation).into()).collect();
    for (place, watched) in history.watches.iter().enumerate() {
        records.extend(watch(place as u64, watched).into_iter().map(seen::Record::from));
    }
    for (at, replica, fact) in &record.facts {
        let fact = match *fact {
            Fact::Leads(term) => seen::ReplicaFact::Leads { term },
            Fact::Applied { index, hash: state_hash, revision, epoch } => {
                seen::ReplicaFact::Applied { index, term: 0, state_hash, revision, epoch }
            }
        };
        records.push(seen::ReplicaSeen { at_ns: ns(*at), replica: *replica, fact }.into());
    }
    for (at, what) in &record.faults {
        records.push(seen::Mark::Fault { at_ns: ns(*at), what: what.clone() }.into());
    }
    records.push(seen::Mark::Healed { at_ns: ns(record.healed) }.into());
    let awaited = seen::Mark::Awaited {
        since_ns: ns(record.healed),
        until_ns: Some(ns(record.recovered)),
        limit_ns: ns(record.patience),
        what: "all members answer and are the same".to_owned(),
    };
    records.push(awaited.into());
    records.extend(views.iter().map(|(replica, view)| last(*replica, view, now).into()));
    seen::History { settings, records }
}

fn ns(at: Millis) -> u64 {
    at.saturating_mul(1_000_000)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn kv(kv: &Kv) -> seen::Kv {
    seen::Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
        lease: unsigned(kv.lease),
    }
}

fn put(key: &str, value: &str, lease: i64) -> seen::Put {
    seen::Put { key: key.to_owned(), value: value.to_owned(), lease: unsigned(lease) }
}

/// All keys that clients ask for in a range.
fn keys() -> seen::Range {
    seen::Range { key: "key-".to_owned(), end: Some("key.".to_owned()) }
}

fn call(operation: &Operation) -> seen::Call {
    let read = |range, serializable| {
        seen::Call::Range(seen::RangeRequest { range, serializable, revision: 0, limit: 0 })
    };
    match &operation.call {
        Call::Put { key, value, lease } => seen::Call::Put(put(key, value, *lease)),
        Call::Delete { key } => seen::Call::Delete(seen::Range::one(key)),
        Call::Get { key, serializable } => read(seen::Range::one(key), *serializable),
        Call::Range { serializable } => read(keys(), *serializable),
        Call::Swap { key, expected, value } => {
            let compare = seen::Compare {
                key: key.clone(),
                operator: seen::CompareOperator::Equal,
                target: seen::CompareTarget::ModRevision(unsigned(*expected)),
            };
            seen::Call::Txn(seen::Txn {
                compare: vec![compare],
                success: vec![seen::Step::Put(put(key, value, 0))],
                failure: vec![seen::Step::Range(seen::Range::one(key))],
            })
        }
        Call::Grant { lease, ttl } => {
            // The server may give more than was asked for.
            let given = match &operation.outcome {
                Outcome::Ok(answer) => answer.ttl,
                Outcome::Failed(_) | Outcome::Unknown(_) => *ttl,
            };
            let (lease, ttl_seconds) = (unsigned(*lease), unsigned(given));
            seen::Call::LeaseGrant { lease, ttl_seconds }
        }
        Call::KeepAlive { lease } => seen::Call::LeaseKeepAlive { lease: unsigned(*lease) },
        Call::Revoke { lease } => seen::Call::LeaseRevoke { lease: unsigned(*lease) },
        Call::Compact { revision } => seen::Call::Compact { revision: unsigned(*revision) },
    }
}

fn operation(operation: &Operation) -> seen::Operation {
    let outcome = match &operation.outcome {
        Outcome::Ok(answer) => {
            let kvs: Vec<seen::Kv> = answer.kvs.iter().map(kv).collect();
            let body = match &operation.call {
                Call::Delete { .. } => seen::Body::Deleted { count: u64::from(answer.done) },
                Call::Get { .. } | Call::Range { .. } => seen::Body::Range { kvs, more: false },
                Call::Swap { .. } => {
                    let step = if answer.done {
                        seen::StepAnswer::Put
                    } else {
                        seen::StepAnswer::Range { kvs }
                    };
                    seen::Body::Txn { succeeded: answer.done, steps: vec![step] }
                }
                Call::KeepAlive { .. } => seen::Body::Lease { ttl_seconds: unsigned(answer.ttl) },
                Call::Put { .. }
                | Call::Grant { .. }
                | Call::Revoke { .. }
                | Call::Compact { .. } => seen::Body::Done,
            };
            seen::Outcome::Ok(seen::Answer { revision: unsigned(answer.revision), body })
        }
        Outcome::Failed(reason) => seen::Outcome::Failed { reason: reason.clone() },
        Outcome::Unknown(reason) => seen::Outcome::Unknown { reason: reason.clone() },
    };
    seen::Operation {
        client: operation.client,
        replica: operation.replica as u64 + 1,
        invoked_ns: ns(operation.invoked),
        answered_ns: ns(operation.answered),
        call: call(operation),
        outcome,
    }
}

fn watch(stream: u64, watched: &Watched) -> Vec<seen::Watch> {
    let opened = seen::Opened {
        client: watched.client,
        replica: watched.replica as u64 + 1,
        scope: seen::Scope::Keys(keys()),
        from: unsigned(watched.from),
        resumes: watched.resumes.map(|place| place as u64),
    };
    let mut steps = vec![(watched.opened, seen::WatchStep::Opened(opened))];
    for (at, changes) in watched.answers.iter().filter(|(_, changes)| !changes.is_empty()) {
        let events = changes.iter().map(|change| {
            let kv = kv(&change.kv);
            seen::Event {
                key: kv.key,
                mod_revision: kv.mod_revision,
                value: (!change.deleted).then_some(kv.value),
                create_revision: kv.create_revision,
                version: kv.version,
                lease: kv.lease,
            }
        });
        steps.push((*at, seen::WatchStep::Events { events: events.collect() }));
    }
    if let Some((at, ended)) = watched.ended {
        let closed = match ended {
            Ended::Compacted(revision) => seen::Closed::Compacted { revision: unsigned(revision) },
            Ended::Broken => seen::Closed::Ended,
        };
        steps.push((at, seen::WatchStep::Closed(closed)));
    }
    let steps = (0..).zip(steps);
    steps
        .map(|(sequence, (at, step))| seen::Watch { at_ns: ns(at), stream, sequence, step })
        .collect()
}

/// What one member has under the clients' keys in the end.
fn last(replica: u64, view: &View, now: Millis) -> seen::Mark {
    let request = RangeRequest {
        range: KeyRange::Between { start: "key-".into(), end: "key.".into() },
        revision: Revision::ZERO,
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        mod_revision: (Revision::ZERO, Revision::ZERO),
        create_revision: (Revision::ZERO, Revision::ZERO),
    };
    let found = view.range(&request).map(|found| found.kvs).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = found.iter().map(|kv| seen::Kv {
        key: text(&kv.key),
        value: text(&kv.value),
        create_revision: kv.create_revision.get(),
        mod_revision: kv.mod_revision.get(),
        version: kv.version,
        lease: unsigned(kv.lease.0),
    });
    seen::Mark::FinalKeys {
        at_ns: ns(now),
        replica,
        range: keys(),
        revision: view.revision().get(),
        kvs: kvs.collect(),
    }
}
