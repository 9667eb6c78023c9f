//! Short histories by hand, for tests.

use crate::{
    evidence::Evidence,
    history::{
        Answer, Body, Call, Change, Closed, Event, History, Kv, Mark, Object, ObjectCall,
        ObjectEvent, ObjectVerb, Opened, Operation, Outcome, Put, Range, RangeRequest, Record,
        ReplicaFact, ReplicaSeen, RuntimeFact, RuntimeSeen, Scope, Settings, Watch, WatchStep,
    },
    property::{Property, Verdict},
};
use serde_json::{Value, json};

/// Milliseconds.
const MS: u64 = 1_000_000;
/// Seconds.
pub(crate) const SECOND: u64 = 1_000 * MS;

pub(crate) fn history(records: Vec<Record>) -> History {
    History { settings: Settings::default(), records }
}

pub(crate) fn verdict(property: &Property, history: &History) -> Verdict {
    property.verdict(&Evidence::of(history))
}

/// Each case: its name, what was seen, and part of the violation that must be found, if one must be.
pub(crate) fn hold(property: &Property, cases: Vec<(&str, Vec<Record>, Option<&str>)>) {
    assert!(cases.iter().any(|case| case.2.is_none()), "a history that is right");
    assert!(cases.iter().any(|case| case.2.is_some()), "a history that is wrong");
    for (name, records, caught) in cases {
        judge(property, name, &history(records), caught);
    }
}

pub(crate) fn judge(property: &Property, name: &str, history: &History, caught: Option<&str>) {
    let verdict = verdict(property, history);
    assert!(verdict.examined > 0, "{name}: nothing was examined");
    assert_eq!(verdict.undecided, 0, "{name}");
    let texts: Vec<&str> = verdict.violations.iter().map(|v| v.text.as_str()).collect();
    match caught {
        None => assert!(verdict.held, "{name}: {texts:#?}"),
        Some(part) => {
            let found = texts.iter().any(|text| text.contains(part));
            assert!(!verdict.held && found, "{name}: no {part:?} in {texts:#?}");
        }
    }
}

fn operation(client: u64, (from_ms, to_ms): (u64, u64), call: Call, outcome: Outcome) -> Record {
    let (invoked_ns, answered_ns) = (from_ms * MS, to_ms * MS);
    Operation { client, replica: 1, invoked_ns, answered_ns, call, outcome }.into()
}

pub(crate) fn ok(client: u64, ms: (u64, u64), call: Call, revision: u64, body: Body) -> Record {
    operation(client, ms, call, Outcome::Ok(Answer { revision, body }))
}

pub(crate) fn done(client: u64, ms: (u64, u64), call: Call, revision: u64) -> Record {
    ok(client, ms, call, revision, Body::Done)
}

pub(crate) fn unknown(client: u64, ms: (u64, u64), call: Call) -> Record {
    operation(client, ms, call, Outcome::Unknown { reason: "timed out".to_owned() })
}

pub(crate) fn failed(client: u64, ms: (u64, u64), call: Call) -> Record {
    operation(client, ms, call, Outcome::Failed { reason: "no leader".to_owned() })
}

pub(crate) fn put(key: &str, value: &str) -> Call {
    Call::Put(Put { key: key.to_owned(), value: value.to_owned(), lease: 0 })
}

pub(crate) fn leased(key: &str, value: &str, lease: u64) -> Call {
    Call::Put(Put { key: key.to_owned(), value: value.to_owned(), lease })
}

pub(crate) fn delete(key: &str) -> Call {
    Call::Delete(Range::one(key))
}

pub(crate) fn deleted(count: u64) -> Body {
    Body::Deleted { count }
}

fn request(range: Range, serializable: bool) -> Call {
    Call::Range(RangeRequest { range, serializable, revision: 0, limit: 0 })
}

pub(crate) fn get(key: &str) -> Call {
    request(Range::one(key), false)
}

pub(crate) fn get_serializable(key: &str) -> Call {
    request(Range::one(key), true)
}

pub(crate) fn get_prefix(prefix: &str) -> Call {
    request(Range::prefix(prefix), false)
}

/// Pairs of key, value and revision, each of its key's first version.
pub(crate) fn found(kvs: &[(&str, &str, u64)]) -> Body {
    Body::Range { kvs: kvs.iter().map(|kv| pair(*kv)).collect(), more: false }
}

pub(crate) fn pair((key, value, revision): (&str, &str, u64)) -> Kv {
    let (key, value) = (key.to_owned(), value.to_owned());
    // Versions are not what these tests are about.
    Kv { key, value, create_revision: 0, mod_revision: revision, version: 0, lease: 0 }
}

pub(crate) fn final_keys(
    replica: u64,
    ms: u64,
    revision: u64,
    kvs: &[(&str, &str, u64)],
) -> Record {
    let kvs = kvs.iter().map(|kv| pair(*kv)).collect();
    Mark::FinalKeys { at_ns: ms * MS, replica, range: Range::prefix(""), revision, kvs }.into()
}

fn watch(stream: u64, sequence: u64, step: WatchStep) -> Record {
    Watch { at_ns: sequence * MS, stream, sequence, step }.into()
}

pub(crate) fn opened(stream: u64, prefix: &str, from: u64) -> Record {
    let scope = Scope::Keys(Range::prefix(prefix));
    let opened = Opened { client: 100 + stream, replica: 1, scope, from, resumes: None };
    watch(stream, 0, WatchStep::Opened(opened))
}

pub(crate) fn resumed(stream: u64, prefix: &str, from: u64, resumes: u64) -> Record {
    let scope = Scope::Keys(Range::prefix(prefix));
    let opened = Opened { client: 100 + stream, replica: 2, scope, from, resumes: Some(resumes) };
    watch(stream, 0, WatchStep::Opened(opened))
}

/// One response: events of key, revision, and value or none.
pub(crate) fn events(stream: u64, sequence: u64, events: &[(&str, u64, Option<&str>)]) -> Record {
    let events = events.iter().map(|(key, mod_revision, value)| Event {
        key: (*key).to_owned(),
        mod_revision: *mod_revision,
        value: value.map(str::to_owned),
        create_revision: 0,
        version: 0,
        lease: 0,
    });
    watch(stream, sequence, WatchStep::Events { events: events.collect() })
}

pub(crate) fn progress(stream: u64, sequence: u64, revision: u64) -> Record {
    watch(stream, sequence, WatchStep::Progress { revision })
}

pub(crate) fn compacted(stream: u64, sequence: u64, revision: u64) -> Record {
    watch(stream, sequence, WatchStep::Closed(Closed::Compacted { revision }))
}

pub(crate) fn replica(replica: u64, ms: u64, fact: ReplicaFact) -> Record {
    ReplicaSeen { at_ns: ms * MS, replica, fact }.into()
}

pub(crate) fn applied(of: u64, index: u64, state_hash: u64, revision: u64, epoch: u64) -> Record {
    replica(of, index, ReplicaFact::Applied { index, term: 1, state_hash, revision, epoch })
}

pub(crate) fn healed(ms: u64) -> Record {
    Mark::Healed { at_ns: ms * MS }.into()
}

pub(crate) fn container(ms: u64, node: &str, uid: &str, fact: RuntimeFact) -> Record {
    RuntimeSeen {
        at_ns: ms * MS,
        node: node.to_owned(),
        pod_uid: uid.to_owned(),
        namespace: "default".to_owned(),
        pod: "web".to_owned(),
        container: "main".to_owned(),
        fact,
    }
    .into()
}

/// Stream 1, which follows all objects of a kind from the beginning.
pub(crate) fn follows(stream: u64, kind: &str) -> Record {
    follows_after(stream, kind, 0)
}

/// As [`follows`], from after a revision.
pub(crate) fn follows_after(stream: u64, kind: &str, after: u64) -> Record {
    let scope = Scope::Objects { kind: kind.to_owned(), namespace: String::new() };
    let from = after + 1;
    let opened = Opened { client: 100 + stream, replica: 1, scope, from, resumes: None };
    watch(stream, 0, WatchStep::Opened(opened))
}

pub(crate) fn object(kind: &str, name: &str, uid: &str, revision: u64, json: &Value) -> Object {
    let mut json = json.clone();
    json["kind"] = json!(kind);
    json["metadata"]["namespace"] = json!("default");
    json["metadata"]["name"] = json!(name);
    json["metadata"]["uid"] = json!(uid);
    json["metadata"]["resourceVersion"] = json!(revision.to_string());
    Object::from_json(json).unwrap()
}

/// An event whose time, in milliseconds, and place are its revision.
pub(crate) fn event(stream: u64, change: Change, object: Object) -> Record {
    let sequence = object.resource_version;
    watch(stream, sequence, WatchStep::Object(ObjectEvent { change, object }))
}

/// The versions of one object, as one watch delivers them; a last one without JSON is its deletion.
pub(crate) fn life(
    stream: u64,
    kind: &str,
    (name, uid): (&str, &str),
    versions: &[(u64, Value)],
) -> Vec<Record> {
    let mut before = json!({});
    let records = versions.iter().enumerate().map(|(index, (revision, json))| {
        let change = match (index, json) {
            (_, Value::Null) => Change::Deleted,
            (0, _) => Change::Added,
            (..) => Change::Modified,
        };
        if !json.is_null() {
            before = json.clone();
        }
        event(stream, change, object(kind, name, uid, *revision, &before))
    });
    records.collect()
}

pub(crate) fn call(
    client: u64,
    ms: (u64, u64),
    verb: ObjectVerb,
    (kind, name): (&str, &str),
    sent: Value,
    (revision, body): (u64, Body),
) -> Record {
    let (kind, name, namespace) = (kind.to_owned(), name.to_owned(), "default".to_owned());
    let (uid, resource_version) = (None, None);
    let call = ObjectCall { verb, kind, namespace, name, uid, resource_version, body: sent };
    ok(client, ms, Call::Object(call), revision, body)
}
