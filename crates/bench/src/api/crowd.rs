//! Many who list and watch many Pods, while these change and small requests are timed.

use super::{
    ApiPlan, Crowd, CrowdRun, Latency, change,
    client::{Connection, JSON},
    pod, processes, used,
};
use crate::{
    histogram::Histogram,
    pace::{FineTimer, Schedule, Timer as _},
    usage,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Connections that make the Pods, and that send small requests.
const WORKERS: usize = 16;
/// Of small requests before there is a crowd.
const ALONE: Duration = Duration::from_secs(3);
/// Until every watch has what it is to get, and every list has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(100);
const MERGE: &str = "application/merge-patch+json";

/// What all of the crowd count.
#[derive(Default)]
struct Counts {
    /// Changes that were acknowledged, since the watches began.
    changes: Cell<u64>,
    events: Cell<u64>,
    watches_ended: Cell<u64>,
    list: RefCell<Histogram>,
    list_bytes: Cell<u64>,
    lists_refused: Cell<u64>,
    lists_failed: Cell<u64>,
    first_error: RefCell<Option<String>>,
    over: Cell<bool>,
    unique: Cell<u64>,
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

impl Counts {
    /// A change that is none before is no event.
    fn change(&self) -> Bytes {
        add(&self.unique, 1);
        change(self.unique.get())
    }

    fn fails(&self, counter: &Cell<u64>, error: String) {
        add(counter, 1);
        self.first_error.borrow_mut().get_or_insert(error);
    }
}

pub(super) async fn run(
    plan: &ApiPlan,
    path: &str,
    crowd: Crowd,
    say: &impl Fn(String),
) -> anyhow::Result<CrowdRun> {
    ensure!(crowd.pods > 0, "--pods: at least 1");
    let path: Rc<str> = path.into();
    say(format!("making {} Pods", crowd.pods));
    make(plan, &path, crowd.pods).await?;
    let counts = Rc::new(Counts::default());
    let small = |time: Duration| small_requests(plan, &path, crowd, time, Rc::clone(&counts));
    let (alone, failed_alone) = small(ALONE).await?;
    let before = processes(&plan.pids)?;
    say(format!("{} watches and {} lists begin", crowd.watches, crowd.lists));
    let mut tasks = JoinSet::new();
    let first = plan.endpoints.first().context("no server to measure")?;
    let mut setup = Connection::open(first, "bench").await?;
    let one = setup.must(Method::GET, &format!("{path}?limit=1"), &Value::Null).await?;
    let revision = one.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let revision = revision.context("a list without a version")?;
    counts.changes.set(0);
    for endpoint in plan.endpoints.iter().cycle().take(crowd.watches) {
        let connection = Connection::open(endpoint, "bench").await?;
        let path = format!("{path}?watch=1&resourceVersion={revision}");
        tasks.spawn_local(watch(connection, path, Rc::clone(&counts)));
    }
    for endpoint in plan.endpoints.iter().cycle().take(crowd.lists) {
        let connection = Connection::open(endpoint, "bench").await?;
        tasks.spawn_local(list(connection, Rc::clone(&path), crowd.pods, Rc::clone(&counts)));
    }
    let churn = churn(plan, &path, crowd, Rc::clone(&counts));
    let watched = most_memory(plan, Rc::clone(&counts));
    let begun = Instant::now();
    let during = async {
        let small = small(plan.time).await;
        counts.over.set(true);
        small
    };
    let (small, changed, memory) = tokio::join!(during, churn, watched);
    let ((small, failed), memory) = (small?, memory?);
    changed?;
    let seconds = begun.elapsed().as_secs_f64();
    let (events, changes) = (counts.events.get(), counts.changes.get());
    let list_bytes = counts.list_bytes.get();
    let after = processes(&plan.pids)?;
    let wanted = counts.changes.get() * crowd.watches as u64;
    let all = async {
        while counts.events.get() < wanted && counts.watches_ended.get() == 0 {
            sleep(LOOK).await;
        }
    };
    // What is missing then is reported.
    let _ = timeout(PATIENCE, all).await;
    let events_missing = wanted.saturating_sub(counts.events.get());
    tasks.shutdown().await;
    let mut processes = used(before.clone(), after, alone.count() + small.count());
    for (name, process) in &mut processes {
        process.rss_bytes = memory.get(name).copied().unwrap_or(process.rss_bytes);
    }
    let list = Latency::of(&counts.list.borrow());
    let first_error = counts.first_error.borrow().clone();
    Ok(CrowdRun {
        pods: crowd.pods,
        lists: crowd.lists,
        watches: crowd.watches,
        seconds,
        small_alone: Latency::of(&alone),
        small: Latency::of(&small),
        small_failed: failed + failed_alone,
        list,
        list_bytes_per_s: list_bytes as f64 / seconds,
        lists_refused: counts.lists_refused.get(),
        lists_failed: counts.lists_failed.get(),
        changes_per_s: changes as f64 / seconds,
        events_per_s: events as f64 / seconds,
        events_missing,
        watches_ended: counts.watches_ended.get(),
        first_error,
        processes,
        rss_bytes_before: before.into_iter().map(|(name, (_, rss))| (name, rss)).collect(),
    })
}

fn name(number: usize) -> String {
    format!("crowd-{number}")
}

async fn make(plan: &ApiPlan, path: &Rc<str>, pods: usize) -> anyhow::Result<()> {
    let mut workers = JoinSet::new();
    for (worker, endpoint) in plan.endpoints.iter().cycle().take(WORKERS).enumerate() {
        let mut connection = Connection::open(endpoint, "bench").await?;
        let path = Rc::clone(path);
        workers.spawn_local(async move {
            for number in (worker..pods).step_by(WORKERS) {
                connection.must(Method::POST, &path, &pod(&name(number))).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(made) = workers.join_next().await {
        made.context("a worker")?.context("make a Pod")?;
    }
    Ok(())
}

/// At fixed times: one that is answered late is late from when it was due.
async fn small_requests(
    plan: &ApiPlan,
    path: &Rc<str>,
    crowd: Crowd,
    time: Duration,
    counts: Rc<Counts>,
) -> anyhow::Result<(Histogram, u64)> {
    let schedule = Rc::new(Schedule::new(Instant::now(), crowd.small));
    let until = Instant::now() + time;
    let mut workers = JoinSet::new();
    for (worker, endpoint) in plan.endpoints.iter().cycle().take(WORKERS).enumerate() {
        let mut connection = Connection::open(endpoint, "bench-small").await?;
        let (path, schedule, counts) = (Rc::clone(path), Rc::clone(&schedule), Rc::clone(&counts));
        let timer = FineTimer::new()?;
        workers.spawn_local(async move {
            let (mut latencies, failed) = (Histogram::default(), Cell::new(0));
            for number in 0_u64.. {
                let due = schedule.take();
                if due >= until {
                    break;
                }
                timer.until(due).await;
                // No two workers ever change the same Pod: nobody has to try again.
                let of = usize::try_from(number).unwrap_or_default() * WORKERS + worker;
                let pod = format!("{path}/{}", name(of % (crowd.pods / WORKERS * WORKERS).max(1)));
                let answer = if number % 2 == 0 {
                    connection.whole(Method::GET, &pod, JSON, Bytes::new()).await
                } else {
                    connection.whole(Method::PATCH, &pod, MERGE, counts.change()).await
                };
                match answer {
                    Ok((StatusCode::OK, _)) => {
                        latencies.record(Instant::now() - due);
                        add(&counts.changes, number % 2);
                    }
                    Ok((status, body)) => {
                        let text = String::from_utf8_lossy(&body);
                        counts.fails(&failed, format!("{status}: {text}"));
                    }
                    Err(error) => {
                        counts.fails(&failed, format!("{error:#}"));
                        break;
                    }
                }
            }
            (latencies, failed.get())
        });
    }
    let (mut all, mut failed) = (Histogram::default(), 0);
    while let Some(done) = workers.join_next().await {
        let (latencies, errors) = done.context("a worker")?;
        all.merge(&latencies);
        failed += errors;
    }
    Ok((all, failed))
}

/// Changes Pods at a fixed rate until it is over.
async fn churn(
    plan: &ApiPlan,
    path: &Rc<str>,
    crowd: Crowd,
    counts: Rc<Counts>,
) -> anyhow::Result<()> {
    if crowd.churn == 0 {
        return Ok(());
    }
    let schedule = Schedule::new(Instant::now(), crowd.churn);
    let endpoint = plan.endpoints.last().context("no server to measure")?;
    let mut connection = Connection::open(endpoint, "bench-churn").await?;
    for number in 0_u64.. {
        sleep_until(schedule.take()).await;
        if counts.over.get() {
            break;
        }
        // Far from those that small requests change.
        let of = crowd.pods.saturating_sub(1 + usize::try_from(number).unwrap_or_default() % 16);
        let pod = format!("{path}/{}", name(of));
        let answer = connection.whole(Method::PATCH, &pod, MERGE, counts.change()).await?;
        ensure!(
            answer.0.is_success(),
            "change a Pod: {}: {}",
            answer.0,
            String::from_utf8_lossy(&answer.1)
        );
        add(&counts.changes, 1);
    }
    Ok(())
}

/// Counts events: one a line.
async fn watch(mut connection: Connection, path: String, counts: Rc<Counts>) {
    let ended = async {
        let answer = connection.send(Method::GET, &path, JSON, Bytes::new()).await?;
        ensure!(answer.status().is_success(), "watch: {}", answer.status());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let lines = data.iter().filter(|byte| **byte == b'\n').count();
            add(&counts.events, lines as u64);
        }
        anyhow::Ok(())
    };
    let error = match ended.await {
        Ok(()) => "a watch ended".to_owned(),
        Err(error) => format!("watch: {error:#}"),
    };
    counts.fails(&counts.watches_ended, error);
}

/// Lists everything again and again until it is over.
async fn list(mut connection: Connection, path: Rc<str>, pods: usize, counts: Rc<Counts>) {
    while !counts.over.get() {
        let begun = Instant::now();
        let listed = async {
            let answer = connection.send(Method::GET, &path, JSON, Bytes::new()).await?;
            let status = answer.status();
            let (mut body, mut bytes) = (answer.into_body(), 0_u64);
            let mut last = Bytes::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                bytes += data.len() as u64;
                if !data.trim_ascii().is_empty() {
                    last = data;
                }
            }
            anyhow::Ok((status, bytes, last))
        };
        match listed.await {
            Ok((StatusCode::OK, bytes, last)) => {
                let whole = last.trim_ascii_end().ends_with(b"}");
                // A Pod is more than half a KiB, whoever writes it.
                if !whole || bytes < pods as u64 * 512 {
                    counts.fails(&counts.lists_failed, format!("a list of {bytes} bytes"));
                }
                add(&counts.list_bytes, bytes);
                counts.list.borrow_mut().record(begun.elapsed());
            }
            Ok((StatusCode::TOO_MANY_REQUESTS, ..)) => {
                add(&counts.lists_refused, 1);
                sleep(Duration::from_secs(1)).await;
            }
            Ok((status, ..)) => counts.fails(&counts.lists_failed, format!("list: {status}")),
            Err(error) => {
                counts.fails(&counts.lists_failed, format!("list: {error:#}"));
                return;
            }
        }
    }
}

/// The most memory that each process was seen to have until it is over.
async fn most_memory(plan: &ApiPlan, counts: Rc<Counts>) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut most = BTreeMap::new();
    while !counts.over.get() {
        for (name, pid) in &plan.pids {
            let bytes = usage::rss_bytes(*pid)?;
            let seen = most.entry(name.clone()).or_insert(bytes);
            *seen = (*seen).max(bytes);
        }
        sleep(LOOK).await;
    }
    Ok(most)
}
