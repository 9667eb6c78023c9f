//! All controllers over the API and a store without raft; time stands still until everybody waits.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]

mod admission;
mod copies;
mod definitions;
mod events;
mod kubectl;
mod namespaces;
mod nodes;
mod services;

use api::caller::{ControllerOrigin, Identity};
use apiserver::{ApiServer, Config};
use client::{Client, ClientError, copies::Copies};
use http::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Epoch, Store as _, Timestamp, local::LocalStore};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// What Pods would hold the API's certificates against.
pub(crate) const ROOT_CA: &str = "a certificate";

/// Of the test's clock, when it begins.
const START: u64 = 1_700_000_000;

pub(crate) struct Cluster {
    store: Arc<LocalStore>,
    client: Client,
    server: ApiServer,
    tasks: JoinSet<()>,
    leading: CancellationToken,
    epoch: u64,
}

impl Cluster {
    /// With a node `n` that is heard and ready, and controllers that run.
    pub(crate) async fn new() -> Self {
        let began = Instant::now();
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(move || {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap();
            Timestamp(START * 1_000_000 + micros)
        });
        let store = Arc::new(LocalStore::new(Arc::clone(&clock)));
        let config = Config {
            name: "test".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            access: apiserver::AccessConfig::default(),
            pki: apiserver::Pki::default(),
            limits: apiserver::Limits::default(),
        };
        let as_store = Arc::clone(&store) as Arc<dyn store::Store>;
        let as_cluster = Arc::clone(&store) as Arc<dyn store::Cluster>;
        let server = ApiServer::new(as_store, as_cluster, config, clock);
        store.begin_epoch(Epoch(1));
        server.ensure_defaults().await.unwrap();
        let identity = Identity::new("test", &[]);
        let client = Client::in_process(server.door(), identity, None);
        let leading = CancellationToken::new();
        let mut cluster = Self { store, client, server, tasks: JoinSet::new(), leading, epoch: 0 };
        cluster.node("n").await;
        cluster.lead().await;
        cluster
    }

    /// A new leader: the controllers of the one before end, others begin.
    pub(crate) async fn lead(&mut self) {
        self.leading.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.epoch += 1;
        self.store.begin_epoch(Epoch(self.epoch));
        let identity = Identity::new("controllers", &[]);
        let origin = Some(ControllerOrigin { epoch: self.epoch });
        let client = Client::in_process(self.server.door(), identity, origin);
        self.leading = CancellationToken::new();
        let settings = controllers::Settings { root_ca: Some(ROOT_CA.to_owned()) };
        let copies = Copies::follow(&client, &mut self.tasks, &self.leading);
        self.tasks.spawn(controllers::all(settings, client, copies, self.leading.child_token()));
    }

    /// Registers a node that is heard and ready.
    pub(crate) async fn node(&self, name: &str) {
        let node = json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
        });
        self.post("/api/v1/nodes", node).await;
        self.heard(name).await;
    }

    pub(crate) async fn heard(&self, name: &str) {
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        self.post(leases, lease).await;
    }

    pub(crate) async fn silent(&self, name: &str) {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        self.call(Method::DELETE, &format!("{leases}/{name}"), Value::Null).await.unwrap();
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, ClientError> {
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        self.client.call(method, path, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, body).await.unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.store.view().revision().get()
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        self.call(Method::GET, path, Value::Null).await.ok()
    }

    /// A Pod `app=NAME` that runs on `node` at `ip`, ready.
    pub(crate) async fn running(&self, name: &str, labels: Value, node: &str, ip: &str) {
        let pods = "/api/v1/namespaces/default/pods";
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "a", "image": "toolbox"}]},
        });
        self.post(pods, pod).await;
        let status = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        self.pod_status(name, status).await;
    }

    pub(crate) async fn pod_status(&self, name: &str, status: Value) {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let mut pod = self.get(&path).await.unwrap();
        for (key, value) in status.as_object().unwrap() {
            pod["status"][key] = value.clone();
        }
        self.call(Method::PUT, &format!("{path}/status"), pod).await.unwrap();
    }

    /// Waits until `look` answers, at most so long by the test's clock; how long it took.
    pub(crate) async fn until(
        &self,
        what: &str,
        limit: Duration,
        look: impl AsyncFn(&Self) -> bool,
    ) -> Duration {
        let began = Instant::now();
        loop {
            if look(self).await {
                return began.elapsed();
            }
            assert!(began.elapsed() <= limit, "{what}: not within {limit:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
