//! Empties namespaces that are being deleted, Pods first, and lets them go (NS-3, DEL-55).

use crate::{caches::Caches, queue::Queue};
use api::{
    core::{Namespace, Pod},
    custom::Definition,
    kinds::{self, Kind},
    meta,
};
use client::{
    Client, ClientError, DeleteOptions, Patch, WriteOptions,
    informer::{Change, Key},
};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const WORKERS: usize = 2;
/// Until it is looked at again, if nothing that is seen changes before.
const PATIENCE: Duration = Duration::from_secs(5);
/// As conditions name them.
const PODS: &str = "pods.";
/// What keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// What is still in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    /// How many of each kind, by resource.
    objects: BTreeMap<String, usize>,
    /// How many of them wait for each finalizer.
    finalizers: BTreeMap<String, usize>,
}

/// What is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Delete all of these resources, and look again.
    Delete(Vec<String>),
    /// Nothing is in it any more.
    Finalize,
}

/// Pods end in peace, with all that they use, before anything else goes (DEL-55).
fn plan(content: &Content) -> Step {
    let (pods, others): (Vec<String>, Vec<String>) =
        content.objects.keys().cloned().partition(|resource| resource == PODS);
    match (pods.is_empty(), others.is_empty()) {
        (false, _) => Step::Delete(pods),
        (true, false) => Step::Delete(others),
        (true, true) => Step::Finalize,
    }
}

/// `pods.` or `endpointslices.discovery.k8s.io`, as the conditions name it.
fn resource(kind: &Kind) -> String {
    format!("{}.{}", kind.plural, kind.group)
}

fn conditions(content: &Content) -> [Value; 2] {
    let objects = content.objects.iter();
    let objects: Vec<String> =
        objects.map(|(name, n)| format!("{name} has {n} resource instances")).collect();
    let finalizers = content.finalizers.iter();
    let finalizers: Vec<String> =
        finalizers.map(|(name, n)| format!("{name} in {n} resource instances")).collect();
    let condition = |kind: &str, found: &[String], bad: (&str, &str), good: (&str, &str)| {
        let (status, reason, message) = if found.is_empty() {
            ("False", good.0, good.1.to_owned())
        } else {
            ("True", bad.0, format!("{}{}", bad.1, found.join(", ")))
        };
        json!({"type": kind, "status": status, "reason": reason, "message": message})
    };
    [
        condition(
            "NamespaceContentRemaining",
            &objects,
            ("SomeResourcesRemain", "Some resources are remaining: "),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            &finalizers,
            ("SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

struct Controller {
    client: Client,
    caches: Caches,
    queue: Queue,
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let key = |name: &str| Key { namespace: String::new(), name: name.to_owned() };
    let all = || caches.namespaces.list().iter().map(|ns| Key::of(&**ns)).collect();
    // A Pod that has gone may have been the last.
    let gone = |change: &Change<Pod>| match change.new {
        None => vec![key(&change.key.namespace)],
        Some(_) => Vec::new(),
    };
    let controller = Controller { client, caches: caches.clone(), queue: queue.clone() };
    tokio::join!(
        queue.feed(&caches.namespaces, |change| vec![change.key.clone()], all),
        queue.feed(&caches.pods, gone, all),
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| controller.sync(key)).await;
        },
    );
}

/// Something that may be in a namespace: its name in conditions, and where it is.
struct Collection {
    resource: String,
    path: String,
}

fn collection(kind: &Kind, namespace: &str) -> Collection {
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    let path = format!("{root}/{}/namespaces/{namespace}/{}", kind.api_version(), kind.plural);
    Collection { resource: resource(kind), path }
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        let Some(namespace) = self.caches.namespaces.get(&key) else { return Ok(()) };
        if namespace.metadata.deletion_timestamp.is_none() || !is_held(&namespace) {
            return Ok(());
        }
        // Nothing new comes in since the mark (NS-2), so what a read of now does not find is gone.
        let content = self.content(&key.name).await?;
        match plan(&content) {
            Step::Finalize => self.finalize(&namespace).await,
            Step::Delete(resources) => {
                let collections = self.collections(&key.name).await?.into_iter();
                for collection in collections.filter(|c| resources.contains(&c.resource)) {
                    let body = DeleteOptions::default().to_json().to_string().into_bytes();
                    let path = &collection.path;
                    self.client.call::<Value>(Method::DELETE, path, Some(body)).await?;
                }
                let left = self.content(&key.name).await?;
                if left.objects.is_empty() {
                    return self.finalize(&namespace).await;
                }
                self.say(&namespace, &left).await?;
                // Other kinds follow at once when the last Pod is gone.
                let moved = plan(&left) != plan(&content);
                let wait = if moved { Duration::ZERO } else { PATIENCE };
                self.queue.add_at(key, Instant::now() + wait);
                Ok(())
            }
        }
    }

    /// Of the built-in kinds, and of what definitions make by now: a custom resource that comes later comes
    /// into a namespace that takes nothing.
    async fn collections(&self, namespace: &str) -> Result<Vec<Collection>, ClientError> {
        let kinds = kinds::all().iter().filter(|kind| kind.namespaced);
        let mut all: Vec<Collection> = kinds.map(|kind| collection(kind, namespace)).collect();
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let list: Value = self.client.call(Method::GET, path, None).await?;
        for object in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let definition = Definition::read(object);
            let stored = definition.kinds.iter().find(|kind| {
                kind.custom.as_ref().is_some_and(|custom| custom.storage_version == kind.version)
            });
            let stored = stored.filter(|kind| definition.established && kind.namespaced);
            all.extend(stored.map(|kind| collection(kind, namespace)));
        }
        Ok(all)
    }

    async fn content(&self, namespace: &str) -> Result<Content, ClientError> {
        let mut content = Content::default();
        for Collection { resource, path } in self.collections(namespace).await? {
            let list: Value = match self.client.call(Method::GET, &path, None).await {
                // Its definition has gone meanwhile, and all objects before it.
                Err(ClientError::Api(status)) if status.is_not_found() => continue,
                list => list?,
            };
            let items = list.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if !items.is_empty() {
                content.objects.insert(resource, items.len());
            }
            for finalizer in items.iter().flat_map(meta::finalizers) {
                *content.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        Ok(content)
    }

    async fn say(&self, namespace: &Namespace, content: &Content) -> Result<(), ClientError> {
        let mut object = json!({"status": namespace.status});
        for condition in conditions(content) {
            api::pod::set_condition(&mut object, condition);
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": namespace.metadata.uid},
            "status": {"conditions": object.pointer("/status/conditions")},
        }));
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        self.client.patch::<Namespace>(None, name, &patch, &options).await.map(drop)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), ClientError> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        // As it is now: its status has changed since the copy was made.
        let mut now: Namespace = match self.client.get(None, name).await {
            Err(ClientError::Api(status)) if status.is_not_found() => return Ok(()),
            now => now?,
        };
        if now.metadata.uid != namespace.metadata.uid {
            return Ok(());
        }
        let finalizers = now.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let options =
            WriteOptions { subresource: "finalize".to_owned(), ..WriteOptions::default() };
        self.client.update(&now, &options).await.map(drop)
    }
}

/// Whether it waits for this controller.
fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten());
    finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(objects: &[(&str, usize)]) -> Content {
        let objects = objects.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Content { objects, finalizers: BTreeMap::new() }
    }

    #[test]
    fn pods_go_before_everything_else() {
        // DEL-55
        for (objects, want) in [
            (vec![], Step::Finalize),
            (vec![("pods.", 2), ("configmaps.", 1)], Step::Delete(vec!["pods.".to_owned()])),
            (
                vec![("configmaps.", 1), ("endpointslices.discovery.k8s.io", 1)],
                Step::Delete(vec![
                    "configmaps.".to_owned(),
                    "endpointslices.discovery.k8s.io".to_owned(),
                ]),
            ),
        ] {
            assert_eq!(plan(&content(&objects)), want, "{objects:?}");
        }
    }

    #[test]
    fn conditions_count_what_is_left() {
        // NS-3
        let [remaining, finalizers] = conditions(&content(&[("pods.", 2)]));
        assert_eq!(
            remaining["message"],
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            (&remaining["status"], &finalizers["status"]),
            (&json!("True"), &json!("False"))
        );
    }
}
