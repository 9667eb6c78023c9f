//! Watches as a stream of JSON lines (WCH-1…WCH-8).

use super::{
    Kube, Query, Target,
    answer::{Form, Format, metadata_only},
    flag,
};
use crate::{
    flow::{Asker, Seat, Turns, WatchPace},
    registry::{ListQuery, Registry, Stored, prefix, shows_as_stored, stamp},
};
use api::{
    kinds::{Kind, KindRef},
    meta,
    status::Status,
    table::table,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures::{FutureExt as _, Stream, stream};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};
use store::{
    Event, EventKind, KeyRange, KeyValue, Revision,
    watch::{WatchBatch, WatchError, WatchMessage, WatchRequest, Watcher},
};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Between bookmarks (WCH-5).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Before the end of a stream, for the last bookmark (WCH-5).
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// For what came before a watch's definition changed.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);
/// Of one stream; an instant further away could not be told.
const SECONDS_MAX: u64 = 365 * 24 * 3600;
/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 64 << 10;

struct Watch {
    kind: KindRef,
    selection: ListQuery,
    registry: Registry,
    form: Form,
    bookmarks: bool,
    watcher: Watcher,
    /// Of the kind's definition: its end, or another form of it, is the watch's.
    definition: Option<Watcher>,
    /// The client knows everything up to here.
    start: Revision,
    end: Instant,
    /// When the next bookmark is due, or the end.
    bookmark_at: Instant,
    /// What there was at the beginning, as far as it has not been sent.
    initial: std::vec::IntoIter<Stored>,
    /// Behind that.
    initial_end: Option<Bytes>,
    /// Until that is sent.
    list_seat: Option<Seat>,
    /// Of the pieces of that.
    turns: Turns,
    /// How often it writes; a watch in this process, whenever it can.
    pace: Option<WatchPace>,
    /// Not before this.
    write_at: Instant,
    ready: Vec<Bytes>,
    ready_bytes: usize,
    done: bool,
    /// Of the watch itself.
    _seat: Option<Seat>,
}

pub(super) async fn answer(
    kube: &Kube,
    target: &Target,
    selection: ListQuery,
    query: &Query,
    format: Format,
    asker: &Asker,
) -> Result<Response, Status> {
    let registry = &kube.registry;
    // Events are JSON, whatever else is accepted.
    let form = format.form;
    let kind: &Kind = &target.kind;
    let seconds = match query.get("timeoutSeconds").map(|text| text.parse::<u64>()) {
        Some(Ok(seconds)) if seconds > 0 => seconds.min(SECONDS_MAX),
        Some(Ok(_)) | None => rand::random_range(1800..3600),
        Some(Err(_)) => return Err(Status::bad_request("timeoutSeconds is not a number")),
    };
    let bookmarks = flag(query, "allowWatchBookmarks");
    let initial = query.contains_key("sendInitialEvents").then(|| flag(query, "sendInitialEvents"));
    check(&selection, initial)?;
    let seat = kube.flow.long_running(asker).await?;
    let definition = follow_definition(registry, kind)?;
    let (mut initial_objects, mut initial_end, mut list_seat) = (Vec::new(), None, None);
    let text = selection.resource_version.as_str();
    let from_now = matches!(text, "" | "0");
    let start = if initial.unwrap_or(from_now) {
        let first = ListQuery {
            resource_version_match: String::new(),
            limit: 0,
            continue_token: String::new(),
            ..selection.clone()
        };
        let cost = registry.cost(kind, &target.namespace, &first);
        list_seat = kube.flow.list(asker, cost).await?;
        let found = registry.page(kind.stored(), &target.namespace, &first).await?;
        initial_objects = found.items;
        let says_end = initial.is_some() && bookmarks;
        initial_end = says_end.then(|| bookmark(kind, found.revision, form, true));
        Revision::new(found.revision)
    } else if from_now {
        if text.is_empty() {
            registry.linearize().await?;
        }
        registry.store().view().revision()
    } else {
        Revision::new(text.parse().map_err(|_| {
            Status::bad_request(format!("invalid resource version \"{text}\": must be a number"))
        })?)
    };
    let named = selection.name_in(kind, &target.namespace);
    let range = named.unwrap_or_else(|| KeyRange::prefix(prefix(kind, &target.namespace)));
    let request = WatchRequest { range, start: start.next() };
    let body = match registry.store().watch(request) {
        Ok(watcher) => {
            let (now, length) = (Instant::now(), Duration::from_secs(seconds));
            Body::from_stream(lines(Watch {
                kind: target.kind.clone(),
                selection,
                registry: registry.clone(),
                form,
                bookmarks,
                watcher,
                definition,
                start,
                end: now + length,
                bookmark_at: bookmark_after(now, now + length),
                initial: initial_objects.into_iter(),
                initial_end,
                list_seat,
                turns: kube.flow.turns(),
                pace: kube.flow.watch_pace(asker),
                write_at: now,
                ready: Vec::new(),
                ready_bytes: 0,
                done: false,
                _seat: seat,
            }))
        }
        // Not an HTTP error: clients look for it in the stream (WCH-2).
        Err(error) => Body::from(line("ERROR", &ended(start, &error).to_json())),
    };
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// From before it is known that the definition is still the one that made the kind, so that no change of
/// it is missed.
fn follow_definition(registry: &Registry, kind: &Kind) -> Result<Option<Watcher>, Status> {
    let Some(key) = Registry::definition_key(kind) else { return Ok(None) };
    let start = registry.store().view().revision().next();
    let watcher = registry.store().watch(WatchRequest { range: KeyRange::One(key.into()), start });
    registry.still_defined(kind)?;
    watcher.map(Some).map_err(|error| Status::unavailable(error.to_string()))
}

/// The revision at which a kind is no longer what it was.
async fn redefined(kind: &Kind, definition: &mut Option<Watcher>) -> Revision {
    let Some(watcher) = definition else { return std::future::pending().await };
    while let Some(message) = watcher.next().await {
        let WatchMessage::Events(batch) = message else { break };
        let leaves = |event: &Event| match event.kind {
            EventKind::Put => Registry::leaves_kind(kind, &event.kv.value),
            EventKind::Delete => false,
        };
        if !batch.events.iter().all(|event| leaves(event)) {
            return batch.revision;
        }
    }
    watcher.progress()
}

/// Parameters that go together (WCH-6).
fn check(selection: &ListQuery, initial: Option<bool>) -> Result<(), Status> {
    let matching = selection.resource_version_match.as_str();
    let detail = match initial {
        Some(_) if matching != "NotOlderThan" => {
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        }
        None if !matching.is_empty() => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        Some(_) | None => return Ok(()),
    };
    let path = api::field::Path::new("resourceVersionMatch");
    let error = api::field::FieldError::forbidden(&path, detail);
    Err(Status::invalid_named("meta.k8s.io", "ListOptions", "", &[error]))
}

/// When the next bookmark of a stream is due that ends then: one comes shortly before the end, so that
/// whoever comes back has missed little.
fn bookmark_after(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(LAST_BOOKMARK).filter(|last| now < *last);
    (now + BOOKMARK_INTERVAL).min(last.unwrap_or(end))
}

fn ended(start: Revision, error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { oldest, .. } => {
            let before = oldest.get().saturating_sub(1);
            Status::expired(format!("too old resource version: {start} ({before})"))
        }
        WatchError::TooSlow { .. } | WatchError::Stopped => Status::unavailable(error.to_string()),
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    text.into()
}

/// Writes an event of a stored object, as of a revision.
fn write_line(
    event: &str,
    kind: &Kind,
    object: &Stored,
    (form, revision, now): (Form, Revision, i64),
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    match form {
        Form::Object => object.write_at(kind, revision, out)?,
        Form::Metadata => object.write_metadata_at(kind, revision, out)?,
        Form::Table(include) => {
            let (mut value, kind) = (object.value(kind)?, kind.stored());
            stamp(kind, &mut value, revision);
            let list_meta = json!({"resourceVersion": meta::resource_version(&value)});
            let shown = table(kind, [&value], include, list_meta, now);
            serde_json::to_writer(&mut *out, &shown).map_err(Status::internal)?;
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn bookmark(kind: &Kind, revision: u64, form: Form, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let (true, Some(fields)) = (initial_end, metadata.as_object_mut()) {
        fields.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
    }
    let object = match form {
        Form::Object => {
            json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
        }
        Form::Metadata => metadata_only(&json!({"metadata": metadata})),
        Form::Table(_) => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                                   "metadata": metadata, "columnDefinitions": [], "rows": []}),
    };
    line("BOOKMARK", &object)
}

fn lines(watch: Watch) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold(watch, async |mut watch| {
        loop {
            if !watch.ready.is_empty() {
                return Some((Ok(watch.take_ready()), watch));
            }
            if watch.done {
                return None;
            }
            if !watch.begin().await {
                watch.step().await;
            }
        }
    })
}

/// What all watches of the same objects make of a batch together, if these are shown as they are stored.
#[derive(Debug)]
struct Shared {
    version: &'static str,
    changes: Vec<Change>,
}

/// An event as watches see it, each part made by the first that needs it.
#[derive(Debug, Default)]
struct Change {
    /// As it is now, and as it was before.
    objects: [OnceLock<Option<Stored>>; 2],
    /// What selectors look into, of both.
    names: [OnceLock<Option<Value>>; 2],
    fields: [OnceLock<Option<Value>>; 2],
    /// By form and by type.
    lines: [[OnceLock<Option<Bytes>>; 3]; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    New = 0,
    Old = 1,
}

impl Shared {
    fn of(kind: &Kind, batch: &WatchBatch) -> Self {
        let changes = batch.events.iter().map(|_| Change::default()).collect();
        Self { version: kind.version, changes }
    }
}

impl Watch {
    /// The next of what there was at the beginning; false when that has been sent.
    async fn begin(&mut self) -> bool {
        if self.initial.as_slice().is_empty() {
            self.list_seat = None;
            let end = self.initial_end.take();
            let found = end.is_some();
            self.ready.extend(end);
            return found;
        }
        self.turns.next().await;
        if let Some(seat) = &mut self.list_seat {
            seat.go_on().await;
        }
        let mut lines = Vec::new();
        while lines.len() < BATCH_BYTES {
            let Some(object) = self.initial.next() else { break };
            let shown = (self.form, object.kv().mod_revision, self.registry.now());
            if let Err(status) = write_line("ADDED", &self.kind, &object, shown, &mut lines) {
                // It has been read before.
                lines.extend_from_slice(&line("ERROR", &status.to_json()));
                self.done = true;
                break;
            }
        }
        self.ready.push(lines.into());
        true
    }

    fn take_ready(&mut self) -> Bytes {
        self.ready_bytes = 0;
        match self.ready.as_mut_slice() {
            [one] => {
                let one = std::mem::take(one);
                self.ready.clear();
                one
            }
            _ => std::mem::take(&mut self.ready).concat().into(),
        }
    }

    /// Waits for what comes next, and tells of it. A stream on which much goes on has its bookmarks and its
    /// end at the same times as a silent one: of what goes on, it may be shown nothing.
    async fn step(&mut self) {
        let (watcher, bookmark_at) = (&mut self.watcher, self.bookmark_at);
        let write_at = self.write_at.min(bookmark_at);
        let next = async move {
            // What comes meanwhile is written together.
            if Instant::now() < write_at {
                sleep_until(write_at).await;
            }
            timeout_at(bookmark_at, watcher.next()).await
        };
        let message = tokio::select! {
            biased;
            message = next => message,
            at = redefined(&self.kind, &mut self.definition) => return self.finish(at).await,
        };
        if let Ok(message) = message {
            self.take_all(message);
        }
        let now = Instant::now();
        if let (Some(pace), false) = (&self.pace, self.ready.is_empty()) {
            // Not all of those that one change has woken at the same moment again.
            self.write_at = now + pace.interval().mul_f64(rand::random_range(0.75..1.25));
        }
        if now >= self.bookmark_at && !self.done {
            if self.bookmarks && now < self.end {
                // This replica may be behind what the client has seen elsewhere.
                let revision = self.watcher.progress().max(self.start).get();
                self.ready.push(bookmark(&self.kind, revision, self.form, false));
            }
            self.bookmark_at = bookmark_after(now, self.end);
            self.done = now >= self.end;
        }
    }

    /// What came before the definition changed is still told.
    async fn finish(&mut self, at: Revision) {
        self.done = true;
        // All that there is up to there is then in the watcher, too.
        if self.registry.store().wait_for(at, FINISH_DEADLINE).await.is_err() {
            return;
        }
        while self.watcher.progress() < at {
            let Ok(message) = tokio::time::timeout(FINISH_DEADLINE, self.watcher.next()).await
            else {
                return;
            };
            if message.is_none() {
                return;
            }
            self.take(message);
        }
    }

    /// Takes what has come besides, too: one write for all of it.
    fn take_all(&mut self, mut message: Option<WatchMessage>) {
        loop {
            self.take(message);
            if self.done || self.ready_bytes >= BATCH_BYTES {
                return;
            }
            match self.watcher.next().now_or_never() {
                Some(more) => message = more,
                None => return,
            }
        }
    }

    fn take(&mut self, message: Option<WatchMessage>) {
        match message {
            Some(WatchMessage::Events(batch)) => self.take_batch(&batch),
            Some(WatchMessage::Canceled { reason, resume }) => {
                // Whoever is only too slow comes back at the revision it has.
                if matches!(reason, WatchError::Compacted { .. }) {
                    let before = Revision::new(resume.get().saturating_sub(1));
                    self.ready.push(line("ERROR", &ended(before, &reason).to_json()));
                }
                self.done = true;
            }
            None => self.done = true,
        }
    }

    fn take_batch(&mut self, batch: &WatchBatch) {
        // What is shown of other kinds is not in the batch alone: the same Events have two forms.
        let shared = shows_as_stored(&self.kind)
            .then(|| batch.memo.get_or_make(|| Shared::of(&self.kind, batch)))
            .flatten();
        // Others may have made something else of it, or follow another version of these objects.
        let shared = shared.filter(|shared| shared.version == self.kind.version);
        for (place, event) in batch.events.iter().enumerate() {
            let line = match shared.and_then(|shared| shared.changes.get(place)) {
                Some(change) => self.event_line(change, event),
                None => self.event_line(&Change::default(), event),
            };
            self.ready_bytes += line.as_ref().map_or(0, Bytes::len);
            self.ready.extend(line);
        }
    }

    /// What this watch sees of a change: entering the selection is ADDED, leaving it DELETED, with
    /// what was before at the revision of the change (WCH-3).
    fn event_line(&self, change: &Change, event: &Event) -> Option<Bytes> {
        let new = match event.kind {
            EventKind::Put => self.object(change, Side::New, Some(&event.kv)),
            EventKind::Delete => None,
        };
        let old = self.object(change, Side::Old, event.prev.as_ref());
        let is_in = new.is_some_and(|object| self.selects(change, Side::New, object));
        let was_in = old.is_some_and(|object| self.selects(change, Side::Old, object));
        let (place, name, object) = match (was_in, is_in) {
            (false, true) => (0, "ADDED", new?),
            (true, true) => (1, "MODIFIED", new?),
            (true, false) => (2, "DELETED", old?),
            (false, false) => return None,
        };
        let write = || {
            let mut text = Vec::with_capacity(object.len() + 64);
            let shown = (self.form, event.kv.mod_revision, self.registry.now());
            let written = write_line(name, &self.kind, object, shown, &mut text);
            written.ok().map(|()| Bytes::from(text))
        };
        let form = match self.form {
            Form::Object => 0,
            Form::Metadata => 1,
            // Ages in it are as of now, and few watch tables.
            Form::Table(_) => return write(),
        };
        change.lines.get(form)?.get(place)?.get_or_init(write).clone()
    }

    fn object<'a>(
        &self,
        change: &'a Change,
        side: Side,
        kv: Option<&Arc<KeyValue>>,
    ) -> Option<&'a Stored> {
        let examine = || self.registry.known().examine(&self.kind, Arc::clone(kv?)).ok();
        change.objects.get(side as usize)?.get_or_init(examine).as_ref()
    }

    fn selects(&self, change: &Change, side: Side, object: &Stored) -> bool {
        if !self.selection.is_selective() {
            return true;
        }
        let parts = if self.selection.asks_names_only() { &change.names } else { &change.fields };
        let Some(parts) = parts.get(side as usize) else { return false };
        let kind = self.kind.stored();
        let read = || self.selection.selectable(kind, object.kv()).ok();
        let parts = parts.get_or_init(read).as_ref();
        parts.is_some_and(|parts| self.selection.matches(kind, parts))
    }
}
