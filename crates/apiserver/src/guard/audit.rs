//! What was asked of the API, by whom, and what came of it: a line of JSON for each request (`Event` of
//! `audit.k8s.io/v1`).
//!
//! Writes are in the order of the revisions that they made. The line of a write waits until no other write
//! of this replica is under way that may still get a lower one: a write that is proposed gets a revision
//! above that of the state at that time. What waits is bounded; beyond that the first goes out.
//!
//! A thread writes. It gets the lines through a bounded queue, and nobody waits for it: what does not fit,
//! or what a full disk does not take, is counted and said, and requests go on.

use super::{Verdict, reviews::user_info};
use crate::{
    flow::{Asker, Flow, Room},
    kube::{BODY_BYTES_MAX, Length},
    registry::{Registry, Witness},
};
use access::{Attributes, Resource, Target};
use api::{meta, status::Status};
use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderValue, Method, header},
    response::Response,
};
use listen::PeerAddress;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use store::Revision;

/// Lines on their way to the disk; more are lost.
const QUEUE: usize = 8192;
/// Lines that wait for their turn at most; beyond that the first goes.
const WAITING_MAX: usize = 4096;
/// Bytes of the first, and of the second, at most: a line holds bodies, if it is to.
const BYTES_MAX: usize = 64 << 20;
/// Lines that are written at once.
const BATCH: usize = 256;
/// For what is on its way when the log ends: a disk that hangs must not keep the process.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Bytes of a body that a line holds.
const LINE_BODY_BYTES_MAX: usize = 1 << 20;

/// How much of a request is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditLevel {
    /// Nothing.
    None,
    /// Who, what, when, and what came of it.
    Metadata,
    /// The request's body, too.
    Request,
    /// The answer's, too.
    RequestResponse,
}

impl AuditLevel {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// Where and how requests are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file that lines are appended to. Older ones have `.1`, `.2`… behind their names.
    pub path: PathBuf,
    /// Bytes of the file after which another one is begun.
    pub file_bytes_max: u64,
    /// Older files that are kept.
    pub files_max: usize,
    /// How much of each request.
    pub level: AuditLevel,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts lines in the order of their revisions.
#[derive(Debug)]
struct Order {
    inner: Mutex<Waiting>,
    /// `None` ends the thread.
    sender: SyncSender<Option<Vec<u8>>>,
    /// Bytes on their way to the disk.
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// Writes under way, and above which revision they will be.
    floors: BTreeMap<u64, u64>,
    /// The same by revision.
    lowest: BTreeSet<(u64, u64)>,
    /// By revision and number.
    lines: BTreeMap<(u64, u64), Vec<u8>>,
    /// Of all of them.
    bytes: usize,
}

impl Waiting {
    fn leave(&mut self, id: u64) {
        if let Some(floor) = self.floors.remove(&id) {
            self.lowest.remove(&(floor, id));
        }
    }

    /// The next line whose turn it is.
    fn next(&mut self) -> Option<Vec<u8>> {
        let ((revision, _), _) = self.lines.first_key_value()?;
        let floor = self.lowest.first().map(|(floor, _)| *floor);
        let too_many = self.lines.len() > WAITING_MAX || self.bytes > BYTES_MAX;
        if !too_many && floor.is_some_and(|floor| *revision > floor) {
            return None;
        }
        let (_, line) = self.lines.pop_first()?;
        self.bytes -= line.len();
        Some(line)
    }
}

impl Order {
    fn number(&self) -> u64 {
        let mut inner = lock(&self.inner);
        inner.last += 1;
        inner.last
    }

    fn send(&self, line: Vec<u8>) {
        let bytes = line.len();
        let fits = self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes <= BYTES_MAX;
        if fits && self.sender.try_send(Some(line)).is_ok() {
            return;
        }
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("audit lines come faster than they are written, and are lost");
        }
    }

    /// Takes the line of a request that is over.
    fn finish(&self, id: u64, revision: u64, line: Vec<u8>) {
        // Under the lock until they are on their way: two that finish at once must not overtake each other.
        let mut inner = lock(&self.inner);
        inner.leave(id);
        if revision == 0 {
            self.send(line);
        } else {
            inner.bytes += line.len();
            inner.lines.insert((revision, id), line);
        }
        while let Some(line) = inner.next() {
            self.send(line);
        }
    }
}

/// One request's writes.
#[derive(Debug)]
struct Writes {
    order: Arc<Order>,
    id: u64,
    revision: AtomicU64,
}

impl Witness for Writes {
    fn proposes(&self, above: Revision) {
        let mut inner = lock(&self.order.inner);
        inner.leave(self.id);
        inner.floors.insert(self.id, above.get());
        inner.lowest.insert((above.get(), self.id));
    }

    fn committed(&self, at: Revision) {
        self.revision.fetch_max(at.get(), Ordering::Relaxed);
    }
}

/// The audit log. Dropping it writes what is on its way.
pub(crate) struct Audit {
    level: AuditLevel,
    /// `None` only while it is dropped.
    order: Option<Arc<Order>>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    /// Closes when the thread ends.
    ended: Mutex<Receiver<()>>,
}

impl Audit {
    /// Begins to write; `None` if nothing is to be written. A file that cannot be opened is tried again.
    pub(crate) fn start(config: AuditConfig) -> Option<Self> {
        if config.level == AuditLevel::None {
            return None;
        }
        let (sender, lines) = sync_channel(QUEUE);
        let (running, ended) = sync_channel(0);
        let lost = Arc::new(AtomicU64::new(0));
        let level = config.level;
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            config,
            file: None,
            bytes: 0,
            queued: Arc::clone(&queued),
            lost: Arc::clone(&lost),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                let _running: SyncSender<()> = running;
                writer.run(&lines);
            })
            .inspect_err(|error| tracing::error!(%error, "the audit log has no thread"))
            .ok()?;
        let order = Order { inner: Mutex::default(), sender, queued, lost: Arc::clone(&lost) };
        let (order, thread) = (Some(Arc::new(order)), Some(thread));
        Some(Self { level, order, lost, thread, ended: Mutex::new(ended) })
    }

    /// Lines that were not written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let Some(order) = self.order.take() else { return };
        // Whatever is behind this is of requests that are cut off. Where even this does not fit, the disk
        // takes nothing.
        if order.sender.try_send(None).is_err() {
            return;
        }
        let _ = lock(&self.ended).recv_timeout(LAST_WRITE);
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished)
            && thread.join().is_err()
        {
            tracing::error!("the audit log's thread has failed");
        }
    }
}

struct Writer {
    config: AuditConfig,
    file: Option<File>,
    bytes: u64,
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Option<Vec<u8>>>) {
        let mut ended = false;
        while !ended && let Ok(Some(first)) = lines.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && !ended
                && let Ok(line) = lines.try_recv()
            {
                match line {
                    Some(line) => batch.push(line),
                    None => ended = true,
                }
            }
            let count = batch.len() as u64;
            let lines = batch.concat();
            drop(batch);
            let written = self.write(&lines);
            self.queued.fetch_sub(lines.len(), Ordering::Relaxed);
            match written {
                Ok(()) if self.failing => {
                    self.failing = false;
                    let lost = self.lost.load(Ordering::Relaxed);
                    tracing::info!(lost, "audit lines are written again");
                }
                Ok(()) => {}
                Err(error) => {
                    self.lost.fetch_add(count, Ordering::Relaxed);
                    if !self.failing {
                        let path = self.config.path.display();
                        tracing::error!(%error, %path, "audit lines cannot be written, and are lost");
                    }
                    self.failing = true;
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let more = lines.len() as u64;
        let mut file = self.take_file()?;
        if self.bytes > 0 && self.bytes.saturating_add(more) > self.config.file_bytes_max {
            self.rotate()?;
            file = self.take_file()?;
        }
        if let Err(error) = file.write_all(lines) {
            // A part of a line would spoil the next one.
            let _ = file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += more;
        self.file = Some(file);
        Ok(())
    }

    /// The open one, or what is there; whoever has written gives it back.
    fn take_file(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        // Who does what is not for everybody on the machine.
        let mut how = OpenOptions::new();
        let file = how.create(true).append(true).mode(0o600).open(&self.config.path)?;
        self.bytes = file.metadata()?.len();
        Ok(file)
    }

    /// Makes room for a new file: each gets the next number, the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| numbered(&self.config.path, number);
        if self.config.files_max == 0 {
            std::fs::remove_file(&self.config.path)?;
        }
        for number in (1..=self.config.files_max).rev() {
            match std::fs::rename(numbered(number - 1), numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.bytes = 0;
        Ok(())
    }
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// A request that is to be written down, whatever becomes of it.
pub(crate) struct Record {
    writes: Arc<Writes>,
    registry: Registry,
    level: AuditLevel,
    /// All but what the answer says.
    event: Map<String, Value>,
    annotations: Map<String, Value>,
    /// Goes on after its answer has begun.
    streams: bool,
    written: bool,
    /// Of the body, until the answer is there.
    room: Option<Arc<Room>>,
}

fn micro_time(registry: &Registry) -> Value {
    meta::micro_time(registry.now_micros()).into()
}

/// Bodies with what nobody but who asks should see.
fn is_secret(of: &Resource) -> bool {
    let (resource, sub) = (of.resource.as_str(), of.subresource.as_str());
    matches!((resource, sub), ("secrets" | "tokenreviews", _) | ("serviceaccounts", "token"))
}

impl Record {
    /// Begins one; `None` once the log ends.
    pub(super) fn begin(
        audit: &Audit,
        registry: &Registry,
        asked: &Attributes,
        request: &Request,
    ) -> Option<Self> {
        let order = audit.order.as_ref().map(Arc::clone)?;
        let (level, streams) = match &asked.target {
            Target::Path(_) => (AuditLevel::Metadata, false),
            Target::Resource(of) => {
                let connects = ["exec", "attach", "portforward", "log", "proxy"];
                let streams = asked.verb == "watch" || connects.contains(&of.subresource.as_str());
                let bare = streams || is_secret(of);
                (if bare { AuditLevel::Metadata } else { audit.level }, streams)
            }
        };
        let level = level.min(audit.level);
        let id = order.number();
        let uri = request.uri();
        let mut event = Map::new();
        event.insert("kind".to_owned(), "Event".into());
        event.insert("apiVersion".to_owned(), "audit.k8s.io/v1".into());
        event.insert("level".to_owned(), level.name().into());
        event.insert("auditID".to_owned(), uuid::Uuid::new_v4().to_string().into());
        let asked_for = uri.path_and_query().map_or("", |path| path.as_str());
        event.insert("requestURI".to_owned(), asked_for.into());
        event.insert("verb".to_owned(), asked.verb.as_str().into());
        if let Some(from) = request.extensions().get::<PeerAddress>() {
            event.insert("sourceIPs".to_owned(), json!([from.0.ip().to_string()]));
        }
        let agent = request.headers().get(header::USER_AGENT);
        if let Some(agent) = agent.and_then(|agent| agent.to_str().ok()) {
            event.insert("userAgent".to_owned(), agent.into());
        }
        if let Target::Resource(of) = &asked.target {
            event.insert("objectRef".to_owned(), object_ref(of, uri.path()));
        }
        event.insert("requestReceivedTimestamp".to_owned(), micro_time(registry));
        Some(Self {
            writes: Arc::new(Writes { order, id, revision: AtomicU64::new(0) }),
            registry: registry.clone(),
            level,
            event,
            annotations: Map::new(),
            streams,
            written: false,
            room: None,
        })
    }

    /// Reads the body of a request that is allowed, if it is to be written down, and lets the request say
    /// what it writes.
    ///
    /// # Errors
    /// As [`Flow::body`].
    pub(super) async fn follow(
        &mut self,
        mut request: Request,
        flow: &Flow,
    ) -> Result<Request, Status> {
        let witness: Arc<dyn Witness> = Arc::clone(&self.writes) as Arc<dyn Witness>;
        request.extensions_mut().insert(witness);
        if self.level == AuditLevel::RequestResponse {
            // What is compressed could not be written down.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if self.level < AuditLevel::Request || reads {
            return Ok(request);
        }
        let asker = Asker::of(&request);
        let (request, room) = flow.body(&asker, request, BODY_BYTES_MAX).await?;
        let (mut parts, body) = request.into_parts();
        let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| Status::too_large(&error.to_string()))?;
        if let Some(object) = readable(&bytes) {
            self.event.insert("requestObject".to_owned(), object);
        }
        // Whoever is behind finds that it has been taken in already.
        let room = Arc::new(room);
        parts.extensions.insert(Arc::clone(&room));
        self.room = Some(room);
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }

    /// Who it was, and whether they may.
    pub(super) fn decided(&mut self, verdict: &Verdict) {
        self.event.insert("user".to_owned(), user_info(&verdict.user));
        if let Some(who) = &verdict.impersonated {
            self.event.insert("impersonatedUser".to_owned(), user_info(who));
        }
        let decision = if verdict.allowed { "allow" } else { "forbid" };
        self.annotations.insert("authorization.k8s.io/decision".to_owned(), decision.into());
        let reason = verdict.reason.as_str();
        self.annotations.insert("authorization.k8s.io/reason".to_owned(), reason.into());
    }

    /// What came of it.
    pub(super) async fn answered(mut self, response: Response) -> Response {
        let code = response.status().as_u16();
        let json = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let wanted = self.level == AuditLevel::RequestResponse || code >= 400;
        if !json || !wanted || self.streams {
            self.finish(code, None);
            return self.named(response);
        }
        let (parts, body) = response.into_parts();
        // What is made in this process and whole, or piece by piece; not what a node sends, perhaps for ever.
        if body.size_hint().exact().is_none() && parts.extensions.get::<Length>().is_none() {
            self.finish(code, None);
            return self.named(Response::from_parts(parts, body));
        }
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(bytes) => {
                let object = readable(&bytes);
                self.finish(code, object.as_ref());
                self.named(Response::from_parts(parts, Body::from(bytes)))
            }
            Err(error) => {
                let status = Status::internal(error);
                self.finish(status.code, Some(&status.to_json()));
                crate::kube::failure(&status)
            }
        }
    }

    /// With the number by which its line is found.
    fn named(&self, mut response: Response) -> Response {
        let id = self.event.get("auditID").and_then(Value::as_str).unwrap_or_default();
        if let Ok(id) = HeaderValue::from_str(id) {
            response.headers_mut().insert("audit-id", id);
        }
        response
    }

    fn finish(&mut self, code: u16, object: Option<&Value>) {
        let mut status = json!({"metadata": {}, "code": code});
        let failed = object.filter(|object| {
            object.get("kind").is_some_and(|kind| kind == "Status") && code >= 400
        });
        if let (Some(fields), Some(failed)) = (status.as_object_mut(), failed) {
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = failed.get(key) {
                    fields.insert(key.to_owned(), value.clone());
                }
            }
        }
        self.event.insert("responseStatus".to_owned(), status);
        if let (AuditLevel::RequestResponse, Some(object)) = (self.level, object) {
            self.event.insert("responseObject".to_owned(), object.clone());
        }
        let stage = if self.streams { "ResponseStarted" } else { "ResponseComplete" };
        self.submit(stage);
    }

    fn submit(&mut self, stage: &str) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let revision = self.writes.revision.load(Ordering::Relaxed);
        let mut event = std::mem::take(&mut self.event);
        let id = event.get("auditID").cloned().unwrap_or_default();
        if revision > 0 {
            let revision = revision.to_string().into();
            self.annotations.insert("trireme.local/revision".to_owned(), revision);
        }
        event.insert("stage".to_owned(), stage.into());
        event.insert("stageTimestamp".to_owned(), micro_time(&self.registry));
        event.insert("annotations".to_owned(), std::mem::take(&mut self.annotations).into());
        let mut line = Value::Object(event).to_string();
        line.push('\n');
        self.writes.order.finish(self.writes.id, revision, line.into_bytes());
        // What names the answer.
        self.event.insert("auditID".to_owned(), id);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            let gone = "whoever asked has gone before there was an answer";
            self.annotations.insert("trireme.local/outcome".to_owned(), gone.into());
        }
        self.submit("ResponseComplete");
    }
}

/// A body that is JSON, or becomes it.
fn readable(bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() || bytes.len() > LINE_BODY_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(bytes).ok().or_else(|| protobuf::to_json(bytes).ok())
}

fn object_ref(of: &Resource, path: &str) -> Value {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let version = match parts.as_slice() {
        ["api", version, ..] | ["apis", _, version, ..] => *version,
        _ => "",
    };
    let fields = [
        ("resource", of.resource.as_str()),
        ("namespace", &of.namespace),
        ("name", &of.name),
        ("apiGroup", &of.group),
        ("apiVersion", version),
        ("subresource", &of.subresource),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    fields.map(|(key, value)| (key.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is its failure")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order() -> (Arc<Order>, Receiver<Option<Vec<u8>>>) {
        let (sender, lines) = sync_channel(QUEUE);
        let order =
            Order { inner: Mutex::default(), sender, queued: Arc::default(), lost: Arc::default() };
        (Arc::new(order), lines)
    }

    fn writes(order: &Arc<Order>) -> Writes {
        Writes { order: Arc::clone(order), id: order.number(), revision: AtomicU64::new(0) }
    }

    fn next(lines: &Receiver<Option<Vec<u8>>>) -> Vec<u8> {
        lines.try_recv().unwrap().unwrap()
    }

    #[test]
    fn a_line_waits_for_writes_that_may_come_before_it() {
        let (order, lines) = order();
        let (first, second, read) = (writes(&order), writes(&order), writes(&order));
        first.proposes(Revision::new(5));
        second.proposes(Revision::new(5));
        order.finish(second.id, 7, b"7".to_vec());
        assert!(lines.try_recv().is_err());
        // A read is not in any order.
        order.finish(read.id, 0, b"read".to_vec());
        assert_eq!(next(&lines), b"read");
        order.finish(first.id, 6, b"6".to_vec());
        assert_eq!([next(&lines), next(&lines)], [b"6", b"7"]);
        // One that begins later comes later, and is waited for by nobody.
        let (third, fourth) = (writes(&order), writes(&order));
        third.proposes(Revision::new(7));
        fourth.proposes(Revision::new(8));
        order.finish(third.id, 8, b"8".to_vec());
        assert_eq!(next(&lines), b"8");
        // One that came to nothing lets the others go.
        let fifth = writes(&order);
        fifth.proposes(Revision::new(8));
        order.finish(fifth.id, 10, b"10".to_vec());
        assert!(lines.try_recv().is_err());
        order.finish(fourth.id, 0, b"failed".to_vec());
        assert_eq!([next(&lines), next(&lines)], [&b"failed"[..], b"10"]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (order, lines) = order();
        let stuck = writes(&order);
        stuck.proposes(Revision::new(1));
        for i in 0..=WAITING_MAX as u64 {
            let write = writes(&order);
            write.proposes(Revision::new(1 + i));
            order.finish(write.id, 2 + i, (2 + i).to_string().into_bytes());
        }
        assert_eq!(next(&lines), b"2");
        assert!(lines.try_recv().is_err());
        // One as large as all may be together lets those before it go, and does not fit behind them.
        let large = writes(&order);
        large.proposes(Revision::new(9000));
        order.finish(large.id, 9001, vec![b'x'; BYTES_MAX]);
        assert_eq!(next(&lines), b"3");
        assert_eq!(order.lost.load(Ordering::Relaxed), 0);
        order.finish(stuck.id, 0, b"stuck".to_vec());
        assert_eq!(order.lost.load(Ordering::Relaxed), 1);
    }

    proptest! {
        /// Writes are proposed at the state's revision, committed in any order, and answered in any order.
        #[test]
        fn lines_are_in_the_order_of_revisions(
            steps in prop::collection::vec((0..3u8, 0..8usize), 0..200),
        ) {
            let (order, lines) = order();
            let mut revision = 1;
            let (mut proposed, mut committed) = (Vec::new(), Vec::new());
            for (step, which) in steps {
                match step {
                    0 => {
                        let write = writes(&order);
                        write.proposes(Revision::new(revision));
                        proposed.push(write);
                    }
                    1 if !proposed.is_empty() => {
                        let write = proposed.remove(which % proposed.len());
                        revision += 1;
                        write.committed(Revision::new(revision));
                        committed.push(write);
                    }
                    2 if !committed.is_empty() => {
                        let write = committed.remove(which % committed.len());
                        let at = write.revision.load(Ordering::Relaxed);
                        order.finish(write.id, at, at.to_string().into_bytes());
                    }
                    _ => {}
                }
            }
            for write in proposed {
                order.finish(write.id, 0, b"0".to_vec());
            }
            let mut all = committed.len();
            for write in committed {
                let at = write.revision.load(Ordering::Relaxed);
                order.finish(write.id, at, at.to_string().into_bytes());
            }
            let mut last = 0;
            while let Ok(Some(line)) = lines.try_recv() {
                let at: u64 = String::from_utf8(line).unwrap().parse().unwrap();
                if at > 0 {
                    prop_assert!(at > last, "{} after {}", at, last);
                    last = at;
                    all += 1;
                }
            }
            prop_assert!(lock(&order.inner).lines.is_empty());
            prop_assert!(all > 0 || last == 0);
        }
    }

    #[test]
    fn files_are_rotated_and_a_full_disk_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig {
            path: dir.path().join("audit.log"),
            file_bytes_max: 10,
            files_max: 2,
            level: AuditLevel::Metadata,
        };
        let lost = Arc::new(AtomicU64::new(0));
        let writer = |path: &Path| Writer {
            config: AuditConfig { path: path.to_owned(), ..config.clone() },
            file: None,
            bytes: 0,
            queued: Arc::new(AtomicUsize::new(6)),
            lost: Arc::clone(&lost),
            failing: false,
        };
        let mut rotating = writer(&config.path);
        for line in ["one 4567\n", "two 4567\n", "three\n", "4\n", "five 567\n"] {
            rotating.write(line.as_bytes()).unwrap();
        }
        let read = |number| std::fs::read_to_string(numbered(&config.path, number));
        assert_eq!(read(0).unwrap(), "five 567\n");
        assert_eq!(read(1).unwrap(), "three\n4\n");
        assert_eq!(read(2).unwrap(), "two 4567\n");
        assert!(read(3).is_err());
        // Whoever starts again goes on where the file ends.
        let mut again = writer(&config.path);
        again.write(b"6\n").unwrap();
        assert_eq!([read(0).unwrap(), read(1).unwrap()], ["6\n", "five 567\n"]);

        let (sender, lines) = sync_channel(QUEUE);
        for _ in 0..3 {
            sender.send(Some(b"x\n".to_vec())).unwrap();
        }
        drop(sender);
        writer(Path::new("/dev/full")).run(&lines);
        assert_eq!(lost.load(Ordering::Relaxed), 3);
    }
}
