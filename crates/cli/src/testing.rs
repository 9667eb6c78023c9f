//! A real API server in this process, over a store without raft, whose clock the test sets.

use crate::target::Target;
use api::caller::{ControllerOrigin, Identity};
use apiserver::{ApiServer, Config};
use client::{Client, ClientError, endpoints::Endpoints, transport::Access};
use http::Method;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use store::{Epoch, Op, Origin, Proposal, RequestId, Store as _, Timestamp, local::LocalStore};

/// Where every test's time begins: 2023-11-14T22:13:20Z.
pub(crate) const START: i64 = 1_700_000_000;

pub(crate) struct Api {
    pub(crate) server: ApiServer,
    store: Arc<LocalStore>,
    seconds: Arc<AtomicI64>,
}

impl Api {
    pub(crate) async fn new() -> Self {
        let seconds = Arc::new(AtomicI64::new(START));
        let clock = {
            let seconds = Arc::clone(&seconds);
            Arc::new(move || {
                let seconds = u64::try_from(seconds.load(Ordering::Relaxed)).unwrap();
                Timestamp(seconds * 1_000_000)
            })
        };
        let store = Arc::new(LocalStore::new(clock.clone()));
        store.begin_epoch(Epoch(1));
        let config = Config {
            name: "test".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            limits: apiserver::Limits::default(),
            access: apiserver::AccessConfig::default(),
            pki: apiserver::Pki::default(),
        };
        let as_store = Arc::clone(&store) as Arc<dyn store::Store>;
        let as_cluster = Arc::clone(&store) as Arc<dyn store::Cluster>;
        let server = ApiServer::new(as_store, as_cluster, config, clock);
        server.ensure_defaults().await.unwrap();
        Self { server, store, seconds }
    }

    /// So many seconds behind the start.
    pub(crate) fn at(&self, seconds: i64) {
        self.seconds.store(START + seconds, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> i64 {
        self.seconds.load(Ordering::Relaxed)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.store.view().revision().get()
    }

    /// Forgets every revision before the newest one.
    pub(crate) async fn compact(&self) {
        let proposal = Proposal {
            request: RequestId { client: 1, sequence: self.revision() },
            origin: Origin::Client,
            op: Op::Compact { revision: self.store.view().revision() },
        };
        self.store.propose(proposal, Duration::from_secs(1)).await.unwrap().outcome.unwrap();
    }

    fn client(&self, origin: Option<ControllerOrigin>) -> Client {
        let identity = Identity::new("test", &[]);
        Client::in_process(self.server.door(), identity, origin)
    }

    pub(crate) fn target(&self, namespace: &str) -> Target {
        let namespace = namespace.to_owned();
        let endpoints = Endpoints::new(Vec::new(), Access::default());
        Target { client: self.client(None), endpoints, namespace, authority: None }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        let called = self.client(None).call::<Value>(method.clone(), path, body).await;
        called.unwrap_or_else(|error: ClientError| panic!("{method} {path}: {error}"))
    }

    /// Creates an object, with its status if it has one.
    pub(crate) async fn make(&self, list: &str, mut object: Value) -> Value {
        let status = object.as_object_mut().unwrap().remove("status");
        let created = self.call(Method::POST, list, object).await;
        match status {
            None => created,
            Some(status) => {
                let list = list.split('?').next().unwrap();
                self.say(&format!("{list}/{}", api::meta::name(&created)), status).await
            }
        }
    }

    /// Sets an object's status, as a part of Trireme does.
    pub(crate) async fn say(&self, path: &str, status: Value) -> Value {
        let epoch = 1;
        let client = self.client(Some(ControllerOrigin { epoch }));
        let path = format!("{path}/status");
        let mut object = client.call::<Value>(Method::GET, &path, None).await.unwrap();
        object["status"] = status;
        let body = Some(object.to_string().into_bytes());
        client.call::<Value>(Method::PUT, &path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn put(&self, path: &str, object: Value) -> Value {
        self.call(Method::PUT, path, object).await
    }

    pub(crate) async fn delete(&self, path: &str, options: Value) {
        self.call(Method::DELETE, path, options).await;
    }

    pub(crate) async fn node(&self, name: &str, cpu: &str, spec: Value, ready: &str) {
        let labels = json!({"kubernetes.io/hostname": name, "disk": "hdd"});
        let message = match ready {
            "True" => "kubelet is posting ready status",
            _ => "Kubelet stopped posting node status.",
        };
        let status = json!({
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "4"},
            "capacity": {"cpu": cpu, "memory": "8Gi", "pods": "4"},
            "conditions": [{"type": "Ready", "status": ready, "message": message}],
        });
        let node = json!({
            "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status,
        });
        self.make("/api/v1/nodes", node).await;
    }
}
