//! What three replicas are for: any one may die or hang, any one answers, one decides.

use crate::{
    cluster::{
        Cluster, PODS, SOON, container, eventually, node_of, program, together, with_cluster,
    },
    manifests::PodText,
};
use api::core::ConfigMap;
use client::{ClientError, WatchEvent, WatchOptions, WriteOptions};
use futures::StreamExt as _;
use http::Method;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use server::workload::Workload;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn any_one_replica_may_die_or_hang() {
    // P1
    with_cluster(0, async |cluster| {
        let workload = Workload::start(&cluster.endpoints, 8).unwrap();
        timeout(SOON, workload.more(50)).await.expect("writes");
        for id in 1..=3 {
            let at = Instant::now();
            cluster.processes().await.kill_replica(id).await.unwrap();
            timeout(SOON, workload.more(50)).await.expect("writes without one replica");
            let gap = workload.longest_gap(at);
            assert!(gap < Duration::from_secs(1), "replica {id} killed: no write for {gap:?}");
            cluster.start_replica(id).await;
            let (at, pid) = (Instant::now(), pid_of(cluster, id).await);
            kill(pid, Signal::SIGSTOP).unwrap();
            timeout(SOON, workload.more(50)).await.expect("writes beside a replica that hangs");
            sleep(Duration::from_millis(500)).await;
            kill(pid, Signal::SIGCONT).unwrap();
            timeout(SOON, workload.more(50)).await.expect("writes after it goes on");
            let gap = workload.longest_gap(at);
            assert!(gap < Duration::from_secs(1), "replica {id} hung: no write for {gap:?}");
        }
        let verdict = workload.finish(&cluster.client).await.unwrap();
        assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
        cluster.state().await;
    });
}

#[test]
fn any_replica_answers_and_one_decides() {
    // P2, P3, P4, P5, S18, S23
    with_cluster(2, async |cluster| {
        together(vec![
            ("P3: only followers are asked", Box::pin(followers_serve(cluster))),
            ("P4: a watch goes from replica to replica", Box::pin(watch_moves(cluster))),
            ("a quota holds for writers at all replicas", Box::pin(quota_holds(cluster))),
        ])
        .await;
        repeats_have_one_effect(cluster).await;
        deposed_leader_binds_nothing(cluster).await;
    });
}

#[test]
fn without_a_majority_the_reason_is_said_and_a_wrong_start_is_refused() {
    // P8
    with_cluster(0, async |cluster| {
        wrong_starts_are_refused(cluster).await;
        majority_lost(cluster).await;
    });
}

async fn quota_holds(cluster: &Cluster) {
    let post = async |id: u64, path: &str, body: Value| {
        let body = Some(body.to_string().into_bytes());
        cluster.only(id).call::<Value>(Method::POST, path, body).await
    };
    let named = |name: &str| json!({"metadata": {"name": name}});
    post(1, "/api/v1/namespaces", named("limited")).await.unwrap();
    let inside = "/api/v1/namespaces/limited";
    let mut quota = named("q");
    quota["spec"] = json!({"hard": {"secrets": "20", "count/secrets": "20"}});
    post(2, &format!("{inside}/resourcequotas"), quota).await.unwrap();
    let secrets = format!("{inside}/secrets");
    // Whether it was made, however often that has to be asked.
    let make = async |i: u64| loop {
        match post(i % 3 + 1, &secrets, named(&format!("s{i}"))).await {
            Ok(_) => return true,
            Err(ClientError::Api(status)) if status.is_already_exists() => return true,
            Err(ClientError::Api(status)) if status.code == 403 => {
                assert!(status.message.contains("exceeded quota: q"), "{status}");
                return false;
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let tries = futures::future::join_all((0..60).map(make)).await;
    assert_eq!(tries.into_iter().filter(|made| *made).count(), 20);
    let found: Value = cluster
        .client
        .call(Method::GET, &format!("{inside}/resourcequotas/q"), None)
        .await
        .unwrap();
    assert_eq!(found["status"]["used"], json!({"secrets": "20", "count/secrets": "20"}));
}

async fn pid_of(cluster: &Cluster, id: u64) -> Pid {
    let pid = cluster.processes().await.replica_pid(id).unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap())
}

fn config_map(name: &str, value: u64) -> ConfigMap {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"value": value.to_string()},
    }))
    .unwrap()
}

fn value_of(map: &ConfigMap) -> u64 {
    map.data.as_ref().unwrap()["value"].parse().unwrap()
}

/// P3
async fn followers_serve(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let mut followers = cluster.endpoints.clone();
    followers.urls.remove(usize::try_from(leader).unwrap() - 1);
    let workload = Workload::start(&followers, 4).unwrap();
    timeout(SOON, workload.more(200)).await.expect("writes through followers");
    let client = server::dev::connect(followers).unwrap();
    let verdict = workload.finish(&client).await.unwrap();
    assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
    assert!(verdict.reads > 0, "{verdict:?}");
}

/// P4
async fn watch_moves(cluster: &Cluster) {
    const LAST: u64 = 60;
    let name = "moving";
    let first =
        cluster.client.create(&config_map(name, 0), &WriteOptions::default()).await.unwrap();
    let write = async {
        for value in 1..=LAST {
            cluster
                .client
                .update(&config_map(name, value), &WriteOptions::default())
                .await
                .unwrap();
        }
    };
    let read = async {
        let mut revision = first.metadata.resource_version.unwrap();
        let mut seen = Vec::new();
        for id in (1..=3).cycle() {
            let options = WatchOptions {
                field_selector: format!("metadata.name={name}"),
                resource_version: revision.clone(),
                ..WatchOptions::default()
            };
            let client = cluster.only(id);
            let mut events = client.watch::<ConfigMap>(Some("default"), &options).await.unwrap();
            let mut here = 0;
            while here < 4 {
                match events.next().await.expect("the watch goes on").unwrap() {
                    WatchEvent::Modified(map) => {
                        revision = map.metadata.resource_version.clone().unwrap();
                        seen.push(value_of(&map));
                        here += 1;
                    }
                    WatchEvent::Bookmark(at) => revision = at,
                    other @ (WatchEvent::Added(_) | WatchEvent::Deleted(_)) => panic!("{other:?}"),
                }
                if seen.last() == Some(&LAST) {
                    return seen;
                }
            }
        }
        seen
    };
    let ((), seen) = futures::future::join(write, timeout(SOON, read)).await;
    assert_eq!(seen.expect("everything is seen"), (1..=LAST).collect::<Vec<_>>());
}

/// P5: requests that are on their way while the leader dies are proposed again under their ids, and
/// none has two effects. A name that the server draws would tell.
async fn repeats_have_one_effect(cluster: &Cluster) {
    let killing = async {
        sleep(Duration::from_millis(150)).await;
        cluster.kill_leader().await
    };
    let writers = (0..8u64).map(async |writer| {
        let (mut made, mut unknown) = (BTreeSet::new(), 0);
        let client = server::dev::connect({
            let urls = cluster.endpoints.urls.iter().cycle();
            let all = urls.skip(usize::try_from(writer).unwrap());
            cluster.endpoints.at(all.take(3).cloned().collect())
        })
        .unwrap();
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "drawn-"},
        });
        for _ in 0..40 {
            let body = Some(body.to_string().into_bytes());
            match client.call::<Value>(Method::POST, MAPS, body).await {
                Ok(map) => {
                    made.insert(map["metadata"]["uid"].as_str().unwrap().to_owned());
                }
                Err(ClientError::Unknown { .. }) => unknown += 1,
                Err(ClientError::Api(status)) if status.code == 504 => unknown += 1,
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        (made, unknown)
    });
    let (killed, written) =
        futures::future::join(killing, futures::future::join_all(writers)).await;
    cluster.start_replica(killed).await;
    let list: Value = cluster.client.call(Method::GET, MAPS, None).await.unwrap();
    let stored: BTreeSet<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|map| map["metadata"]["generateName"] == "drawn-")
        .map(|map| map["metadata"]["uid"].as_str().unwrap().to_owned())
        .collect();
    let made: BTreeSet<String> = written.iter().flat_map(|(made, _)| made.clone()).collect();
    let unknown: usize = written.iter().map(|(_, unknown)| unknown).sum();
    assert!(made.is_subset(&stored), "an acknowledged object is missing");
    let more = stored.len() - made.len();
    assert!(more <= unknown, "{more} objects that nobody was told of, {unknown} unknown outcomes");
}

/// P2, S23
async fn deposed_leader_binds_nothing(cluster: &Cluster) {
    const COUNT: usize = 12;
    let seen = cluster.observe("").await;
    let old = cluster.leader().await;
    let pid = pid_of(cluster, old).await;
    // In the middle of the bindings.
    let others = {
        let mut all = cluster.endpoints.clone();
        all.urls.remove(usize::try_from(old).unwrap() - 1);
        all
    };
    let client = server::dev::connect(others.clone()).unwrap();
    for i in 0..COUNT {
        if i == COUNT / 2 {
            kill(pid, Signal::SIGSTOP).unwrap();
        }
        let text = PodText::new(&format!("fenced-{i}")).container("main", &["sleep inf"]).yaml();
        let pod: Value = serde_yaml_ng::from_str(&text).unwrap();
        let body = pod.to_string().into_bytes();
        let made: Result<Value, _> = client.call(Method::POST, PODS, Some(body)).await;
        // The outcome may be unknown while nobody leads; then it is there, or not.
        if let Err(error) = made {
            assert!(matches!(&error, ClientError::Api(s) if s.code == 504), "{error}");
        }
    }
    eventually("another leads", SOON, async || {
        let all = client::admin::status(&cluster.endpoints).await.map_err(|e| e.to_string());
        let status = client::admin::status(&others).await.map_err(|e| e.to_string())?;
        if status.leader != 0 && status.leader != old { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    kill(pid, Signal::SIGCONT).unwrap();
    for i in 0..COUNT {
        let name = format!("fenced-{i}");
        match cluster.pod(&name).await {
            Ok(_) => {}
            Err(ClientError::Api(status)) if status.is_not_found() => continue,
            Err(error) => panic!("{error}"),
        }
        cluster.ready(&name).await;
        let ran = async || {
            let mut nodes = BTreeSet::new();
            let mut containers = BTreeSet::new();
            for event in seen.seen().iter().filter(|s| s.pod["metadata"]["name"] == name) {
                nodes.extend(Some(node_of(&event.pod).to_owned()).filter(|node| !node.is_empty()));
                let id = container(&event.pod, "main")["containerID"].as_str().map(str::to_owned);
                containers.extend(id);
            }
            // Whoever watches may be told later than who has asked.
            if containers.is_empty() {
                Err(format!("{name}: no container yet"))
            } else {
                Ok((nodes, containers))
            }
        };
        let (nodes, containers) = eventually("its container is seen", SOON, ran).await;
        assert_eq!((nodes.len(), containers.len()), (1, 1), "{name}: {nodes:?} {containers:?}");
    }
    let query = client::encode(&[("fieldSelector", "reason=Scheduled")]);
    let path = format!("/api/v1/namespaces/default/events{query}");
    let events: Value = cluster.client.call(Method::GET, &path, None).await.unwrap();
    let mut binds: BTreeMap<String, u32> = BTreeMap::new();
    for event in events["items"].as_array().unwrap() {
        *binds.entry(event["involvedObject"]["uid"].to_string()).or_default() += 1;
    }
    assert!(binds.values().all(|count| *count == 1), "bound twice: {binds:?}");
}

/// P8
async fn majority_lost(cluster: &Cluster) {
    let map = cluster.dir().join("map.yaml");
    fs::write(&map, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\n").unwrap();
    let apply = ["apply", "-f", map.to_str().unwrap()];
    cluster.client.create(&config_map("early", 1), &WriteOptions::default()).await.unwrap();
    cluster.state().await;
    let mut dev = cluster.processes().await;
    dev.kill_replica(1).await.unwrap();
    dev.kill_replica(2).await.unwrap();
    drop(dev);
    let start = Instant::now();
    let said = cluster.cli(&apply).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(13), "refused after {took:?}");
    assert_eq!(said.code, 3, "{said:?}");
    for endpoint in &cluster.endpoints.urls[..2] {
        assert!(said.err.contains(&format!("{endpoint}: Connection refused")), "{said:?}");
    }
    let survivor = &cluster.endpoints.urls[2];
    let line = said.err.lines().find(|line| line.contains(survivor)).unwrap_or_default();
    assert!(line.contains("nobody has led") || line.contains("quorum"), "its own reason: {said:?}");
    // A write that is sent to it at once, and not after a read.
    let (start, body) = (Instant::now(), json!(config_map("late", 1)).to_string().into_bytes());
    let client = cluster.only(3);
    let refused: Result<Value, _> = client.call(Method::POST, MAPS, Some(body)).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(13), "a write is refused after {took:?}");
    let refused = refused.unwrap_err().to_string();
    let reasons = ["nobody has led", "not committed"];
    assert!(reasons.iter().any(|reason| refused.contains(reason)), "{refused}, after {took:?}");
    // What it has can still be read by who takes it as it is.
    let path = format!("{MAPS}/early?resourceVersion=0");
    let read: Value = cluster.only(3).call(Method::GET, &path, None).await.unwrap();
    assert_eq!(read["data"]["value"], "1");
    for id in [1, 2] {
        cluster.start_replica(id).await;
    }
    let said = cluster.cli(&apply).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// P8: a second process on a replica's disk, and a configuration with a misspelt key.
async fn wrong_starts_are_refused(cluster: &Cluster) {
    let text = fs::read_to_string(cluster.dir().join("replica-1").join("config.toml")).unwrap();
    let path = cluster.dir().join("second.toml");
    let start = ["server", "--config", path.to_str().unwrap()];
    let mut section = "";
    let elsewhere: Vec<String> = text
        .lines()
        .map(|line| {
            section = if line.starts_with('[') { line } else { section };
            let listens = line.starts_with("listen = ") && !section.starts_with("[[");
            if listens { "listen = \"127.0.0.1:0\"".to_owned() } else { line.to_owned() }
        })
        .collect();
    fs::write(&path, elsewhere.join("\n")).unwrap();
    let said = program(&start).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("in use by another process"), "{said:?}");
    assert!(said.err.contains("replica-1"), "names the directory: {said:?}");
    fs::write(&path, text.replace("dataDir", "datadir")).unwrap();
    let said = program(&start).await;
    assert_ne!(said.code, 0, "{said:?}");
    let line = 1 + text.lines().position(|line| line.starts_with("dataDir")).unwrap();
    assert!(said.err.contains(&format!("line {line}")), "line {line}: {said:?}");
    assert!(said.err.contains("datadir") && said.err.contains("second.toml"), "{said:?}");
}
