//! `trireme demo`: what is promised, shown on this machine, with the times it took.

use crate::{
    bench::leader,
    dev::{DevCluster, DevOptions},
    workload::Workload,
};
use anyhow::{Context as _, ensure};
use api::core::{Event, Pod};
use client::{
    Client, ClientError, DeleteOptions, ListOptions, WatchEvent, WatchOptions, WriteOptions,
};
use futures::StreamExt as _;
use serde_json::json;
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const NAMESPACE: Option<&str> = Some("default");

/// Runs it; whether everything held.
///
/// # Errors
/// Something does not work at all.
pub async fn run(mut say: impl FnMut(String), stop: CancellationToken) -> anyhow::Result<bool> {
    let dir = std::env::temp_dir().join(format!("trireme-demo-{}", std::process::id()));
    let start = Instant::now();
    // What ended by force on this machine before is not this demo's.
    let before = leftovers(&dir);
    let options = DevOptions { restart: false, ..DevOptions::new(dir.clone()) };
    let mut cluster = DevCluster::start(options).await?;
    say(format!("3 replicas and 2 nodes are ready after {}", ms(start.elapsed())));
    let played = tokio::select! {
        played = play(&mut cluster, &mut say) => played,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = cluster.stop().await;
    let mut left = leftovers(&dir);
    left.retain(|thing| !before.contains(thing));
    let _ = std::fs::remove_dir_all(&dir);
    let held = played?;
    stopped?;
    say(if left.is_empty() {
        "ended: nothing is left running, mounted or in cgroups".to_owned()
    } else {
        format!("LEFT BEHIND: {}", left.join(", "))
    });
    Ok(held && left.is_empty())
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn pod(name: &str, containers: serde_json::Value) -> anyhow::Result<Pod> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 5, "containers": containers,
            "volumes": [{"name": "shared", "emptyDir": {}}],
        },
    });
    serde_json::from_value(object).context("the demo's Pod")
}

fn two_containers() -> serde_json::Value {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    json!([
        {
            "name": "server", "image": "toolbox", "volumeMounts": mounts,
            "command": ["httpd", "127.0.0.1:8080", "/shared"],
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "0.5"]}}},
        },
        {
            "name": "client", "image": "toolbox", "volumeMounts": mounts,
            "command": ["wget", "http://127.0.0.1:8080/page", "--every", "0.1"],
        },
    ])
}

/// Creates a Pod and follows it until it is ready; each step with the time since the request.
async fn run_pod(
    client: &Client,
    pod: &Pod,
    say: &mut impl FnMut(String),
) -> anyhow::Result<Duration> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let start = Instant::now();
    let created = client.create(pod, &WriteOptions::default()).await.context("create the Pod")?;
    let committed = start.elapsed();
    let watch = WatchOptions {
        field_selector: format!("metadata.name={name}"),
        resource_version: created.metadata.resource_version.clone().unwrap_or_default(),
        ..WatchOptions::default()
    };
    let mut events = client.watch::<Pod>(NAMESPACE, &watch).await.context("watch the Pod")?;
    let (mut bound, mut started) = (None, None);
    let follow = async {
        while let Some(event) = events.next().await {
            let (WatchEvent::Modified(pod) | WatchEvent::Added(pod)) = event? else { continue };
            let now = start.elapsed();
            if pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
                bound.get_or_insert(now);
            }
            if start_times(&pod).len() == pod.spec.map_or(0, |s| s.containers.len()) {
                started.get_or_insert(now);
            }
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            if conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                return Ok(now);
            }
        }
        anyhow::bail!("the watch ended")
    };
    let running = timeout(PATIENCE, follow).await.context("the Pod does not become ready")??;
    say(format!(
        "{name}: committed {}, bound {}, started {}, running {}",
        ms(committed),
        ms(bound.unwrap_or_default()),
        ms(started.unwrap_or_default()),
        ms(running)
    ));
    Ok(running)
}

/// When each container that runs was started.
fn start_times(pod: &Pod) -> BTreeMap<String, String> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses
        .filter_map(|s| {
            let running = s.state.as_ref()?.running.as_ref()?;
            let started = serde_json::to_string(&running.started_at).unwrap_or_default();
            Some((s.name.clone(), format!("{started} {}", s.restart_count)))
        })
        .collect()
}

async fn play(cluster: &mut DevCluster, say: &mut impl FnMut(String)) -> anyhow::Result<bool> {
    let client = cluster.client()?;
    run_pod(&client, &pod("web", two_containers())?, say).await?;
    let web: Pod = client.get(NAMESPACE, "web").await?;
    let shared = shared_dir(cluster, &web)?;
    std::fs::write(shared.join("page"), "over localhost, from the shared volume\n")
        .context("write into the volume")?;
    let talked = async {
        loop {
            if logs(&client, "web", "client").await?.contains("over localhost") {
                return Ok::<_, anyhow::Error>(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, talked).await.context("the containers do not talk")??;
    say("web: its containers share a volume and talk over localhost".to_owned());
    let before = start_times(&web);

    let workload = Workload::start(&cluster.endpoints(), 8)?;
    timeout(PATIENCE, workload.more(500)).await.context("no writes")?;
    let first = leader(cluster).await?;
    let at = Instant::now();
    cluster.kill_replica(first).await?;
    timeout(PATIENCE, workload.more(500)).await.context("no writes after the kill")?;
    let gap = workload.longest_gap(at);
    say(format!("replica-{first}, the leader, killed with SIGKILL: no write for {}", ms(gap)));
    let verdict = workload.finish(&client).await?;
    say(format!(
        "{} writes acknowledged, {} lost; {} linearizable reads, {} of them wrong",
        verdict.acknowledged,
        verdict.lost,
        verdict.reads,
        verdict.violations.len()
    ));
    for violation in &verdict.violations {
        say(format!("VIOLATION: {violation}"));
    }
    let after = start_times(&client.get::<Pod>(NAMESPACE, "web").await?);
    let untouched = before == after;
    say(format!(
        "web: its containers {}",
        if untouched { "were not restarted" } else { "WERE RESTARTED" }
    ));
    let alone = json!([{"name": "main", "image": "toolbox", "command": ["sleep", "inf"]}]);
    run_pod(&client, &pod("second", alone)?, say).await?;
    let second = leader(cluster).await?;
    ensure!(second != first, "the killed leader leads");
    say(format!("second: scheduled by the new leader, replica-{second}"));
    delete(&client, "web", say).await?;
    Ok(verdict.lost == 0 && verdict.violations.is_empty() && untouched)
}

/// The node's side of the Pod's volume.
fn shared_dir(cluster: &DevCluster, pod: &Pod) -> anyhow::Result<std::path::PathBuf> {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).context("not bound")?;
    let uid = pod.metadata.uid.clone().context("no UID")?;
    let data = cluster.layout().node_dir(&node).join("data");
    Ok(data.join("volumes").join(uid).join("volumes").join("shared"))
}

async fn logs(client: &Client, pod: &str, container: &str) -> anyhow::Result<String> {
    use http_body_util::BodyExt as _;
    let path = format!("/api/v1/namespaces/default/pods/{pod}/log?container={container}");
    let request = http::Request::get(path).body(bytes::Bytes::new())?;
    let answer = client::refuse(client.request(request).await?).await?;
    let body = answer.into_body().collect().await.map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// Deletes a Pod and says what is seen of each step.
async fn delete(client: &Client, name: &str, say: &mut impl FnMut(String)) -> anyhow::Result<()> {
    let before: Pod = client.get(NAMESPACE, name).await?;
    let watch = WatchOptions {
        field_selector: format!("metadata.name={name}"),
        resource_version: before.metadata.resource_version.clone().unwrap_or_default(),
        ..WatchOptions::default()
    };
    let mut events = client.watch::<Pod>(NAMESPACE, &watch).await?;
    let start = Instant::now();
    client.delete::<Pod>(NAMESPACE, name, &DeleteOptions::default()).await?;
    say(format!("{name}: deletion accepted {}", ms(start.elapsed())));
    let mut last = String::new();
    let follow = async {
        while let Some(event) = events.next().await {
            let text = match event? {
                WatchEvent::Deleted(_) => return Ok::<_, anyhow::Error>(()),
                WatchEvent::Modified(pod) => {
                    let running: Vec<String> = start_times(&pod).into_keys().collect();
                    let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
                    if phase == "Running" {
                        let who = if running.is_empty() {
                            "nothing".to_owned()
                        } else {
                            running.join(" and ")
                        };
                        format!("terminating, {who} running")
                    } else {
                        format!("all containers have ended, phase {phase}")
                    }
                }
                WatchEvent::Added(_) | WatchEvent::Bookmark(_) => continue,
            };
            if text != last {
                say(format!("{name}: {text} {}", ms(start.elapsed())));
                last = text;
            }
        }
        anyhow::bail!("the watch ended")
    };
    timeout(PATIENCE, follow).await.context("the Pod is not deleted")??;
    say(format!("{name}: gone {}", ms(start.elapsed())));
    let gone = client.get::<Pod>(NAMESPACE, name).await;
    ensure!(
        matches!(&gone, Err(ClientError::Api(status)) if status.is_not_found()),
        "it can still be read"
    );
    let list = ListOptions {
        field_selector: format!("involvedObject.name={name},reason=Killing"),
        ..ListOptions::default()
    };
    let killing = client.list::<Event>(NAMESPACE, &list).await?;
    ensure!(!killing.items.is_empty(), "no event tells of the end");
    Ok(())
}

/// What of the demo is still on this machine.
fn leftovers(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let name = dir.to_string_lossy().into_owned();
    left.extend(mounts.lines().filter(|line| line.contains(&name)).map(|l| format!("mount {l}")));
    for controller in ["memory", "cpu", "pids", "."] {
        for node in ["node-1", "node-2"] {
            let cgroup = Path::new("/sys/fs/cgroup").join(controller).join("trireme").join(node);
            if cgroup.exists() {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let cwd = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        if cwd.starts_with(dir) {
            left.push(format!("process {}", process.file_name().to_string_lossy()));
        }
    }
    left
}
