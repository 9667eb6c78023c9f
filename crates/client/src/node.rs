//! The kubelet's session with the control plane: one active stream, one standing by, and at every replica one
//! over which the node is called.

mod calls;

use crate::proto::node::{
    Ack, Activate, Event, Fetched, FromNode, Heartbeat, Hello, NodeStatus, PodDelete, PodStatus,
    ToNode, from_node::Message as From, node_service_client::NodeServiceClient,
    to_node::Message as To,
};
use crate::transport::{Access, Bearer, channel};
use futures::future::BoxFuture;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

/// Who the node is, and where the replicas are.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSessionConfig {
    /// Node name.
    pub node: String,
    /// Drawn at this start of the agent.
    pub instance: String,
    /// Of the machine.
    pub machine_id: String,
    /// Of this boot.
    pub boot_id: String,
    /// The Node object to register.
    pub node_json: serde_json::Value,
    /// `http(s)://host:port` of any replica; more are learned.
    pub endpoints: Vec<String>,
    /// Whom to trust there, and how the node proves who it is.
    pub access: Access,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence of the stream after which it counts as dead; well below a second.
    pub silence_max: Duration,
    /// Whether [`NodeSession::calls`] are taken.
    pub callable: bool,
}

/// What the control plane tells the kubelet.
#[derive(Debug, Clone, PartialEq)]
pub enum FromControlPlane {
    /// A stream is active (again). Unacknowledged requests have been sent again.
    Connected {
        /// Of this session (FEN-30).
        session: u64,
        /// `spec.podCIDR` of this node.
        pod_cidr: String,
        /// Name of the replica.
        replica: String,
    },
    /// No stream; being tried again. Nothing is to be cleaned up (NOD-20).
    Disconnected {
        /// Every endpoint and how it failed.
        reason: String,
    },
    /// A Pod of this node as it now is.
    Pod {
        /// The object.
        pod: Box<serde_json::Value>,
        /// Deleted from the API.
        removed: bool,
        /// Of the change.
        revision: u64,
    },
    /// All Pods up to `revision` have been given. `complete` ends a full list: a Pod that was not in
    /// it is not on this node any more.
    Synced {
        /// Up to here.
        revision: u64,
        /// After a full list.
        complete: bool,
    },
    /// A request is settled: committed at `revision`, or refused for good.
    Acknowledged {
        /// Of the request.
        sequence: u64,
        /// Committed at.
        result: Result<u64, api::status::Status>,
    },
    /// Another agent holds this node name (FEN-30): stop, and stop the Pods.
    Fenced {
        /// As told.
        message: String,
    },
}

/// What the kubelet tells the control plane. Sequence numbers are the caller's (its outbox is on
/// disk); each is sent until it is acknowledged, over as many streams as it takes.
#[derive(Debug, Clone, PartialEq)]
pub enum ToControlPlane {
    /// The status of a Pod. A newer one for the same UID replaces an older one not yet sent.
    PodStatus {
        /// From the outbox.
        sequence: u64,
        /// `metadata.namespace`
        namespace: String,
        /// `metadata.name`
        name: String,
        /// `metadata.uid`
        uid: String,
        /// The whole status.
        status: serde_json::Value,
    },
    /// The last step of a termination (DEL-30).
    PodDelete {
        /// From the outbox.
        sequence: u64,
        /// `metadata.namespace`
        namespace: String,
        /// `metadata.name`
        name: String,
        /// `metadata.uid`
        uid: String,
    },
    /// The Node's own status.
    NodeStatus {
        /// From the outbox.
        sequence: u64,
        /// The whole status.
        status: serde_json::Value,
    },
    /// An Event; dropped when no stream is up.
    Event {
        /// The object.
        event: serde_json::Value,
    },
}

/// A request for what a Pod uses: a ConfigMap, a Secret, or a token of its account.
#[derive(Debug)]
pub struct Fetch {
    /// `configmaps`, `secrets` or [`TOKENS`].
    pub resource: &'static str,
    /// Of the Pod.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// Of a token: the `TokenRequest`, bound to the Pod, which is what is answered, too.
    pub body: Option<serde_json::Value>,
    /// The object, `None` when there is none; an error when nobody could be asked.
    pub answer: tokio::sync::oneshot::Sender<Result<Option<serde_json::Value>, String>>,
}

/// The resource of [`Fetch`] for tokens.
pub const TOKENS: &str = "serviceaccounts/token";

/// The caller's ends of a session.
#[derive(Debug)]
pub struct NodeSession {
    /// In order. Bounded: the session waits when it is full.
    pub events: mpsc::Receiver<FromControlPlane>,
    /// Bounded: waiting here is the kubelet's outbox.
    pub requests: mpsc::Sender<ToControlPlane>,
    /// For objects that Pods use.
    pub fetches: mpsc::Sender<Fetch>,
    /// Connections that replicas have asked for, as if they had connected to this node.
    pub calls: mpsc::Receiver<DuplexStream>,
}

/// The session's ends, and the future that keeps it alive until `shutdown`: the owner spawns it.
pub fn session(
    config: NodeSessionConfig,
    shutdown: CancellationToken,
) -> (NodeSession, impl Future<Output = ()> + Send + 'static) {
    let (events, event_receiver) = mpsc::channel(1024);
    let (request_sender, requests) = mpsc::channel(1024);
    let (fetch_sender, fetches) = mpsc::channel(64);
    let (call_sender, calls) = mpsc::channel(64);
    let run = async move {
        let callable = calls::keep(config.clone(), call_sender);
        let mut agent = Agent {
            endpoints: config.endpoints.clone(),
            config,
            events,
            requests,
            fetches,
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_fetch: 0,
            revision: 0,
        };
        tokio::select! {
            () = agent.run() => {}
            () = callable => {}
            () = shutdown.cancelled() => {}
        }
    };
    let ends = NodeSession {
        events: event_receiver,
        requests: request_sender,
        fetches: fetch_sender,
        calls,
    };
    (ends, run)
}

/// Between rounds when no replica answers; grows to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Before a second connection is looked for again.
const SPARE_PAUSE: Duration = Duration::from_secs(1);
/// Waits before a request that the control plane could not carry out yet is sent again.
const RESEND: Duration = Duration::from_millis(100);
/// The same, for a store without room: that takes until somebody makes some.
const RESEND_FULL: Duration = Duration::from_secs(1);

struct Agent {
    config: NodeSessionConfig,
    endpoints: Vec<String>,
    events: mpsc::Sender<FromControlPlane>,
    requests: mpsc::Receiver<ToControlPlane>,
    fetches: mpsc::Receiver<Fetch>,
    /// Sent, or to be sent, and not acknowledged: by sequence.
    pending: BTreeMap<u64, ToControlPlane>,
    asked: BTreeMap<u64, oneshot::Sender<Result<Option<Value>, String>>>,
    next_fetch: u64,
    /// Every Pod of this node has been told as it was here; 0 before the first complete list.
    revision: u64,
}

/// An open stream: what is sent, and what comes.
struct Link {
    endpoint: String,
    out: mpsc::Sender<FromNode>,
    incoming: Streaming<ToNode>,
}

/// A second connection to another replica, open and idle, so that a lost one costs no connecting.
#[derive(Default)]
struct Spare {
    link: Option<Link>,
    looking: Option<BoxFuture<'static, Option<Link>>>,
}

impl Spare {
    /// Begins to look for one, at any replica but the one in use.
    fn look_for(&mut self, config: &NodeSessionConfig, endpoints: &[String], used: &str) {
        if self.link.as_ref().is_some_and(|link| link.endpoint != used) {
            return;
        }
        self.link = None;
        let config = config.clone();
        let others: Vec<String> = endpoints.iter().filter(|e| *e != used).cloned().collect();
        self.looking = Some(Box::pin(async move {
            for endpoint in others {
                if let Ok(link) = open(config.clone(), endpoint, 0, true).await {
                    return Some(link);
                }
            }
            sleep(SPARE_PAUSE).await;
            None
        }));
    }

    /// Returns when there is none and nobody looks for one. Safe to drop while waiting.
    async fn keep(&mut self) {
        if let Some(looking) = &mut self.looking {
            self.link = looking.await;
            self.looking = None;
        }
        let Some(link) = &mut self.link else { return };
        // A replica says nothing on a stream that stands by, until it ends.
        while let Ok(Some(_)) = link.incoming.message().await {}
        self.link = None;
    }
}

/// A connection to a replica that is left when it hangs, not only when it dies.
async fn connect(
    config: &NodeSessionConfig,
    endpoint: &str,
) -> Result<InterceptedService<Channel, Bearer>, String> {
    let silence_max = config.silence_max;
    let tuned = |target: Endpoint| {
        target
            .connect_timeout(silence_max)
            .http2_keep_alive_interval(silence_max / 2)
            .keep_alive_timeout(silence_max / 2)
            .keep_alive_while_idle(true)
    };
    channel(endpoint, &config.access, tuned).await
}

async fn open(
    config: NodeSessionConfig,
    endpoint: String,
    revision: u64,
    standby: bool,
) -> Result<Link, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{endpoint}: {e}");
    let channel = connect(&config, &endpoint).await.map_err(|e| failed(&e))?;
    let (out, outgoing) = mpsc::channel(1024);
    let hello = From::Hello(Hello {
        node: config.node.clone(),
        instance: config.instance.clone(),
        machine_id: config.machine_id.clone(),
        boot_id: config.boot_id.clone(),
        node_json: config.node_json.to_string().into_bytes(),
        revision,
        standby,
    });
    out.send(message(hello)).await.map_err(|e| failed(&e))?;
    let mut client = NodeServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let stream = client.session(ReceiverStream::new(outgoing));
    let incoming = timeout(config.silence_max * 4, stream)
        .await
        .map_err(|e| failed(&e))?
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    Ok(Link { endpoint, out, incoming })
}

/// Why a stream is left.
enum Left {
    /// Try another.
    Broken(String),
    /// The caller has gone.
    Closed,
}

impl Agent {
    async fn run(&mut self) {
        let mut next = 0;
        let mut backoff = BACKOFF_MIN;
        let mut spare = Spare::default();
        loop {
            let link = match spare.link.take() {
                Some(link) => {
                    let activate = From::Activate(Activate { revision: self.revision });
                    let _ = link.out.send(message(activate)).await;
                    Ok(link)
                }
                None => {
                    let count = self.endpoints.len().max(1);
                    let endpoint = self.endpoints.get(next % count).cloned().unwrap_or_default();
                    next += 1;
                    open(self.config.clone(), endpoint, self.revision, false).await
                }
            };
            let reason = match link {
                Err(error) => error,
                Ok(link) => {
                    let endpoint = link.endpoint.clone();
                    match self.serve(link, &mut spare, &mut backoff).await {
                        Left::Closed => return,
                        Left::Broken(error) => format!("{endpoint}: {error}"),
                    }
                }
            };
            tracing::debug!(node = self.config.node, reason, "no stream");
            if spare.link.is_some() {
                continue;
            }
            if self.events.send(FromControlPlane::Disconnected { reason }).await.is_err() {
                return;
            }
            // A round over all of them without a pause: one of them may be good.
            if next % self.endpoints.len().max(1) == 0 {
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                // Nobody goes on from there: it may be of a cluster that was since restored.
                self.revision = 0;
            }
        }
    }

    /// One stream, until it breaks.
    async fn serve(&mut self, mut link: Link, spare: &mut Spare, backoff: &mut Duration) -> Left {
        let closed = || Left::Broken("the stream is closed".to_owned());
        let mut beat = interval(self.config.heartbeat_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = 0;
        let mut welcomed = false;
        let mut complete = false;
        let mut resend: Option<Instant> = None;
        loop {
            let resend_at = resend.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                incoming = link.incoming.message() => {
                    let incoming = match incoming {
                        Ok(Some(ToNode { message: Some(message) })) => message,
                        Ok(Some(ToNode { message: None })) => continue,
                        Ok(None) => return Left::Broken("the replica ended the stream".to_owned()),
                        Err(status) => return Left::Broken(status.message().to_owned()),
                    };
                    let told = match incoming {
                        To::Welcome(welcome) => {
                            welcomed = true;
                            complete = !welcome.resumed;
                            *backoff = BACKOFF_MIN;
                            self.learn(&welcome.endpoints);
                            if !self.send_pending(&link).await {
                                return closed();
                            }
                            spare.look_for(&self.config, &self.endpoints, &link.endpoint);
                            FromControlPlane::Connected {
                                session: welcome.session,
                                pod_cidr: welcome.pod_cidr,
                                replica: welcome.replica,
                            }
                        }
                        To::Pod(change) => match serde_json::from_slice(&change.pod_json) {
                            Ok(pod) => FromControlPlane::Pod {
                                pod: Box::new(pod),
                                removed: change.removed,
                                revision: change.revision,
                            },
                            Err(error) => return Left::Broken(error.to_string()),
                        },
                        To::Synced(synced) => {
                            let complete = std::mem::take(&mut complete);
                            self.revision = synced.revision;
                            FromControlPlane::Synced { revision: synced.revision, complete }
                        }
                        To::Ack(ack) => match self.settle(ack) {
                            Settled::Told(told) => told,
                            Settled::Again(pause) => {
                                resend.get_or_insert(Instant::now() + pause);
                                continue;
                            }
                            Settled::Unknown => continue,
                        },
                        To::Fetched(fetched) => {
                            if let Some(answer) = self.asked.remove(&fetched.sequence) {
                                let _ = answer.send(read_fetched(&fetched));
                            }
                            continue;
                        }
                        To::Refused(refused) if refused.code == 409 || refused.code == 403 => {
                            FromControlPlane::Fenced { message: refused.message }
                        }
                        To::Refused(refused) => return Left::Broken(refused.message),
                        To::Heartbeat(_) => continue,
                    };
                    if self.events.send(told).await.is_err() {
                        return Left::Closed;
                    }
                }
                request = self.requests.recv() => {
                    let Some(request) = request else { return Left::Closed };
                    let sent = wire(&request);
                    self.remember(request);
                    if welcomed && link.out.send(sent).await.is_err() {
                        return closed();
                    }
                }
                fetch = self.fetches.recv(), if welcomed => {
                    let Some(fetch) = fetch else { return Left::Closed };
                    self.next_fetch += 1;
                    let body = fetch.body.map_or_else(Vec::new, |body| body.to_string().into());
                    let ask = From::Fetch(crate::proto::node::Fetch {
                        sequence: self.next_fetch,
                        resource: fetch.resource.to_owned(),
                        namespace: fetch.namespace,
                        name: fetch.name,
                        body_json: body,
                    });
                    // Who asked on a stream that broke has asked again or given up.
                    self.asked.retain(|_, waits| !waits.is_closed());
                    self.asked.insert(self.next_fetch, fetch.answer);
                    if link.out.send(message(ask)).await.is_err() {
                        return closed();
                    }
                }
                _ = beat.tick() => {
                    beats += 1;
                    let beat = message(From::Heartbeat(Heartbeat { sequence: beats }));
                    if welcomed && link.out.send(beat).await.is_err() {
                        return closed();
                    }
                }
                () = spare.keep() => {
                    spare.look_for(&self.config, &self.endpoints, &link.endpoint);
                }
                () = sleep_until(resend_at), if resend.is_some() => {
                    resend = None;
                    if !self.send_pending(&link).await {
                        return closed();
                    }
                }
            }
        }
    }

    async fn send_pending(&self, link: &Link) -> bool {
        for request in self.pending.values() {
            if link.out.send(wire(request)).await.is_err() {
                return false;
            }
        }
        true
    }

    fn learn(&mut self, endpoints: &[String]) {
        for endpoint in endpoints {
            if !self.endpoints.contains(endpoint) {
                self.endpoints.push(endpoint.clone());
            }
        }
    }

    /// Keeps what must be acknowledged; a newer status of a Pod replaces an older one.
    fn remember(&mut self, request: ToControlPlane) {
        match &request {
            ToControlPlane::PodStatus { sequence, uid, .. } => {
                let (sequence, newer) = (*sequence, uid.clone());
                self.pending.retain(
                    |_, old| !matches!(old, ToControlPlane::PodStatus { uid, .. } if *uid == newer),
                );
                self.pending.insert(sequence, request);
            }
            ToControlPlane::PodDelete { sequence, .. } => {
                self.pending.insert(*sequence, request);
            }
            ToControlPlane::NodeStatus { sequence, .. } => {
                let sequence = *sequence;
                self.pending.retain(|_, old| !matches!(old, ToControlPlane::NodeStatus { .. }));
                self.pending.insert(sequence, request);
            }
            ToControlPlane::Event { .. } => {}
        }
    }

    fn settle(&mut self, ack: Ack) -> Settled {
        match ack.code {
            429 | 500 | 503 | 504 => return Settled::Again(RESEND),
            507 => return Settled::Again(RESEND_FULL),
            _ => {}
        }
        if self.pending.remove(&ack.sequence).is_none() {
            return Settled::Unknown;
        }
        let result = if ack.code == 0 {
            Ok(ack.revision)
        } else {
            let code = u16::try_from(ack.code).unwrap_or(500);
            let reason = if code == 404 { "NotFound" } else { "Conflict" };
            Err(api::status::Status::new(code, reason, ack.message))
        };
        Settled::Told(FromControlPlane::Acknowledged { sequence: ack.sequence, result })
    }
}

enum Settled {
    Told(FromControlPlane),
    /// After a pause.
    Again(Duration),
    Unknown,
}

fn message(message: From) -> FromNode {
    FromNode { message: Some(message) }
}

fn wire(request: &ToControlPlane) -> FromNode {
    message(match request.clone() {
        ToControlPlane::PodStatus { sequence, namespace, name, uid, status } => {
            let status_json = status.to_string().into_bytes();
            From::PodStatus(PodStatus { sequence, namespace, name, uid, status_json })
        }
        ToControlPlane::PodDelete { sequence, namespace, name, uid } => {
            From::PodDelete(PodDelete { sequence, namespace, name, uid })
        }
        ToControlPlane::NodeStatus { sequence, status } => {
            From::NodeStatus(NodeStatus { sequence, status_json: status.to_string().into_bytes() })
        }
        ToControlPlane::Event { event } => {
            From::Event(Event { sequence: 0, event_json: event.to_string().into_bytes() })
        }
    })
}

fn read_fetched(fetched: &Fetched) -> Result<Option<Value>, String> {
    match fetched.code {
        0 => serde_json::from_slice(&fetched.object_json).map(Some).map_err(|e| e.to_string()),
        404 => Ok(None),
        _ => Err(fetched.message.clone()),
    }
}
