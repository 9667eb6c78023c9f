//! Watchers of one key and writers to it: how many events arrive, and how long after the put was sent.

use crate::{
    drive::{GRACE, Recorded, Window},
    operation::value,
    pace::{Schedule, Timer},
    wire::{CallError, Connection, frame, path},
};
use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use etcd::proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use prost::Message as _;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

const KEY: &str = "trireme-watch";
/// Writer, number, nanoseconds: what a value begins with.
const STAMP_BYTES: usize = 24;

/// Who watches and who writes.
#[derive(Debug, Clone, Copy)]
pub struct WatchLoad {
    /// Watchers, all of the same key.
    pub watchers: usize,
    /// gRPC streams that they share.
    pub streams: usize,
    /// Bytes of a value, at least 24.
    pub value_bytes: usize,
}

/// What a writer's last put has come to. A put is done when all watchers have its event.
#[derive(Default)]
struct Slot {
    number: Cell<u64>,
    delivered: Cell<usize>,
    all: Notify,
}

struct Shared {
    origin: Instant,
    window: Window,
    open: bool,
    watchers: usize,
    slots: Vec<Slot>,
    recorded: RefCell<Recorded>,
}

/// Every watcher is created; events may come.
pub(crate) struct Watching {
    streams: Vec<crate::wire::Stream>,
    load: WatchLoad,
}

impl Watching {
    /// Creates all watchers.
    pub(crate) async fn create(
        connections: &[Connection],
        load: WatchLoad,
    ) -> anyhow::Result<Self> {
        ensure!(load.value_bytes >= STAMP_BYTES, "--value-bytes: at least {STAMP_BYTES}");
        ensure!(load.watchers > 0 && load.streams > 0, "no watcher");
        let create = WatchCreateRequest { key: KEY.into(), ..WatchCreateRequest::default() };
        let create = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        let create = frame(&create);
        let count = load.streams.min(load.watchers);
        let mut streams = Vec::new();
        for (index, connection) in (0..count).zip(connections.iter().cycle()) {
            let share = load.watchers / count + usize::from(index < load.watchers % count);
            let mut stream = connection.route(path::WATCH).stream(create.clone()).await?;
            for _ in 1..share {
                stream.send(create.clone())?;
            }
            for _ in 0..share {
                let answer = WatchResponse::decode(stream.next().await.context("create a watch")?)?;
                ensure!(answer.created && !answer.canceled, "no watch: {}", answer.cancel_reason);
            }
            streams.push(stream);
        }
        Ok(Self { streams, load })
    }

    /// Writes until the window ends. Each writer sends its next put when all watchers have its last.
    ///
    /// # Errors
    /// A connection broke, or an event did not come.
    pub(crate) async fn run<T: Timer + 'static>(
        self,
        writers: Vec<(Connection, T)>,
        schedule: Option<Schedule>,
        window: Window,
        stop: &CancellationToken,
    ) -> anyhow::Result<Recorded> {
        let shared = Rc::new(Shared {
            origin: Instant::now(),
            window,
            open: schedule.is_some(),
            watchers: self.load.watchers,
            slots: writers.iter().map(|_| Slot::default()).collect(),
            recorded: RefCell::default(),
        });
        let schedule = Rc::new(schedule);
        let mut readers = JoinSet::new();
        for stream in self.streams {
            readers.spawn_local(read(stream, Rc::clone(&shared)));
        }
        let mut tasks = JoinSet::new();
        for (index, (connection, timer)) in writers.into_iter().enumerate() {
            let (shared, schedule, stop) = (Rc::clone(&shared), Rc::clone(&schedule), stop.clone());
            let filler = value(self.load.value_bytes - STAMP_BYTES);
            tasks.spawn_local(async move {
                let mut number = 0;
                while !stop.is_cancelled() {
                    let now = Instant::now();
                    let next = window.next(schedule.as_ref().as_ref(), &timer, now).await;
                    let Some(since) = next else { break };
                    number += 1;
                    put(&connection, &shared, index, number, since, &filler).await?;
                }
                anyhow::Ok(())
            });
        }
        loop {
            tokio::select! {
                writer = tasks.join_next() => match writer {
                    Some(result) => result.context("a writer")??,
                    None => break,
                },
                () = sleep_until(window.until + GRACE) => {
                    bail!("{} puts were not answered {GRACE:?} after the end of the run", tasks.len());
                }
                Some(reader) = readers.join_next() => {
                    let error = reader.context("a watcher")?;
                    bail!(anyhow::Error::from(error).context("a watch ended"));
                }
            }
        }
        Ok(shared.recorded.take())
    }
}

async fn put(
    connection: &Connection,
    shared: &Shared,
    writer: usize,
    number: u64,
    since: Instant,
    filler: &Bytes,
) -> anyhow::Result<()> {
    let Some(slot) = shared.slots.get(writer) else { return Ok(()) };
    slot.number.set(number);
    slot.delivered.set(0);
    let nanos = u64::try_from((since - shared.origin).as_nanos())?;
    let mut value = BytesMut::with_capacity(STAMP_BYTES + filler.len());
    value.put_u64(writer as u64);
    value.put_u64(number);
    value.put_u64(nanos);
    value.extend_from_slice(filler);
    let put = PutRequest { key: KEY.into(), value: value.freeze(), ..PutRequest::default() };
    connection.route(path::PUT).call_blind(frame(&put)).await?;
    if timeout(GRACE, slot.all.notified()).await.is_err() {
        let (got, all) = (slot.delivered.get(), shared.watchers);
        bail!("{got} of {all} watchers had an event {GRACE:?} after its put was acknowledged");
    }
    Ok(())
}

/// Counts what comes until it cannot.
async fn read(mut stream: crate::wire::Stream, shared: Rc<Shared>) -> CallError {
    loop {
        let message = match stream.next().await {
            Ok(message) => message,
            Err(error) => return error,
        };
        let answer = match WatchResponse::decode(message) {
            Ok(answer) => answer,
            Err(error) => return error.into(),
        };
        if answer.canceled {
            return CallError::Status { code: 0, message: answer.cancel_reason };
        }
        let now = Instant::now();
        let mut recorded = shared.recorded.borrow_mut();
        for kv in answer.events.into_iter().filter_map(|event| event.kv) {
            let word = |at: usize| -> Option<u64> {
                Some(u64::from_be_bytes(kv.value.get(at..at + 8)?.try_into().ok()?))
            };
            let (Some(writer), Some(number), Some(nanos)) = (word(0), word(8), word(16)) else {
                continue;
            };
            let slot = usize::try_from(writer).ok().and_then(|writer| shared.slots.get(writer));
            let Some(slot) = slot.filter(|slot| slot.number.get() == number) else { continue };
            let since = shared.origin + Duration::from_nanos(nanos);
            recorded.answer(&shared.window, shared.open, since, now);
            slot.delivered.set(slot.delivered.get() + 1);
            if slot.delivered.get() == shared.watchers {
                slot.all.notify_one();
            }
        }
    }
}
