//! Right histories of a whole plane by chance, and one change in each that must be caught.

use crate::{
    changes::{Row, can_be_made, holds, is_caught},
    model::Chance,
};
use checkers::history::{
    Change, History, Mark, Object, ObjectEvent, Opened, Record, RuntimeFact, RuntimeSeen, Scope,
    Settings, Watch, WatchStep,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const MS: u64 = 1_000_000;
/// Streams: two of Pods, which see the same, and one of each other kind.
const PODS: [u64; 2] = [1, 2];
const NODES: u64 = 3;
const SETS: u64 = 4;
const SLICES: u64 = 5;
/// What the ReplicaSet asks for.
const WANTED: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Created,
    Bound,
    Running,
    Ending,
    Ended,
    Gone,
}

struct Pod {
    number: u64,
    node: String,
    stage: Stage,
    json: Value,
}

impl Pod {
    fn uid(&self) -> String {
        format!("u{}", self.number)
    }

    fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Created | Stage::Bound | Stage::Running)
    }
}

#[derive(Default)]
struct Plane {
    revision: u64,
    records: Vec<Record>,
    pods: Vec<Pod>,
}

impl Plane {
    fn write(
        &mut self,
        streams: &[u64],
        change: Change,
        (kind, name, uid): (&str, &str, &str),
        json: &Value,
    ) {
        self.revision += 1;
        let revision = self.revision;
        let mut json = json.clone();
        json["kind"] = json!(kind);
        for (field, value) in [
            ("namespace", "default"),
            ("name", name),
            ("uid", uid),
            ("resourceVersion", revision.to_string().as_str()),
        ] {
            json["metadata"][field] = json!(value);
        }
        for stream in streams {
            let object = Object::from_json(json.clone()).unwrap();
            let step = WatchStep::Object(ObjectEvent { change, object });
            let watch =
                Watch { at_ns: revision * 10 * MS, stream: *stream, sequence: revision, step };
            self.records.push(watch.into());
        }
    }

    fn runtime(&mut self, pod: usize, fact: RuntimeFact) {
        let pod = &self.pods[pod];
        let seen = RuntimeSeen {
            at_ns: self.revision * 10 * MS + 1,
            node: pod.node.clone(),
            pod_uid: pod.uid(),
            namespace: "default".to_owned(),
            pod: format!("web-{}", pod.number),
            container: "main".to_owned(),
            fact,
        };
        self.records.push(seen.into());
    }

    fn write_pod(&mut self, pod: usize, change: Change) {
        let (name, uid, json) = (
            format!("web-{}", self.pods[pod].number),
            self.pods[pod].uid(),
            self.pods[pod].json.clone(),
        );
        self.write(&PODS, change, ("Pod", &name, &uid), &json);
    }

    fn create(&mut self) {
        let number = u64::try_from(self.pods.len()).unwrap();
        let owner = json!({"kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true});
        let json = json!({
            "metadata": {"ownerReferences": [owner], "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "resources": {"requests": {"cpu": "500m"}}}],
            },
            "status": {"phase": "Pending"},
        });
        self.pods.push(Pod { number, node: String::new(), stage: Stage::Created, json });
        let pod = self.pods.len() - 1;
        self.write_pod(pod, Change::Added);
    }

    /// What the next step of a Pod is.
    fn step(&mut self, at: usize, chance: &mut Chance) {
        let pod = &mut self.pods[at];
        match pod.stage {
            Stage::Created => {
                pod.node = format!("n{}", chance.below(2));
                pod.json["spec"]["nodeName"] = json!(pod.node);
                pod.stage = Stage::Bound;
                self.write_pod(at, Change::Modified);
            }
            Stage::Bound => {
                let status = json!({"name": "main", "restartCount": 0, "containerID": format!("c{}", pod.number)});
                pod.json["status"] = json!({"phase": "Running", "containerStatuses": [status]});
                pod.stage = Stage::Running;
                self.runtime(at, RuntimeFact::Started);
                self.write_pod(at, Change::Modified);
            }
            Stage::Running => {
                pod.json["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
                pod.json["metadata"]["deletionGracePeriodSeconds"] = json!(1);
                pod.stage = Stage::Ending;
                self.write_pod(at, Change::Modified);
                self.runtime(at, RuntimeFact::Asked);
            }
            Stage::Ending => {
                pod.json["status"]["phase"] = json!("Succeeded");
                pod.stage = Stage::Ended;
                self.runtime(at, RuntimeFact::Stopped);
                self.write_pod(at, Change::Modified);
            }
            Stage::Ended => {
                pod.stage = Stage::Gone;
                self.write_pod(at, Change::Deleted);
            }
            Stage::Gone => return,
        }
        self.write_slice(false);
    }

    fn write_slice(&mut self, first: bool) {
        let shown =
            self.pods.iter().filter(|pod| matches!(pod.stage, Stage::Running | Stage::Ending));
        let endpoints: Vec<Value> = shown
            .map(|pod| {
                let ready = pod.stage == Stage::Running;
                json!({"conditions": {"ready": ready}, "targetRef": {"uid": pod.uid()}})
            })
            .collect();
        let json = json!({"endpoints": endpoints});
        let change = if first { Change::Added } else { Change::Modified };
        self.write(&[SLICES], change, ("EndpointSlice", "web-1", "slice"), &json);
    }
}

fn run(seed: u64) -> History {
    let mut chance = Chance::new(seed);
    let mut plane = Plane::default();
    for (streams, kind) in [
        (&PODS[..], "Pod"),
        (&[NODES], "Node"),
        (&[SETS], "ReplicaSet"),
        (&[SLICES], "EndpointSlice"),
    ] {
        for stream in streams {
            let scope = Scope::Objects { kind: kind.to_owned(), namespace: String::new() };
            let opened = Opened { client: *stream, replica: 1, scope, from: 1, resumes: None };
            let step = WatchStep::Opened(opened);
            plane.records.push(Watch { at_ns: 0, stream: *stream, sequence: 0, step }.into());
        }
    }
    for node in ["n0", "n1"] {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let json = json!({"status": {"allocatable": {"cpu": "20"}, "conditions": ready}});
        plane.write(&[NODES], Change::Added, ("Node", node, node), &json);
    }
    let set = json!({"spec": {"replicas": WANTED}});
    plane.write(&[SETS], Change::Added, ("ReplicaSet", "web", "set"), &set);
    plane.write_slice(true);
    for _ in 0..120 {
        let active = plane.pods.iter().filter(|pod| pod.is_active()).count();
        if active < WANTED && chance.below(3) == 0 {
            plane.create();
        } else if !plane.pods.is_empty() {
            let count = u64::try_from(plane.pods.len()).unwrap();
            let at = usize::try_from(chance.below(count)).unwrap();
            plane.step(at, &mut chance);
        }
    }
    let at_ns = plane.revision * 10 * MS;
    plane.records.push(Mark::Healed { at_ns }.into());
    let settings = Settings {
        steady_nodes: vec!["n0".to_owned(), "n1".to_owned()],
        // The model is never late by more than a few writes.
        lateness_ns: 2_000 * MS,
        ..Settings::default()
    };
    History { settings, records: plane.records }
}

/// Versions of Pods in both streams, by place of the record.
fn pods(history: &mut History, which: impl Fn(&ObjectEvent) -> bool) -> Vec<u64> {
    let mut revisions: Vec<u64> = Vec::new();
    for event in events(history, "Pod") {
        if which(event) {
            revisions.push(event.object.resource_version);
        }
    }
    revisions.dedup();
    revisions
}

fn events<'h>(
    history: &'h mut History,
    kind: &'h str,
) -> impl Iterator<Item = &'h mut ObjectEvent> {
    history.records.iter_mut().filter_map(move |record| match record {
        Record::Watch(watch) => match &mut watch.step {
            WatchStep::Object(event) if event.object.kind == kind => Some(event),
            _ => None,
        },
        _ => None,
    })
}

/// Changes one version, in every stream that has it.
fn change(history: &mut History, kind: &str, revision: u64, to: impl Fn(&mut Value)) {
    for event in events(history, kind).filter(|event| event.object.resource_version == revision) {
        to(&mut event.object.json);
    }
}

fn phase(event: &ObjectEvent) -> &str {
    event.object.json["status"]["phase"].as_str().unwrap_or_default()
}

fn is_ending(event: &ObjectEvent) -> bool {
    !event.object.json["metadata"]["deletionTimestamp"].is_null()
}

fn pick_pod(
    history: &mut History,
    chance: &mut Chance,
    which: impl Fn(&ObjectEvent) -> bool,
) -> Option<u64> {
    let revisions = pods(history, which);
    chance.pick(&revisions).copied()
}

const EDITS: &[Row] = &[
    ("bind again", rebind, "a Pod is bound once"),
    ("ask for too much", overcommit, "a node is never over-committed"),
    ("start elsewhere", start_elsewhere, "a container starts only where its Pod is bound"),
    ("start twice", start_twice, "a Pod never runs on two nodes, nor twice on one"),
    ("rise from the end", rise, "status never goes backwards"),
    ("come back", come_back, "a deleted object never comes back"),
    ("prolong the grace", prolong, "the grace of an end is prolonged once only"),
    ("serve who is ending", serve, "endpoints never serve a terminating Pod as ready"),
    ("create one more", over_create, "controllers never create too many Pods"),
    ("leave out an event", leave_out, "watches leave nothing out, across replicas too"),
    ("give up a steady node", give_up, "no eviction from nodes that are well, failovers included"),
];

fn rebind(history: &mut History, chance: &mut Chance) -> bool {
    let Some(revision) = pick_pod(history, chance, |event| phase(event) == "Running") else {
        return false;
    };
    change(history, "Pod", revision, |pod| pod["spec"]["nodeName"] = json!("elsewhere"));
    true
}

fn overcommit(history: &mut History, chance: &mut Chance) -> bool {
    let bound = |event: &ObjectEvent| {
        !event.object.json["spec"]["nodeName"].is_null() && phase(event) == "Pending"
    };
    let Some(revision) = pick_pod(history, chance, bound) else { return false };
    change(history, "Pod", revision, |pod| {
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("21");
    });
    true
}

fn started(history: &History) -> Vec<usize> {
    let places = history.records.iter().enumerate();
    let places = places.filter(
        |(_, record)| matches!(record, Record::Runtime(seen) if seen.fact == RuntimeFact::Started),
    );
    places.map(|(place, _)| place).collect()
}

fn start_elsewhere(history: &mut History, chance: &mut Chance) -> bool {
    let started = started(history);
    let Some(place) = chance.pick(&started).copied() else { return false };
    let Record::Runtime(seen) = &mut history.records[place] else { return false };
    seen.node = "elsewhere".to_owned();
    true
}

fn start_twice(history: &mut History, chance: &mut Chance) -> bool {
    let started = started(history);
    let Some(place) = chance.pick(&started).copied() else { return false };
    let Record::Runtime(seen) = &history.records[place] else { return false };
    let mut again = seen.clone();
    again.at_ns += 1;
    if chance.below(2) == 0 {
        again.node = "elsewhere".to_owned();
    }
    history.records.push(again.into());
    true
}

fn rise(history: &mut History, chance: &mut Chance) -> bool {
    // Marked, but not ended yet: it has run before.
    let ending = |event: &ObjectEvent| is_ending(event) && phase(event) == "Running";
    let Some(revision) = pick_pod(history, chance, ending) else { return false };
    change(history, "Pod", revision, |pod| pod["status"]["phase"] = json!("Pending"));
    true
}

fn come_back(history: &mut History, chance: &mut Chance) -> bool {
    let gone = pods(history, |event| event.change == Change::Deleted);
    let Some(revision) = chance.pick(&gone).copied() else { return false };
    let last = events(history, "Pod").map(|event| event.object.resource_version).max().unwrap();
    let records = history.records.clone();
    for record in records {
        if let Record::Watch(mut watch) = record
            && let WatchStep::Object(event) = &mut watch.step
            && event.object.kind == "Pod"
            && event.object.resource_version == revision
        {
            event.object.resource_version = last + 100;
            event.change = Change::Modified;
            watch.sequence = last + 100;
            history.records.push(watch.into());
        }
    }
    true
}

fn prolong(history: &mut History, chance: &mut Chance) -> bool {
    let Some(revision) = pick_pod(history, chance, |event| {
        is_ending(event) && phase(event) == "Succeeded" && event.change == Change::Modified
    }) else {
        return false;
    };
    change(history, "Pod", revision, |pod| {
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(31);
    });
    true
}

fn serve(history: &mut History, chance: &mut Chance) -> bool {
    // A slice that has said so before, and whose next version still names the Pod.
    let mut before: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for event in events(history, "EndpointSlice") {
        let endpoints = event.object.json["endpoints"].as_array().cloned().unwrap_or_default();
        let ending: Vec<String> = endpoints
            .iter()
            .filter(|endpoint| endpoint["conditions"]["ready"] == json!(false))
            .map(|endpoint| endpoint["targetRef"]["uid"].as_str().unwrap().to_owned())
            .collect();
        let again = ending.iter().filter(|uid| before.contains(uid));
        found.extend(again.map(|uid| (event.object.resource_version, uid.clone())));
        before = ending;
    }
    let Some((revision, uid)) = chance.pick(&found).cloned() else { return false };
    change(history, "EndpointSlice", revision, |slice| {
        for endpoint in slice["endpoints"].as_array_mut().unwrap() {
            if endpoint["targetRef"]["uid"] == json!(uid) {
                endpoint["conditions"]["ready"] = json!(true);
            }
        }
    });
    true
}

fn over_create(history: &mut History, _: &mut Chance) -> bool {
    // From the beginning on it asked for one less than there were at most.
    let mut active: Vec<String> = Vec::new();
    let mut most = 0;
    for event in events(history, "Pod") {
        let uid = event.object.uid.clone();
        let is_active = !is_ending(event) && event.change != Change::Deleted;
        active.retain(|known| *known != uid);
        active.extend(is_active.then_some(uid));
        most = most.max(active.len());
    }
    if most == 0 {
        return false;
    }
    for event in events(history, "ReplicaSet") {
        event.object.json["spec"]["replicas"] = json!(most - 1);
    }
    true
}

fn leave_out(history: &mut History, chance: &mut Chance) -> bool {
    let places: Vec<usize> = history
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| match record {
            Record::Watch(watch) => {
                watch.stream == PODS[1] && matches!(watch.step, WatchStep::Object(_))
            }
            _ => false,
        })
        .map(|(place, _)| place)
        .collect();
    // Not the last: that one may still come.
    let Some((_, earlier)) = places.split_last() else { return false };
    let Some(place) = chance.pick(earlier).copied() else { return false };
    history.records.remove(place);
    true
}

fn give_up(history: &mut History, chance: &mut Chance) -> bool {
    let nodes: Vec<u64> =
        events(history, "Node").map(|event| event.object.resource_version).collect();
    let Some(revision) = chance.pick(&nodes).copied() else { return false };
    change(history, "Node", revision, |node| {
        node["spec"]["taints"] =
            json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
    });
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_right_plane_holds(seed in any::<u64>()) {
        holds(&run(seed))?;
    }

    #[test]
    fn one_change_of_a_plane_is_caught(seed in any::<u64>(), which in 0..EDITS.len()) {
        is_caught(&EDITS[which], run(seed), seed)?;
    }
}

#[test]
fn every_edit_can_be_made() {
    can_be_made(EDITS, run);
}
