//! One watch of all keys at each place of a member: resumed elsewhere after what it has delivered whenever
//! its stream ends, and moved when members come and go.

use super::{
    Shared, View,
    keys::{Event, Key, PREFIX, PREFIX_END, Revision},
    violation::Violation,
};
use crate::{
    cluster::MEMBERS,
    wire::{CallError, Connection, Stream, frame, path},
};
use bytes::Bytes;
use etcd::proto::{
    etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request},
    mvccpb::{self, event::EventType},
};
use prost::Message as _;
use std::{rc::Rc, time::Duration};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// One for each member that there may be at a time.
pub(super) const WATCHES: usize = MEMBERS + 1;
/// Before a watch tries the next endpoint, having found one dead.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Starts all of them; they go on until they are dropped.
pub(super) fn start(shared: &Rc<Shared>, view: &watch::Receiver<View>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for watch in 0..WATCHES {
        tasks.spawn_local(run(Rc::clone(shared), view.clone(), watch));
    }
    tasks
}

async fn run(shared: Rc<Shared>, mut view: watch::Receiver<View>, watch: usize) {
    let mut place = watch;
    loop {
        let url = view.borrow_and_update().url(place);
        tokio::select! {
            // What is dropped half-way is read again: the next stream begins after what was delivered.
            ended = follow(&shared, watch, &url) => {
                let _ = ended;
                place += 1;
                sleep(RECONNECT_PAUSE).await;
            }
            () = moved(&mut view, watch, &url) => place = watch,
        }
        shared.checker.borrow_mut().sequence.resumed(watch);
    }
}

/// Returns when the watch has its home elsewhere.
async fn moved(view: &mut watch::Receiver<View>, watch: usize, url: &str) {
    let elsewhere = |view: &View| view.url(watch) != url;
    loop {
        if view.changed().await.is_err() {
            return std::future::pending().await;
        }
        if elsewhere(&view.borrow_and_update()) {
            return;
        }
    }
}

/// Delivers what comes until nothing more can.
async fn follow(shared: &Shared, watch: usize, url: &str) -> Result<(), CallError> {
    let connection = Connection::open(url).await?;
    let from = shared.checker.borrow().sequence.next(watch);
    let mut stream = connection.route(path::WATCH).stream(create(from)).await?;
    loop {
        let answer = next(&mut stream).await?;
        let mut checker = shared.checker.borrow_mut();
        if answer.canceled {
            if answer.compact_revision > 0 {
                checker.compacted(watch, Revision(answer.compact_revision));
            }
            return Err(CallError::Status { code: 0, message: answer.cancel_reason });
        }
        for event in answer.events {
            let read = event.kv.as_ref().map(|kv| read(&checker.values, event.r#type(), kv));
            match read {
                Some(Ok(event)) => checker.delivered(watch, event),
                Some(Err(violation)) => checker.violated(violation),
                None => {}
            }
        }
    }
}

fn create(from: Revision) -> Bytes {
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        start_revision: from.0,
        ..WatchCreateRequest::default()
    };
    frame(&WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) })
}

async fn next(stream: &mut Stream) -> Result<WatchResponse, CallError> {
    Ok(WatchResponse::decode(stream.next().await?)?)
}

fn read(
    values: &super::keys::Values,
    kind: EventType,
    kv: &mvccpb::KeyValue,
) -> Result<Event, Violation> {
    match kind {
        EventType::Put => Ok(Event::Put(values.read(kv)?)),
        EventType::Delete => {
            let (key, mod_revision) = (Key::parse(&kv.key)?, Revision(kv.mod_revision));
            Ok(Event::Delete { key, mod_revision })
        }
    }
}
