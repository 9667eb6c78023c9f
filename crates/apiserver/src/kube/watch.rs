//! Watches as a stream of JSON lines (WCH-1…WCH-8).

use super::{
    Query, Target,
    answer::{Form, Format, metadata_only},
    flag,
};
use crate::registry::{ListQuery, Registry, decode, prefix, stamp};
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
use futures::{Stream, stream};
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use store::{
    Event, EventKind, KeyRange, KeyValue, Revision,
    watch::{WatchError, WatchMessage, WatchRequest, Watcher},
};
use tokio::time::{Instant, timeout_at};

/// Between bookmarks (WCH-5).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Before the end of a stream, for the last bookmark (WCH-5).
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// For what came before a watch's definition changed.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);
/// Of one stream; an instant further away could not be told.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

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
    ready: Vec<Bytes>,
    done: bool,
}

pub(super) async fn answer(
    registry: &Registry,
    target: &Target,
    selection: ListQuery,
    query: &Query,
    format: Format,
) -> Result<Response, Status> {
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
    let definition = follow_definition(registry, kind)?;
    let mut ready = Vec::new();
    let text = selection.resource_version.as_str();
    let from_now = matches!(text, "" | "0");
    let start = if initial.unwrap_or(from_now) {
        let first = ListQuery {
            resource_version_match: String::new(),
            limit: 0,
            continue_token: String::new(),
            ..selection.clone()
        };
        let found = registry.list(kind.stored(), &target.namespace, &first).await?;
        for object in &found.items {
            ready.push(line("ADDED", &shown(kind, object, form, registry.now())));
        }
        if initial.is_some() && bookmarks {
            ready.push(bookmark(kind, found.revision, form, true));
        }
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
    let request = WatchRequest {
        range: KeyRange::prefix(prefix(kind, &target.namespace)),
        start: start.next(),
    };
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
                ready,
                done: false,
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

fn shown(kind: &Kind, object: &Value, form: Form, now: i64) -> Value {
    match form {
        Form::Object => kind.show(object).into_owned(),
        Form::Metadata => metadata_only(&kind.show(object)),
        Form::Table(include) => {
            let list_meta = json!({"resourceVersion": meta::resource_version(object)});
            table(kind.stored(), [object], include, list_meta, now)
        }
    }
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
                let ready = std::mem::take(&mut watch.ready).concat();
                return Some((Ok(ready.into()), watch));
            }
            if watch.done {
                return None;
            }
            watch.step().await;
        }
    })
}

impl Watch {
    /// Waits for what comes next, and tells of it. A stream on which much goes on has its bookmarks and its
    /// end at the same times as a silent one: of what goes on, it may be shown nothing.
    async fn step(&mut self) {
        let next = timeout_at(self.bookmark_at, self.watcher.next());
        let message = tokio::select! {
            biased;
            message = next => message,
            at = redefined(&self.kind, &mut self.definition) => return self.finish(at).await,
        };
        if let Ok(message) = message {
            self.take(message);
        }
        let now = Instant::now();
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

    fn take(&mut self, message: Option<WatchMessage>) {
        match message {
            Some(WatchMessage::Events(batch)) => {
                for event in batch.events.iter() {
                    let line = self.event_line(event);
                    self.ready.extend(line);
                }
            }
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

    /// What this watch sees of a change: entering the selection is ADDED, leaving it DELETED, with
    /// what was before at the revision of the change (WCH-3).
    fn event_line(&self, event: &Event) -> Option<Bytes> {
        let read = |kv: &KeyValue| decode(self.kind.stored(), kv).ok();
        let selected = |object: &Value| self.selection.matches(&self.kind, object);
        let new = match event.kind {
            EventKind::Put => read(&event.kv),
            EventKind::Delete => None,
        };
        let old = event.prev.as_deref().and_then(read);
        let is_in = new.as_ref().is_some_and(selected);
        let was_in = old.as_ref().is_some_and(selected);
        let now = self.registry.now();
        let show = |object: &Value| shown(&self.kind, object, self.form, now);
        match (was_in, is_in) {
            (false, true) => Some(line("ADDED", &show(&new?))),
            (true, true) => Some(line("MODIFIED", &show(&new?))),
            (true, false) => {
                let mut last = old?;
                stamp(self.kind.stored(), &mut last, event.kv.mod_revision);
                Some(line("DELETED", &show(&last)))
            }
            (false, false) => None,
        }
    }
}
