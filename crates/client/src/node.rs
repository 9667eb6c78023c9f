//! The kubelet's session with the control plane: one active stream, one standing by.

use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence of the stream after which it counts as dead; well below a second.
    pub silence_max: Duration,
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

/// A request for an object that a Pod uses: ConfigMap or Secret.
#[derive(Debug)]
pub struct Fetch {
    /// `configmaps` or `secrets`
    pub resource: String,
    /// Of the Pod.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// The object, `None` when there is none; an error when nobody could be asked.
    pub answer: tokio::sync::oneshot::Sender<Result<Option<serde_json::Value>, String>>,
}

/// The caller's ends of a session.
#[derive(Debug)]
pub struct NodeSession {
    /// In order. Bounded: the session waits when it is full.
    pub events: mpsc::Receiver<FromControlPlane>,
    /// Bounded: waiting here is the kubelet's outbox.
    pub requests: mpsc::Sender<ToControlPlane>,
    /// For objects that Pods use.
    pub fetches: mpsc::Sender<Fetch>,
}

/// The session's ends, and the future that keeps it alive until `shutdown`: the owner spawns it.
///
/// `resume` is the revision up to which Pods are known from an earlier run; 0 asks for all.
#[must_use]
pub fn session(
    _config: NodeSessionConfig,
    _resume: u64,
    _shutdown: CancellationToken,
) -> (NodeSession, impl Future<Output = ()> + Send + 'static) {
    let (_event_sender, events) = mpsc::channel(256);
    let (requests, _request_receiver) = mpsc::channel(256);
    let (fetches, _fetch_receiver) = mpsc::channel(16);
    (NodeSession { events, requests, fetches }, async {})
}
