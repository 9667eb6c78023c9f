//! Gives every namespace that is to stay what its Pods hold the API's certificates against (SA-1).
//!
//! A new namespace comes with it; this is for a map that was deleted or changed, for namespaces that are
//! older, and for an authority that is another one now.

use crate::{
    caches::Caches,
    each_namespace::{keep, stays, unless_moot},
};
use api::{
    core::{ConfigMap, Namespace},
    service_account::{ROOT_CA, ROOT_CA_KEY, root_ca_map},
    status::Status,
};
use client::{Client, ClientError, WriteOptions, informer::Key};

/// What is to be done about a namespace.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create,
    Update(Box<ConfigMap>),
}

fn plan(namespace: Option<&Namespace>, map: Option<&ConfigMap>, pem: &str) -> Plan {
    if !stays(namespace) {
        return Plan::Nothing;
    }
    let Some(map) = map else { return Plan::Create };
    let found = map.data.as_ref().and_then(|data| data.get(ROOT_CA_KEY));
    if found.is_some_and(|found| found == pem) || map.immutable == Some(true) {
        return Plan::Nothing;
    }
    let mut map = map.clone();
    map.data = Some([(ROOT_CA_KEY.to_owned(), pem.to_owned())].into());
    Plan::Update(Box::new(map))
}

pub(crate) async fn run(client: Client, caches: Caches, pem: Option<String>) {
    let Some(pem) = pem else { return std::future::pending().await };
    keep(&caches, &caches.root_cas, |_| true, |key| sync(&client, &caches, &pem, key)).await;
}

async fn sync(client: &Client, caches: &Caches, pem: &str, key: Key) -> Result<(), ClientError> {
    let namespace = caches.namespaces.get(&key);
    let own = Key { namespace: key.name.clone(), name: ROOT_CA.to_owned() };
    let map = caches.root_cas.get(&own);
    let written = match plan(namespace.as_deref(), map.as_deref(), pem) {
        Plan::Nothing => return Ok(()),
        Plan::Create => {
            let map = serde_json::from_value::<ConfigMap>(root_ca_map(&key.name, pem));
            let map = map.map_err(|error| ClientError::Api(Status::internal(error)))?;
            client.create(&map, &WriteOptions::default()).await
        }
        Plan::Update(map) => client.update(&*map, &WriteOptions::default()).await,
    };
    unless_moot(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_namespace_that_stays_has_the_map_as_it_is_to_be() {
        // SA-1
        let stays: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let ends = json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let ends: Namespace = serde_json::from_value(ends).unwrap();
        let map = |pem: &str| serde_json::from_value::<ConfigMap>(root_ca_map("n", pem)).unwrap();
        let update = Plan::Update(Box::new(map("new")));
        assert_eq!(plan(Some(&stays), None, "new"), Plan::Create);
        assert_eq!(plan(Some(&stays), Some(&map("new")), "new"), Plan::Nothing);
        assert_eq!(plan(Some(&stays), Some(&map("old")), "new"), update);
        let empty = ConfigMap { data: None, ..map("old") };
        assert_eq!(plan(Some(&stays), Some(&empty), "new"), update);
        assert_eq!(plan(Some(&ends), None, "new"), Plan::Nothing);
        assert_eq!(plan(None, None, "new"), Plan::Nothing);
    }
}
