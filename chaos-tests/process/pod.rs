//! A Pod as a logical host: what its containers share, and what they do not.

use crate::{
    cluster::{
        Cluster, SOON, condition, container, eventually, node_of, together, uid, with_cluster,
    },
    machine,
    manifests::PodText,
};
use serde_json::Value;
use std::{fs, path::PathBuf};

#[test]
fn a_pod_is_a_logical_host() {
    // S1, S2, S3, S5, S6, S8, S9, S10, S11, S12, S13
    with_cluster(2, async |cluster| {
        together(vec![
            ("S5, S6, S8: one node, one network", Box::pin(one_network(cluster))),
            ("S9: a sidecar needs no configuration", Box::pin(sidecar(cluster))),
            ("S10: one port space, and Unix sockets", Box::pin(one_port_space(cluster))),
            ("S11: one volume that outlives a container", Box::pin(one_volume(cluster))),
            ("S12: placed whole or not at all", Box::pin(placed_whole(cluster))),
            ("S1, S2: own files, own processes, the host's kernel", Box::pin(own_files(cluster))),
            ("S3: the same on every node", Box::pin(same_everywhere(cluster))),
            ("S13: bounded memory", Box::pin(bounded_memory(cluster))),
            ("S13: bounded processor time", Box::pin(bounded_cpu(cluster))),
            ("S13: a replacement is another Pod", Box::pin(replaced(cluster))),
        ])
        .await;
    });
}

/// Where a Pod's volume is on its node.
fn volume(cluster: &Cluster, pod: &Value, name: &str) -> PathBuf {
    cluster.node_data(node_of(pod)).join("volumes").join(uid(pod)).join("volumes").join(name)
}

/// Nodes that have something of this Pod.
fn nodes_with(cluster: &Cluster, uid: &str) -> Vec<String> {
    let nodes = ["node-1", "node-2"].into_iter();
    nodes
        .filter(|node| cluster.node_data(node).join("pods").join(uid).exists())
        .map(str::to_owned)
        .collect()
}

async fn one_network(cluster: &Cluster) {
    let identity = "print host {hostname} {net} {ipc} {uts} {env:IP}";
    let ip = "env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]";
    let text = PodText::new("house")
        .on("node-1")
        .shared()
        .container_with(
            "a",
            &[identity, "write /shared/page hello", "http 127.0.0.1:8080 /shared", "sleep inf"],
            &[ip],
        )
        .container_with(
            "b",
            &[identity, "get-until http://127.0.0.1:8080/page", "sleep inf"],
            &[ip],
        )
        .container("c", &["sleep inf"]);
    cluster.create(&text.yaml()).await;
    let neighbour = PodText::new("neighbour")
        .on("node-1")
        .spec("restartPolicy: Never")
        .container_with("a", &[identity, "get http://127.0.0.1:8080/page"], &[ip]);
    let pod = cluster.ready("house").await;
    // S5
    assert_eq!(pod["status"]["containerStatuses"].as_array().unwrap().len(), 3, "{pod}");
    assert_eq!(nodes_with(cluster, uid(&pod)), [node_of(&pod)]);
    // S6: B reaches what listens on A's loopback.
    cluster.line("house", "b", "hello").await;
    // S8
    let a = cluster.line("house", "a", "host ").await;
    let b = cluster.line("house", "b", "host ").await;
    assert_eq!(a, b, "one host name, network, IPC, UTS and address");
    assert!(a.starts_with("house "), "{a}");
    assert!(a.ends_with(pod["status"]["podIP"].as_str().unwrap()), "{a}");
    // S6: another Pod on the node does not.
    cluster.create(&neighbour.yaml()).await;
    let other = cluster.phase("neighbour", "Failed").await;
    assert_eq!(container(&other, "a")["state"]["terminated"]["exitCode"], 1, "{other}");
    let n = cluster.line("neighbour", "a", "host ").await;
    for (ours, theirs) in a.split(' ').zip(n.split(' ')) {
        assert_ne!(ours, theirs, "S8: another Pod is another host");
    }
}

async fn sidecar(cluster: &Cluster) {
    let text = PodText::new("tailed")
        .shared()
        .container("main", &["append /shared/log first", "append /shared/log second", "sleep inf"])
        .container("sidecar", &["http 127.0.0.1:8081 /shared", "sleep inf"]);
    cluster.create(&text.yaml()).await;
    cluster.ready("tailed").await;
    let exec = ["exec", "tailed", "-c", "main", "--", "run", "get-until http://127.0.0.1:8081/log"];
    eventually("the sidecar serves what main wrote", SOON, async || {
        let said = cluster.cli(&exec).await;
        if said.out == "first\nsecond\n" { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

async fn one_port_space(cluster: &Cluster) {
    let text = PodText::new("ports")
        .spec("restartPolicy: Never")
        .shared()
        .container(
            "first",
            &[
                "http 0.0.0.0:9000 /",
                "socket /shared/s over a socket",
                "write /shared/up x",
                "sleep inf",
            ],
        )
        .container("second", &["await /shared/up", "ask /shared/s", "http 127.0.0.1:9000 /"]);
    cluster.create(&text.yaml()).await;
    let pod = cluster
        .pod_when("ports", "has a container that has ended", |pod| {
            !container(pod, "second")["state"]["terminated"].is_null()
        })
        .await;
    let state = &container(&pod, "second")["state"]["terminated"];
    assert_eq!((&state["exitCode"], &state["reason"]), (&1.into(), &"Error".into()), "{pod}");
    assert!(container(&pod, "first")["state"]["running"].is_object(), "{pod}");
    let log = cluster.log("ports", "second").await;
    assert!(log.contains("over a socket"), "{log}");
    assert!(log.contains("Address in use") || log.contains("os error 98"), "EADDRINUSE: {log}");
}

async fn one_volume(cluster: &Cluster) {
    let text = PodText::new("kept")
        .shared()
        .container("writer", &["append /shared/starts {time}", "sleep inf"])
        .container(
            "reader",
            &["await /shared/starts", "print saw {file:/shared/starts}", "sleep inf"],
        );
    cluster.create(&text.yaml()).await;
    let pod = cluster.ready("kept").await;
    let saw = cluster.line("kept", "reader", "saw ").await;
    let dir = volume(cluster, &pod, "shared");
    let lines = || fs::read_to_string(dir.join("starts")).unwrap_or_default();
    assert_eq!(lines().trim(), saw, "both see one directory");
    let cgroup = machine::cgroups(uid(&pod))
        .into_iter()
        .find(|d| d.ends_with(format!("{}-writer-0", uid(&pod))));
    let list = fs::read_to_string(cgroup.unwrap().join("cgroup.procs")).unwrap();
    let first: i32 = list.lines().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let pod = cluster
        .pod_when("kept", "was restarted", |pod| {
            container(pod, "writer")["restartCount"] == 1 && condition(pod, "Ready") == "True"
        })
        .await;
    assert_eq!(container(&pod, "writer")["lastState"]["terminated"]["exitCode"], 137, "{pod}");
    eventually("the restarted container adds to the same file", SOON, async || {
        if lines().lines().count() == 2 { Ok(()) } else { Err(lines()) }
    })
    .await;
    assert_eq!(lines().lines().next().unwrap(), saw, "what was there before the restart");
    assert_eq!(container(&pod, "reader")["restartCount"], 0, "{pod}");
    cluster.delete("kept", Some(1)).await;
    cluster.gone("kept", SOON).await;
    assert!(!dir.exists(), "the volume ends with its Pod: {}", dir.display());
}

async fn placed_whole(cluster: &Cluster) {
    let text = PodText::new("large")
        .container_with("small", &["sleep inf"], &["resources: {requests: {cpu: 10m}}"])
        .container_with("huge", &["sleep inf"], &["resources: {requests: {cpu: 1k}}"]);
    cluster.create(&text.yaml()).await;
    let pod = cluster
        .pod_when("large", "is known not to fit", |pod| condition(pod, "PodScheduled") == "False")
        .await;
    let why = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(why.contains("0/2 nodes are available") && why.contains("Insufficient cpu"), "{why}");
    assert_eq!(pod["status"]["phase"], "Pending", "{pod}");
    assert_eq!(node_of(&pod), "", "{pod}");
    assert!(nodes_with(cluster, uid(&pod)).is_empty(), "no part of it runs anywhere");
    assert!(machine::of_pod(uid(&pod)).is_empty());
}

async fn own_files(cluster: &Cluster) {
    let sentinel = cluster.dir().join("sentinel");
    fs::write(&sentinel, "of the host").unwrap();
    let steps = |own: &str| {
        vec![
            format!("write /cfg {own}"),
            "sleep 0.3".to_owned(),
            "print cfg {file:/cfg}".to_owned(),
            format!("print sentinel <{{file:{}}}>", sentinel.display()),
            "print kernel {file:/proc/sys/kernel/osrelease}".to_owned(),
            "print env {env:PATH} {env:WHO} {env:BOTH}".to_owned(),
            "print own {pid} {mnt} {pidns}".to_owned(),
            "sleep inf".to_owned(),
        ]
    };
    let mut text = PodText::new("isolated");
    for name in ["a", "b"] {
        let steps = steps(name);
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let env = format!("env: [{{name: WHO, value: {name}}}, {{name: BOTH, value: $(WHO)2}}]");
        text = text.container_with(name, &steps, &[&env]);
    }
    cluster.create(&text.yaml()).await;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut own = Vec::new();
    for name in ["a", "b"] {
        assert_eq!(cluster.line("isolated", name, "cfg ").await, name, "S2: its own file");
        assert_eq!(cluster.line("isolated", name, "sentinel ").await, "<>", "S1: the host's file");
        assert_eq!(cluster.line("isolated", name, "kernel ").await, kernel.trim(), "S2");
        let env = cluster.line("isolated", name, "env ").await;
        assert_eq!(env, format!("/bin {name} {name}2"), "S1: the image's and the manifest's");
        own.push(cluster.line("isolated", name, "own ").await);
    }
    let part = |at: usize, of: &str| of.split(' ').nth(at).unwrap().to_owned();
    assert_eq!((part(0, &own[0]), part(0, &own[1])), ("1".to_owned(), "1".to_owned()));
    assert_ne!(part(1, &own[0]), part(1, &own[1]), "S2: mounts");
    assert_ne!(part(2, &own[0]), part(2, &own[1]), "S2: processes");
    let pod = cluster.ready("isolated").await;
    let inside: Vec<String> = machine::cgroups(uid(&pod))
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|pids| pids.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!inside.is_empty());
    for pid in inside {
        assert_eq!(huge_pages(&pid), "1", "what replicas and agents do without, containers do not");
    }
    for (name, pid) in cluster.processes().await.pids() {
        assert_eq!(huge_pages(&pid.to_string()), "0", "{name}");
    }
}

/// Whether the kernel may give a process huge pages without being asked: 1 or 0.
fn huge_pages(pid: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    line.unwrap_or_default().trim().to_owned()
}

async fn same_everywhere(cluster: &Cluster) {
    let mut results = Vec::new();
    for node in ["node-1", "node-2"] {
        let name = format!("portable-{node}");
        let text = PodText::new(&name).on(node).spec("restartPolicy: Never").container_with(
            "main",
            &["print env {env:PATH} {env:X} {cwd}", "exit 7"],
            &["env: [{name: X, value: y}]"],
        );
        cluster.create(&text.yaml()).await;
        let pod = cluster.phase(&name, "Failed").await;
        assert_eq!(node_of(&pod), node);
        let status = container(&pod, "main");
        let image = status["imageID"].as_str().unwrap().to_owned();
        assert!(image.contains("@sha256:"), "{image}");
        let code = status["state"]["terminated"]["exitCode"].as_i64().unwrap();
        results.push((image, code, cluster.line(&name, "main", "env ").await));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].1, 7);
}

async fn bounded_memory(cluster: &Cluster) {
    let text = PodText::new("hungry").shared().container_with(
        "main",
        &["append /shared/runs {time}", "allocate 268435456", "sleep inf"],
        &["resources: {limits: {memory: 48Mi}}"],
    );
    cluster.create(&text.yaml()).await;
    let pod = cluster
        .pod_when("hungry", "was restarted", |pod| {
            let count = container(pod, "main")["restartCount"].as_i64().unwrap_or_default();
            count >= 1 && !container(pod, "main")["lastState"]["terminated"].is_null()
        })
        .await;
    let last = &container(&pod, "main")["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&"OOMKilled".into(), &137.into()), "{pod}");
    let runs = volume(cluster, &pod, "shared").join("runs");
    eventually("the emptyDir is kept over the restart", SOON, async || {
        let text = fs::read_to_string(&runs).unwrap_or_default();
        if text.lines().count() >= 2 { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.delete("hungry", Some(1)).await;
}

async fn bounded_cpu(cluster: &Cluster) {
    let text = PodText::new("throttled").container_with(
        "main",
        &["burn 1000"],
        &["resources: {limits: {cpu: 100m}}"],
    );
    cluster.create(&text.yaml()).await;
    let pod = cluster.ready("throttled").await;
    let dirs = machine::cgroups(uid(&pod));
    let read = |file: &str| {
        let mut texts = dirs.iter().filter_map(|dir| {
            let inner = dir.to_string_lossy().contains("-main-0");
            inner.then(|| fs::read_to_string(dir.join(file)).ok()).flatten()
        });
        texts.next().unwrap_or_default()
    };
    let quota = if read("cpu.max").is_empty() { read("cpu.cfs_quota_us") } else { read("cpu.max") };
    assert!(quota.starts_with("10000"), "a tenth of 100 ms: {quota:?} in {dirs:?}");
    eventually("it is throttled", SOON, async || {
        let stat = read("cpu.stat");
        let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        if count.is_some_and(|count| count != "0") { Ok(()) } else { Err(stat) }
    })
    .await;
    cluster.delete("throttled", Some(0)).await;
}

async fn replaced(cluster: &Cluster) {
    let text = PodText::new("namesake").container("main", &["sleep inf"]).yaml();
    let first = cluster.create(&text).await;
    let seen = cluster.observe("namesake").await;
    cluster.ready("namesake").await;
    cluster.delete("namesake", Some(1)).await;
    cluster.gone("namesake", SOON).await;
    let second = cluster.create(&text).await;
    assert_ne!(uid(&first), uid(&second));
    let pod = cluster.ready("namesake").await;
    assert_eq!(uid(&pod), uid(&second));
    let mut uids: Vec<String> = seen.seen().iter().map(|s| uid(&s.pod).to_owned()).collect();
    uids.dedup();
    assert_eq!(uids, [uid(&first), uid(&second)], "the old one never comes back");
}
