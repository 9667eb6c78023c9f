//! `apply`: what a manifest says becomes what is stored.

use crate::{
    failure::Failure,
    target::{Object, Target},
};
use api::{
    kinds::{self, Kind},
    meta::{self, metadata_mut},
};
use client::{ClientError, Patch, patch_request, refuse};
use http::Method;
use http_body_util::BodyExt as _;
use serde::Deserialize as _;
use serde_json::Value;
use std::io::Read as _;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A misspelt field is an error, not something that silently does nothing.
const STRICT: &str = "?fieldValidation=Strict";

fn read(filename: &str) -> Result<String, Failure> {
    if filename != "-" {
        return std::fs::read_to_string(filename)
            .map_err(|e| Failure::Input(format!("{filename}: {e}")));
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map(|_| text).map_err(|e| Failure::Input(format!("standard input: {e}")))
}

/// The objects that a manifest names.
pub(crate) fn named(target: &Target, filename: &str) -> Result<Vec<Object>, Failure> {
    let objects = parse(filename, &read(filename)?)?;
    let named = objects.into_iter().map(|(kind, object)| {
        let own = meta::namespace(&object);
        let namespace = if own.is_empty() { target.namespace.clone() } else { own.to_owned() };
        Object { kind, namespace, name: meta::name(&object).to_owned() }
    });
    Ok(named.collect())
}

pub(crate) async fn apply(target: &Target, filename: &str, dry_run: &str) -> Result<(), Failure> {
    let text = read(filename)?;
    // Everything is read before anything is written.
    let objects = parse(filename, &text)?;
    let query = match dry_run {
        "none" => "",
        "server" => "&dryRun=All",
        other => return Err(Failure::Input(format!("--dry-run: none or server, not {other:?}"))),
    };
    for (kind, object) in objects {
        let done = apply_one(target, kind, object, query).await?;
        let suffix = if query.is_empty() { "" } else { " (server dry run)" };
        println!("{}{done}{suffix}", kind.singular.to_owned() + "/");
    }
    Ok(())
}

fn parse(filename: &str, text: &str) -> Result<Vec<(&'static Kind, Value)>, Failure> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        // By way of YAML's own values, which refuse a key that is there twice.
        let read = serde_yaml_ng::Value::deserialize(document);
        let object = read.and_then(Value::deserialize).map_err(|e| {
            let place =
                e.location().map_or_else(String::new, |l| format!(":{}:{}", l.line(), l.column()));
            Failure::Input(format!("{filename}{place}: {e}"))
        })?;
        if object.is_null() {
            continue;
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let found = kinds::by_kind(version, kind).ok_or_else(|| {
            Failure::Input(format!("{filename}: there is no kind {kind:?} in version {version:?}"))
        })?;
        objects.push((found, object));
    }
    Ok(objects)
}

async fn apply_one(
    target: &Target,
    kind: &'static Kind,
    mut object: Value,
    query: &str,
) -> Result<String, Failure> {
    let name = meta::name(&object).to_owned();
    let own = meta::namespace(&object);
    let namespace = if own.is_empty() { target.namespace.clone() } else { own.to_owned() };
    let applied = object.to_string();
    let annotations = metadata_mut(&mut object)
        .entry("annotations")
        .or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(LAST_APPLIED.to_owned(), applied.into());
    }
    let path = target.path(kind, &namespace, &name);
    let old: Result<Value, ClientError> = target.client.call(Method::GET, &path, None).await;
    let old = match old {
        Ok(old) => old,
        Err(ClientError::Api(status)) if status.is_not_found() => {
            let path = format!("{}{STRICT}{query}", target.path(kind, &namespace, ""));
            let body = object.to_string().into_bytes();
            target.client.call::<Value>(Method::POST, &path, Some(body)).await?;
            return Ok(format!("{name} created"));
        }
        Err(error) => return Err(error.into()),
    };
    let mut patch = object.clone();
    let before = last_applied(&old);
    if kind.custom.is_none() {
        keep_others(before.as_ref(), &old, &mut patch);
    }
    if let Some(before) = &before {
        // What an earlier apply set and this one leaves out is to go.
        nulls(before, &object, &mut patch);
    }
    let request = patch_request(&format!("{path}{STRICT}{query}"), &Patch::Merge(patch))?;
    let answer = refuse(target.client.request(request).await?).await?;
    let bytes = answer.into_body().collect().await.map_err(|e| {
        Failure::Client(ClientError::Decode { endpoint: path.clone(), error: e.to_string() })
    })?;
    let new: Value = serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default();
    let same = meta::resource_version(&new) == meta::resource_version(&old);
    Ok(format!("{name} {}", if same { "unchanged" } else { "configured" }))
}

/// What the last apply said.
fn last_applied(old: &Value) -> Option<Value> {
    let pointer = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
    serde_json::from_str(old.pointer(pointer)?.as_str()?).ok()
}

/// Elements of lists are told apart by one of these.
const NAMES: [&str; 2] = ["name", "mountPath"];

fn element<'a>(list: &'a Value, key: &str, name: &Value) -> Option<&'a Value> {
    list.as_array()?.iter().find(|element| element.get(key) == Some(name))
}

/// A merge patch replaces lists: what others have put into them, such as the mounts of a Pod's token, is put into
/// those of the patch. What an earlier apply set and this one leaves out is not.
fn keep_others(before: Option<&Value>, old: &Value, new: &mut Value) {
    if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
        for (key, new) in new {
            if let Some(old) = old.get(key) {
                keep_others(before.and_then(|before| before.get(key)), old, new);
            }
        }
        return;
    }
    let (Some(olds), Some(news)) = (old.as_array(), new.as_array_mut()) else { return };
    let named = |key: &str| olds.iter().chain(news.iter()).all(|e| e.get(key).is_some());
    let Some(key) = NAMES.into_iter().find(|key| named(key)) else { return };
    let set_before = |name: &Value| before.and_then(|before| element(before, key, name));
    let mut left = std::mem::take(news);
    for old in olds {
        let Some(name) = old.get(key) else { continue };
        match left.iter().position(|new| new.get(key) == Some(name)) {
            None if set_before(name).is_some() => {}
            None => news.push(old.clone()),
            Some(at) => {
                let mut new = left.remove(at);
                let before = set_before(name);
                keep_others(before, old, &mut new);
                if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
                    for (key, value) in old {
                        if before.is_none_or(|before| before.get(key).is_none()) {
                            new.entry(key).or_insert_with(|| value.clone());
                        }
                    }
                }
                news.push(new);
            }
        }
    }
    news.append(&mut left);
}

fn nulls(before: &Value, new: &Value, patch: &mut Value) {
    let (Some(before), Some(new)) = (before.as_object(), new.as_object()) else { return };
    let Some(patch) = patch.as_object_mut() else { return };
    for (key, value) in before {
        match new.get(key) {
            None => drop(patch.insert(key.clone(), Value::Null)),
            Some(now) => {
                if let Some(patch) = patch.get_mut(key) {
                    nulls(value, now, patch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_broken_manifest_is_refused_with_line_and_column() {
        let Err(Failure::Input(text)) = parse("pod.yaml", "kind: Pod\nspec: [1,\n") else {
            panic!("accepted")
        };
        assert!(text.starts_with("pod.yaml:3:1:") || text.starts_with("pod.yaml:2:"), "{text}");
        let Err(Failure::Input(text)) = parse("f", "kind: Pod\nkind: Node\n") else {
            panic!("accepted")
        };
        assert!(text.starts_with("f:1:1:") && text.contains("kind"), "{text}");
        let Err(Failure::Input(text)) = parse("f", "apiVersion: v9\nkind: Pod\n") else {
            panic!("accepted")
        };
        assert!(text.contains("there is no kind \"Pod\" in version \"v9\""), "{text}");
    }

    #[test]
    fn several_documents_are_several_objects() {
        let text = "apiVersion: v1\nkind: Pod\n---\n---\napiVersion: v1\nkind: ConfigMap\n";
        let kinds: Vec<&str> = parse("f", text).unwrap().iter().map(|(k, _)| k.kind).collect();
        assert_eq!(kinds, ["Pod", "ConfigMap"]);
    }

    #[test]
    fn what_others_put_into_lists_stays() {
        let container = |more: Value| {
            let mut container = json!({"name": "main", "image": "i"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            container
        };
        let before = json!({"containers": [container(json!({"tty": true})), {"name": "gone"}]});
        let mounts = json!({"volumeMounts": [{"mountPath": "/token"}, {"mountPath": "/own"}]});
        let mut old = container(mounts);
        old["tty"] = json!(true);
        let old = json!({"containers": [old, {"name": "gone"}, {"name": "others"}]});
        let own = json!({"volumeMounts": [{"mountPath": "/own", "readOnly": true}]});
        let mut new = json!({"containers": [{"name": "added"}, container(own)]});
        keep_others(Some(&before), &old, &mut new);
        let mounts = json!([{"mountPath": "/token"}, {"mountPath": "/own", "readOnly": true}]);
        let main = container(json!({"volumeMounts": mounts}));
        assert_eq!(new, json!({"containers": [main, {"name": "others"}, {"name": "added"}]}));
    }

    #[test]
    fn what_was_applied_before_and_is_left_out_now_goes() {
        let mut patch = json!({"a": {"b": 1}});
        nulls(&json!({"a": {"b": 0, "c": 2}, "d": 3}), &json!({"a": {"b": 1}}), &mut patch);
        assert_eq!(patch, json!({"a": {"b": 1, "c": null}, "d": null}));
    }
}
