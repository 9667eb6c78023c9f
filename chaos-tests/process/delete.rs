//! The end of a Pod: when TERM and KILL come, what sees it, and that nothing stays.

use crate::{
    cluster::{Cluster, PODS, SOON, container, eventually, node_of, together, uid, with_cluster},
    machine,
    manifests::PodText,
};
use client::ClientError;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How far from the promised time TERM and KILL may be, in seconds.
const CLOSE: f64 = 0.3;

/// A Pod that ignores TERM, and when it must get TERM and KILL, in seconds after the answer to the
/// first DELETE (§4.2, §4.3).
struct Vector {
    name: &'static str,
    grace: Option<i64>,
    /// Seconds that its preStop hook takes.
    hook: Option<&'static str>,
    /// A second DELETE: when, and with which grace.
    again: Option<(f64, Option<i64>)>,
    term: f64,
    kill: f64,
}

const fn vector(
    name: &'static str,
    grace: i64,
    hook: Option<&'static str>,
    term: f64,
    kill: f64,
) -> Vector {
    Vector { name, grace: Some(grace), hook, again: None, term, kill }
}

const fn again(name: &'static str, at: f64, grace: Option<i64>, kill: f64) -> Vector {
    Vector { name, grace: None, hook: None, again: Some((at, grace)), term: 0.0, kill }
}

/// S33, S36, S37, S38, A5, A6, A7: the tables of §4.2 and §4.3.
const VECTORS: &[Vector] = &[
    Vector { name: "default", grace: None, hook: None, again: None, term: 0.0, kill: 30.0 },
    vector("hook-ends", 30, Some("10"), 10.0, 30.0),
    vector("hook-ends-late", 30, Some("29.4"), 29.4, 31.4),
    vector("hook-too-long", 30, Some("45"), 30.0, 32.0),
    vector("now-hook", 1, Some("45"), 1.0, 3.0),
    vector("now", 1, None, 0.0, 2.0),
    again("shorter", 2.0, Some(10), 12.0),
    again("much-shorter", 10.0, Some(5), 12.0),
    again("longer", 10.0, Some(60), 30.0),
    again("the-same", 10.0, None, 30.0),
    again("then-force", 10.0, Some(0), 12.0),
    again("then-negative", 10.0, Some(-7), 12.0),
];

#[test]
fn a_pod_ends_when_it_must() {
    // S29, S30, S31, S32, S33, S35, S36, S37, S38, S39, S40, A4, A5, A6, A7, A9, A10
    with_cluster(2, async |cluster| {
        // All run before the first is deleted, and the deletions do not come all at once: what is
        // measured is one Pod's end, not a crowd's.
        let mut cases: Vec<(&str, LocalBoxFuture<'_, ()>)> = Vec::new();
        for ((vector, ending), i) in prepare_all(cluster).await.into_iter().zip(0..) {
            cases.push((
                vector.name,
                Box::pin(async move {
                    sleep(STAGGER * i).await;
                    keeps_to_the_table(vector, ending).await;
                }),
            ));
        }
        // Meanwhile, one after the other.
        let rest = Box::pin(async {
            sleep(STAGGER * 12).await;
            only_what_is_there(cluster).await;
            written_on_it(cluster).await;
            ends_on_term(cluster).await;
            hooks_run_inside(cluster).await;
            http_hook(cluster).await;
            whole_cgroup(cluster).await;
            by_force(cluster).await;
            unscheduled(cluster).await;
            gone_for_everyone(cluster).await;
            finalizer(cluster).await;
            sidecar_ends_last(cluster).await;
        });
        cases.push(("S29, S30, S32, S35, S38, S39, S40", rest));
        together(cases).await;
        // Those that stop an agent, one after the other.
        stalled_agent(cluster).await;
        out_of_endpoints(cluster).await;
        agent_down(cluster).await;
    });
}

#[test]
fn a_pod_ends_when_it_must_while_leader_and_agents_are_killed() {
    // S30, S36, S38, S39, P6, A4, A5, A6, A7
    with_cluster(2, async |cluster| {
        let mut pods = prepare_all(cluster).await;
        pods.retain(|(vector, _)| vector.kill > 10.0);
        let start = Instant::now();
        let faults = async {
            sleep_until(start + Duration::from_millis(1500)).await;
            let killed = cluster.kill_leader().await;
            cluster.restart_node("node-1").await;
            cluster.restart_node("node-2").await;
            cluster.start_replica(killed).await;
        };
        let endings = futures::future::join_all(pods.iter().map(async |(vector, ending)| {
            ending.delete(vector).await;
            cluster.gone(&ending.name, Duration::from_secs(60)).await;
            // By force it is gone from the API before it is dead.
            ending.dead(Duration::from_secs(5)).await;
            ending.times()
        }));
        let ((), times) = futures::future::join(faults, endings).await;
        let mut wrong = Vec::new();
        for ((vector, _), seen) in pods.iter().zip(times) {
            let name = vector.name;
            let kill = seen.kill.expect("it lived until KILL");
            let term = seen.terms.first().copied().expect("it got TERM");
            // An agent that was started again goes on where the last one was (DEL-32). Only a hook that
            // it did not see the end of is run again, and time is counted in whole seconds (DEL-20).
            let latest = vector.kill + if vector.hook.is_some() { 1.7 } else { 0.7 };
            if kill < vector.kill - CLOSE || kill > latest || term < vector.term - CLOSE {
                wrong.push(format!("{name}: TERM at {term:.2} s, KILL at {kill:.2} s: {seen:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Between the deletions of two Pods.
const STAGGER: Duration = Duration::from_millis(200);

async fn prepare_all(cluster: &Cluster) -> Vec<(&'static Vector, Ending<'_>)> {
    let all = VECTORS.iter().map(async |vector| (vector, Ending::prepare(cluster, vector).await));
    let all = futures::future::join_all(all).await;
    machine::hurry(cluster.dir());
    all
}

/// A Pod that writes down what happens to it.
struct Ending<'a> {
    cluster: &'a Cluster,
    name: String,
    uid: String,
    record: PathBuf,
    deleted: std::cell::Cell<f64>,
}

/// In seconds after the answer to the first DELETE.
#[derive(Debug)]
struct Times {
    hooks: Vec<f64>,
    terms: Vec<f64>,
    /// The last sign of life.
    kill: Option<f64>,
}

fn unix_now() -> f64 {
    let now = server::clock::unix_micros();
    Duration::from_micros(now).as_secs_f64()
}

/// The times that stand behind `word` in a record.
fn times_in(path: &Path, word: &str) -> Vec<f64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok())
        .collect()
}

impl<'a> Ending<'a> {
    /// Runs the Pod of a vector.
    async fn prepare(cluster: &'a Cluster, vector: &Vector) -> Self {
        let record = cluster.record_dir(vector.name);
        let hook = vector.hook.map(|seconds| {
            format!(
                "lifecycle: {{preStop: {{exec: {{command: [run, 'append /record/hook {{time}}', \
                 'sleep {seconds}']}}}}}}"
            )
        });
        let more: Vec<&str> = hook.iter().map(String::as_str).collect();
        let text = PodText::new(vector.name).record(&record).container_with(
            "main",
            &["on-term /record/term", "beat /record/beat 0.02", "sleep inf"],
            &more,
        );
        let pod = cluster.create(&text.yaml()).await;
        cluster.ready(vector.name).await;
        exists(&record.join("beat")).await;
        let name = vector.name.to_owned();
        Self { cluster, name, uid: uid(&pod).to_owned(), record, deleted: 0.0.into() }
    }

    /// Deletes it, and again where the vector says so; checks what is stored (§4.3).
    async fn delete(&self, vector: &Vector) {
        let pod = self.cluster.delete(&self.name, vector.grace).await;
        let start = Instant::now();
        self.deleted.set(unix_now());
        let first = stored(&pod);
        assert_eq!(first.1, vector.grace.unwrap_or(30), "{}", self.name);
        let Some((at, grace)) = vector.again else { return };
        sleep_until(start + Duration::from_secs_f64(at)).await;
        let pod = self.cluster.delete(&self.name, grace).await;
        let (at, now) =
            (stored(&pod), i64::try_from(server::clock::unix_micros() / 1_000_000).unwrap());
        match grace {
            Some(10) => assert_eq!(at, (first.0 - 20, 10), "{}", self.name),
            Some(5 | -7) => {
                assert_eq!(at.1, 1, "{}", self.name);
                assert!((at.0 - now).abs() <= 1, "{}: {at:?} at {now}", self.name);
            }
            Some(0) => {
                let read = self.cluster.pod(&self.name).await;
                assert!(is_not_found(&read), "removed at once: {read:?}");
            }
            _ => assert_eq!(at, first, "{}: a longer grace changes nothing", self.name),
        }
    }

    /// Waits until no process of it is left.
    async fn dead(&self, within: Duration) {
        eventually(format!("{} is dead", self.name), within, async || {
            let alive = machine::processes_of(&self.uid);
            if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
        })
        .await;
    }

    fn times(&self) -> Times {
        let since = |all: Vec<f64>| all.into_iter().map(|t| t - self.deleted.get()).collect();
        let all =
            |file: &str, word: &str| -> Vec<f64> { since(times_in(&self.record.join(file), word)) };
        Times {
            hooks: all("hook", ""),
            terms: all("term", "TERM "),
            kill: all("beat", "").last().copied(),
        }
    }
}

/// Waits until a program has written this file: then it has set up what it does on TERM, too.
async fn exists(path: &Path) {
    eventually(format!("{} is there", path.display()), SOON, async || {
        if path.exists() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

/// `deletionTimestamp` in seconds, and the grace.
fn stored(pod: &Value) -> (i64, i64) {
    let metadata = &pod["metadata"];
    let text = metadata["deletionTimestamp"].as_str().unwrap_or_default();
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(-1);
    (api::meta::parse_time(text).unwrap_or_default(), grace)
}

fn is_not_found(read: &Result<Value, ClientError>) -> bool {
    matches!(read, Err(ClientError::Api(status)) if status.is_not_found())
}

/// A case of the tables, from its start to its end.
async fn keeps_to_the_table(vector: &Vector, ending: Ending<'_>) {
    let cluster = ending.cluster;
    ending.delete(vector).await;
    // S38: seen from outside, nothing of it outlives KILL.
    let first = ending.deleted.get();
    let left =
        Duration::try_from_secs_f64(first + vector.kill - 0.2 - unix_now()).unwrap_or_default();
    sleep(left).await;
    assert!(!machine::processes_of(&ending.uid).is_empty(), "{}: ended early", vector.name);
    ending.dead(Duration::from_secs(1)).await;
    cluster.gone(&ending.name, SOON).await;
    let seen = ending.times();
    let close = |a: f64, b: f64| (a - b).abs() < CLOSE;
    assert_eq!(seen.hooks.len(), usize::from(vector.hook.is_some()), "{seen:?}");
    let grace = vector.kill.min(30.0);
    // A hook that ends by itself does so as much later as its program took to start.
    let hook = seen.hooks.first().copied().unwrap_or_default();
    let late = if vector.term < grace { hook } else { 0.0 };
    assert!(hook < 1.0, "S35, {}: the hook begins at once: {seen:?}", vector.name);
    assert_eq!(seen.terms.len(), 1, "S37, {}: TERM once: {seen:?}", vector.name);
    let (term, kill) = (seen.terms[0], seen.kill.unwrap());
    assert!(hook < term || vector.hook.is_none(), "S35, {}: before TERM: {seen:?}", vector.name);
    assert!(close(term, vector.term + late), "{}: TERM at {}: {seen:?}", vector.name, vector.term);
    let late = if vector.kill > grace { late } else { 0.0 };
    assert!(close(kill, vector.kill + late), "{}: KILL at {}: {seen:?}", vector.name, vector.kill);
}

async fn only_what_is_there(cluster: &Cluster) {
    let Err(ClientError::Api(status)) = cluster.try_delete("never-was", None).await else {
        panic!("deleted what was never there")
    };
    assert_eq!(status.message, "pods \"never-was\" not found");
    let said = cluster.cli(&["delete", "pod", "never-was"]).await;
    assert_eq!(said.code, 1, "{said:?}");
}

/// S30, DELAPI-1
async fn written_on_it(cluster: &Cluster) {
    for (name, own, asked, want) in [
        ("own-grace", Some(7), None, 7),
        ("asked-grace", Some(7), Some(3), 3),
        ("huge-grace", None, Some(1_000_000), 1_000_000),
        ("negative-grace", None, Some(-3), 1),
    ] {
        let mut text = PodText::new(name);
        if let Some(own) = own {
            text = text.spec(&format!("terminationGracePeriodSeconds: {own}"));
        }
        cluster.create(&text.container("main", &["on-term /tmp/x", "sleep inf"]).yaml()).await;
        let before = cluster.ready(name).await;
        let now = i64::try_from(server::clock::unix_micros() / 1_000_000).unwrap();
        let pod = cluster.delete(name, asked).await;
        let (at, grace) = stored(&pod);
        assert_eq!(grace, want, "{name}");
        assert!((at - now - want).abs() <= 1, "{name}: {at}, {now} + {want}");
        let generation = |pod: &Value| pod["metadata"]["generation"].as_i64().unwrap();
        assert_eq!(generation(&pod), generation(&before) + 1, "{name}");
        cluster.delete(name, Some(0)).await;
    }
}

/// A4, S32, S33
async fn ends_on_term(cluster: &Cluster) {
    let record = cluster.record_dir("leaves");
    let text = PodText::new("leaves").record(&record).container(
        "main",
        &["on-term /record/term exit 0 after 3", "write /record/up x", "sleep inf"],
    );
    cluster.create(&text.yaml()).await;
    cluster.ready("leaves").await;
    exists(&record.join("up")).await;
    let seen = cluster.observe("leaves").await;
    cluster.delete("leaves", Some(30)).await;
    let deleted = (Instant::now(), unix_now());
    for id in 1..=3 {
        let said = cluster
            .cli(&["get", "pod", "leaves", "--server", &cluster.endpoints.urls[id - 1]])
            .await;
        assert!(said.out.contains("Terminating"), "S32, replica {id}: {said:?}");
    }
    cluster.gone("leaves", SOON).await;
    let took = deleted.0.elapsed().as_secs_f64();
    assert!((3.0 - CLOSE..5.0).contains(&took), "gone after {took:.2} s");
    let term = times_in(&record.join("term"), "TERM ");
    assert_eq!(term.len(), 1, "S37: {term:?}");
    assert!(term[0] - deleted.1 < CLOSE, "S33: TERM {:.3} s after the answer", term[0] - deleted.1);
    let last = last_seen(&seen).await;
    assert_eq!(last["status"]["phase"], "Succeeded", "{last}");
    assert_eq!(container(&last, "main")["state"]["terminated"]["exitCode"], 0, "{last}");
}

/// The last form of a Pod before its DELETED event.
async fn last_seen(seen: &crate::observer::Observer) -> Value {
    eventually("its end is watched", SOON, async || {
        let seen = seen.seen();
        let at = seen.iter().position(|s| s.kind == "DELETED").ok_or("no DELETED event")?;
        Ok(seen[at - 1].pod.clone())
    })
    .await
}

/// S35
async fn hooks_run_inside(cluster: &Cluster) {
    let record = cluster.record_dir("hooked");
    let mut text = PodText::new("hooked").record(&record);
    for name in ["a", "b"] {
        let hook = format!(
            "lifecycle: {{preStop: {{exec: {{command: [run, 'append /record/{name} HOOK {{time}} \
             {{net}} {{ipc}} {{uts}} {{mnt}} {{pidns}}', 'sleep 2']}}}}}}"
        );
        let steps = [
            format!("on-term /record/{name} exit 0"),
            format!("append /record/{name} OWN {{time}} {{net}} {{ipc}} {{uts}} {{mnt}} {{pidns}}"),
            "sleep inf".to_owned(),
        ];
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        text = text.container_with(name, &steps, &[&hook]);
    }
    cluster.create(&text.yaml()).await;
    cluster.ready("hooked").await;
    exists(&record.join("a")).await;
    exists(&record.join("b")).await;
    cluster.delete("hooked", None).await;
    let deleted = unix_now();
    cluster.gone("hooked", SOON).await;
    for name in ["a", "b"] {
        let path = record.join(name);
        let text = fs::read_to_string(&path).unwrap();
        let namespaces = |word: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(word)).unwrap_or_default();
            line.split(' ').skip(2).map(str::to_owned).collect()
        };
        assert_eq!(namespaces("OWN").len(), 5, "{text}");
        assert_eq!(namespaces("HOOK"), namespaces("OWN"), "in the container's namespaces");
        let (hook, term) = (times_in(&path, "HOOK ")[0], times_in(&path, "TERM ")[0]);
        assert!(hook - deleted < 1.0, "beside each other: {:.2}", hook - deleted);
        assert!((term - hook - 2.0).abs() < CLOSE, "TERM when the hook ends: {:.2}", term - hook);
    }
}

/// S35
async fn http_hook(cluster: &Cluster) {
    let record = cluster.record_dir("asked");
    let text = PodText::new("asked").record(&record).container_with(
        "main",
        &[
            "http 0.0.0.0:8080 /record /record/requests",
            "on-term /record/term exit 0",
            "write /record/bye bye",
            "sleep inf",
        ],
        &["lifecycle: {preStop: {httpGet: {port: 8080, path: /bye}}}"],
    );
    cluster.create(&text.yaml()).await;
    cluster.ready("asked").await;
    exists(&record.join("bye")).await;
    cluster.delete("asked", None).await;
    cluster.gone("asked", SOON).await;
    let requests = times_in(&record.join("requests"), "REQUEST ");
    let terms = times_in(&record.join("term"), "TERM ");
    assert_eq!((requests.len(), terms.len()), (1, 1));
    assert!(requests[0] < terms[0], "before TERM: {requests:?} {terms:?}");
}

/// S38, S14, DEL-23
async fn whole_cgroup(cluster: &Cluster) {
    let record = cluster.record_dir("family");
    let text = PodText::new("family").record(&record).container(
        "main",
        &[
            "start on-term /record/child; beat /record/child-beat 0.02; sleep inf",
            "on-term /record/term",
            "write /record/up x",
            "sleep inf",
        ],
    );
    // Beside one that crashes all the time: they end as one.
    let text = text.container("crashes", &["exit 3"]);
    let pod = cluster.create(&text.yaml()).await;
    let seen = cluster.observe("family").await;
    let beat = record.join("child-beat");
    exists(&beat).await;
    exists(&record.join("up")).await;
    let processes = machine::processes_of(uid(&pod));
    assert!(processes.len() >= 2, "{processes:?}");
    cluster.delete("family", Some(3)).await;
    let deleted = unix_now();
    cluster.gone("family", SOON).await;
    for pid in processes {
        assert!(!machine::runs(pid), "process {pid} outlived its Pod");
    }
    assert_eq!(machine::of_pod(uid(&pod)), [""; 0]);
    let last = times_in(&beat, "").last().copied().unwrap() - deleted;
    assert!((last - 3.0).abs() < CLOSE, "KILL reached the grandchild at {last:.2} s");
    assert!(times_in(&record.join("child"), "TERM ").is_empty(), "TERM is for the first process");
    let last = last_seen(&seen).await;
    assert_eq!(container(&last, "main")["state"]["terminated"]["exitCode"], 137, "{last}");
}

/// A Pod that ends at TERM.
fn obedient(name: &str) -> PodText {
    // Soon over even where TERM comes before the program has begun to listen to it.
    let text = PodText::new(name).spec("terminationGracePeriodSeconds: 3");
    text.container("main", &["sleep inf"])
}

/// S29, S39
async fn by_force(cluster: &Cluster) {
    let record = cluster.record_dir("forced");
    let text = PodText::new("forced").on("node-1").record(&record);
    let text =
        text.container("main", &["on-term /record/term", "beat /record/beat 0.02", "sleep inf"]);
    let first = cluster.create(&text.yaml()).await;
    cluster.ready("forced").await;
    exists(&record.join("beat")).await;
    let said = cluster.cli(&["delete", "pod", "forced", "--force"]).await;
    let deleted = unix_now();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(is_not_found(&cluster.pod("forced").await));
    // S39: its namesake lives beside the rest of it, and is never taken for it.
    let second = cluster.create(&obedient("forced").on("node-1").yaml()).await;
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid(&first)}});
    let body = Some(wrong.to_string().into_bytes());
    let refused: Result<Value, _> =
        cluster.client.call(Method::DELETE, &format!("{PODS}/forced"), body).await;
    let Err(ClientError::Api(status)) = refused else { panic!("{refused:?}") };
    assert_eq!(status.code, 409, "{status:?}");
    eventually("the first one's processes have ended", SOON, async || {
        let left = machine::of_pod(uid(&first));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let last = times_in(&record.join("beat"), "").last().copied().unwrap() - deleted;
    assert!(last < 3.0 + CLOSE, "DEL-31: KILL at {last:.2} s");
    let pod = cluster.ready("forced").await;
    assert_eq!(uid(&pod), uid(&second));
    assert_eq!(container(&pod, "main")["restartCount"], 0);
}

async fn unscheduled(cluster: &Cluster) {
    let text = obedient("nowhere").spec("nodeSelector: {no: where}");
    cluster.create(&text.yaml()).await;
    cluster.delete("nowhere", Some(300)).await;
    assert!(is_not_found(&cluster.pod("nowhere").await), "at once, whatever the grace");
}

/// S40
async fn gone_for_everyone(cluster: &Cluster) {
    let text = PodText::new("leaving").spec("terminationGracePeriodSeconds: 3").shared();
    let text = text.container("main", &["write /shared/x y", "sleep inf"]);
    let pod = cluster.create(&text.yaml()).await;
    let pod = cluster
        .pod_when("leaving", "has an address", |p| {
            p["status"]["podIP"].is_string() && uid(p) == uid(&pod)
        })
        .await;
    let mut watchers = Vec::new();
    for id in 1..=3 {
        watchers.push(crate::observer::Observer::start(cluster.only(id), "leaving").await);
    }
    cluster.delete("leaving", None).await;
    cluster.gone("leaving", SOON).await;
    for id in 1..=3 {
        let path = format!("{PODS}/leaving");
        let read: Result<Value, _> = cluster.only(id).call(Method::GET, &path, None).await;
        assert!(is_not_found(&read), "replica {id}: {read:?}");
    }
    for (id, watcher) in watchers.iter().enumerate() {
        last_seen(watcher).await;
        let deleted = watcher.seen().iter().filter(|s| s.kind == "DELETED").count();
        assert_eq!(deleted, 1, "the watcher at replica {}", id + 1);
    }
    let ip: std::net::Ipv4Addr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    let [a, b, c, d] = ip.octets();
    let veth = format!("tri{a:02x}{b:02x}{c:02x}{d:02x}");
    eventually("nothing is left on its node", SOON, async || {
        let data = cluster.node_data(node_of(&pod));
        let mut left = machine::of_pod(uid(&pod));
        left.extend(cluster.veths().into_iter().filter(|name| name.contains(&veth)));
        for dir in ["pods", "volumes"] {
            let dir = data.join(dir).join(uid(&pod));
            left.extend(dir.exists().then(|| dir.display().to_string()));
        }
        let logs = fs::read_dir(data.join("logs")).into_iter().flatten().flatten();
        left.extend(logs.map(|e| e.path().display().to_string()).filter(|p| p.contains(uid(&pod))));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// A9, DEL-37
async fn finalizer(cluster: &Cluster) {
    let text = obedient("held").metadata("finalizers: [example.com/hold]");
    let pod = cluster.create(&text.yaml()).await;
    cluster.ready("held").await;
    cluster.delete("held", None).await;
    eventually("the node is done with it", SOON, async || {
        let left = machine::of_pod(uid(&pod));
        let now = cluster.pod("held").await.map_err(|e| e.to_string())?;
        let grace = stored(&now).1;
        if left.is_empty() && grace == 0 { Ok(()) } else { Err(format!("{left:?} {grace}")) }
    })
    .await;
    let patch = client::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let request = client::patch_request(&format!("{PODS}/held"), &patch).unwrap();
    let answer = cluster.client.request(request).await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    assert!(is_not_found(&cluster.pod("held").await), "gone with its last finalizer");
}

/// S31, S32, S39: an agent that hangs keeps nobody else from seeing the end begin, and does no harm
/// to a namesake when it wakes up.
async fn stalled_agent(cluster: &Cluster) {
    use nix::sys::signal::{Signal, kill};
    cluster.create(&obedient("stalled").on("node-1").yaml()).await;
    cluster.create(&obedient("twin").on("node-1").yaml()).await;
    cluster.ready("stalled").await;
    let first = cluster.ready("twin").await;
    let pid = cluster.processes().await.node_pid("node-1").unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    cluster.delete("stalled", None).await;
    cluster.delete("twin", None).await;
    for id in 0..3 {
        let said = cluster.cli(&["get", "pods", "--server", &cluster.endpoints.urls[id]]).await;
        let line = said.out.lines().find(|line| line.starts_with("stalled"));
        assert!(line.is_some_and(|line| line.contains("Terminating")), "{said:?}");
    }
    cluster.delete("twin", Some(0)).await;
    let second = cluster.create(&obedient("twin").on("node-1").yaml()).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!is_not_found(&cluster.pod("stalled").await), "only its node may end it");
    kill(pid, Signal::SIGCONT).unwrap();
    cluster.gone("stalled", SOON).await;
    let pod = cluster.ready("twin").await;
    assert_eq!(uid(&pod), uid(&second), "S39");
    eventually("the first twin has ended", SOON, async || {
        let left = machine::of_pod(uid(&first));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let pod = cluster.pod("twin").await.unwrap();
    assert_eq!(container(&pod, "main")["restartCount"], 0, "S39: {pod}");
}

/// A10
async fn agent_down(cluster: &Cluster) {
    let record = cluster.record_dir("waits");
    let text = PodText::new("waits").on("node-2").record(&record);
    let text =
        text.container("main", &["on-term /record/term", "beat /record/beat 0.02", "sleep inf"]);
    cluster.create(&text.yaml()).await;
    cluster.ready("waits").await;
    exists(&record.join("beat")).await;
    cluster.processes().await.kill_node("node-2").await.unwrap();
    cluster.delete("waits", Some(3)).await;
    sleep(Duration::from_secs(4)).await;
    assert!(cluster.pod("waits").await.is_ok(), "it stays until its node has ended it");
    assert!(times_in(&record.join("term"), "TERM ").is_empty());
    let started = unix_now();
    cluster.processes().await.start_node("node-2").unwrap();
    cluster.gone("waits", SOON).await;
    let term = times_in(&record.join("term"), "TERM ")[0];
    let kill = times_in(&record.join("beat"), "").last().copied().unwrap();
    assert!(term > started, "by the agent that came back");
    assert!((kill - term - 3.0).abs() < CLOSE, "the full grace: {:.2}", kill - term);
}

/// A8, DEL-24
async fn sidecar_ends_last(cluster: &Cluster) {
    let record = cluster.record_dir("escorted");
    let text = PodText::new("escorted")
        .record(&record)
        .container("main", &["on-term /record/main", "sleep inf"])
        .spec(
            "initContainers: [{name: side, image: toolbox, restartPolicy: Always, command: [run, \
             on-term /record/side, beat /record/beat 0.02, sleep inf], volumeMounts: [{name: \
             record, mountPath: /record}]}]",
        );
    cluster.create(&text.yaml()).await;
    cluster.ready("escorted").await;
    exists(&record.join("beat")).await;
    cluster.delete("escorted", Some(10)).await;
    let deleted = unix_now();
    cluster.gone("escorted", SOON).await;
    for (file, word, want) in [("main", "TERM ", 0.0), ("side", "TERM ", 10.0), ("beat", "", 12.0)]
    {
        let at = times_in(&record.join(file), word).last().copied().unwrap() - deleted;
        assert!((at - want).abs() < CLOSE, "{file}: {at:.2} s, not {want}");
    }
}

/// S34, S31: while its agent hangs.
async fn out_of_endpoints(cluster: &Cluster) {
    use nix::sys::signal::{Signal, kill};
    let text = obedient("backend").on("node-1").metadata("labels: {app: backend}");
    cluster.create(&text.yaml()).await;
    for name in ["front", "other"] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: \
             backend}}, ports: [{{port: 80}}]}}\n"
        );
        cluster.create(&text).await;
    }
    let pod = cluster.ready("backend").await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let listed = async |name: &str| {
        let path = format!("/api/v1/namespaces/default/endpoints/{name}");
        let found: Result<Value, _> = cluster.client.call(Method::GET, &path, None).await;
        found.is_ok_and(|found| found["subsets"].to_string().contains(ip))
    };
    let until = async |want: bool| {
        for name in ["front", "other"] {
            eventually(format!("{name} lists {ip}: {want}"), SOON, async || {
                if listed(name).await == want { Ok(()) } else { Err("not yet".to_owned()) }
            })
            .await;
        }
    };
    until(true).await;
    let pid = cluster.processes().await.node_pid("node-1").unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    cluster.delete("backend", None).await;
    until(false).await;
    assert!(cluster.pod("backend").await.is_ok(), "its node has not ended it");
    kill(pid, Signal::SIGCONT).unwrap();
    cluster.gone("backend", SOON).await;
}
