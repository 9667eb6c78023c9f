//! Clients of the etcd API: each on a machine of its own, over the simulated network.

use crate::{
    Millis,
    history::{Answer, Call, Change, Ended, History, Kv, Operation, Outcome, Watched},
    plan::{Plan, chance, derive},
    trace::Trace,
};
use etcd::proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
        LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
        WatchRequest, compare, kv_client::KvClient, lease_client::LeaseClient, request_op,
        response_op, watch_client::WatchClient, watch_request,
    },
    mvccpb::{self, event::EventType},
};
use hyper_util::rt::TokioIo;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use world::net::TcpStream;

/// Where replicas serve clients.
pub const PORT: u16 = 2379;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Without a word from a server for so long, a connection is given up.
const SILENCE: Duration = Duration::from_secs(2);

/// The address of a replica, from 0.
#[must_use]
pub fn replica_ip(replica: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(replica + 1).unwrap_or(u8::MAX)).into()
}

/// What clients share with the world.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The world's time, in milliseconds.
    pub now: Arc<AtomicU64>,
    /// What they saw.
    pub history: Arc<Mutex<History>>,
    /// Nobody asks any more.
    pub over: Arc<AtomicBool>,
    /// Who is a member, by id.
    pub members: Arc<Mutex<BTreeSet<u64>>>,
    /// For people.
    pub trace: Trace,
}

impl Shared {
    /// The world's time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    /// Who is a member, by id, as noted last.
    pub fn members(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients saw so far.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn channel(replica: usize) -> Channel {
    let ip = replica_ip(replica);
    let endpoint = Endpoint::from_shared(format!("http://{ip}:{PORT}"))
        .expect("an address and a port are a URL")
        .connect_timeout(SILENCE)
        .http2_keep_alive_interval(SILENCE / 2)
        .keep_alive_timeout(SILENCE / 2)
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_: tonic::transport::Uri| async move {
        TcpStream::connect(&ip.to_string(), PORT).await.map(TokioIo::new)
    });
    endpoint.connect_with_connector_lazy(connector)
}

/// Asks until the plan's requests are done or the world says that it is over.
pub async fn ask(plan: Arc<Plan>, client: u64, shared: Shared) -> String {
    let mut asker = Asker::new(&plan, client, PATIENCE);
    for number in 0..plan.requests {
        // Each request draws for itself, so that what is left of a shrunk plan stays as it was.
        let mut chance = chance(plan.seed, "request", client << 32 | number as u64);
        sleep(Duration::from_millis(chance.random_range(0..=plan.pause_max))).await;
        if shared.over.load(Ordering::Relaxed) {
            break;
        }
        let call = asker.draw(&plan, number, &mut chance);
        let replica = chance.random_range(0..plan.replicas);
        asker.ask(replica, call, &shared).await;
    }
    "done".to_owned()
}

/// Asks one thing after the other, and writes down what comes of it.
pub(crate) struct Asker {
    client: u64,
    /// For an answer.
    patience: Duration,
    channels: Vec<Channel>,
    /// Of keys, the revision of the last write seen.
    known: Vec<(String, i64)>,
    leases: Vec<i64>,
    /// Of all revisions seen.
    highest: i64,
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

impl Asker {
    pub(crate) fn new(plan: &Plan, client: u64, patience: Duration) -> Self {
        let channels = (0..plan.replicas).map(channel).collect();
        Self { client, patience, channels, known: Vec::new(), leases: Vec::new(), highest: 0 }
    }

    /// Asks a replica.
    pub(crate) async fn ask(&mut self, replica: usize, call: Call, shared: &Shared) -> Outcome {
        let (client, invoked) = (self.client, shared.now());
        let outcome = self.carry_out(replica, &call).await;
        self.learn(&call, &outcome);
        let answered = shared.now();
        let name = format!("client-{client}");
        let what = format_args!("{call:?} at replica-{}: {outcome:?}", replica + 1);
        shared.trace.event(answered, &name, what);
        let told = outcome.clone();
        let operation = Operation { client, replica, invoked, answered, call, outcome };
        shared.history().operations.push(operation);
        told
    }

    fn draw(&self, plan: &Plan, number: usize, chance: &mut StdRng) -> Call {
        let key = key(chance.random_range(0..plan.keys));
        let value = format!("{}-{number}", self.client);
        let lease = self.leases.choose(chance).copied();
        match (chance.random_range(0..100), lease) {
            (0..30, _) => Call::Put { key, value, lease: 0 },
            (30..50, _) => Call::Get { key, serializable: false },
            (50..56, _) => Call::Get { key, serializable: true },
            (56..64, _) => Call::Delete { key },
            (64..78, _) => {
                let known = self.known.iter().find(|(known, _)| *known == key);
                Call::Swap { key, expected: known.map_or(0, |(_, revision)| *revision), value }
            }
            (78..84, _) => Call::Range { serializable: chance.random_bool(0.3) },
            (84..88, Some(lease)) => Call::Put { key, value, lease },
            (88..91, Some(lease)) => Call::KeepAlive { lease },
            (91..93, Some(lease)) => Call::Revoke { lease },
            (93..94, _) if self.highest > 20 => {
                Call::Compact { revision: self.highest - chance.random_range(0..20) }
            }
            _ => {
                let id = derive(plan.seed, "lease", self.client << 32 | number as u64);
                let id = i64::try_from(id >> 2).unwrap_or(1);
                Call::Grant { lease: id, ttl: chance.random_range(1..=6) }
            }
        }
    }

    fn learn(&mut self, call: &Call, outcome: &Outcome) {
        let Outcome::Ok(answer) = outcome else { return };
        self.highest = self.highest.max(answer.revision);
        let mut seen = |key: &str, revision| {
            self.known.retain(|(known, _)| known != key);
            self.known.push((key.to_owned(), revision));
        };
        for kv in &answer.kvs {
            seen(&kv.key, kv.mod_revision);
        }
        match call {
            Call::Put { key, .. } => seen(key, answer.revision),
            Call::Swap { key, .. } if answer.done => seen(key, answer.revision),
            Call::Swap { key, .. } | Call::Get { key, serializable: false }
                if answer.kvs.is_empty() =>
            {
                seen(key, 0);
            }
            Call::Delete { key } => seen(key, 0),
            Call::Grant { lease, .. } => self.leases.push(*lease),
            Call::Revoke { lease } => self.leases.retain(|known| known != lease),
            Call::KeepAlive { lease } if answer.ttl == 0 => {
                self.leases.retain(|known| known != lease);
            }
            Call::Swap { .. }
            | Call::Get { .. }
            | Call::Range { .. }
            | Call::KeepAlive { .. }
            | Call::Compact { .. } => {}
        }
    }

    async fn carry_out(&self, replica: usize, call: &Call) -> Outcome {
        let Some(channel) = self.channels.get(replica) else {
            return Outcome::Failed("there is no such replica".to_owned());
        };
        match timeout(self.patience, request(channel.clone(), call)).await {
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
            Ok(Ok(answer)) => Outcome::Ok(answer),
            Ok(Err(status)) => match status.code() {
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::ResourceExhausted => Outcome::Failed(status.message().to_owned()),
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::PermissionDenied
                | Code::Aborted
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
                | Code::Unauthenticated => {
                    Outcome::Unknown(format!("{}: {}", status.code(), status.message()))
                }
            },
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kv(kv: &mvccpb::KeyValue) -> Kv {
    Kv {
        key: text(&kv.key),
        value: text(&kv.value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn revision(header: Option<etcd::proto::etcdserverpb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

async fn request(channel: Channel, call: &Call) -> Result<Answer, Status> {
    let mut store = KvClient::new(channel.clone());
    let mut leases = LeaseClient::new(channel);
    match call {
        Call::Put { key, value, lease } => {
            let put = PutRequest {
                key: key.clone().into(),
                value: value.clone().into(),
                lease: *lease,
                ..PutRequest::default()
            };
            let answer = store.put(put).await?.into_inner();
            Ok(Answer { revision: revision(answer.header), done: true, ..Answer::default() })
        }
        Call::Delete { key } => {
            let delete =
                DeleteRangeRequest { key: key.clone().into(), ..DeleteRangeRequest::default() };
            let answer = store.delete_range(delete).await?.into_inner();
            let done = answer.deleted > 0;
            Ok(Answer { revision: revision(answer.header), done, ..Answer::default() })
        }
        Call::Get { key, serializable } => {
            let range = RangeRequest {
                key: key.clone().into(),
                serializable: *serializable,
                ..RangeRequest::default()
            };
            read(&mut store, range).await
        }
        Call::Range { serializable } => {
            let range = RangeRequest {
                key: b"key-".to_vec().into(),
                range_end: b"key.".to_vec().into(),
                serializable: *serializable,
                ..RangeRequest::default()
            };
            read(&mut store, range).await
        }
        Call::Swap { key, expected, value } => swap(&mut store, key, *expected, value).await,
        Call::Grant { lease, ttl } => {
            let grant = LeaseGrantRequest { id: *lease, ttl: *ttl };
            let answer = leases.lease_grant(grant).await?.into_inner();
            let (revision, ttl) = (revision(answer.header), answer.ttl);
            Ok(Answer { revision, ttl, done: true, ..Answer::default() })
        }
        Call::KeepAlive { lease } => {
            let renewal = tokio_stream(LeaseKeepAliveRequest { id: *lease });
            let mut answers = leases.lease_keep_alive(renewal).await?.into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream has ended"))?;
            Ok(Answer { revision: revision(answer.header), ttl: answer.ttl, ..Answer::default() })
        }
        Call::Revoke { lease } => {
            let answer = leases.lease_revoke(LeaseRevokeRequest { id: *lease }).await?.into_inner();
            Ok(Answer { revision: revision(answer.header), done: true, ..Answer::default() })
        }
        Call::Compact { revision: upto } => {
            let compact = CompactionRequest { revision: *upto, physical: false };
            let answer = store.compact(compact).await?.into_inner();
            Ok(Answer { revision: revision(answer.header), done: true, ..Answer::default() })
        }
    }
}

/// A stream of one message that stays open.
fn tokio_stream<T: Send + 'static>(first: T) -> impl futures::Stream<Item = T> + Send {
    use futures::StreamExt as _;
    futures::stream::iter([first]).chain(futures::stream::pending())
}

async fn read(store: &mut KvClient<Channel>, range: RangeRequest) -> Result<Answer, Status> {
    let answer = store.range(range).await?.into_inner();
    let kvs = answer.kvs.iter().map(kv).collect();
    Ok(Answer { revision: revision(answer.header), kvs, done: true, ..Answer::default() })
}

async fn swap(
    store: &mut KvClient<Channel>,
    key: &str,
    expected: i64,
    value: &str,
) -> Result<Answer, Status> {
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    let compare = Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(compare::TargetUnion::ModRevision(expected)),
        ..Compare::default()
    };
    let put = PutRequest {
        key: key.clone(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
        ..PutRequest::default()
    };
    let get = RangeRequest { key, ..RangeRequest::default() };
    let step = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![step(request_op::Request::RequestPut(put))],
        failure: vec![step(request_op::Request::RequestRange(get))],
    };
    let answer = store.txn(txn).await?.into_inner();
    let kvs = answer.responses.iter().flat_map(|step| match &step.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.iter().map(kv).collect(),
        Some(_) | None => Vec::new(),
    });
    let (kvs, revision) = (kvs.collect(), revision(answer.header));
    Ok(Answer { revision, kvs, done: answer.succeeded, ..Answer::default() })
}

/// Writes and reads at each of the first replicas that is still a member, until it has answered both.
pub async fn probe(plan: Arc<Plan>, client: u64, shared: Shared) -> String {
    let mut number = 0;
    for replica in 0..plan.replicas {
        let mut asker = Asker::new(&plan, client, PATIENCE);
        let key = format!("probe-{replica}");
        let mut answered = [false, false];
        while answered != [true, true] {
            let members = shared.members().clone();
            if !members.is_empty() && !members.contains(&(replica as u64 + 1)) {
                break;
            }
            number += 1;
            let put = Call::Put { key: key.clone(), value: format!("{client}-{number}"), lease: 0 };
            let get = Call::Get { key: key.clone(), serializable: false };
            for (call, done) in [put, get].into_iter().zip(&mut answered) {
                let outcome = asker.ask(replica, call, &shared).await;
                *done = matches!(outcome, Outcome::Ok(_));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    "done".to_owned()
}

/// Looks back: opens one watch after the other that begins at a revision of the past, wherever that is compacted or
/// not there yet.
pub async fn look_back(plan: Arc<Plan>, client: u64, shared: Shared) -> String {
    let channels: Vec<Channel> = (0..plan.replicas).map(channel).collect();
    let mut chance = chance(plan.seed, "look back", client);
    while !shared.over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(chance.random_range(50..1_500))).await;
        let replica = chance.random_range(0..plan.replicas);
        let Some(channel) = channels.get(replica) else { break };
        let newest =
            shared.history().operations.iter().rev().find_map(|seen| match &seen.outcome {
                Outcome::Ok(answer) if answer.revision > 0 => Some(answer.revision),
                Outcome::Ok(_) | Outcome::Failed(_) | Outcome::Unknown(_) => None,
            });
        let from = (newest.unwrap_or(1) - chance.random_range(0..100)).max(1);
        let opened = Watched {
            client,
            replica,
            resumes: None,
            opened: 0,
            from,
            answers: Vec::new(),
            ended: None,
        };
        let patience = Duration::from_millis(chance.random_range(50..600));
        let mut stream = None;
        let told = timeout(patience, watch(channel.clone(), opened, &shared, &mut stream));
        let why = told.await.unwrap_or(Ended::Broken);
        let now = shared.now();
        let mut history = shared.history();
        if let Some(watched) = stream.and_then(|place| history.watches.get_mut(place)) {
            watched.ended = Some((now, why));
        }
    }
    "done".to_owned()
}

/// Follows all keys from the first revision on, and goes on at another replica whenever it is broken off.
pub async fn follow(plan: Arc<Plan>, client: u64, shared: Shared) -> String {
    let channels: Vec<Channel> = (0..plan.replicas).map(channel).collect();
    let mut chance = chance(plan.seed, "watch", client);
    let (mut from, mut resumes) = (1, None);
    while !shared.over.load(Ordering::Relaxed) {
        let replica = chance.random_range(0..plan.replicas);
        let Some(channel) = channels.get(replica) else { break };
        let opened =
            Watched { client, replica, resumes, opened: 0, from, answers: Vec::new(), ended: None };
        // Now and then somebody gives up a stream that is well.
        let patience = Duration::from_millis(chance.random_range(200..8_000));
        let mut stream = None;
        let followed = timeout(patience, watch(channel.clone(), opened, &shared, &mut stream));
        let why = followed.await.unwrap_or(Ended::Broken);
        if let Some(place) = stream {
            let now = shared.now();
            let mut history = shared.history();
            if let Some(watched) = history.watches.get_mut(place) {
                watched.ended = Some((now, why));
                let told = watched.answers.iter().flat_map(|(_, changes)| changes);
                from =
                    told.map(|change| change.kv.mod_revision).max().map_or(from, |last| last + 1);
                resumes = Some(place);
            }
            drop(history);
            let name = format!("client-{client}");
            let what = format_args!("watch at replica-{} ends: {why:?}", replica + 1);
            shared.trace.event(now, &name, what);
        }
        if let Ended::Compacted(revision) = why {
            (from, resumes) = (revision + 1, None);
        }
        sleep(Duration::from_millis(chance.random_range(0..50))).await;
    }
    "done".to_owned()
}

async fn watch(
    channel: Channel,
    mut opened: Watched,
    shared: &Shared,
    stream: &mut Option<usize>,
) -> Ended {
    let create = WatchCreateRequest {
        key: b"key-".to_vec().into(),
        range_end: b"key.".to_vec().into(),
        start_revision: opened.from,
        ..WatchCreateRequest::default()
    };
    let create = watch_request::RequestUnion::CreateRequest(create);
    let (requests, to_send) = mpsc::channel(1);
    if requests.send(WatchRequest { request_union: Some(create) }).await.is_err() {
        return Ended::Broken;
    }
    let to_send = futures::stream::unfold(to_send, async |mut queue: mpsc::Receiver<_>| {
        queue.recv().await.map(|next| (next, queue))
    });
    let answers = WatchClient::new(channel).watch(to_send).await;
    let Ok(answers) = answers else { return Ended::Broken };
    let mut answers = answers.into_inner();
    while let Ok(Some(answer)) = answers.message().await {
        let now = shared.now();
        if answer.canceled {
            return match answer.compact_revision {
                0 => Ended::Broken,
                revision => Ended::Compacted(revision),
            };
        }
        let mut history = shared.history();
        let place = *stream.get_or_insert_with(|| {
            opened.opened = now;
            history.watches.push(opened.clone());
            history.watches.len() - 1
        });
        let changes: Vec<Change> = answer
            .events
            .iter()
            .filter_map(|event| {
                let pair = event.kv.as_ref()?;
                Some(Change { kv: kv(pair), deleted: event.r#type() == EventType::Delete })
            })
            .collect();
        if !changes.is_empty()
            && let Some(watched) = history.watches.get_mut(place)
        {
            watched.answers.push((now, changes));
        }
    }
    Ended::Broken
}
