//! Gives every namespace that is to stay the account of its Pods (SA-1).
//!
//! A new namespace comes with it; this is for one that was deleted, and for namespaces that are older.

use crate::{
    caches::Caches,
    each_namespace::{keep, stays, unless_moot},
};
use api::{
    core::{Namespace, ObjectMeta, ServiceAccount},
    service_account::DEFAULT,
};
use client::{Client, ClientError, WriteOptions, informer::Key};

fn is_wanted(namespace: Option<&Namespace>, is_there: bool) -> bool {
    stays(namespace) && !is_there
}

pub(crate) async fn run(client: Client, caches: Caches) {
    keep(
        &caches,
        &caches.accounts,
        |change| change.new.is_none(),
        |key| sync(&client, &caches, key),
    )
    .await;
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
    unless_moot(client.create(&account, &WriteOptions::default()).await)
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
