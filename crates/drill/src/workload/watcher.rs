//! Watches of all keys of the load that go on at another replica when theirs does not, from where they were.

use super::{CONNECT, RECONNECT, Service, Target, connect, convert, store};
use crate::record::Recorder;
use checkers::history::{Closed, Opened, Range, RangeRequest, Scope, WatchStep};
use etcd::proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, metadata::MetadataValue};

/// After so long without a word, the server is asked where it is.
const ASK: Duration = Duration::from_millis(250);
/// And after so long it is left: there is always something to tell.
const SILENCE: Duration = Duration::from_secs(1);
/// Questions under way.
const QUESTIONS: usize = 4;

/// One client that watches.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Counts from 1; it begins with the replica of that number.
    pub(super) number: u64,
    pub(super) target: Target,
    pub(super) recorder: Arc<Recorder>,
}

/// A stream that the server has accepted.
struct Stream {
    number: u64,
    sequence: u64,
    questions: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

/// Where a watch is.
struct Place {
    client: u64,
    /// The next revision to be told.
    from: u64,
    /// The stream that it goes on with.
    resumes: Option<u64>,
}

impl Watcher {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut place: Option<Place> = None;
        let urls = self.target.etcd_urls.clone();
        let first = usize::try_from(self.number.saturating_sub(1)).unwrap_or_default();
        for (replica, url) in (1u64..).zip(&urls).cycle().skip(first) {
            let follow = async {
                let Ok(service) = connect(url, &self.target.access).await else { return };
                let at = match place.take() {
                    Some(at) => at,
                    None => match self.begin(service.clone()).await {
                        Some(at) => at,
                        None => return,
                    },
                };
                place = Some(self.follow(service, replica, at).await);
            };
            if stop.run_until_cancelled(follow).await.is_none()
                || stop.run_until_cancelled(sleep(RECONNECT)).await.is_none()
            {
                return;
            }
        }
    }

    /// A place behind what is there now.
    async fn begin(&self, service: Service) -> Option<Place> {
        let range = Range::prefix(&self.target.prefix);
        let request = RangeRequest { range, serializable: true, revision: 0, limit: 1 };
        let (revision, ..) = store::range(service, &request).await.ok()?;
        Some(Place { client: self.recorder.fresh(), from: revision + 1, resumes: None })
    }

    /// Follows until the stream ends or falls silent; where it has come to.
    async fn follow(&self, service: Service, replica: u64, mut at: Place) -> Place {
        let Some(mut stream) = self.open(service, replica, &at).await else { return at };
        at.resumes = Some(stream.number);
        let mut heard = Instant::now();
        let closed = loop {
            match timeout(ASK, stream.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    heard = Instant::now();
                    if let Some(closed) = self.take(&mut stream, &mut at, answer) {
                        break closed;
                    }
                }
                Ok(Ok(None) | Err(_)) => break Closed::Ended,
                Err(_) if heard.elapsed() > SILENCE => break Closed::Ended,
                // More questions than it answers are of no use.
                Err(_) => drop(stream.questions.try_send(progress())),
            }
        };
        if let Closed::Compacted { revision } = closed {
            // What lies before is lost to this client, and it says so.
            at.from = revision + 1;
            at.resumes = None;
        }
        self.recorder.watch(stream.number, &mut stream.sequence, WatchStep::Closed(closed));
        at
    }

    async fn open(&self, service: Service, replica: u64, at: &Place) -> Option<Stream> {
        let range = Range::prefix(&self.target.prefix);
        let create = WatchCreateRequest {
            key: range.key.clone().into(),
            range_end: range.end.clone().unwrap_or_default().into(),
            start_revision: convert::signed(at.from),
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (questions, asked) = mpsc::channel(QUESTIONS);
        questions.try_send(create).ok()?;
        let mut client = WatchClient::new(service);
        let mut request = tonic::Request::new(ReceiverStream::new(asked));
        // A replica that is cut off from the leader has nothing to tell and answers all the same: it is to say so.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opened = timeout(CONNECT, client.watch(request)).await;
        let mut answers = opened.ok()?.ok()?.into_inner();
        let accepted = timeout(CONNECT, answers.message()).await.ok()?.ok()??;
        if !accepted.created || accepted.canceled {
            return None;
        }
        let mut stream = Stream { number: self.recorder.fresh(), sequence: 0, questions, answers };
        let opened = Opened {
            client: at.client,
            replica,
            scope: Scope::Keys(range),
            from: at.from,
            resumes: at.resumes,
        };
        self.recorder.watch(stream.number, &mut stream.sequence, WatchStep::Opened(opened));
        Some(stream)
    }

    /// Writes down one answer; how the stream ends, if it does.
    fn take(&self, stream: &mut Stream, at: &mut Place, answer: WatchResponse) -> Option<Closed> {
        if answer.canceled {
            let revision = convert::count(answer.compact_revision);
            let compacted = revision > 0;
            return Some(if compacted { Closed::Compacted { revision } } else { Closed::Ended });
        }
        let revision = convert::header(answer.header.as_ref());
        if answer.events.is_empty() {
            if self.target.progress_is_true {
                at.from = at.from.max(revision + 1);
                let step = WatchStep::Progress { revision };
                self.recorder.watch(stream.number, &mut stream.sequence, step);
            }
            return None;
        }
        let events: Vec<_> = answer.events.into_iter().filter_map(convert::event).collect();
        if let Some(last) = events.last() {
            at.from = last.mod_revision + 1;
        }
        let count = events.len() as u64;
        self.recorder.watch(stream.number, &mut stream.sequence, WatchStep::Events { events });
        self.recorder.count(|tally| *tally.events.entry(self.number).or_default() += count);
        None
    }
}

fn progress() -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) }
}
