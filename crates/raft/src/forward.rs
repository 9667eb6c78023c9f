//! Proposals on their way to the leader: what waits together travels together.

use crate::{
    core::{Attempt, Core},
    peer::{ForwardRequest, ForwardResponse},
    peer_server::ProposalWire,
    store::RaftStore,
    types::{decode, encode},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Proposal;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Batches under way at once: few, so that what comes meanwhile shares the next.
const BATCHES_IN_FLIGHT: usize = 4;
/// Proposals in one batch.
const BATCH_PROPOSALS: usize = 1024;
/// For a stream to the leader to begin.
const BEGIN: Duration = Duration::from_secs(1);

/// A proposal for the leader, and who waits for what becomes of it.
pub(crate) struct Outgoing {
    pub(crate) proposal: Proposal,
    pub(crate) until: Instant,
    pub(crate) answer: oneshot::Sender<Attempt>,
}

/// A stream to one leader.
struct Link {
    leader: u64,
    requests: mpsc::Sender<ForwardRequest>,
    answers: Streaming<ForwardResponse>,
    next_id: u64,
    under_way: BTreeMap<u64, Vec<oneshot::Sender<Attempt>>>,
}

impl Link {
    /// # Errors
    /// No stream began: nothing was sent.
    async fn open(core: &Core, leader: u64) -> Result<Self, Status> {
        let unreachable = |detail: String| Status::unavailable(detail);
        let mut client = core.peers.client(leader).map_err(|e| unreachable(e.to_string()))?;
        let (requests, queue) = mpsc::channel(BATCHES_IN_FLIGHT);
        let began = timeout(BEGIN, client.forward(ReceiverStream::new(queue))).await;
        let answers = began.map_err(|_| unreachable(format!("no answer within {BEGIN:?}")))?;
        let answers = answers.inspect_err(|status| core.peers.note(leader, status))?.into_inner();
        Ok(Self { leader, requests, answers, next_id: 0, under_way: BTreeMap::new() })
    }

    fn take_answer(&mut self, answer: ForwardResponse) {
        let Some(waiting) = self.under_way.remove(&answer.id) else { return };
        match decode::<Vec<Attempt>>(&answer.attempts) {
            Ok(attempts) if attempts.len() == waiting.len() => {
                for (waiting, attempt) in waiting.into_iter().zip(attempts) {
                    let _ = waiting.send(attempt);
                }
            }
            Ok(_) => tell(waiting, || Attempt::Unknown("an answer of another length".to_owned())),
            Err(error) => tell(waiting, || Attempt::Unknown(error.to_string())),
        }
    }

    /// Whoever waits asks again, elsewhere and under the same request id.
    fn end(self, why: &str) {
        for waiting in self.under_way.into_values() {
            tell(waiting, || Attempt::Unknown(why.to_owned()));
        }
    }
}

fn tell(waiting: Vec<oneshot::Sender<Attempt>>, attempt: impl Fn() -> Attempt) {
    for waiting in waiting {
        let _ = waiting.send(attempt());
    }
}

/// What a forwarding task waits for.
enum Next {
    Proposal(Outgoing),
    Answer(Result<Option<ForwardResponse>, Status>),
    LeaderChanged,
    Stop,
}

/// Sends what comes in `queue` to whoever leads.
pub(crate) async fn forward(
    core: Arc<Core>,
    mut queue: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let mut link: Option<Link> = None;
    loop {
        let has_room = link.as_ref().is_none_or(|l| l.under_way.len() < BATCHES_IN_FLIGHT);
        let leader = link.as_ref().map(|link| link.leader);
        let answer = async {
            match &mut link {
                Some(link) => link.answers.message().await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match leader {
                Some(leader) => core.until_leader_is_not(leader).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => Next::Stop,
            answer = answer => Next::Answer(answer),
            // A leader that hangs must not hold the callers: the others may have elected another.
            () = changed => Next::LeaderChanged,
            outgoing = queue.recv(), if has_room => outgoing.map_or(Next::Stop, Next::Proposal),
        };
        match next {
            Next::Proposal(first) => {
                let mut batch = vec![first];
                while batch.len() < BATCH_PROPOSALS {
                    let Ok(next) = queue.try_recv() else { break };
                    batch.push(next);
                }
                send(&core, &mut link, batch).await;
            }
            Next::Answer(Ok(Some(answer))) => {
                if let Some(link) = &mut link {
                    link.take_answer(answer);
                }
            }
            Next::Answer(ended) => {
                let why = match ended {
                    Ok(_) => "the leader has closed the stream".to_owned(),
                    Err(status) => status.message().to_owned(),
                };
                if let Some(link) = link.take() {
                    link.end(&why);
                }
            }
            Next::LeaderChanged => {
                if let Some(link) = link.take() {
                    link.end("the leader changed");
                }
            }
            Next::Stop => {
                if let Some(link) = link.take() {
                    link.end("the replica is stopping");
                }
                return;
            }
        }
    }
}

async fn send(core: &Core, link: &mut Option<Link>, batch: Vec<Outgoing>) {
    let leader = core.leader();
    let until = batch.iter().map(|outgoing| outgoing.until).max();
    let proposals: Vec<ProposalWire> =
        batch.iter().map(|outgoing| ProposalWire::from(&outgoing.proposal)).collect();
    let waiting: Vec<_> = batch.into_iter().map(|outgoing| outgoing.answer).collect();
    let Some(to) = leader.filter(|leader| *leader != core.id) else {
        return tell(waiting, || Attempt::NotLeader(leader));
    };
    if link.as_ref().is_some_and(|link| link.leader != to)
        && let Some(old) = link.take()
    {
        old.end("the leader changed");
    }
    let open = match link {
        Some(open) => open,
        None => match Link::open(core, to).await {
            Ok(open) => link.insert(open),
            Err(status) => {
                tracing::debug!(%status, leader = to, "no stream to the leader");
                return tell(waiting, || Attempt::NotLeader(None));
            }
        },
    };
    let left =
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
    open.next_id += 1;
    let request = ForwardRequest {
        id: open.next_id,
        proposals: encode(&proposals).into(),
        deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    };
    match open.requests.try_send(request) {
        Ok(()) => {
            open.under_way.insert(open.next_id, waiting);
        }
        // The stream has ended, which its other end will tell.
        Err(_) => tell(waiting, || Attempt::NotLeader(None)),
    }
}

impl RaftStore {
    /// Sends a proposal to the member that leads.
    pub(crate) async fn forward(&self, proposal: Proposal, deadline: Duration) -> Attempt {
        let until = Instant::now() + deadline;
        let (answer, answered) = oneshot::channel();
        if self.core.forwards.try_send(Outgoing { proposal, until, answer }).is_err() {
            return Attempt::NotLeader(None);
        }
        match timeout_at(until, answered).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("the replica is stopping".to_owned()),
            Err(_) => Attempt::Unknown(format!("no answer within {deadline:?}")),
        }
    }

    /// Returns when somebody leads, as far as this replica knows, or at `until`.
    pub(crate) async fn leader(&self, until: Instant) -> Option<u64> {
        if let Some(leader) = self.core.leader() {
            return Some(leader);
        }
        let mut leads = self.core.leads.clone();
        let leader = timeout_at(until, leads.wait_for(Option::is_some)).await.ok()?.ok()?;
        *leader
    }

    pub(crate) fn leaderless(&self) -> String {
        let waited = self.leaderless_max;
        format!("nobody has led for {waited:?}, as if a majority of the replicas were gone")
    }
}

/// Nobody listens there.
pub(crate) fn is_refused(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
