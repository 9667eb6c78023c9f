//! A run in the terms of package `checkers`, and its verdict.

use crate::{
    Millis,
    history::{Answer, Call, Ended, History, Kv, Operation, Outcome, Record, Watched},
};
use checkers::history as terms;
use std::collections::BTreeMap;
use store::{KeyRange, state::View};

pub(crate) const fn ns(millis: Millis) -> u64 {
    millis * 1_000_000
}

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// All keys of clients.
fn all_keys() -> terms::Range {
    terms::Range::prefix("key-")
}

fn pair(kv: &Kv) -> terms::Kv {
    terms::Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: number(kv.create_revision),
        mod_revision: number(kv.mod_revision),
        version: number(kv.version),
        lease: number(kv.lease),
    }
}

fn call(call: &Call) -> terms::Call {
    match call {
        Call::Put { key, value, lease } => terms::Call::Put(terms::Put {
            key: key.clone(),
            value: value.clone(),
            lease: number(*lease),
        }),
        Call::Delete { key } => terms::Call::Delete(terms::Range::one(key)),
        Call::Get { key, serializable } => terms::Call::Range(terms::RangeRequest {
            range: terms::Range::one(key),
            serializable: *serializable,
            revision: 0,
            limit: 0,
        }),
        Call::Range { serializable } => terms::Call::Range(terms::RangeRequest {
            range: all_keys(),
            serializable: *serializable,
            revision: 0,
            limit: 0,
        }),
        Call::Swap { key, expected, value } => terms::Call::Txn(terms::Txn {
            compare: vec![terms::Compare {
                key: key.clone(),
                operator: terms::CompareOperator::Equal,
                target: terms::CompareTarget::ModRevision(number(*expected)),
            }],
            success: vec![terms::Step::Put(terms::Put {
                key: key.clone(),
                value: value.clone(),
                lease: 0,
            })],
            failure: vec![terms::Step::Range(terms::Range::one(key))],
        }),
        Call::Grant { lease, ttl } => {
            terms::Call::LeaseGrant { lease: number(*lease), ttl_seconds: number(*ttl) }
        }
        Call::KeepAlive { lease } => terms::Call::LeaseKeepAlive { lease: number(*lease) },
        Call::Revoke { lease } => terms::Call::LeaseRevoke { lease: number(*lease) },
        Call::Compact { revision } => terms::Call::Compact { revision: number(*revision) },
    }
}

fn body(call: &Call, answer: &Answer) -> terms::Body {
    let kvs = || answer.kvs.iter().map(pair).collect();
    match call {
        Call::Put { .. } | Call::Grant { .. } | Call::Revoke { .. } | Call::Compact { .. } => {
            terms::Body::Done
        }
        Call::Delete { .. } => terms::Body::Deleted { count: u64::from(answer.done) },
        Call::Get { .. } | Call::Range { .. } => terms::Body::Range { kvs: kvs(), more: false },
        Call::Swap { .. } => terms::Body::Txn {
            succeeded: answer.done,
            steps: vec![if answer.done {
                terms::StepAnswer::Put
            } else {
                terms::StepAnswer::Range { kvs: kvs() }
            }],
        },
        Call::KeepAlive { .. } => terms::Body::Lease { ttl_seconds: number(answer.ttl) },
    }
}

fn operation(operation: &Operation) -> terms::Operation {
    terms::Operation {
        client: operation.client,
        replica: operation.replica as u64 + 1,
        invoked_ns: ns(operation.invoked),
        answered_ns: ns(operation.answered),
        call: call(&operation.call),
        outcome: match &operation.outcome {
            Outcome::Ok(answer) => terms::Outcome::Ok(terms::Answer {
                revision: number(answer.revision),
                body: body(&operation.call, answer),
            }),
            Outcome::Failed(reason) => terms::Outcome::Failed { reason: reason.clone() },
            Outcome::Unknown(reason) => terms::Outcome::Unknown { reason: reason.clone() },
        },
    }
}

fn watch(stream: u64, watched: &Watched) -> Vec<terms::Watch> {
    let mut steps = vec![(
        watched.opened,
        terms::WatchStep::Opened(terms::Opened {
            client: watched.client,
            replica: watched.replica as u64 + 1,
            scope: terms::Scope::Keys(all_keys()),
            from: number(watched.from),
            resumes: watched.resumes.map(|place| place as u64),
        }),
    )];
    for (at, changes) in &watched.answers {
        let events = changes.iter().map(|change| terms::Event {
            key: change.kv.key.clone(),
            mod_revision: number(change.kv.mod_revision),
            value: (!change.deleted).then(|| change.kv.value.clone()),
            create_revision: number(change.kv.create_revision),
            version: number(change.kv.version),
            lease: number(change.kv.lease),
        });
        steps.push((*at, terms::WatchStep::Events { events: events.collect() }));
    }
    if let Some((at, ended)) = watched.ended {
        let ended = match ended {
            Ended::Compacted(revision) => terms::Closed::Compacted { revision: number(revision) },
            Ended::Broken => terms::Closed::Ended,
        };
        steps.push((at, terms::WatchStep::Closed(ended)));
    }
    (0..)
        .zip(steps)
        .map(|(sequence, (at, step))| terms::Watch { at_ns: ns(at), stream, sequence, step })
        .collect()
}

fn last_keys(at: Millis, replica: u64, view: &View) -> terms::Mark {
    let range = KeyRange::Between { start: "key-".into(), end: "key.".into() };
    let kvs = view.live(&range).map(|kv| terms::Kv {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create_revision: kv.create_revision.get(),
        mod_revision: kv.mod_revision.get(),
        version: kv.version,
        lease: number(kv.lease.0),
    });
    terms::Mark::FinalKeys {
        at_ns: ns(at),
        replica,
        range: all_keys(),
        revision: view.revision().get(),
        kvs: kvs.collect(),
    }
}

/// A run as checkers read it; `views` are the replicas' states in the end.
pub(crate) fn history(
    seen: &History,
    record: &Record,
    views: &BTreeMap<u64, View>,
    now: Millis,
) -> terms::History {
    let mut records: Vec<terms::Record> = Vec::new();
    records.extend(seen.operations.iter().map(|done| operation(done).into()));
    for (stream, watched) in (0..).zip(&seen.watches) {
        records.extend(watch(stream, watched).into_iter().map(terms::Record::from));
    }
    records.extend(record.replicas.iter().cloned().map(terms::Record::from));
    let faults = record.faults.iter();
    records.extend(
        faults.map(|(at, what)| terms::Mark::Fault { at_ns: ns(*at), what: what.clone() }.into()),
    );
    records.push(terms::Mark::Healed { at_ns: ns(record.healed) }.into());
    let awaited = terms::Mark::Awaited {
        since_ns: ns(record.healed),
        until_ns: Some(ns(record.recovered)),
        limit_ns: ns(record.patience),
        what: "every member answers, and all have the same state".to_owned(),
    };
    records.push(awaited.into());
    records.extend(views.iter().map(|(replica, view)| last_keys(now, *replica, view).into()));
    let settings = terms::Settings {
        clock_drift_ppm: record.drift_ppm.max(1_000),
        voters: record.voters,
        ..terms::Settings::default()
    };
    terms::History { settings, records }
}

/// The first property that does not hold, and how.
///
/// # Errors
/// It.
pub(crate) fn verdict(history: &terms::History) -> Result<(), (&'static str, String)> {
    let broken = checkers::check(history).into_iter().find(|verdict| !verdict.held);
    let Some(broken) = broken else { return Ok(()) };
    let texts: Vec<String> =
        broken.violations.into_iter().map(|violation| violation.text).take(3).collect();
    Err((broken.property, texts.join("\n")))
}
