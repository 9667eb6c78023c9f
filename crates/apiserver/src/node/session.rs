//! One stream of one node.

use super::{
    Outgoing,
    index::{Followed, PodEvent, PodIndex, pod_kind},
    register::{Registration, is_registered, put_node, put_status, register, stay_alive},
    to_node,
};
use crate::{
    guard::{self, Guard},
    join::api_urls,
    proto::node::{
        Ack, Activate, Fetch, Fetched, FromNode, HeartbeatAck, Hello, PodChange, Synced, Welcome,
        from_node::Message as From, to_node::Message as To,
    },
    registry::{Caller, Registry},
    serve::Config,
};
use access::{Attributes, Resource};
use api::{caller::Identity, deletion::DeleteOptions, kinds, meta, status::Status};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use store::{Cluster, Revision, watch::WatchError};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// For this replica to come as far as the node already is.
const CATCH_UP: Duration = Duration::from_secs(2);
/// For a heartbeat to reach the leader's memory.
const RENEW_DEADLINE: Duration = Duration::from_secs(2);

/// What a session has of its replica, and how its node has come.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) config: Arc<Config>,
    pub(super) index: Arc<PodIndex>,
    pub(super) guard: Arc<Guard>,
    /// By a credential of its own: what it says of itself is held against what nodes may.
    pub(super) certified: bool,
}

/// Requests of one node that are under way or wait for that.
const IN_HAND_MAX: usize = 512;

struct Session {
    registry: Registry,
    config: Arc<Config>,
    guard: Arc<Guard>,
    node: String,
    /// As it came, for another registration.
    hello: Hello,
    certified: bool,
    registration: Registration,
    outgoing: Outgoing,
    /// Another node has been given this one's range of addresses.
    range_lost: CancellationToken,
    /// Another agent has registered under this name.
    taken_over: CancellationToken,
}

/// Requests of one Pod, one after the other; those of different Pods beside each other.
#[derive(Default)]
struct Work {
    waiting: BTreeMap<String, VecDeque<From>>,
    running: JoinSet<String>,
}

/// Where the API is: the replicas in the log that have started, and those of the configuration.
pub(super) fn endpoints(cluster: &dyn Cluster, config: &Config) -> Vec<String> {
    let mut urls = api_urls(&cluster.members());
    for url in &config.endpoints {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    urls
}

pub(super) async fn run(
    shared: &Shared,
    hello: Hello,
    mut incoming: Streaming<FromNode>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let Shared { registry, cluster, config, index, guard, certified } = shared;
    let mut known = hello.revision;
    if hello.standby {
        match wait_for_activation(&mut incoming, outgoing).await {
            Some(activate) => known = activate.revision,
            None => return Ok(()),
        }
    }
    let registration = register(registry, config, &hello, *certified).await?;
    let known = Revision::new(known);
    // Another replica told it more than this one has applied: never show the node an older state.
    if let Err(error) = registry.store().wait_for(known, CATCH_UP).await {
        return Err(Status::unavailable(error.to_string()));
    }
    let stopped = |error: WatchError| Status::unavailable(error.to_string());
    let Followed { revision: listed, pods, resumed, mut changes } =
        index.follow(&hello.node, known).map_err(stopped)?;
    let welcome = Welcome {
        session: registration.session,
        epoch: registry.store().view().epoch().0,
        revision: listed.get(),
        resumed,
        replica: config.name.clone(),
        endpoints: endpoints(&**cluster, config),
        pod_cidr: registration.pod_cidr.clone(),
    };
    send(outgoing, To::Welcome(welcome)).await?;
    let session = Arc::new(Session {
        registry: registry.clone(),
        config: Arc::clone(config),
        guard: Arc::clone(guard),
        node: hello.node.clone(),
        hello,
        certified: *certified,
        registration,
        outgoing: outgoing.clone(),
        range_lost: CancellationToken::new(),
        taken_over: CancellationToken::new(),
    });
    for pod in pods {
        send(outgoing, To::Pod(change(&pod))).await?;
    }
    send(outgoing, To::Synced(Synced { revision: listed.get() })).await?;
    let mut work = Work::default();
    loop {
        tokio::select! {
            event = changes.recv() => {
                // Ended by the index: the node must list again.
                let Some(event) = event else { return Ok(()) };
                if event.revision > listed.get() {
                    send(outgoing, To::Pod(change(&event))).await?;
                    send(outgoing, To::Synced(Synced { revision: event.revision })).await?;
                }
            }
            // What is read is kept until it is done: a node that asks for more than that waits.
            message = incoming.message(), if work.len() < IN_HAND_MAX => match message {
                Ok(Some(FromNode { message: Some(message) })) => work.take(&session, message),
                Ok(Some(FromNode { message: None })) => {}
                Ok(None) | Err(_) => return Ok(()),
            },
            done = work.running.join_next(), if !work.running.is_empty() => {
                if let Some(Ok(key)) = done {
                    work.next(&session, &key);
                }
            }
            () = outgoing.closed() => return Ok(()),
            () = session.range_lost.cancelled() => {
                return Err(Status::unavailable("another node has this one's range of addresses"));
            }
            // Whoever is still there registers anew. The other one may be gone: what an agent sent before it was
            // killed can arrive after its successor has registered.
            () = session.taken_over.cancelled() => {
                return Err(Status::unavailable("another agent has taken over this node"));
            }
        }
    }
}

/// `None` when the stream ends first.
async fn wait_for_activation(
    incoming: &mut Streaming<FromNode>,
    outgoing: &Outgoing,
) -> Option<Activate> {
    while let Ok(Some(message)) = incoming.message().await {
        match message.message {
            Some(From::Activate(activate)) => return Some(activate),
            Some(From::Heartbeat(beat)) => {
                let ack = HeartbeatAck { sequence: beat.sequence };
                send(outgoing, To::Heartbeat(ack)).await.ok()?;
            }
            _ => {}
        }
    }
    None
}

async fn send(outgoing: &Outgoing, message: To) -> Result<(), Status> {
    let gone = |_: mpsc::error::SendError<_>| Status::unavailable("the node has gone");
    outgoing.send(to_node(message)).await.map_err(gone)
}

fn change(event: &PodEvent) -> PodChange {
    PodChange { removed: event.removed, revision: event.revision, pod_json: event.pod.to_vec() }
}

impl Work {
    fn len(&self) -> usize {
        self.running.len() + self.waiting.values().map(VecDeque::len).sum::<usize>()
    }

    fn take(&mut self, session: &Arc<Session>, message: From) {
        let key = match &message {
            From::PodStatus(m) => m.uid.clone(),
            From::PodDelete(m) => m.uid.clone(),
            From::NodeStatus(_) => "node".to_owned(),
            From::Heartbeat(_) => "heartbeat".to_owned(),
            From::Event(m) => format!("event {}", m.sequence),
            From::Fetch(m) => format!("fetch {}", m.sequence),
            From::Hello(_) | From::Activate(_) => return,
        };
        let busy = self.waiting.contains_key(&key);
        self.waiting.entry(key.clone()).or_default().push_back(message);
        if !busy {
            self.next(session, &key);
        }
    }

    fn next(&mut self, session: &Arc<Session>, key: &str) {
        let Some(message) = self.waiting.get_mut(key).and_then(VecDeque::pop_front) else {
            self.waiting.remove(key);
            return;
        };
        let (session, key) = (Arc::clone(session), key.to_owned());
        self.running.spawn(async move {
            session.handle(message).await;
            key
        });
    }
}

impl Session {
    fn caller(&self) -> Caller {
        Caller { fence: Some(self.registration.fence.clone()), ..Caller::default() }
    }

    /// Of the node's last registration, as far as this replica knows.
    fn last_revision(&self) -> Option<Revision> {
        let session = self.registry.store().view().get(self.registration.fence.key.as_bytes());
        session.map(|kv| kv.mod_revision)
    }

    /// Whether another agent has registered since, as far as this replica knows.
    fn is_taken_over(&self) -> bool {
        self.last_revision().is_some_and(|last| last > self.registration.fence.revision)
    }

    /// Whether the fence of this session still holds.
    async fn is_held(&self) -> Result<bool, Status> {
        self.registry.linearize().await?;
        Ok(self.last_revision() == Some(self.registration.fence.revision))
    }

    /// `None` if nothing is answered: the stream ends, and it is asked again on the next one.
    async fn ack(&self, sequence: u64, result: Result<u64, Status>) -> Option<To> {
        if result.as_ref().is_err_and(|status| status.code == 403) {
            match self.is_held().await {
                Ok(true) => {}
                Ok(false) => {
                    self.taken_over.cancel();
                    return None;
                }
                Err(error) => return Some(ack(sequence, Err(error))),
            }
        }
        Some(ack(sequence, result))
    }

    async fn handle(&self, message: From) {
        let answer = match message {
            From::Heartbeat(beat) => {
                self.heartbeat().await;
                Some(To::Heartbeat(HeartbeatAck { sequence: beat.sequence }))
            }
            From::PodStatus(m) => {
                let result = self.pod_status(&m.namespace, &m.name, &m.uid, &m.status_json).await;
                self.ack(m.sequence, result).await
            }
            From::PodDelete(m) => {
                let result = self.pod_delete(&m.namespace, &m.name, &m.uid).await;
                self.ack(m.sequence, result).await
            }
            From::NodeStatus(m) => {
                let result = match serde_json::from_slice(&m.status_json) {
                    Ok(status) => {
                        put_status(&self.registry, &self.node, &status, &self.caller()).await
                    }
                    Err(error) => Err(Status::bad_request(error.to_string())),
                };
                self.ack(m.sequence, result).await
            }
            From::Event(m) => {
                self.event(&m.event_json).await;
                return;
            }
            From::Fetch(m) => Some(To::Fetched(self.fetch(&m).await)),
            From::Hello(_) | From::Activate(_) => return,
        };
        if let Some(answer) = answer {
            let _ = self.outgoing.send(to_node(answer)).await;
        }
    }

    async fn heartbeat(&self) {
        if self.is_taken_over() {
            return self.taken_over.cancel();
        }
        let lease = self.registration.lease;
        match self.registry.store().renew_lease(lease, RENEW_DEADLINE).await {
            Ok(Some(_)) => {}
            // It ran out while the node could not be heard: it is heard again.
            Ok(None) => {
                let alive = stay_alive(&self.registry, &self.config, &self.node, lease).await;
                if let Err(error) = alive {
                    tracing::debug!(%error, node = self.node, "lease not made again");
                }
            }
            Err(error) => tracing::debug!(%error, node = self.node, "heartbeat not taken"),
        }
        if let Err(error) = self.stay_registered().await {
            tracing::debug!(%error, node = self.node, "not registered again");
        }
    }

    /// Who deletes the Node of an agent that runs, or its Lease, sees it again with the next heartbeat (DEL-54).
    async fn stay_registered(&self) -> Result<(), Status> {
        if is_registered(&self.registry, &self.node) {
            return Ok(());
        }
        // Another agent that has taken over registers for itself.
        if !self.is_held().await? || is_registered(&self.registry, &self.node) {
            return Ok(());
        }
        tracing::info!(node = self.node, "its Node was deleted: registered again");
        let (registry, config) = (&self.registry, &*self.config);
        let pod_cidr = put_node(registry, config, &self.hello, self.certified).await?;
        stay_alive(registry, config, &self.node, self.registration.lease).await?;
        if pod_cidr != self.registration.pod_cidr {
            // A node learns of its range when a session begins.
            self.range_lost.cancel();
        }
        Ok(())
    }

    /// Only this node's Pod, only this incarnation (FEN-27).
    fn check_pod(&self, pod: &Value, name: &str, uid: &str) -> Result<(), Status> {
        if meta::uid(pod) != uid {
            return Err(Status::not_found(pod_kind(), name));
        }
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node != self.node {
            let why = format!("it is on node \"{node}\", not on \"{}\"", self.node);
            return Err(Status::forbidden(pod_kind(), name, &why));
        }
        Ok(())
    }

    async fn pod_status(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        status: &[u8],
    ) -> Result<u64, Status> {
        let status: Value =
            serde_json::from_slice(status).map_err(|e| Status::bad_request(e.to_string()))?;
        let written = self
            .registry
            .change(pod_kind(), namespace, name, "status", &self.caller(), |old| {
                self.check_pod(old, name, uid)?;
                let mut new = api::pod::merge_kubelet_status(old, &status);
                meta::metadata_mut(&mut new).remove("resourceVersion");
                Ok(new)
            })
            .await?;
        Ok(meta::resource_version(&written.object).parse().unwrap_or_default())
    }

    /// FEN-28
    async fn pod_delete(&self, namespace: &str, name: &str, uid: &str) -> Result<u64, Status> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        };
        let check = |pod: &Value| {
            self.check_pod(pod, name, uid)?;
            if !meta::is_terminating(pod) {
                return Err(Status::conflict(pod_kind(), name, "it is not being deleted"));
            }
            Ok(())
        };
        let caller = self.caller();
        let outcome =
            self.registry.delete_if(pod_kind(), namespace, name, &options, &caller, check).await?;
        let (crate::registry::DeleteOutcome::Removed(pod)
        | crate::registry::DeleteOutcome::Terminating(pod)) = outcome;
        Ok(meta::resource_version(&pod).parse().unwrap_or_default())
    }

    /// Best effort (EVT-1).
    async fn event(&self, event: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(event) else { return };
        let kind = kinds::by_alias("events").expect("Event is served");
        let namespace = meta::namespace(&event).to_owned();
        if let Err(error) = self.registry.create(kind, &namespace, event, &Caller::default()).await
        {
            tracing::debug!(%error, "event dropped");
        }
    }

    /// Only what a Pod of this node names: it has been told of its Pods from this replica's state.
    fn may(&self, verb: &str, of: Resource) -> Result<(), Status> {
        let asked = Attributes::resource(verb, of);
        let decision = self.guard.node_may(&self.node, &asked);
        if decision.is_allowed() {
            return Ok(());
        }
        Err(asked.refusal(&self.user(), decision.reason()))
    }

    fn user(&self) -> String {
        format!("system:node:{}", self.node)
    }

    async fn fetch(&self, asked: &Fetch) -> Fetched {
        let sequence = asked.sequence;
        match self.find(asked).await {
            Ok(object) => {
                let object_json = object.to_string().into_bytes();
                Fetched { sequence, object_json, code: 0, message: String::new() }
            }
            Err(status) => Fetched {
                sequence,
                object_json: Vec::new(),
                code: status.code.into(),
                message: status.message,
            },
        }
    }

    async fn find(&self, asked: &Fetch) -> Result<Value, Status> {
        let Fetch { resource, namespace, name, body_json, .. } = asked;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let of = Resource {
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            ..Resource::default()
        };
        match (resource, subresource) {
            ("configmaps" | "secrets", "") => {
                self.may("get", of)?;
                let kind = kinds::by_alias(resource).expect("what nodes fetch is served");
                self.registry.get(kind, namespace, name, "").await
            }
            ("serviceaccounts", "token") => {
                self.may("create", of)?;
                let request = serde_json::from_slice(body_json)
                    .map_err(|e| Status::bad_request(e.to_string()))?;
                let who = Identity::new(self.user(), &[access::NODES]);
                guard::token(&self.guard, &who, (namespace, name), &request).await
            }
            _ => Err(Status::bad_request(format!("{} is not for nodes", asked.resource))),
        }
    }
}

fn ack(sequence: u64, result: Result<u64, Status>) -> To {
    To::Ack(match result {
        Ok(revision) => Ack { sequence, revision, code: 0, message: String::new() },
        Err(status) => {
            Ack { sequence, revision: 0, code: status.code.into(), message: status.message }
        }
    })
}
