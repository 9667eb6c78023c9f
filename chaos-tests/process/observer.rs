//! A watch that writes down what it sees, and when.

use api::core::Pod;
use client::{Client, ListOptions, WatchEvent, WatchOptions};
use futures::StreamExt as _;
use serde_json::Value;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// `ADDED`, `MODIFIED` or `DELETED`
    pub(crate) kind: &'static str,
    pub(crate) pod: Value,
}

/// Watches the Pods of one name; of all names when it is empty. It goes on from the last revision
/// when a stream breaks.
pub(crate) struct Observer {
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: JoinSet<()>,
}

impl Observer {
    /// Watches from now on.
    pub(crate) async fn start(client: Client, name: &str) -> Self {
        let list = client.list::<Pod>(Some("default"), &ListOptions::default()).await.unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut task = JoinSet::new();
        let (record, name, mut from) = (Arc::clone(&seen), name.to_owned(), list.resource_version);
        task.spawn(async move {
            loop {
                let selector =
                    if name.is_empty() { String::new() } else { format!("metadata.name={name}") };
                let options = WatchOptions {
                    field_selector: selector,
                    resource_version: from.clone(),
                    ..WatchOptions::default()
                };
                if let Ok(mut events) = client.watch::<Pod>(Some("default"), &options).await {
                    while let Some(Ok(event)) = events.next().await {
                        let (kind, pod) = match event {
                            WatchEvent::Added(pod) => ("ADDED", pod),
                            WatchEvent::Modified(pod) => ("MODIFIED", pod),
                            WatchEvent::Deleted(pod) => ("DELETED", pod),
                            WatchEvent::Bookmark(revision) => {
                                from = revision;
                                continue;
                            }
                        };
                        from = pod.metadata.resource_version.clone().unwrap_or_default();
                        record.lock().unwrap().push(Seen {
                            at: Instant::now(),
                            kind,
                            pod: serde_json::to_value(pod).unwrap(),
                        });
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
        Self { seen, _task: task }
    }

    /// Everything so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}
