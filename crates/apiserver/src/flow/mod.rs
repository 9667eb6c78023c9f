//! Who may do how much at once: classes of requests, each with seats of its own and a short queue.
//!
//! A class that is full makes only its own requests wait, and then refuses them by 429; what a request
//! costs is known before anything is done for it. In the order of their importance:
//!
//! | class | who and what |
//! |---|---|
//! | exempt | the scheduler and the controllers of this process, nodes' sessions, the admin service, health, discovery, administrators' small requests |
//! | `nodes` | kubelets |
//! | `system` | the control plane's other users |
//! | `people` | everybody else's writes, gets and lists of up to [`LONG_LIST`] objects |
//! | `lists` | everybody's longer lists, and beginnings of watches that are such |
//! | `long-running` | watches, logs, exec: no queue |
//!
//! Within a class, who has fewer seats comes first.

mod metrics;
mod pace;
mod queue;

pub(crate) use metrics::Verb;
pub(crate) use pace::{Counted, Turns, WatchPace};
pub(crate) use queue::Seat;

use crate::guard::UNSECURED;
use access::{ANONYMOUS, UNAUTHENTICATED};
use api::{
    caller::{ControllerOrigin, Identity},
    status::Status,
};
use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use metrics::Metrics;
use pace::Count;
use queue::{Full, Seats, Size};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// Objects of a list that is still a small request: a page of kubectl's.
const LONG_LIST: u64 = 500;
/// Objects of a long list for each seat that it takes.
const OBJECTS_PER_SEAT: u64 = 10_000;
/// Seconds after which a client that was refused may come back.
const RETRY_SECONDS: u64 = 1;

/// Bounds on what is done at once for clients of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests of nodes.
    pub nodes: u32,
    /// Requests of the control plane's other users.
    pub system: u32,
    /// Writes and small reads of everybody else.
    pub people: u32,
    /// Long lists; one takes a seat for every 10,000 objects that it looks at.
    pub lists: u32,
    /// Watches, logs and connections into Pods.
    pub long_running: u32,
    /// Requests of each class that may wait for a seat.
    pub queue: usize,
    /// How long each may wait; a long list five times as long.
    pub queue_wait: Duration,
    /// Bytes of all requests' bodies in memory.
    pub body_bytes: u64,
    /// For a request's body to come in.
    pub body_timeout: Duration,
    /// A client that takes on nothing of an answer for so long loses its connection.
    pub answer_timeout: Duration,
    /// Connections; more are closed at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            nodes: 200,
            system: 200,
            people: 200,
            // More beside each other end no sooner, and keep small requests from the cores.
            lists: u32::try_from(cores).unwrap_or(2).max(2),
            long_running: 10_000,
            queue: 1000,
            queue_wait: Duration::from_secs(3),
            body_bytes: 64 << 20,
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            connections: 12_000,
        }
    }
}

/// Which requests run, wait and were refused.
#[derive(Debug)]
pub(crate) struct Flow {
    nodes: Arc<Seats>,
    system: Arc<Seats>,
    people: Arc<Seats>,
    lists: Arc<Seats>,
    long_running: Arc<Seats>,
    body_bytes_max: u64,
    body_timeout: Duration,
    body_bytes: Arc<AtomicU64>,
    bodies_refused: AtomicU64,
    /// Small requests that are under way.
    under_way: Count,
    watches: Count,
    metrics: Metrics,
}

/// Who asks, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    rank: Rank,
    /// A name, or an address where there is none.
    user: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// In this process.
    Own,
    /// Only long answers count.
    Administrator,
    Node,
    System,
    Person,
}

impl Asker {
    pub(crate) fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        let peer = extensions.get::<listen::PeerAddress>();
        let identity = extensions.get::<Identity>();
        let origin = extensions.get::<ControllerOrigin>();
        Self::new(peer.map(|peer| peer.0.ip()), identity, origin.is_some())
    }

    fn new(peer: Option<IpAddr>, identity: Option<&Identity>, controller: bool) -> Self {
        let Some(peer) = peer.filter(|_| !controller) else {
            return Self { rank: Rank::Own, user: "".into() };
        };
        let known = identity.filter(|identity| {
            !matches!(identity.user.as_str(), "" | ANONYMOUS | UNAUTHENTICATED | UNSECURED)
        });
        let Some(identity) = known else {
            return Self { rank: Rank::Person, user: peer.to_string().into() };
        };
        let is_in = |group: &str| identity.groups.iter().any(|is| is == group);
        let user = identity.user.as_str();
        let account = user.strip_prefix("system:serviceaccount:");
        let rank = if is_in("system:masters") {
            Rank::Administrator
        } else if is_in("system:nodes") {
            Rank::Node
        } else if account.map_or(user.starts_with("system:"), |a| a.starts_with("kube-system:")) {
            Rank::System
        } else {
            Rank::Person
        };
        Self { rank, user: user.into() }
    }
}

/// Part of the bytes that bodies may take, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn refused() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", RETRY_SECONDS)
}

impl Flow {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { queue, queue_wait: patience, .. } = *limits;
        let seats = |seats| Seats::new(Size { seats, queue, patience });
        Self {
            nodes: seats(limits.nodes),
            system: seats(limits.system),
            people: seats(limits.people),
            lists: Seats::new(Size { seats: limits.lists, queue, patience: patience * 5 }),
            long_running: Seats::new(Size { seats: limits.long_running, queue: 0, patience }),
            body_bytes_max: limits.body_bytes,
            body_timeout: limits.body_timeout,
            body_bytes: Arc::default(),
            bodies_refused: AtomicU64::new(0),
            under_way: Count::default(),
            watches: Count::default(),
            metrics: Metrics::default(),
        }
    }

    /// Notes a small request until it has been answered: long answers let it go first.
    pub(crate) fn in_a_hurry(&self) -> Counted {
        self.under_way.enter()
    }

    /// When the pieces of a long answer are sent.
    pub(crate) fn turns(&self) -> Turns {
        Turns::new(&self.under_way)
    }

    /// Counts a watch; `None` for one in this process, which is told everything at once.
    pub(crate) fn watch_pace(&self, asker: &Asker) -> Option<WatchPace> {
        (asker.rank != Rank::Own).then(|| WatchPace::new(&self.watches))
    }

    /// Whether so many objects are a long list.
    pub(crate) fn is_long(objects: u64) -> bool {
        objects > LONG_LIST
    }

    /// A seat for a write or a small read; `None` for who needs none.
    ///
    /// # Errors
    /// 429 when none becomes free in time.
    pub(crate) async fn small(&self, asker: &Asker) -> Result<Option<Seat>, Status> {
        let class = match asker.rank {
            Rank::Own | Rank::Administrator => return Ok(None),
            Rank::Node => &self.nodes,
            Rank::System => &self.system,
            Rank::Person => &self.people,
        };
        enter(class, asker, 1).await.map(Some)
    }

    /// A seat for a list, or for the beginning of a watch, of so many objects.
    ///
    /// # Errors
    /// 429 when none becomes free in time.
    pub(crate) async fn list(&self, asker: &Asker, objects: u64) -> Result<Option<Seat>, Status> {
        if !Self::is_long(objects) || asker.rank == Rank::Own {
            return self.small(asker).await;
        }
        let cost = u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(u32::MAX);
        let seat = enter(&self.lists, asker, cost).await?;
        seat.lend();
        Ok(Some(seat))
    }

    /// A seat for a watch, a log that is followed, or a connection into a Pod.
    ///
    /// # Errors
    /// 429 when there are as many as there may be.
    pub(crate) async fn long_running(&self, asker: &Asker) -> Result<Option<Seat>, Status> {
        if asker.rank == Rank::Own {
            return Ok(None);
        }
        enter(&self.long_running, asker, 1).await.map(Some)
    }

    /// Takes in a request's body, of `bytes_max` at most. No seat is taken before it is there: who sends
    /// slowly takes up a connection and what was sent, nothing else. One that has been taken in, and whose
    /// [`Room`] is among the request's extensions, is left as it is.
    ///
    /// # Errors
    /// 413 for a longer one, 408 for one that does not come, 429 when all bodies together are too many.
    pub(crate) async fn body(
        &self,
        asker: &Asker,
        request: Request,
        bytes_max: usize,
    ) -> Result<(Request, Room), Status> {
        let mut room = Room { all: Arc::clone(&self.body_bytes), bytes: 0 };
        let taken_in = request.extensions().get::<Arc<Room>>().is_some();
        if taken_in || request.body().is_end_stream() || asker.rank == Rank::Own {
            return Ok((request, room));
        }
        let (head, mut body) = request.into_parts();
        let too_large = || Status::too_large(&format!("limit is {bytes_max}"));
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > bytes_max {
            return Err(too_large());
        }
        let read = async {
            let mut whole = Bytes::new();
            let mut parts = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|e| Status::bad_request(format!("read the body: {e}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if whole.len() + parts.len() + data.len() > bytes_max {
                    return Err(too_large());
                }
                self.make_room(&mut room, data.len())?;
                // Most bodies come in one piece.
                if whole.is_empty() && parts.is_empty() {
                    whole = data;
                } else {
                    if parts.is_empty() {
                        parts.extend_from_slice(&std::mem::take(&mut whole));
                    }
                    parts.extend_from_slice(&data);
                }
            }
            Ok(if parts.is_empty() { whole } else { parts.freeze() })
        };
        let bytes = match timeout(self.body_timeout, read).await {
            Ok(read) => read?,
            Err(_) => {
                let seconds = self.body_timeout.as_secs_f64();
                let text = format!("the request's body did not come within {seconds} s");
                return Err(Status::new(408, "Timeout", text));
            }
        };
        Ok((Request::from_parts(head, Body::from(bytes)), room))
    }

    fn make_room(&self, room: &mut Room, bytes: usize) -> Result<(), Status> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        room.bytes += bytes;
        if before.saturating_add(bytes) > self.body_bytes_max {
            self.bodies_refused.fetch_add(1, Ordering::Relaxed);
            return Err(refused());
        }
        Ok(())
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, verb: Verb, code: u16, took: Duration) {
        self.metrics.answered(verb, code, took);
    }

    /// What is counted, in Prometheus' text form.
    pub(crate) fn render(&self) -> String {
        let classes = [
            ("nodes", &self.nodes),
            ("system", &self.system),
            ("people", &self.people),
            ("lists", &self.lists),
            ("long-running", &self.long_running),
        ];
        let bodies = (self.body_bytes.load(Ordering::Relaxed), self.body_bytes_max);
        let refused = self.bodies_refused.load(Ordering::Relaxed);
        self.metrics.render(&classes, bodies, refused)
    }
}

async fn enter(class: &Arc<Seats>, asker: &Asker, cost: u32) -> Result<Seat, Status> {
    class.enter(&asker.user, cost).await.map_err(|Full| refused())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    fn asker(user: &str, groups: &[&str]) -> Asker {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let identity = Identity { user: user.to_owned(), groups, ..Identity::default() };
        Asker::new(Some([10, 0, 0, 1].into()), Some(&identity), false)
    }

    #[test]
    fn askers_are_ranked_by_what_they_are() {
        for (user, groups, want) in [
            ("admin", &["system:masters"][..], Rank::Administrator),
            ("system:node:n", &["system:nodes", "system:authenticated"], Rank::Node),
            ("system:kube-scheduler", &[], Rank::System),
            ("system:serviceaccount:kube-system:dns", &["system:serviceaccounts"], Rank::System),
            ("system:serviceaccount:default:app", &["system:serviceaccounts"], Rank::Person),
            ("jane", &["system:authenticated"], Rank::Person),
        ] {
            let found = asker(user, groups);
            assert_eq!((found.rank, &*found.user), (want, user));
        }
        let stranger = asker("system:anonymous", &["system:unauthenticated"]);
        assert_eq!((stranger.rank, &*stranger.user), (Rank::Person, "10.0.0.1"), "by address");
        // Everybody is that who comes without TLS and shows nothing.
        let everybody = asker(UNSECURED, &["system:masters"]);
        assert_eq!((everybody.rank, &*everybody.user), (Rank::Person, "10.0.0.1"), "by address");
        assert_eq!(Asker::new(None, None, false).rank, Rank::Own);
        assert_eq!(Asker::new(Some([10, 0, 0, 1].into()), None, true).rank, Rank::Own);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_class_refuses_its_own_and_nobody_else() {
        let flow = Flow::new(&Limits { people: 1, lists: 1, queue: 0, ..Limits::default() });
        let jane = asker("jane", &[]);
        let _seat = flow.small(&jane).await.unwrap();
        let status = flow.small(&jane).await.unwrap_err();
        assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
        assert_eq!(status.retry_after_seconds(), Some(RETRY_SECONDS));
        let _list = flow.list(&jane, LONG_LIST + 1).await.unwrap();
        assert_eq!(flow.list(&jane, LONG_LIST + 1).await.unwrap_err().code, 429);
        assert_eq!(flow.list(&jane, LONG_LIST).await.unwrap_err().code, 429, "a small request");
        for other in [asker("system:node:n", &["system:nodes"]), asker("system:x", &[])] {
            assert!(flow.small(&other).await.is_ok());
        }
        let administrator = asker("admin", &["system:masters"]);
        assert!(flow.small(&administrator).await.unwrap().is_none());
        assert_eq!(flow.list(&administrator, 100_000).await.unwrap_err().code, 429);
        assert!(flow.list(&Asker::new(None, None, false), 100_000).await.unwrap().is_none());
        let page = flow.render();
        for line in [
            "apiserver_flowcontrol_current_executing_seats{priority_level=\"people\"} 1\n",
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"people\"} 2\n",
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"lists\"} 2\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    fn pieces(pieces: &'static [&'static str]) -> Body {
        let pieces = futures::stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(*piece));
        Body::from_stream(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_one_by_one_and_together_and_in_time() {
        let flow = Flow::new(&Limits { body_bytes: 10, ..Limits::default() });
        let jane = asker("jane", &[]);
        let (whole, room) =
            flow.body(&jane, Request::new(pieces(&["ab", "cd", "ef"])), 8).await.unwrap();
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "abcdef");
        for (body, code) in [
            (pieces(&["abcd", "efghi"]), 413),
            (Body::from("abcdefghi"), 413),
            (Body::from("abcde"), 429),
        ] {
            assert_eq!(flow.body(&jane, Request::new(body), 8).await.unwrap_err().code, code);
        }
        let mut whole = Request::new(Body::from("abcde"));
        whole.extensions_mut().insert(Arc::new(room));
        let (whole, more) = flow.body(&jane, whole, 8).await.unwrap();
        assert_eq!(more.bytes, 0, "it has been taken in");
        drop(whole);
        flow.body(&jane, Request::new(Body::from("abcde")), 8).await.unwrap();
        let slow = futures::stream::iter([Ok::<_, std::io::Error>("a")]);
        let slow = Body::from_stream(slow.chain(futures::stream::pending()));
        assert_eq!(flow.body(&jane, Request::new(slow), 8).await.unwrap_err().code, 408);
        assert_eq!(flow.body_bytes.load(Ordering::Relaxed), 0, "nothing is kept of any");
    }
}
