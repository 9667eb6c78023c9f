//! What the API costs for one small request, without a log, peers or a socket.
#![allow(clippy::unwrap_used, reason = "a panic in a bench is its failure")]

use api::caller::Identity;
use apiserver::{AccessConfig, ApiServer, Config, Limits, Pki};
use client::{Client, ClientError};
use divan::Bencher;
use http::Method;
use serde_json::{Value, json};
use std::{cell::Cell, sync::Arc, time::Duration};
use store::{Cluster, Epoch, Store, Timestamp, local::LocalStore};
use tokio::runtime::Runtime;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn main() {
    divan::main();
}

struct Api {
    runtime: Runtime,
    client: Client,
    next: Cell<u64>,
}

impl Api {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> =
            Arc::new(|| Timestamp(1_700_000_000_000_000));
        let store = Arc::new(LocalStore::new(Arc::clone(&clock)));
        store.begin_epoch(Epoch(1));
        let config = Config {
            name: "bench".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            access: AccessConfig::default(),
            pki: Pki::default(),
            limits: Limits::default(),
        };
        let (as_store, as_cluster) =
            (Arc::clone(&store) as Arc<dyn Store>, store as Arc<dyn Cluster>);
        let client = runtime.block_on(async {
            let server = ApiServer::new(as_store, as_cluster, config, clock);
            server.ensure_defaults().await.unwrap();
            Client::in_process(server.door(), Identity::new("bench", &["system:masters"]), None)
        });
        Self { runtime, client, next: Cell::new(0) }
    }

    fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Value {
        let call = self.client.call(method, path, body);
        self.runtime.block_on(call).map_err(|error: ClientError| error.to_string()).unwrap()
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn create(&self) -> String {
        let name = format!("p-{}", self.number());
        self.call(Method::POST, PODS, Some(pod(&name).to_string().into_bytes()));
        format!("{PODS}/{name}")
    }
}

/// About 1 KiB, as `trireme bench api` has them.
fn pod(name: &str) -> Value {
    let env: Vec<Value> = ["LOG_LEVEL", "CACHE_URL", "REGION"]
        .map(|name| json!({"name": name, "value": format!("value-of-{name}")}))
        .into();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "bench", "app.kubernetes.io/part-of": "load", "tier": "backend"},
            "annotations": {"example.com/revision": "1"},
        },
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "main", "image": "registry.example/team/application:v1.2.3",
                "args": ["--listen=:8080", "--verbose"], "env": env,
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
        },
    })
}

#[divan::bench(sample_count = 200, sample_size = 20)]
fn create(bencher: Bencher<'_, '_>) {
    let api = Api::new();
    bencher.bench_local(|| api.create());
}

#[divan::bench(sample_count = 200, sample_size = 20)]
fn get(bencher: Bencher<'_, '_>) {
    let api = Api::new();
    let path = api.create();
    bencher.bench_local(|| api.call(Method::GET, &path, None));
}

#[divan::bench(sample_count = 200, sample_size = 20)]
fn patch(bencher: Bencher<'_, '_>) {
    let api = Api::new();
    let path = api.create();
    bencher.bench_local(|| {
        let revision = format!("change-{}", api.number());
        let change = json!({"metadata": {"annotations": {"example.com/revision": revision}}});
        let request = client::patch_request(&path, &client::Patch::Merge(change)).unwrap();
        let answer = api.runtime.block_on(api.client.request(request)).unwrap();
        assert!(answer.status().is_success());
    });
}
