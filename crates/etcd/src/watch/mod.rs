//! Watches: any number on one stream, each from any kept revision, in order, nothing twice.

mod wire;

use crate::{
    auth::Credentials,
    convert,
    core::Core,
    counters::Gauge,
    error::{self, cancel_reason},
    proto::etcdserverpb::{
        ResponseHeader, WatchCreateRequest, WatchRequest as WireRequest,
        watch_create_request::FilterType, watch_request::RequestUnion,
    },
};
use bytes::Bytes;
use futures::{Stream, future::BoxFuture, stream};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use store::{
    Access, Identity, KeyRange, Revision,
    state::Auth,
    watch::{WatchBatch, WatchError, WatchMessage, WatchRequest, WatchSet},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, StreamingService},
};
use tonic_prost::ProstCodec;
use tower::Service;
use wire::{Wanted, WatchResponse, fragments};

/// The id in answers that concern no watch or all of them.
const NO_WATCH: i64 = -1;
/// How often a stream whose client wants to know looks whether there is a leader.
const LEADER_CHECK: Duration = Duration::from_millis(500);

/// For a replica that is behind to catch up before it refuses a watch.
const AUTH_PATIENCE: Duration = Duration::from_secs(5);
/// Answers of a stream that are made before the first of them is sent.
const READY: usize = 64;

/// `etcdserverpb.Watch`. Not as generated: that would encode each event for each watch.
#[derive(Clone)]
pub(crate) struct WatchService(pub(crate) Arc<Core>);

impl<B> Service<http::Request<B>> for WatchService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<WatchResponse, WireRequest>::default();
            let bytes_max = service.0.config.message_bytes_max();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(bytes_max);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<WireRequest> for WatchService {
    type Response = WatchResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WireRequest>>) -> Self::Future {
        let wants_leader = request.metadata().get("hasleader").is_some_and(|v| v == "true");
        if wants_leader && self.0.cluster.local().leader.is_none() {
            return std::future::ready(Err(error::no_leader()));
        }
        let who = Credentials::of(&request);
        let session = Session::new(Arc::clone(&self.0), who, request.into_inner(), wants_leader);
        let answers = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let answers: Self::ResponseStream = Box::pin(answers);
        std::future::ready(Ok(Response::new(answers)))
    }
}

/// How one watch wants its events.
#[derive(Debug, Clone, Copy)]
struct Options {
    wanted: Wanted,
    fragment: bool,
    /// Wants to hear how far it is.
    progress: bool,
    /// Has had no event since the last time.
    idle: bool,
}

/// Why a watch may be there.
#[derive(Debug)]
struct Permit {
    range: KeyRange,
    /// Whose user reads the range, and as of which users and roles.
    who: Identity,
}

impl Permit {
    /// Looks again if users or roles have changed. The user stays who it was when the watch began: a
    /// stream outlives its token.
    fn check(&mut self, auth: &Auth) -> Result<(), Status> {
        if self.who.auth_revision != auth.revision() {
            self.who.auth_revision = auth.revision();
            auth.check(&self.who, Access::Read, &self.range).map_err(error::of_auth)?;
        }
        Ok(())
    }
}

/// One stream of watches.
struct Session {
    core: Arc<Core>,
    who: Credentials,
    /// Of those watches that somebody in particular asked for.
    permits: BTreeMap<i64, Permit>,
    /// `None` when the client has nothing more to ask.
    requests: Option<Streaming<WireRequest>>,
    watches: WatchSet,
    options: BTreeMap<i64, Options>,
    watching: Gauge,
    next_id: i64,
    /// To be sent before anything else.
    ready: VecDeque<WatchResponse>,
    /// Asked for: to be said when everything at or below it has been sent.
    progress_due: Option<Revision>,
    progress_ticks: Interval,
    leader_ticks: Option<Interval>,
    leaderless_since: Option<Instant>,
}

/// What a session waits for.
enum Next {
    Request(Result<Option<WireRequest>, Status>),
    Message(Option<(i64, WatchMessage)>),
    ProgressTick,
    LeaderTick,
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Session {
    fn new(
        core: Arc<Core>,
        who: Credentials,
        requests: Streaming<WireRequest>,
        wants_leader: bool,
    ) -> Self {
        let period = core.config.watch_progress_interval;
        // So that not everybody who began at the same time is told at the same time.
        let period = period + period.mul_f64(rand::random_range(0.0..0.1));
        Self {
            watches: core.store.watch_set(),
            watching: core.counters.watchers(),
            core,
            who,
            permits: BTreeMap::new(),
            requests: Some(requests),
            options: BTreeMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            progress_due: None,
            progress_ticks: ticks(period),
            leader_ticks: wants_leader.then(|| ticks(LEADER_CHECK)),
            leaderless_since: None,
        }
    }

    /// The next answer. An error ends the stream.
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            self.watching.set(self.options.len());
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            if let Some(due) = self.progress_due
                && let Some(progress) = self.watches.progress().filter(|p| *p >= due)
            {
                self.progress_due = None;
                return Ok(self.response(NO_WATCH, progress));
            }
            match self.wait().await {
                Next::Request(Ok(Some(request))) => self.take_request(request).await?,
                Next::Request(Ok(None)) => self.requests = None,
                Next::Request(Err(status)) => return Err(status),
                Next::Message(Some((id, message))) => {
                    self.take_message(id, message)?;
                    // What else is there need not be waited for.
                    while self.ready.len() < READY
                        && let Some((id, message)) = self.watches.try_next()
                    {
                        self.take_message(id, message)?;
                    }
                }
                Next::Message(None) => {}
                Next::ProgressTick => self.tell_progress(),
                Next::LeaderTick => self.check_leader()?,
            }
        }
    }

    async fn wait(&mut self) -> Next {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        let leader_tick = async {
            match &mut self.leader_ticks {
                Some(ticks) => ticks.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = request => Next::Request(request),
            message = self.watches.next() => Next::Message(message),
            _ = self.progress_ticks.tick() => Next::ProgressTick,
            _ = leader_tick => Next::LeaderTick,
        }
    }

    fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        self.core.header(revision)
    }

    fn response(&self, watch_id: i64, revision: Revision) -> WatchResponse {
        WatchResponse { header: self.header(revision), watch_id, ..WatchResponse::default() }
    }

    async fn take_request(&mut self, request: WireRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await?,
            Some(RequestUnion::CancelRequest(request)) => {
                let id = request.watch_id;
                if self.watches.remove(id) {
                    self.forget(id);
                    let revision = self.core.store.view().revision();
                    let response = self.response(id, revision);
                    self.ready.push_back(WatchResponse { canceled: true, ..response });
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_due = Some(self.core.store.view().revision());
            }
            // etcd passes over what it does not know.
            None => {}
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &str) {
        let revision = self.core.store.view().revision();
        self.ready.push_back(WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.response(NO_WATCH, revision)
        });
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Status> {
        let Ok(start) = u64::try_from(request.start_revision) else {
            self.refuse(cancel_reason::COMPACTED);
            return Ok(());
        };
        let options = Options {
            wanted: Wanted {
                prev_kv: request.prev_kv,
                no_put: request.filters.contains(&FilterType::Noput.into()),
                no_delete: request.filters.contains(&FilterType::Nodelete.into()),
            },
            fragment: request.fragment,
            progress: request.progress_notify,
            idle: true,
        };
        // Without a key: from the very first one on.
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
        let range = KeyRange::from_wire(key, request.range_end);
        if matches!(&range, KeyRange::Between { start, end } if start >= end) {
            self.refuse(cancel_reason::EMPTY_RANGE);
            return Ok(());
        }
        // Of the range that will be watched, not of what the request says.
        let permitted = self.core.may_read(&self.who, &range, AUTH_PATIENCE).await;
        let who = match permitted {
            Ok(who) => who,
            Err(status) => {
                self.refuse(&error::as_cancel_reason(&status));
                return Ok(());
            }
        };
        let id = match request.watch_id {
            0 => {
                while self.watches.contains(self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id if self.watches.contains(id) => {
                self.refuse(cancel_reason::DUPLICATE_ID);
                return Ok(());
            }
            id => id,
        };
        let created = |response| WatchResponse { created: true, ..response };
        let permit = Permit { range: range.clone(), who };
        match self.watches.add(id, WatchRequest { range, start: Revision::new(start) }) {
            Ok(current) => {
                if permit.who != Identity::default() {
                    self.permits.insert(id, permit);
                }
                self.options.insert(id, options);
                self.ready.push_back(created(self.response(id, current)));
                Ok(())
            }
            Err(reason) => {
                // It began, and ended at once: so etcd tells it.
                let revision = self.core.store.view().revision();
                self.ready.push_back(created(self.response(id, revision)));
                self.take_end(id, reason)
            }
        }
    }

    fn take_end(&mut self, id: i64, reason: WatchError) -> Result<(), Status> {
        self.forget(id);
        match reason {
            WatchError::Compacted { oldest, .. } => {
                let revision = self.core.store.view().revision();
                self.ready.push_back(WatchResponse {
                    canceled: true,
                    compact_revision: convert::number(oldest.get()),
                    ..self.response(id, revision)
                });
                Ok(())
            }
            WatchError::Stopped => Err(error::stopped()),
            WatchError::TooSlow { .. } => {
                unreachable!("a set reads from the state what it was too slow for")
            }
        }
    }

    fn forget(&mut self, id: i64) {
        self.options.remove(&id);
        self.permits.remove(&id);
    }

    fn take_message(&mut self, id: i64, message: WatchMessage) -> Result<(), Status> {
        match message {
            WatchMessage::Events(batch) => {
                self.take_events(id, &batch);
                Ok(())
            }
            WatchMessage::Canceled { reason, .. } => self.take_end(id, reason),
        }
    }

    fn take_events(&mut self, id: i64, batch: &WatchBatch) {
        if let Some(permit) = self.permits.get_mut(&id)
            && let Err(status) = permit.check(self.core.store.view().auth())
        {
            self.watches.remove(id);
            self.forget(id);
            let response = self.response(id, batch.revision);
            let cancel_reason = error::as_cancel_reason(&status);
            self.ready.push_back(WatchResponse { canceled: true, cancel_reason, ..response });
            return;
        }
        let Some(options) = self.options.get_mut(&id) else { return };
        options.idle = false;
        let Options { wanted, fragment, .. } = *options;
        let events = wanted.of(batch);
        if events.is_empty() {
            return;
        }
        let response = WatchResponse { events, ..self.response(id, batch.revision) };
        if fragment {
            self.ready.extend(fragments(response, self.core.config.message_bytes_max()));
        } else {
            self.ready.push_back(response);
        }
    }

    /// To each watch that wants to hear of it and has had nothing else to hear of.
    fn tell_progress(&mut self) {
        let progress = self.watches.progress();
        let mut idle = Vec::new();
        for (id, options) in self.options.iter_mut().filter(|(_, options)| options.progress) {
            if options.idle {
                idle.push(*id);
            }
            options.idle = true;
        }
        if let Some(progress) = progress {
            for id in idle {
                let response = self.response(id, progress);
                self.ready.push_back(response);
            }
        }
    }

    /// # Errors
    /// There has been no leader for so long that the client is better off at another member.
    fn check_leader(&mut self) -> Result<(), Status> {
        if self.core.cluster.local().leader.is_some() {
            self.leaderless_since = None;
            return Ok(());
        }
        let since = *self.leaderless_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.core.config.leaderless_max {
            return Err(error::no_leader());
        }
        Ok(())
    }
}
