//! LocalStore is a store.

use std::sync::Arc;
use store::{Epoch, Store, Timestamp, conformance, local::LocalStore};

fn local() -> Arc<dyn Store> {
    let store = LocalStore::new(Arc::new(|| Timestamp(1)));
    store.begin_epoch(Epoch(3)).outcome.unwrap();
    Arc::new(store)
}

#[tokio::test]
async fn local_store_is_a_store() {
    conformance::run(async || local()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_local_store_serves_the_whole_suite() {
    let store = local();
    conformance::run(async || Arc::clone(&store)).await;
}
