//! The leader's reconcilers, one file each.
//!
//! Each decides with a function over what the copies hold and writes what that says, under conditions:
//! the version that was judged, and the client's epoch (FEN-6).

mod caches;
mod definitions;
mod delete;
mod each_namespace;
mod endpoints;
mod endpointslice;
mod guard;
mod namespace;
mod node_lifecycle;
mod pod;
mod pod_gc;
mod queue;
mod resource_quota;
mod root_ca;
mod service;
mod service_account;
mod taint_eviction;

use caches::Caches;
use client::{Client, copies::Copies, events::Recorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the controllers are told.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What Pods hold the API's certificates against, as PEM; `None` where they are given no tokens.
    pub root_ca: Option<String>,
}

/// Runs them all until `shutdown`, as long as the client's epoch lasts; `copies` are kept up to date by who gives
/// them.
pub async fn all(settings: Settings, client: Client, copies: Copies, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let caches = Caches::follow(&client, copies, &mut tasks, &shutdown);
    let mut recorder = |component: &'static str| {
        let (recorder, record) = Recorder::new(client.clone(), component, shutdown.child_token());
        tasks.spawn(record);
        recorder
    };
    let (lifecycle, eviction) =
        (recorder("node-controller"), recorder("taint-eviction-controller"));
    let work = Box::pin(async {
        tokio::join!(
            definitions::run(client.clone(), caches.clone()),
            endpointslice::run(client.clone(), caches.clone()),
            endpoints::run(client.clone(), caches.clone()),
            namespace::run(client.clone(), caches.clone()),
            node_lifecycle::run(client.clone(), caches.clone(), lifecycle),
            pod_gc::run(client.clone(), caches.clone()),
            resource_quota::run(client.clone(), caches.clone()),
            root_ca::run(client.clone(), caches.clone(), settings.root_ca),
            service_account::run(client.clone(), caches.clone()),
            taint_eviction::run(client.clone(), caches.clone(), eviction),
        )
    });
    tokio::select! {
        _ = work => {}
        () = shutdown.cancelled() => {}
    }
    tasks.shutdown().await;
}
