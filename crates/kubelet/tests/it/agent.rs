//! The agent and its workers: restarts, deletions, and what a new agent does with what it finds.

use crate::control_plane::{Node, container_status};
use kubelet::runtime::{
    Runtime as _,
    fake::{
        Asked,
        script::{ContainerScript, ImageScript},
    },
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn one(name: &str, policy: &str) -> Value {
    json!({
        "restartPolicy": policy, "terminationGracePeriodSeconds": 30,
        "containers": [{"name": name, "image": "registry.example/a:1"}],
    })
}

fn script(text: &str) -> ContainerScript {
    ContainerScript::parse(text).unwrap()
}

fn runs(container: &'static str) -> impl Fn(Option<&Value>) -> bool {
    move |pod| {
        pod.is_some_and(|pod| container_status(pod, container).pointer("/state/running").is_some())
    }
}

fn gone(pod: Option<&Value>) -> bool {
    pod.is_none()
}

/// When a container was asked this, in seconds.
fn times(node: &Node, container: &str, since: Instant, what: impl Fn(Asked) -> bool) -> Vec<f64> {
    let all = node.runtime.journal();
    let own = all.iter().filter(|entry| entry.container == container && what(entry.what));
    own.map(|entry| (entry.at - since).as_secs_f64()).collect()
}

fn starts(node: &Node, container: &str) -> Vec<u32> {
    let all = node.runtime.journal().into_iter().filter(|entry| entry.container == container);
    all.filter_map(|entry| if let Asked::Start(n) = entry.what { Some(n) } else { None }).collect()
}

/// Timers have milliseconds, and a status may be on its way.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.1
}

#[tokio::test(start_paused = true)]
async fn a_container_that_crashes_at_once_is_started_later_each_time() {
    // BKO-1
    let mut node = Node::new();
    node.start().await;
    node.runtime.set_script("a", script("exit=1@0s times=9"));
    let begun = Instant::now();
    node.create("p", one("a", "Always")).await;
    node.until("p", runs("a")).await;
    let at = times(&node, "a", begun, |what| matches!(what, Asked::Start(_)));
    let waits: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, want) in waits.iter().zip([0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]) {
        assert!(close(*wait, want), "{waits:?}");
    }
    // CST-3: each instance counts.
    assert_eq!(starts(&node, "a"), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(node.container("p", "a")["restartCount"], 9);
}

#[tokio::test(start_paused = true)]
async fn a_crash_restarts_one_container_and_not_the_other() {
    // CST-1, CST-3
    let mut node = Node::new();
    node.start().await;
    node.runtime.set_script("a", script("exit=3@5s times=1"));
    let both = json!({
        "restartPolicy": "OnFailure",
        "containers": [
            {"name": "a", "image": "registry.example/a:1"},
            {"name": "b", "image": "registry.example/b:1"},
        ],
    });
    node.create("p", both).await;
    node.until("p", runs("b")).await;
    let before = node.container("p", "b");
    let restarted = |pod: Option<&Value>| {
        pod.is_some_and(|pod| container_status(pod, "a")["restartCount"] == 1)
    };
    node.until("p", restarted).await;
    node.until("p", runs("a")).await;
    let crashed = node.container("p", "a");
    assert_eq!(crashed.pointer("/lastState/terminated/exitCode"), Some(&json!(3)), "{crashed:#}");
    assert_eq!(node.container("p", "b"), before);
    assert_eq!((starts(&node, "a"), starts(&node, "b")), (vec![0, 1], vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_asks_and_kills_when_it_must() {
    // DEL-20, S36: grace, time that the preStop hook takes; TERM, KILL, times that the extension is told.
    for (grace, hook, term, kill, extended) in [
        (30, None, 0.0, 30.0, 0),
        (30, Some("10s"), 10.0, 30.0, 0),
        (30, Some("29400ms"), 29.4, 31.4, 1),
        (30, Some("45s"), 30.0, 32.0, 1),
        (1, Some("45s"), 1.0, 3.0, 1),
        (1, None, 0.0, 2.0, 0),
    ] {
        let mut node = Node::new();
        node.start().await;
        let hook_takes = hook.unwrap_or("0s");
        node.runtime.set_script("a", script(&format!("term=ignore exec=0@{hook_takes}")));
        let mut spec = one("a", "Always");
        if hook.is_some() {
            spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["h"]}}});
        }
        node.create("p", spec).await;
        node.until("p", runs("a")).await;
        // A while later: the grace counts from the deletion (DEL-2).
        sleep(Duration::from_secs(100)).await;
        let since = Instant::now();
        node.delete("p", grace).await;
        node.until("p", gone).await;
        let asked = times(&node, "a", since, |what| what == Asked::Signal(libc::SIGTERM));
        let killed = times(&node, "a", since, |what| what == Asked::Kill);
        let right =
            matches!((&asked[..], &killed[..]), ([a], [k]) if close(*a, term) && close(*k, kill));
        assert!(right, "grace {grace}, hook {hook:?}: TERM {asked:?}, KILL {killed:?}");
        assert_eq!(node.told_of("GraceExtended"), extended, "grace {grace}, hook {hook:?}");
        // DEL-34
        assert_eq!(starts(&node, "a"), [0]);
        assert_eq!(node.runtime.pods().await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_takes_over_what_runs() {
    // NOD-25
    let mut node = Node::new();
    node.start().await;
    node.create("p", one("a", "Always")).await;
    node.until("p", runs("a")).await;
    let before = (node.runtime.pods().await.unwrap(), node.container("p", "a"));
    for _ in 0..3 {
        node.stop().await;
        sleep(Duration::from_secs(60)).await;
        node.start().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!((node.runtime.pods().await.unwrap(), node.container("p", "a")), before);
    }
    assert_eq!(starts(&node, "a"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_replica_took_over_brings_new_pods() {
    // S24
    let mut node = Node::new();
    node.start().await;
    node.create("before", one("a", "Always")).await;
    node.until("before", runs("a")).await;
    node.resume("missed", one("b", "Always")).await;
    node.until("missed", runs("b")).await;
    node.create("after", one("c", "Always")).await;
    node.until("after", runs("c")).await;
    assert_eq!(["a", "b", "c"].map(|c| starts(&node, c)), [[0], [0], [0]]);
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_goes_on_with_a_deletion() {
    // DEL-32: with what was left of the grace, not with all of it again.
    let mut node = Node::new();
    node.start().await;
    node.runtime.set_script("a", script("term=ignore"));
    node.create("p", one("a", "Always")).await;
    node.until("p", runs("a")).await;
    let since = Instant::now();
    node.delete("p", 30).await;
    sleep(Duration::from_secs(10)).await;
    node.stop().await;
    node.start().await;
    node.until("p", gone).await;
    let killed = times(&node, "a", since, |what| what == Asked::Kill);
    assert!(matches!(killed[..], [at] if close(at, 30.0)), "{killed:?}");
    // DEL-34
    assert_eq!(starts(&node, "a"), [0]);
    assert_eq!(node.runtime.pods().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_cleaned_up_before_a_complete_list() {
    // NOD-20, NOD-23
    let mut node = Node::new();
    node.start().await;
    node.create("known", one("a", "Always")).await;
    node.create("orphan", one("b", "Always")).await;
    node.until("known", runs("a")).await;
    node.until("orphan", runs("b")).await;
    node.stop().await;
    let uids = async |node: &Node| -> Vec<String> {
        let pods = node.runtime.pods().await.unwrap();
        pods.into_iter().map(|pod| pod.sandbox.config.pod.uid).collect()
    };
    node.forget("orphan");
    node.connect().await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(uids(&node).await, ["known", "orphan"], "before any list");
    node.list(false).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(uids(&node).await, ["known", "orphan"], "after a list of changes");
    node.stop().await;
    node.start().await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(uids(&node).await, ["known"], "after a complete list");
    assert_eq!(starts(&node, "a"), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pulled_or_started_is_said_in_the_status() {
    // CST-1, CST-2
    let mut node = Node::new();
    node.start().await;
    let denied = ImageScript { error: Some("denied".to_owned()), ..ImageScript::default() };
    node.runtime.set_image("registry.example/a:1", denied);
    node.create("pull", one("a", "Never")).await;
    let waiting = |pod: Option<&Value>| {
        let status = container_status(pod.unwrap(), "a");
        let text = |field| status.pointer(&format!("/state/waiting/{field}")).cloned();
        text("reason") == Some("ErrImagePull".into())
            && text("message").is_some_and(|message| message.to_string().contains("denied"))
    };
    node.until("pull", waiting).await;
    node.runtime.set_script("b", script("start=fail"));
    let mut spec = one("b", "Never");
    spec["containers"][0]["image"] = "registry.example/b:1".into();
    node.create("start", spec).await;
    let failed = |pod: Option<&Value>| {
        container_status(pod.unwrap(), "b").pointer("/state/terminated/exitCode")
            == Some(&json!(128))
    };
    node.until("start", failed).await;
    assert_eq!(node.container("start", "b")["state"]["terminated"]["reason"], "StartError");
}
