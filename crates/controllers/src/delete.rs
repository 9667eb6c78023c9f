//! Deletions that several controllers make, each of the incarnation that was judged (§8.3).

use api::{core::ObjectMeta, k8s_openapi::Resource};
use client::{Client, ClientError, DeleteOptions};
use serde::de::DeserializeOwned;

/// Deletes this incarnation, or only this version of it. It is well if it is gone already.
pub(crate) async fn delete<K>(
    client: &Client,
    metadata: &ObjectMeta,
    grace_period_seconds: Option<i64>,
    resource_version: Option<String>,
) -> Result<(), ClientError>
where
    K: Resource + DeserializeOwned,
{
    let options = DeleteOptions {
        grace_period_seconds,
        uid: metadata.uid.clone(),
        resource_version,
        ..DeleteOptions::default()
    };
    let name = metadata.name.as_deref().unwrap_or_default();
    match client.delete::<K>(metadata.namespace.as_deref(), name, &options).await {
        Err(ClientError::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}
