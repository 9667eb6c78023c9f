//! The way of a new Pod, hop by hop: refused or written, bound, run, reported.

use crate::{
    cluster::{
        Cluster, PODS, SOON, condition, container, eventually, node_of, together, uid, with_cluster,
    },
    manifests::PodText,
};
use client::ClientError;
use http::Method;
use serde_json::{Value, json};
use std::{fs, time::Duration};
use tokio::time::{Instant, sleep};

#[test]
fn a_pod_is_created_hop_by_hop() {
    // S4, S15, S16, S17, S18, S20, S21, S22, S23, S25, S26
    with_cluster(2, async |cluster| {
        // First, while nothing else changes the state.
        refused_without_a_trace(cluster).await;
        unchanged_is_no_write(cluster).await;
        picked_up(cluster).await;
        together(vec![
            ("S18: visible on every replica", Box::pin(visible_everywhere(cluster))),
            ("S21: why it waits, by node", Box::pin(waits_with_reasons(cluster))),
            ("S22, S23: bound once, by the scheduler", Box::pin(bound_once(cluster))),
            ("S25, S26: run by one node, by legal steps", Box::pin(runs_by_legal_steps(cluster))),
        ])
        .await;
    });
}

#[test]
fn creation_survives_the_loss_of_any_replica() {
    // S19, S24, S27, S28, A2, A11
    with_cluster(2, async |cluster| {
        node_changes_its_replica(cluster).await;
        no_final_status_is_lost(cluster).await;
        acknowledged_then_all_killed(cluster).await;
    });
}

/// Manifests, the exit code, and what must be said of each.
const BAD: &[(&str, &str, i32, &[&str])] = &[
    ("syntax", "kind: Pod\nspec: [1,\n", 2, &[":3:1: "]),
    ("tabs", "kind: Pod\n\tspec: {}\n", 2, &[":2:1: "]),
    ("twice the same key", "kind: Pod\nkind: Pod\n", 2, &[":1:1: ", "duplicate", "kind"]),
    (
        "no such kind",
        "apiVersion: v7\nkind: Pud\n",
        2,
        &["there is no kind \"Pud\" in version \"v7\""],
    ),
    ("no containers", "SPEC {containers: []}", 1, &["spec.containers: Required value"]),
    (
        "unknown field",
        "SPEC {containers: [{name: a, image: b, imagee: c}]}",
        1,
        &["unknown field \"spec.containers[0].imagee\""],
    ),
    (
        "wrong type",
        "SPEC {containers: [{name: a, image: b, ports: [{containerPort: many}]}]}",
        1,
        &["containerPort"],
    ),
    (
        "negative amount",
        "SPEC {containers: [{name: a, image: b, resources: {limits: {cpu: '-1'}}}]}",
        1,
        &[
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    ),
    (
        "request above limit",
        "SPEC {containers: [{name: a, image: b, resources: {limits: {cpu: 1}, requests: {cpu: 2}}}]}",
        1,
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    ),
    (
        "same name twice",
        "SPEC {containers: [{name: a, image: b}, {name: a, image: b}]}",
        1,
        &["spec.containers[1].name: Duplicate value: \"a\""],
    ),
    (
        "no image",
        "SPEC {containers: [{name: a}]}",
        1,
        &["spec.containers[0].image: Required value"],
    ),
    (
        "bad container name",
        "SPEC {containers: [{name: A_b, image: b}]}",
        1,
        &[
            "spec.containers[0].name: Invalid value: \"A_b\": a lowercase RFC 1123 label must consist of",
            "(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    ),
    (
        "bad restart policy",
        "SPEC {restartPolicy: Sometimes, containers: [{name: a, image: b}]}",
        1,
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    ),
    (
        "no such volume",
        "SPEC {containers: [{name: a, image: b, volumeMounts: [{name: v, mountPath: /v}]}]}",
        1,
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    ),
    (
        "port out of range",
        "SPEC {containers: [{name: a, image: b, ports: [{containerPort: 70000}]}]}",
        1,
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    ),
    (
        "two kinds of volume",
        "SPEC {containers: [{name: a, image: b}], volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]}",
        1,
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    ),
    (
        "empty hook",
        "SPEC {containers: [{name: a, image: b, lifecycle: {preStop: {exec: {command: []}}}}]}",
        1,
        &["spec.containers[0].lifecycle.preStop.exec.command: Required value"],
    ),
    (
        "toleration",
        "SPEC {tolerations: [{operator: Equal}], containers: [{name: a, image: b}]}",
        1,
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
        ],
    ),
    (
        "all at once",
        "SPEC {restartPolicy: No, containers: [{name: a}, {name: B, image: b}]}",
        1,
        &[
            "spec.restartPolicy: Unsupported value: \"No\"",
            "spec.containers[0].image: Required value",
            "spec.containers[1].name: Invalid value: \"B\"",
        ],
    ),
    (
        "bad label",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad, labels: {a: '-'}}\nspec: {containers: [{name: a, image: b}]}\n",
        1,
        &[
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of",
        ],
    ),
    (
        "bad name",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad}\nspec: {containers: [{name: a, image: b}]}\n",
        1,
        &["metadata.name: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain must consist of"],
    ),
    (
        "second document",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n---\nkind: [\n",
        2,
        &[":6:1: "],
    ),
];

/// S4, S16, S17
async fn refused_without_a_trace(cluster: &Cluster) {
    let before = quiet(cluster).await;
    let seen = cluster.observe("").await;
    let file = cluster.dir().join("bad.yaml");
    for (name, text, code, wanted) in BAD {
        let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec:";
        fs::write(&file, text.replace("SPEC", head)).unwrap();
        let said = cluster.cli(&["apply", "-f", &file.to_string_lossy()]).await;
        assert_eq!(said.code, *code, "S16, {name}: {said:?}");
        for part in *wanted {
            assert!(said.err.contains(part), "S16, {name}: no {part:?} in {}", said.err);
        }
        assert_eq!(said.out, "", "S17, {name}: nothing is reported as done");
    }
    assert_eq!(cluster.state().await, before, "S17: revision and state of all replicas");
    assert!(seen.seen().is_empty(), "S17: {:?}", seen.seen());
    let core: Value = cluster.client.call(Method::GET, "/api/v1", None).await.unwrap();
    let names = core["resources"].as_array().unwrap().iter().map(|r| r["name"].to_string());
    let containers = names.filter(|n| n.contains("container") && !n.contains('/'));
    assert_eq!(containers.count(), 0, "S4: only Pods run");
}

/// S15
async fn unchanged_is_no_write(cluster: &Cluster) {
    let file = cluster.dir().join("same.yaml");
    let text = |label: &str| {
        let pod = PodText::new("same").metadata(&format!("labels: {{a: {label}}}"));
        pod.spec("nodeSelector: {no: where}").container("main", &["sleep inf"]).yaml()
    };
    fs::write(&file, text("x") + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n")
        .unwrap();
    let path = file.to_string_lossy().into_owned();
    let apply = async || cluster.cli(&["apply", "-f", &path]).await;
    assert_eq!(apply().await.out, "pod/same created\nconfigmap/two created\n");
    // The scheduler says why it waits: a write of its own.
    cluster
        .pod_when("same", "is refused a node", |p| condition(p, "PodScheduled") == "False")
        .await;
    let (revision, state) = quiet(cluster).await;
    assert_eq!(apply().await.out, "pod/same unchanged\nconfigmap/two unchanged\n");
    assert_eq!(cluster.state().await, (revision, state), "no new revision");
    fs::write(&file, text("y")).unwrap();
    assert_eq!(apply().await.out, "pod/same configured\n");
    assert_eq!(cluster.state().await.0, revision + 1);
}

/// The state once the controllers have written what they had to: the last of it is that they know of
/// every node, which the node controller says at its next round.
async fn quiet(cluster: &Cluster) -> (u64, String) {
    let count = async |path: &str| {
        let list: Value = cluster.client.call(Method::GET, path, None).await.unwrap();
        list["items"].as_array().map_or(0, Vec::len)
    };
    eventually("every node is registered", SOON, async || {
        let nodes = count("/api/v1/nodes").await;
        let told = count("/api/v1/events?fieldSelector=reason=RegisteredNode").await;
        if told >= nodes { Ok(()) } else { Err(format!("{told} of {nodes}")) }
    })
    .await;
    eventually("nobody writes", SOON, async || {
        let before = cluster.state().await;
        sleep(Duration::from_millis(300)).await;
        let after = cluster.state().await;
        if before == after { Ok(after) } else { Err(format!("{before:?}, {after:?}")) }
    })
    .await
}

/// S18
async fn visible_everywhere(cluster: &Cluster) {
    for writer in 1..=3 {
        let name = format!("seen-{writer}");
        let text =
            PodText::new(&name).spec("nodeSelector: {no: where}").container("a", &["sleep inf"]);
        let pod: Value = serde_yaml_ng::from_str(&text.yaml()).unwrap();
        let body = Some(pod.to_string().into_bytes());
        let stored: Value = cluster.only(writer).call(Method::POST, PODS, body).await.unwrap();
        for reader in 1..=3 {
            let read: Value = cluster
                .only(reader)
                .call(Method::GET, &format!("{PODS}/{name}"), None)
                .await
                .unwrap();
            assert_eq!(uid(&read), uid(&stored), "written at {writer}, read at {reader}");
            assert_eq!((&read["status"]["phase"], node_of(&read)), (&"Pending".into(), ""));
        }
    }
}

/// S20
async fn picked_up(cluster: &Cluster) {
    let seen = cluster.observe("").await;
    let mut waits = Vec::new();
    for i in 0..12 {
        let name = format!("quick-{i}");
        cluster.create(&PodText::new(&name).container("main", &["sleep inf"]).yaml()).await;
        let created = Instant::now();
        let bound = eventually(format!("{name} is bound"), SOON, async || {
            let seen = seen.seen();
            let found = seen
                .iter()
                .find(|s| s.pod["metadata"]["name"] == name && !node_of(&s.pod).is_empty());
            found.map(|s| s.at).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        waits.push(bound.saturating_duration_since(created));
    }
    waits.sort();
    assert!(waits[6] < Duration::from_millis(200), "S20: half of them within: {waits:?}");
    for i in 0..12 {
        cluster.delete(&format!("quick-{i}"), Some(0)).await;
    }
}

/// S21, A3
async fn waits_with_reasons(cluster: &Cluster) {
    let text = PodText::new("picky").spec("nodeSelector: {kubernetes.io/hostname: node-2}");
    let text = text.container_with("main", &["sleep inf"], &["resources: {requests: {cpu: 1k}}"]);
    cluster.create(&text.yaml()).await;
    let pod = cluster
        .pod_when("picky", "is refused a node", |p| condition(p, "PodScheduled") == "False")
        .await;
    let scheduled = &pod["status"]["conditions"][0];
    assert_eq!(scheduled["reason"], "Unschedulable");
    let message = scheduled["message"].as_str().unwrap();
    assert!(message.starts_with("0/2 nodes are available: "), "{message}");
    assert!(message.contains("1 Insufficient cpu"), "{message}");
    assert!(message.contains("1 node(s) didn't match Pod's node affinity/selector"), "{message}");
    assert_eq!(pod["status"]["phase"], "Pending");
    let event = events_of(cluster, "picky", "FailedScheduling").await;
    assert_eq!(event[0]["message"], message);
}

async fn events_of(cluster: &Cluster, pod: &str, reason: &str) -> Vec<Value> {
    let fields = format!("involvedObject.name={pod},reason={reason}");
    let query = client::encode(&[("fieldSelector", fields.as_str())]);
    let path = format!("/api/v1/namespaces/default/events{query}");
    eventually(format!("{reason} of {pod}"), SOON, async || {
        let list: Value =
            cluster.client.call(Method::GET, &path, None).await.map_err(|e| e.to_string())?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.is_empty() { Err("no event".to_owned()) } else { Ok(items) }
    })
    .await
}

/// S22, S23
async fn bound_once(cluster: &Cluster) {
    let seen = cluster.observe("bound").await;
    cluster.create(&PodText::new("bound").container("main", &["sleep inf"]).yaml()).await;
    let pod = cluster.ready("bound").await;
    assert_eq!(condition(&pod, "PodScheduled"), "True");
    let events = events_of(cluster, "bound", "Scheduled").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["source"]["component"], "default-scheduler");
    let binds = {
        let seen = seen.seen();
        let mut nodes: Vec<String> = seen.iter().map(|s| node_of(&s.pod).to_owned()).collect();
        nodes.dedup();
        nodes
    };
    assert_eq!(binds, ["", node_of(&pod)], "unbound, then bound, once");
    // Nobody binds it again, wherever to.
    for node in ["node-1", "node-2"] {
        let again = cluster.client.bind("default", "bound", uid(&pod), None, node).await;
        let Err(ClientError::Api(status)) = again else {
            panic!("bound again to {node}: {again:?}")
        };
        assert_eq!(status.code, 409, "{status:?}");
    }
    let patch = json!({"spec": {"nodeName": "node-9"}});
    let patch = client::patch_request(&format!("{PODS}/bound"), &client::Patch::Merge(patch));
    let answer = cluster.client.request(patch.unwrap()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 422, "spec.nodeName stays");
    assert_eq!(node_of(&cluster.pod("bound").await.unwrap()), node_of(&pod));
    // Of many who bind an unbound Pod at the same time, through all replicas, one wins.
    let text =
        PodText::new("wanted").spec("schedulerName: nobody").container("main", &["sleep inf"]);
    let wanted = cluster.create(&text.yaml()).await;
    let binders = (0..12u64).map(|i| {
        let (client, uid) = (cluster.only(i % 3 + 1), uid(&wanted).to_owned());
        let node = format!("node-{}", i % 2 + 1);
        async move { client.bind("default", "wanted", &uid, None, &node).await.is_ok() }
    });
    let won = futures::future::join_all(binders).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

/// S25, S26
async fn runs_by_legal_steps(cluster: &Cluster) {
    let seen = cluster.observe("stepwise").await;
    let text = PodText::new("stepwise")
        .spec("restartPolicy: Never")
        .container("a", &["sleep 0.3"])
        .container("b", &["sleep 0.3"]);
    cluster.create(&text.yaml()).await;
    let pod = cluster.phase("stepwise", "Succeeded").await;
    eventually("the watch has come as far", SOON, async || match seen.seen().last() {
        Some(last) if last.pod["status"]["phase"] == "Succeeded" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let nodes = ["node-1", "node-2"];
    let holders: Vec<&str> = nodes
        .into_iter()
        .filter(|node| cluster.node_data(node).join("pods").join(uid(&pod)).exists())
        .collect();
    assert_eq!(holders, [node_of(&pod)], "S25: only its node has it");
    let mut phases: Vec<String> = Vec::new();
    let mut starts = std::collections::BTreeSet::new();
    for seen in seen.seen() {
        phases.push(seen.pod["status"]["phase"].as_str().unwrap().to_owned());
        for name in ["a", "b"] {
            let status = container(&seen.pod, name);
            let state = &status["state"];
            if state["running"].is_object() {
                assert!(
                    status["containerID"].as_str().unwrap().starts_with("trireme://"),
                    "{status}"
                );
                assert!(seen.pod["status"]["podIP"].is_string(), "{}", seen.pod);
                starts.insert((name, state["running"]["startedAt"].to_string()));
            }
            if let Some(reason) = state["waiting"]["reason"].as_str() {
                assert_eq!(reason, "ContainerCreating");
            }
        }
    }
    phases.dedup();
    assert_eq!(phases, ["Pending", "Running", "Succeeded"], "S26");
    assert!(starts.len() <= 2, "S26: each was started once: {starts:?}");
}

/// The replica that a node's session is with, as its agent logged it last.
fn replica_of(cluster: &Cluster, node: &str) -> Option<u64> {
    let log = fs::read_to_string(cluster.dir().join(node).join("log")).ok()?;
    let line = log.lines().rfind(|line| line.contains("connected") && line.contains("replica"))?;
    let id = line.split("replica-").nth(1)?.chars().take_while(char::is_ascii_digit);
    id.collect::<String>().parse().ok()
}

/// S24
async fn node_changes_its_replica(cluster: &Cluster) {
    let text = PodText::new("steady").on("node-1").container("main", &["sleep inf"]);
    cluster.create(&text.yaml()).await;
    let before = cluster.ready("steady").await;
    let replica = replica_of(cluster, "node-1").expect("node-1 says who it is connected to");
    let seen = cluster.observe("").await;
    cluster.processes().await.kill_replica(replica).await.unwrap();
    let killed = Instant::now();
    // At once: the node must get it by another way.
    let text = PodText::new("next").on("node-1").container("main", &["sleep inf"]);
    cluster.create(&text.yaml()).await;
    cluster.ready("next").await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2), "create, bind, start and report took {took:?}");
    let after = replica_of(cluster, "node-1").unwrap();
    assert_ne!(after, replica, "the node is with another replica");
    // No gap and no duplicate: each Pod was started once, and the old one was left alone.
    let steady = cluster.pod("steady").await.unwrap();
    let started = |pod: &Value| container(pod, "main")["state"]["running"]["startedAt"].clone();
    assert_eq!(started(&steady), started(&before));
    assert_eq!(container(&steady, "main")["restartCount"], 0);
    let seen = seen.seen();
    let starts: std::collections::BTreeSet<String> = seen
        .iter()
        .filter(|s| s.pod["metadata"]["name"] == "next")
        .map(|s| container(&s.pod, "main")["containerID"].to_string())
        .filter(|id| id != "null")
        .collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
    cluster.start_replica(replica).await;
    // A11: the agent itself is killed and started again; nothing of its Pods changes.
    cluster.restart_node("node-1").await;
    let text = PodText::new("later").on("node-1").container("main", &["sleep inf"]);
    cluster.create(&text.yaml()).await;
    cluster.ready("later").await;
    let steady = cluster.pod("steady").await.unwrap();
    assert_eq!(started(&steady), started(&before), "A11");
    assert_eq!(container(&steady, "main")["restartCount"], 0, "A11");
}

/// S27, S28, A2: statuses while the leader is killed twice.
async fn no_final_status_is_lost(cluster: &Cluster) {
    const PODS_AT_ONCE: usize = 16;
    let seen = cluster.observe("").await;
    let monotonic = async {
        let mut last = 0;
        let mut at = 0;
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            at = at % 3 + 1;
            let read: Result<Value, _> =
                cluster.only(at).call(Method::GET, &format!("{PODS}/brief-0"), None).await;
            if let Ok(pod) = read {
                let revision: u64 =
                    pod["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                assert!(revision >= last, "S27: {last} seen, then {revision} at replica {at}");
                last = revision;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let run = async {
        for i in 0..PODS_AT_ONCE {
            let text = PodText::new(&format!("brief-{i}")).spec("restartPolicy: Never");
            let text = text.container("main", &["sleep 0.6", &format!("exit {}", i % 2)]);
            cluster.create(&text.yaml()).await;
        }
        for _ in 0..2 {
            let killed = cluster.kill_leader().await;
            sleep(Duration::from_millis(300)).await;
            cluster.start_replica(killed).await;
        }
    };
    futures::future::join(monotonic, run).await;
    for i in 0..PODS_AT_ONCE {
        let (name, want) = (format!("brief-{i}"), ["Succeeded", "Failed"][i % 2]);
        let pod = cluster.phase(&name, want).await;
        let status = container(&pod, "main");
        assert_eq!(status["restartCount"], 0, "S28: {name} ran once");
        assert_eq!(status["state"]["terminated"]["exitCode"], i % 2, "S28: {name}");
        let events = seen.seen();
        let ids: std::collections::BTreeSet<String> = events
            .iter()
            .filter(|s| s.pod["metadata"]["name"] == name)
            .filter_map(|s| container(&s.pod, "main")["containerID"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(ids.len(), 1, "A2: {name} had one container");
        let phases = events.iter().filter(|s| s.pod["metadata"]["name"] == name);
        let ended = phases.skip_while(|s| s.pod["status"]["phase"] != want);
        assert!(ended.clone().all(|s| s.pod["status"]["phase"] == want), "S27: {name} went back");
    }
}

/// S19
async fn acknowledged_then_all_killed(cluster: &Cluster) {
    let text =
        PodText::new("durable").spec("nodeSelector: {no: where}").container("a", &["sleep inf"]);
    let mut dev = cluster.processes().await;
    let stored = cluster.create(&text.yaml()).await;
    for id in 1..=3 {
        let pid = dev.replica_pid(id).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    for id in 1..=3 {
        dev.kill_replica(id).await.unwrap();
    }
    for id in 1..=3 {
        dev.start_replica(id).unwrap();
    }
    dev.wait_replicas(SOON).await.unwrap();
    drop(dev);
    let read = cluster.pod("durable").await.unwrap();
    assert_eq!(uid(&read), uid(&stored));
}
