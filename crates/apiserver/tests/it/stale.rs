//! Writes through a replica that has not applied yet what others have acknowledged.

use super::Api;
use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{
    Applied, LeaseId, Proposal, Revision, Store, StoreError,
    local::LocalStore,
    state::View,
    watch::{WatchError, WatchRequest, WatchSet, Watcher},
};

/// Shows an old state until it is asked to catch up.
struct Behind {
    store: Arc<LocalStore>,
    shown: Mutex<Option<View>>,
}

impl Behind {
    fn fall_behind(&self) {
        *self.shown.lock().unwrap() = Some(self.store.view());
    }

    fn catch_up(&self) {
        *self.shown.lock().unwrap() = None;
    }
}

#[async_trait]
impl Store for Behind {
    async fn propose(&self, proposal: Proposal, deadline: Duration) -> Result<Applied, StoreError> {
        self.store.propose(proposal, deadline).await
    }

    async fn barrier(&self, deadline: Duration) -> Result<Revision, StoreError> {
        self.catch_up();
        self.store.barrier(deadline).await
    }

    async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), StoreError> {
        self.catch_up();
        self.store.wait_for(revision, deadline).await
    }

    fn view(&self) -> View {
        let shown = self.shown.lock().unwrap();
        shown.clone().unwrap_or_else(|| self.store.view())
    }

    async fn swept(&self, deadline: Duration) -> Result<(), StoreError> {
        self.store.swept(deadline).await
    }

    async fn renew_lease(
        &self,
        id: LeaseId,
        deadline: Duration,
    ) -> Result<Option<i64>, StoreError> {
        self.store.renew_lease(id, deadline).await
    }

    async fn lease_left(&self, id: LeaseId, deadline: Duration) -> Result<Option<i64>, StoreError> {
        self.store.lease_left(id, deadline).await
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        self.store.watch(request)
    }

    fn watch_set(&self) -> WatchSet {
        self.store.watch_set()
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";

fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": value}})
}

/// One that is up to date, and one that can fall behind.
async fn two() -> (Api, Api, Arc<Behind>) {
    let first = Api::new().await;
    let store = Arc::clone(&first.store);
    let behind = Arc::new(Behind { store: Arc::clone(&store), shown: Mutex::default() });
    let second = Api::over(Arc::clone(&behind) as Arc<dyn Store>, store);
    (first, second, behind)
}

#[tokio::test]
async fn what_changes_nothing_in_an_old_state_is_written_all_the_same() {
    // CC-4, INV-5
    let (first, second, behind) = two().await;
    let path = format!("{MAPS}/m");
    for (method, kind, body) in [
        (Method::PUT, "application/json", map("m", "one").to_string()),
        (Method::PATCH, MERGE, r#"{"data":{"a":"one"}}"#.to_owned()),
    ] {
        first.json(Method::POST, MAPS, map("m", "one")).await;
        behind.fall_behind();
        assert_eq!(first.json(Method::PUT, &path, map("m", "two")).await.0, 200);
        let (code, answer) = second.send(method.clone(), &path, kind, &body).await;
        assert_eq!((code, &answer["data"]["a"]), (200, &json!("one")), "{method}");
        let (_, stored) = first.json(Method::GET, &path, Value::Null).await;
        assert_eq!(stored["metadata"], answer["metadata"], "{method} was acknowledged");
        assert_eq!(stored["data"]["a"], "one", "{method} was acknowledged");
        first.json(Method::DELETE, &path, Value::Null).await;
    }
}

#[tokio::test]
async fn nothing_is_refused_for_an_old_state() {
    // FEN-36
    let (first, second, behind) = two().await;
    let path = format!("{MAPS}/m");
    first.json(Method::POST, MAPS, map("m", "one")).await;
    behind.fall_behind();
    assert_eq!(first.json(Method::DELETE, &path, Value::Null).await.0, 200);
    let (code, made) = second.json(Method::POST, MAPS, map("m", "two")).await;
    assert_eq!(code, 201, "its name is free again: {made}");

    behind.fall_behind();
    assert_eq!(first.json(Method::PUT, &path, map("m", "three")).await.0, 200);
    let operations = json!([
        {"op": "test", "path": "/data/a", "value": "three"},
        {"op": "replace", "path": "/data/a", "value": "four"},
    ]);
    let (code, answer) =
        second.send(Method::PATCH, &path, JSON_PATCH, &operations.to_string()).await;
    assert_eq!((code, &answer["data"]["a"]), (200, &json!("four")), "{answer}");

    behind.fall_behind();
    assert_eq!(first.json(Method::DELETE, &path, Value::Null).await.0, 200);
    let (_, again) = first.json(Method::POST, MAPS, map("m", "five")).await;
    let uid = &again["metadata"]["uid"];
    let (code, answer) =
        second.json(Method::DELETE, &path, json!({"preconditions": {"uid": uid}})).await;
    assert_eq!(code, 200, "the new one is meant: {answer}");
    assert_eq!(first.json(Method::GET, &path, Value::Null).await.0, 404);

    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "b"}});
    behind.fall_behind();
    assert_eq!(first.json(Method::POST, LEASES, lease.clone()).await.0, 201);
    let (code, answer) = second.json(Method::PUT, &format!("{LEASES}/l"), lease).await;
    assert_eq!(code, 200, "it is there: {answer}");
}

#[tokio::test]
async fn a_deletion_is_not_taken_for_an_earlier_one() {
    // DELAPI-1, INV-5
    let (first, second, behind) = two().await;
    let path = format!("{MAPS}/m");
    let mut held = map("m", "one");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    first.json(Method::POST, MAPS, held).await;
    first.json(Method::DELETE, &path, Value::Null).await;
    behind.fall_behind();
    let let_go = r#"{"metadata":{"finalizers":null}}"#;
    assert_eq!(first.send(Method::PATCH, &path, MERGE, let_go).await.0, 200);
    assert_eq!(first.json(Method::POST, MAPS, map("m", "two")).await.0, 201);
    assert_eq!(second.json(Method::DELETE, &path, Value::Null).await.0, 200);
    assert_eq!(first.json(Method::GET, &path, Value::Null).await.0, 404);
}
