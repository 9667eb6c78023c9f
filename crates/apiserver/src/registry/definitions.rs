//! The kinds that definitions make, read from what this replica has applied: it serves a kind exactly when
//! its own state holds the definition, and a definition is read again when its revision is another.

use super::{Registry, everything, write::unchanged};
use api::{
    custom::Definition,
    kinds::{self, Kind, KindRef},
    registry_key,
    status::Status,
};
use schema::openapi::{self, Document};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use store::{Compare, KeyRange, KeyValue, Revision};

/// Definitions by name, as they were when they were last asked for.
#[derive(Default)]
pub(crate) struct Definitions {
    read: Mutex<BTreeMap<String, Read>>,
    documents: Mutex<Option<Arc<Documents>>>,
}

#[derive(Clone)]
struct Read {
    revision: Revision,
    definition: Arc<Definition>,
}

/// The OpenAPI documents of all custom resources.
pub(crate) struct Documents {
    /// Of which definitions, at which revisions.
    of: Vec<(String, Revision)>,
    pub(crate) documents: BTreeMap<String, Document>,
    /// What `/openapi/v3` answers.
    pub(crate) index: Vec<u8>,
    /// What `/openapi/v2` answers.
    pub(crate) second: Vec<u8>,
}

fn definition_kind() -> &'static Kind {
    kinds::by_alias("customresourcedefinitions").expect("CustomResourceDefinition is served")
}

impl Registry {
    fn read_definitions(&self) -> MutexGuard<'_, BTreeMap<String, Read>> {
        self.definitions.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_definition(&self, kv: &KeyValue) -> Option<Read> {
        let key = std::str::from_utf8(&kv.key).ok()?;
        let (_, name) = registry_key::parse(definition_kind(), key)?;
        let known = self.read_definitions().get(name).cloned();
        if let Some(known) = known.filter(|known| known.revision == kv.mod_revision) {
            return Some(known);
        }
        let object: Value = serde_json::from_slice(&kv.value).ok()?;
        let definition = Arc::new(Definition::read(&object));
        for (version, error) in &definition.broken {
            tracing::error!(definition = name, version, %error, "a stored version is not served");
        }
        let read = Read { revision: kv.mod_revision, definition };
        self.read_definitions().insert(name.to_owned(), read.clone());
        Some(read)
    }

    fn definition(&self, name: &str) -> Option<(KeyValue, Arc<Definition>)> {
        let key = super::key(definition_kind(), "", name);
        let Some(kv) = self.store.view().get(key.as_bytes()) else {
            self.read_definitions().remove(name);
            return None;
        };
        let read = self.read_definition(&kv)?;
        Some((kv, read.definition))
    }

    fn all_definitions(&self) -> Vec<(String, Read)> {
        let range = KeyRange::prefix(super::prefix(definition_kind(), ""));
        let Ok(found) = self.store.view().range(&everything(range, Revision::ZERO, 0)) else {
            return Vec::new();
        };
        let read = found.kvs.iter().filter_map(|kv| {
            let read = self.read_definition(kv)?;
            Some((read.definition.name.clone(), read))
        });
        let all: Vec<(String, Read)> = read.collect();
        // What is gone is kept for nobody.
        let names: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
        self.read_definitions().retain(|name, _| names.contains(name));
        all
    }

    /// What is served under a URL: a row, or of an established definition the version, as of what this
    /// replica has applied. `unserved` also finds versions that clients do not.
    pub(crate) fn find_kind(
        &self,
        (group, version, plural): (&str, &str, &str),
        unserved: bool,
    ) -> Option<KindRef> {
        if let Some(kind) = kinds::by_resource(group, version, plural) {
            return Some(KindRef::Static(kind));
        }
        if kinds::is_own_group(group) {
            return None;
        }
        let (_, definition) = self.definition(&format!("{plural}.{group}"))?;
        if !definition.established {
            return None;
        }
        let served = |kind: &Kind| kind.custom.as_ref().is_some_and(|c| c.served || unserved);
        let mut kinds = definition.kinds.iter();
        let found = kinds.find(|kind| kind.version == version && served(kind))?;
        Some(KindRef::Custom(Arc::clone(found)))
    }

    /// What definitions make clients find, in the order of the definitions' names.
    pub(crate) fn custom_kinds(&self) -> Vec<KindRef> {
        served_of(&self.all_definitions())
    }

    /// That a kind is still as it was when it was found: to be held when the write is applied, so that
    /// nothing is stored that its definition does not allow, or behind its back when it goes.
    ///
    /// # Errors
    /// 404 if the definition is gone; 503, to be tried again, if it is another.
    pub(crate) fn still_defined(&self, kind: &Kind) -> Result<Option<Compare>, Status> {
        let Some(custom) = &kind.custom else { return Ok(None) };
        let (kv, now) = self.definition(&custom.definition).ok_or_else(Status::no_such_path)?;
        let found = now.kinds.iter().find(|other| other.version == kind.version);
        let same = found.and_then(|found| found.custom.as_ref()).is_some_and(|other| {
            (&other.uid, other.spec, other.terminating)
                == (&custom.uid, custom.spec, custom.terminating)
        });
        if !same {
            let name = &custom.definition;
            let text = format!("the definition of {name} has just been changed; try again");
            return Err(Status::unavailable(text));
        }
        let key = super::key(definition_kind(), "", &custom.definition);
        Ok(Some(unchanged(&key, &kv)))
    }

    /// The key of a custom kind's definition, for who follows it.
    pub(crate) fn definition_key(kind: &Kind) -> Option<String> {
        let custom = kind.custom.as_ref()?;
        Some(super::key(definition_kind(), "", &custom.definition))
    }

    /// Whether a change of its definition leaves a kind as it was.
    pub(crate) fn leaves_kind(kind: &Kind, definition: &[u8]) -> bool {
        let Ok(object) = serde_json::from_slice::<Value>(definition) else { return false };
        kind.custom.as_ref().is_some_and(|custom| custom.is_defined_by(&object))
    }

    /// The documents of all custom resources; made again when a definition has changed.
    pub(crate) fn documents(&self) -> Arc<Documents> {
        let all = self.all_definitions();
        let of: Vec<_> = all.iter().map(|(name, read)| (name.clone(), read.revision)).collect();
        let known = |kept: &Option<Arc<Documents>>| kept.clone().filter(|kept| kept.of == of);
        let lock = || self.definitions.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = known(&lock());
        if let Some(kept) = kept {
            return kept;
        }
        let kinds = served_of(&all);
        let mut versions: BTreeMap<(&str, &str), Vec<&Kind>> = BTreeMap::new();
        for kind in &kinds {
            versions.entry((kind.group, kind.version)).or_default().push(kind);
        }
        let documents = versions.into_iter().map(|((group, version), kinds)| {
            let document = openapi::custom_document(group, version, &kinds);
            (document.path.clone(), document)
        });
        let documents: BTreeMap<String, Document> =
            documents.filter(|(path, _)| openapi::document(path).is_none()).collect();
        let index = openapi::index_with(documents.values());
        let second = schema::openapi_v2::document_with(&kinds);
        let made = Arc::new(Documents { of, documents, index, second });
        *lock() = Some(Arc::clone(&made));
        made
    }
}

fn served_of(all: &[(String, Read)]) -> Vec<KindRef> {
    let established = all.iter().map(|(_, read)| read).filter(|read| read.definition.established);
    let kinds = established.flat_map(|read| &read.definition.kinds);
    let served = kinds.filter(|kind| {
        // Where there are rows, they are what is served.
        kind.custom.as_ref().is_some_and(|custom| custom.served) && !kinds::is_own_group(kind.group)
    });
    served.map(|kind| KindRef::Custom(Arc::clone(kind))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Caller;
    use serde_json::json;
    use store::{Timestamp, local::LocalStore};

    async fn registry() -> Registry {
        let clock = || Arc::new(|| Timestamp(1_700_000_000_000_000));
        Registry::new(Arc::new(LocalStore::new(clock())), clock(), [10, 96])
    }

    async fn change(registry: &Registry, patch: impl Fn(&mut Value) + Send + Sync, part: &str) {
        let change = |old: &Value| {
            let mut new = api::meta::without_version(old);
            patch(&mut new);
            Ok(new)
        };
        let (kind, caller) = (definition_kind(), Caller::default());
        registry.change(kind, "", "widgets.example.com", part, &caller, change).await.unwrap();
    }

    #[tokio::test]
    async fn a_definition_that_changes_leaves_nothing_behind() {
        let registry = registry().await;
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {
            "openAPIV3Schema": {"type": "object"}}});
        let definition = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Cluster", "versions": [version],
                     "names": {"plural": "widgets", "kind": "Widget"}},
        });
        let caller = Caller::default();
        registry.create(definition_kind(), "", definition, &caller).await.unwrap();
        let at = ("example.com", "v1", "widgets");
        assert!(registry.find_kind(at, false).is_none(), "not established");
        let established = json!([{"type": "Established", "status": "True"}]);
        change(&registry, |d| d["status"]["conditions"] = established.clone(), "status").await;
        let mut before = Vec::new();
        for n in 0..3 {
            let Some(KindRef::Custom(kind)) = registry.find_kind(at, false) else { panic!() };
            let again = registry.find_kind(at, false).unwrap();
            assert!(std::ptr::eq(&*kind, &*again), "read once");
            let documents = registry.documents();
            assert_eq!(documents.documents.len(), 1);
            before.push((Arc::downgrade(&kind), Arc::downgrade(&documents)));
            drop((kind, again, documents));
            let schema = json!({"type": "object", "description": n.to_string()});
            let change_schema = |d: &mut Value| {
                d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema.clone();
            };
            change(&registry, change_schema, "").await;
        }
        let stale = registry.find_kind(at, false).unwrap();
        let columns = json!([{"name": "A", "type": "string", "jsonPath": ".a"}]);
        let change_columns = |d: &mut Value| {
            d["spec"]["versions"][0]["additionalPrinterColumns"] = columns.clone();
        };
        change(&registry, change_columns, "").await;
        let object = json!({"metadata": {"name": "w"}});
        let refused = registry.create(&stale, "", object.clone(), &caller).await.unwrap_err();
        assert_eq!(refused.code, 503, "{refused}");
        // A change of conditions is none of the kind.
        let kind = registry.find_kind(at, false).unwrap();
        change(&registry, |d| d["metadata"]["labels"] = json!({"a": "b"}), "").await;
        registry.create(&kind, "", object, &caller).await.unwrap();
        drop((stale, kind));
        let now = (registry.find_kind(at, false).unwrap(), registry.documents());
        assert!(before.iter().all(|(kind, _)| kind.upgrade().is_none()), "kinds are freed");
        assert!(before.iter().all(|(_, documents)| documents.upgrade().is_none()));
        drop(now);
        let options = api::deletion::DeleteOptions::default();
        let kind = definition_kind();
        registry.delete(kind, "", "widgets.example.com", &options, &caller).await.unwrap();
        let release = |d: &mut Value| d["metadata"]["finalizers"] = json!([]);
        change(&registry, release, "").await;
        assert!(registry.find_kind(at, false).is_none());
        assert!(registry.read_definitions().is_empty());
    }
}
