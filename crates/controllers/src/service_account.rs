//! Gives every namespace that is to stay the account of its Pods (SA-1).
//!
//! A new namespace comes with it; this is for one that was deleted, and for namespaces that are older.

use crate::{caches::Caches, queue::Queue};
use api::{
    core::{Namespace, ObjectMeta, ServiceAccount},
    service_account::DEFAULT,
};
use client::{
    Client, ClientError, WriteOptions,
    informer::{Change, Key},
};

const WORKERS: usize = 2;

fn is_wanted(namespace: Option<&Namespace>, is_there: bool) -> bool {
    namespace.is_some_and(|ns| ns.metadata.deletion_timestamp.is_none()) && !is_there
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let key = |name: &str| Key { namespace: String::new(), name: name.to_owned() };
    let all = || caches.namespaces.list().iter().map(|ns| Key::of(&**ns)).collect();
    let gone = |change: &Change<ServiceAccount>| match change.new {
        None => vec![key(&change.key.namespace)],
        Some(_) => Vec::new(),
    };
    let (client, caches) = (&client, &caches);
    tokio::join!(
        queue.feed(&caches.namespaces, |change| vec![change.key.clone()], all),
        queue.feed(&caches.accounts, gone, all),
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| sync(client, caches, key)).await;
        },
    );
}

async fn sync(client: &Client, caches: &Caches, key: Key) -> Result<(), ClientError> {
    let namespace = caches.namespaces.get(&key);
    let own = Key { namespace: key.name.clone(), name: DEFAULT.to_owned() };
    let is_there = caches.accounts.get(&own).is_some();
    if !is_wanted(namespace.as_deref(), is_there) {
        return Ok(());
    }
    let metadata = ObjectMeta {
        name: Some(DEFAULT.to_owned()),
        namespace: Some(key.name),
        ..ObjectMeta::default()
    };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    match client.create(&account, &WriteOptions::default()).await {
        // It is there already, or its namespace is not or not for long.
        Err(ClientError::Api(status))
            if status.is_already_exists()
                || status.is_not_found()
                || status.has_cause("NamespaceTerminating") =>
        {
            Ok(())
        }
        written => written.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_account_is_made_where_one_is_missing_and_the_namespace_stays() {
        // SA-1
        let stays: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let ends = json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let ends: Namespace = serde_json::from_value(ends).unwrap();
        assert!(is_wanted(Some(&stays), false));
        assert!(!is_wanted(Some(&stays), true));
        assert!(!is_wanted(Some(&ends), false));
        assert!(!is_wanted(None, false));
    }
}
