//! `autoscaling/v1 Scale`: what a workload shows and takes under its subresource `scale`.

use crate::{
    core::LabelSelectorObject,
    field::{FieldError, Path},
    kinds::Kind,
    meta::{self, metadata_mut},
    selector::LabelSelector,
    status::Status,
};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// JSON pointers into a kind that scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalePaths {
    /// How many there should be, such as `/spec/replicas`.
    pub spec_replicas: &'static str,
    /// How many there are, such as `/status/replicas`.
    pub status_replicas: &'static str,
    /// Which Pods count: a label selector, or a map of labels.
    pub selector: &'static str,
}

impl ScalePaths {
    /// Where all built-in kinds have them.
    pub const USUAL: Self = Self {
        spec_replicas: "/spec/replicas",
        status_replicas: "/status/replicas",
        selector: "/spec/selector",
    };
}

/// Where a kind has them, whether its row says so or its definition.
struct Pointers<'a> {
    spec_replicas: &'a str,
    status_replicas: &'a str,
    selector: &'a str,
}

fn pointers(kind: &Kind) -> Option<Pointers<'_>> {
    if let Some(custom) = &kind.custom {
        let scale = custom.scale.as_ref()?;
        return Some(Pointers {
            spec_replicas: &scale.spec_replicas,
            status_replicas: &scale.status_replicas,
            selector: &scale.selector,
        });
    }
    let paths = kind.scale?;
    Some(Pointers {
        spec_replicas: paths.spec_replicas,
        status_replicas: paths.status_replicas,
        selector: paths.selector,
    })
}

/// The selector as a list of requirements; empty if it is none. Custom resources have it as a text.
fn selector_text(selector: Option<&Value>) -> String {
    if let Some(Value::String(text)) = selector {
        return text.clone();
    }
    let Some(fields) = selector.and_then(Value::as_object) else { return String::new() };
    let is_map = !fields.is_empty() && fields.values().all(Value::is_string);
    let parsed = if is_map {
        let pairs = fields.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Ok(LabelSelector::equal(&pairs.collect()))
    } else {
        LabelSelectorObject::deserialize(&Value::Object(fields.clone()))
            .map_err(|e| Status::bad_request(e.to_string()))
            .and_then(|selector| LabelSelector::of(&selector))
    };
    parsed.map_or_else(|_| String::new(), |selector| selector.to_string())
}

/// The `Scale` of an object; `None` for a kind that does not scale.
#[must_use]
pub fn get(kind: &Kind, object: &Value) -> Option<Value> {
    let paths = pointers(kind)?;
    let count = |pointer| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let (Some(fields), Some(value)) =
            (metadata.as_object_mut(), object.pointer(&format!("/metadata/{key}")))
        {
            fields.insert(key.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": count(paths.status_replicas)});
    // An empty pointer is the whole object.
    let selector = Some(paths.selector).filter(|pointer| !pointer.is_empty());
    let selector = selector_text(selector.and_then(|pointer| object.pointer(pointer)));
    if let (Some(fields), false) = (status.as_object_mut(), selector.is_empty()) {
        fields.insert("selector".to_owned(), selector.into());
    }
    Some(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": count(paths.spec_replicas)}, "status": status,
    }))
}

/// The object with as many replicas as `scale` asks for, to be written as an update of the object
/// itself. It has the `uid` and `resourceVersion` that `scale` names, so that a client that read an
/// older one is refused (CC-1).
///
/// # Errors
/// 404 for a kind that does not scale; 400 for what is no `Scale`; 422 for a wrong number.
pub fn set(kind: &Kind, object: &Value, scale: &Value) -> Result<Value, Status> {
    let paths = pointers(kind).ok_or_else(Status::no_such_path)?;
    for (key, want) in [("kind", "Scale"), ("apiVersion", "autoscaling/v1")] {
        if let Some(found) = scale.get(key).filter(|found| *found != want) {
            let text = format!("{key} is {found} where autoscaling/v1 Scale is expected");
            return Err(Status::bad_request(text));
        }
    }
    if !scale.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    let (named, name) = (meta::name(scale), meta::name(object));
    if named != name {
        return Err(Status::other_name(named, name));
    }
    let asked = scale.pointer("/spec/replicas").filter(|asked| !asked.is_null());
    let replicas = match asked {
        None => 0,
        Some(asked) => asked.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
            Status::bad_request(format!("Scale: spec.replicas: {asked} is no 32-bit integer"))
        })?,
    };
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let detail = "must be greater than or equal to 0";
        let error = FieldError::invalid(&path, replicas, detail);
        let name = meta::name(object);
        return Err(Status::invalid_named("autoscaling", "Scale", name, &[error]));
    }
    let mut scaled = object.clone();
    for key in ["uid", "resourceVersion"] {
        let asked = scale.pointer(&format!("/metadata/{key}")).and_then(Value::as_str);
        if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
            metadata_mut(&mut scaled).insert(key.to_owned(), asked.into());
        }
    }
    put(&mut scaled, paths.spec_replicas, replicas.into());
    Ok(scaled)
}

/// Sets what is at a JSON pointer, and makes the objects on the way.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for key in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(fields) = at.as_object_mut() else { return };
        at = fields.entry(key).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{self, by_alias};

    fn deployment() -> Value {
        json!({
            "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "d1", "namespace": "rec", "uid": "u", "resourceVersion": "7",
                         "creationTimestamp": "2026-11-23T08:04:45Z", "labels": {"app": "d1"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "d1"}}},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn a_workload_shows_its_scale() {
        // As recorded of `kubectl scale`.
        let want = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "d1", "namespace": "rec", "uid": "u", "resourceVersion": "7",
                         "creationTimestamp": "2026-11-23T08:04:45Z"},
            "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=d1"},
        });
        assert_eq!(get(by_alias("deploy").unwrap(), &deployment()), Some(want));
        let controller = json!({
            "metadata": {"name": "rc"}, "spec": {"replicas": 1, "selector": {"b": "c", "a": "x"}},
        });
        let scale = get(by_alias("rc").unwrap(), &controller).unwrap();
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=x,b=c"}));
        let expressed = json!({"spec": {"selector": {
            "matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["e", "d"]}],
        }}});
        let scale = get(by_alias("rs").unwrap(), &expressed).unwrap();
        assert_eq!(scale["status"]["selector"], "a=b,c in (d,e)");
        assert_eq!(get(by_alias("pods").unwrap(), &deployment()), None);
    }

    #[test]
    fn kinds_that_scale_say_so_in_both_places() {
        for kind in kinds::all() {
            assert_eq!(kind.scale.is_some(), kind.subresources.contains(&"scale"), "{kind:?}");
        }
    }

    #[test]
    fn a_scale_sets_nothing_but_the_number() {
        let kind = by_alias("deployments").unwrap();
        let mut scale = get(kind, &deployment()).unwrap();
        scale["spec"]["replicas"] = json!(5);
        scale["metadata"]["resourceVersion"] = json!("6");
        let scaled = set(kind, &deployment(), &scale).unwrap();
        let mut want = deployment();
        want["spec"]["replicas"] = json!(5);
        want["metadata"]["resourceVersion"] = json!("6");
        assert_eq!(scaled, want);
        let nothing =
            set(kind, &deployment(), &json!({"metadata": {"name": "d1"}, "spec": {}})).unwrap();
        assert_eq!(nothing["spec"]["replicas"], 0);
        assert_eq!(nothing["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn a_wrong_scale_is_refused() {
        let kind = by_alias("deployments").unwrap();
        let refused = |mut scale: Value| {
            metadata_mut(&mut scale).entry("name").or_insert("d1".into());
            set(kind, &deployment(), &scale).unwrap_err()
        };
        let negative = refused(json!({"spec": {"replicas": -1}}));
        assert_eq!((negative.code, negative.reason.as_str()), (422, "Invalid"));
        assert_eq!(
            negative.message,
            "Scale.autoscaling \"d1\" is invalid: spec.replicas: Invalid value: -1: must be greater \
             than or equal to 0"
        );
        assert_eq!(negative.details["kind"], "Scale");
        assert_eq!(negative.details["group"], "autoscaling");
        for wrong in [
            json!({"spec": {"replicas": "many"}}),
            json!({"spec": {"replicas": 5_000_000_000_i64}}),
            json!({"kind": "Deployment"}),
            json!({"apiVersion": "autoscaling/v2"}),
        ] {
            assert_eq!(refused(wrong.clone()).code, 400, "{wrong}");
        }
        let named = json!({"metadata": {"name": "other"}, "spec": {"replicas": 1}});
        for other in [named, json!({}), Value::Null] {
            assert_eq!(set(kind, &deployment(), &other).unwrap_err().code, 400, "{other}");
        }
        let pods = by_alias("pods").unwrap();
        assert_eq!(set(pods, &deployment(), &json!({})).unwrap_err().code, 404);
    }
}
