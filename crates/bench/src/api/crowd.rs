//! Many who list and watch many Pods, while these change and small requests are timed.

use super::{
    ApiPlan, Crowd, CrowdRun, Latency, change,
    client::{Connection, JSON},
    pod, processes, used,
};
use crate::{
    histogram::Histogram,
    own_thread::on_own_thread,
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
/// Numbers of changes begin here, so that none is like another: small requests before there is a crowd and
/// beside it, and what changes meanwhile.
const SMALL_ALONE: u64 = 0;
const SMALL_BESIDE: u64 = 1 << 32;
const CHURN: u64 = 2 << 32;
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
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

impl Counts {
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
    let alone = small_requests(plan, &path, crowd, ALONE, SMALL_ALONE).await?;
    let before = processes(&plan.pids)?;
    say(format!("{} watches and {} lists begin", crowd.watches, crowd.lists));
    let mut tasks = JoinSet::new();
    let first = plan.endpoints.first().context("no server to measure")?;
    let mut setup = Connection::open(first, "bench").await?;
    let one = setup.must(Method::GET, &format!("{path}?limit=1"), &Value::Null).await?;
    let revision = one.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let revision = revision.context("a list without a version")?;
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
        let small = small_requests(plan, &path, crowd, plan.time, SMALL_BESIDE).await;
        counts.over.set(true);
        small
    };
    let (small, changed, memory) = tokio::join!(during, churn, watched);
    let (small, memory) = (small?, memory?);
    changed?;
    add(&counts.changes, small.changes);
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
    let requests = alone.latencies.count() + small.latencies.count();
    let mut processes = used(before.clone(), after, requests);
    for (name, process) in &mut processes {
        process.rss_bytes = memory.get(name).copied().unwrap_or(process.rss_bytes);
    }
    let list = Latency::of(&counts.list.borrow());
    let first_error = counts.first_error.borrow().clone();
    let first_error = first_error.or(small.first_error).or(alone.first_error);
    Ok(CrowdRun {
        pods: crowd.pods,
        lists: crowd.lists,
        watches: crowd.watches,
        seconds,
        small_alone: Latency::of(&alone.latencies),
        small: Latency::of(&small.latencies),
        small_failed: small.failed + alone.failed,
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

/// What became of small requests.
#[derive(Default)]
struct Small {
    latencies: Histogram,
    failed: u64,
    /// That were acknowledged.
    changes: u64,
    first_error: Option<String>,
}

impl Small {
    fn fails(&mut self, error: String) {
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }

    fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.failed += other.failed;
        self.changes += other.changes;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}

/// At fixed times: one that is answered late is late from when it was due. On a thread of its own: what the
/// readers on the other one have to do is no time that a server takes. `unique` is the first number of a
/// change that nobody else makes.
async fn small_requests(
    plan: &ApiPlan,
    path: &str,
    crowd: Crowd,
    time: Duration,
    unique: u64,
) -> anyhow::Result<Small> {
    let (endpoints, path) = (plan.endpoints.clone(), path.to_owned());
    on_own_thread(async move || {
        let mut opened = Vec::new();
        for endpoint in endpoints.iter().cycle().take(WORKERS) {
            opened.push((Connection::open(endpoint, "bench-small").await?, FineTimer::new()?));
        }
        // Behind the connections: what these take is no request's.
        let begin = Instant::now();
        let schedule = Rc::new(Schedule::new(begin, crowd.small));
        let (path, unique) = (Rc::<str>::from(path), Rc::new(Cell::new(unique)));
        let mut workers = JoinSet::new();
        for (worker, (connection, timer)) in opened.into_iter().enumerate() {
            let (schedule, path) = (Rc::clone(&schedule), Rc::clone(&path));
            let worker = SmallWorker {
                connection,
                timer,
                schedule,
                path,
                worker,
                pods: crowd.pods,
                until: begin + time,
                unique: Rc::clone(&unique),
            };
            workers.spawn_local(worker.run());
        }
        let mut all = Small::default();
        while let Some(done) = workers.join_next().await {
            all.merge(done.context("a worker")?);
        }
        Ok(all)
    })
    .await
}

struct SmallWorker {
    connection: Connection,
    timer: FineTimer,
    schedule: Rc<Schedule>,
    path: Rc<str>,
    worker: usize,
    pods: usize,
    until: Instant,
    unique: Rc<Cell<u64>>,
}

impl SmallWorker {
    async fn run(mut self) -> Small {
        let mut done = Small::default();
        for number in 0_u64.. {
            let due = self.schedule.take();
            if due >= self.until {
                break;
            }
            self.timer.until(due).await;
            // No two workers ever change the same Pod: nobody has to try again.
            let of = usize::try_from(number).unwrap_or_default() * WORKERS + self.worker;
            let pod =
                format!("{}/{}", self.path, name(of % (self.pods / WORKERS * WORKERS).max(1)));
            let answer = if number % 2 == 0 {
                self.connection.whole(Method::GET, &pod, JSON, Bytes::new()).await
            } else {
                // A change that is none before is no event.
                add(&self.unique, 1);
                let change = change(self.unique.get());
                self.connection.whole(Method::PATCH, &pod, MERGE, change).await
            };
            match answer {
                Ok((StatusCode::OK, _)) => {
                    done.latencies.record(Instant::now() - due);
                    done.changes += number % 2;
                }
                Ok((status, body)) => {
                    done.fails(format!("{status}: {}", String::from_utf8_lossy(&body)));
                }
                Err(error) => {
                    done.fails(format!("{error:#}"));
                    break;
                }
            }
        }
        done
    }
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
        let answer = connection.whole(Method::PATCH, &pod, MERGE, change(CHURN + number)).await?;
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
