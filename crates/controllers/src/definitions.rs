//! Gives definitions their names, so that they are served, and takes their objects away before they go.

use crate::{caches::Caches, queue::Queue};
use api::{
    core::CustomResourceDefinition,
    custom::{CLEANUP, Taken, accept_names},
    kinds, meta, pod,
};
use client::{
    Client, ClientError, DeleteOptions, Patch, WriteOptions,
    informer::{Change, Informer, Key},
};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// One: two that want the same name must be decided one after the other.
const WORKERS: usize = 1;
/// For the copy to hold what was just written, before anything else is decided.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Until it is looked again whether objects that wait for somebody have gone.
const PATIENCE: Duration = Duration::from_secs(1);

struct Controller {
    client: Client,
    copy: Informer<CustomResourceDefinition>,
    queue: Queue,
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let copy = caches.definitions.clone();
    let of_group = |group: &str| -> Vec<Key> {
        let all = copy.list();
        all.iter()
            .filter(|other| other.spec.group == group)
            .map(|other| Key::of(&**other))
            .collect()
    };
    let all = || copy.list().iter().map(|definition| Key::of(&**definition)).collect();
    // A name that one gives up may be what another waits for.
    let concerns = |change: &Change<CustomResourceDefinition>| {
        let either = change.new.as_ref().or(change.old.as_ref());
        let mut keys =
            either.map(|definition| of_group(&definition.spec.group)).unwrap_or_default();
        keys.retain(|key| *key != change.key);
        keys.insert(0, change.key.clone());
        keys
    };
    let controller = Controller { client, copy: copy.clone(), queue: queue.clone() };
    tokio::join!(queue.feed(&copy, concerns, all), async {
        copy.synced().await;
        queue.work(WORKERS, |key| controller.sync(key)).await;
    });
}

/// What the group's other definitions have been given.
fn taken(group: &str, name: &str, all: &[Value]) -> Taken {
    let mut taken = Taken::default();
    let text = |object: &Value, pointer: &str| {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for other in all {
        if text(other, "/spec/group") == group && meta::name(other) != name {
            taken.add(other.pointer("/status/acceptedNames").unwrap_or(&Value::Null));
        }
    }
    taken
}

/// The status that a definition should have beside the one that it has; `None` if that is the same.
fn named(definition: &Value, taken: &Taken) -> Option<Value> {
    let (names, conditions) = accept_names(definition, taken);
    let mut changed = definition.clone();
    let mut differs = definition.pointer("/status/acceptedNames") != Some(&names);
    for condition in conditions {
        let mut new = condition;
        let kind = new.get("type").cloned();
        let list = definition.pointer("/status/conditions").and_then(Value::as_array);
        let old = list.into_iter().flatten().find(|old| old.get("type") == kind.as_ref());
        let status = |condition: &Value| condition.get("status").cloned();
        if let (Some(old), Some(fields)) = (old, new.as_object_mut())
            && old.get("status") == fields.get("status")
            && let Some(time) = old.get("lastTransitionTime")
        {
            fields.insert("lastTransitionTime".to_owned(), time.clone());
        }
        if old != Some(&new) {
            differs |= old.is_none_or(|old| {
                status(old) != status(&new) || {
                    ["reason", "message"].iter().any(|key| old.get(key) != new.get(key))
                }
            });
        }
        pod::set_condition(&mut changed, new);
    }
    differs.then(
        || json!({"acceptedNames": names, "conditions": changed.pointer("/status/conditions")}),
    )
}

fn terminating(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Terminating", "status": status, "reason": reason, "message": message})
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        if self.copy.get(&key).is_none() {
            return Ok(());
        }
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}", key.name);
        // As it is now: what is decided here is held against everything that came before.
        let definition: Value = match self.client.call(Method::GET, &path, None).await {
            Err(ClientError::Api(status)) if status.is_not_found() => return Ok(()),
            found => found?,
        };
        if meta::is_terminating(&definition) {
            if meta::finalizers(&definition).iter().any(|finalizer| finalizer == CLEANUP) {
                return self.empty(&key, &definition).await;
            }
            return Ok(());
        }
        let group = definition.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
        let all: Vec<Value> = self
            .copy
            .list()
            .iter()
            .filter_map(|other| serde_json::to_value(&**other).ok())
            .collect();
        match named(&definition, &taken(group, &key.name, &all)) {
            Some(status) => self.say(&definition, status).await,
            None => Ok(()),
        }
    }

    /// Writes parts of the status of the version that was judged, and waits for the copy to hold it.
    async fn say(&self, definition: &Value, status: Value) -> Result<(), ClientError> {
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": meta::uid(definition),
                "resourceVersion": meta::resource_version(definition),
            },
            "status": status,
        }));
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        self.write(definition, &patch, &options).await
    }

    async fn write(
        &self,
        definition: &Value,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<(), ClientError> {
        let name = meta::name(definition);
        let written =
            self.client.patch::<CustomResourceDefinition>(None, name, patch, options).await?;
        let revision = written.metadata.resource_version.and_then(|v| v.parse().ok());
        // Too late is no failure: the version that the next decision names is then an old one.
        let _ = timeout(CATCH_UP, self.copy.reached(revision.unwrap_or_default())).await;
        Ok(())
    }

    async fn condition(&self, definition: &Value, condition: Value) -> Result<(), ClientError> {
        let mut changed = definition.clone();
        if !pod::set_condition(&mut changed, condition) {
            return Ok(());
        }
        let conditions = changed.pointer("/status/conditions").cloned();
        self.say(definition, json!({"conditions": conditions})).await
    }

    /// Deletes all objects of a definition; when the last one has gone, the definition may go, too.
    async fn empty(&self, key: &Key, definition: &Value) -> Result<(), ClientError> {
        let group = definition.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
        // Under such a name the server's own objects would be deleted.
        let own = kinds::is_own_group(group);
        if own || pod::condition_status(definition, "Established") != "True" {
            return self.release(key, "NeverEstablished", "resource was never established").await;
        }
        let path = collection(definition);
        let body = DeleteOptions::default().to_json().to_string().into_bytes();
        self.client.call::<Value>(Method::DELETE, &path, Some(body)).await?;
        let left: Value = self.client.call(Method::GET, &path, None).await?;
        let left = left.get("items").and_then(Value::as_array).map_or(0, Vec::len);
        if left == 0 {
            return self.release(key, "InstanceDeletionCompleted", "removed all instances").await;
        }
        let message = format!("CustomResource deletion is in progress: {left} instances remain");
        let condition = terminating("True", "InstanceDeletionInProgress", &message);
        let said = self.condition(definition, condition).await;
        self.queue.add_at(key.clone(), Instant::now() + PATIENCE);
        said
    }

    /// Lets a definition go. Nothing has come in since it was marked, so it is empty for good.
    async fn release(&self, key: &Key, reason: &str, message: &str) -> Result<(), ClientError> {
        let now: CustomResourceDefinition = match self.client.get(None, &key.name).await {
            Err(ClientError::Api(status)) if status.is_not_found() => return Ok(()),
            found => found?,
        };
        let now = serde_json::to_value(now).unwrap_or_default();
        if !meta::is_terminating(&now) {
            return Ok(());
        }
        self.condition(&now, terminating("False", reason, message)).await?;
        let now: CustomResourceDefinition = self.client.get(None, &key.name).await?;
        let now = serde_json::to_value(now).unwrap_or_default();
        let mut finalizers = meta::finalizers(&now);
        finalizers.retain(|finalizer| finalizer != CLEANUP);
        let patch = Patch::Merge(json!({"metadata": {
            "uid": meta::uid(&now), "resourceVersion": meta::resource_version(&now),
            "finalizers": finalizers,
        }}));
        match self.write(&now, &patch, &WriteOptions::default()).await {
            Err(ClientError::Api(status)) if status.is_not_found() => Ok(()),
            written => written,
        }
    }
}

/// Where all of a definition's objects are, in the version that they are stored in.
fn collection(definition: &Value) -> String {
    let text = |pointer: &str| {
        definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let mut versions = versions.into_iter().flatten();
    let stored = versions.find(|version| version.get("storage") == Some(&json!(true)));
    let version = stored.and_then(|v| v.get("name")).and_then(Value::as_str).unwrap_or_default();
    format!("/apis/{}/{version}/{}", text("/spec/group"), text("/spec/names/plural"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": ["w"],
            }},
        })
    }

    #[test]
    fn names_are_given_once_in_a_group() {
        let mut first = definition("widgets", "Widget");
        let none = Taken::default();
        let status = named(&first, &none).unwrap();
        assert_eq!(status["acceptedNames"], first["spec"]["names"]);
        let conditions = status["conditions"].as_array().unwrap();
        let said: Vec<_> =
            conditions.iter().map(|c| (&c["type"], &c["status"], &c["reason"])).collect();
        assert_eq!(
            said,
            [
                (&json!("NamesAccepted"), &json!("True"), &json!("NoConflicts")),
                (&json!("Established"), &json!("True"), &json!("InitialNamesAccepted")),
            ]
        );
        first["status"] = status;
        assert_eq!(named(&first, &none), None, "nothing more to say");

        let second = definition("gadgets", "Widget");
        let others = taken("example.com", "gadgets.example.com", &[first.clone(), second.clone()]);
        let status = named(&second, &others).unwrap();
        assert_eq!(status["acceptedNames"], json!({"plural": "gadgets"}));
        let accepted = &status["conditions"][0];
        assert_eq!(accepted["reason"], "ListKindConflict");
        assert_eq!(accepted["message"], "\"WidgetList\" is already in use");
        assert_eq!(status["conditions"][1]["reason"], "NotAccepted");
        // Another group's names are its own.
        assert_eq!(taken("other.com", "", &[first]), Taken::default());
    }

    #[test]
    fn one_that_is_served_keeps_its_names_when_it_asks_for_taken_ones() {
        let mut object = definition("widgets", "Widget");
        object["status"] = named(&object, &Taken::default()).unwrap();
        object["spec"]["names"]["shortNames"] = json!(["w", "g"]);
        let taken = Taken { resources: ["g".to_owned()].into(), ..Taken::default() };
        let status = named(&object, &taken).unwrap();
        assert_eq!(status["acceptedNames"]["shortNames"], json!(["w"]));
        assert_eq!(status["conditions"][0]["reason"], "ShortNamesConflict");
        assert_eq!(status["conditions"][1]["status"], "True", "it is served all the same");
    }
}
