//! A container's environment: of its image, of ConfigMaps and Secrets, of its own variables (ENV-1).

use crate::{
    config::{self, Around, ConfigError},
    volumes::{Found, Need, resource},
};
use api::core::{Container, Pod};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Variables = Vec<(String, String)>;

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list(value: &Value, key: &str) -> Vec<Value> {
    value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// An object that a source names, and whether it need not be there.
struct Named {
    of: Need,
    optional: bool,
}

/// By the names that these fields have in `envFrom` or in `valueFrom`.
fn named(source: &Value, [map, secret]: [&str; 2]) -> Option<Named> {
    let found = |field: &str| source.get(field).filter(|value| !value.is_null());
    let (of, name): (&Value, fn(String) -> Need) = match (found(map), found(secret)) {
        (Some(of), _) => (of, Need::ConfigMap),
        (None, Some(of)) => (of, Need::Secret),
        (None, None) => return None,
    };
    let optional = of.get("optional").and_then(Value::as_bool).unwrap_or_default();
    Some(Named { of: name(text(of, "/name")), optional })
}

const FROM: [&str; 2] = ["configMapRef", "secretRef"];
const KEYS: [&str; 2] = ["configMapKeyRef", "secretKeyRef"];

/// What must be asked for before a container can start.
pub(crate) fn needs(container: &Container) -> BTreeSet<Need> {
    if container.env_from.is_none() && container.env.is_none() {
        return BTreeSet::new();
    }
    let spec = serde_json::to_value(container).unwrap_or_default();
    let from = list(&spec, "envFrom");
    let from = from.iter().filter_map(|source| named(source, FROM));
    let env = list(&spec, "env");
    let env = env.iter().filter_map(|variable| named(variable.get("valueFrom")?, KEYS));
    from.chain(env).map(|named| named.of).collect()
}

/// All variables, each once.
///
/// # Errors
/// What is not there, as users know the text.
pub(crate) fn variables(
    pod: &Pod,
    container: &Container,
    image: &[(String, String)],
    around: &Around<'_>,
) -> Result<Variables, ConfigError> {
    let mut env = image.to_vec();
    let hostname = pod.metadata.name.clone().unwrap_or_default();
    set(&mut env, "HOSTNAME".to_owned(), hostname);
    if let Some((host, port)) = around.api {
        for (name, value) in [("HOST", host), ("PORT", port), ("PORT_HTTPS", port)] {
            set(&mut env, format!("KUBERNETES_SERVICE_{name}"), value.to_owned());
        }
    }
    let spec = serde_json::to_value(container).unwrap_or_default();
    for source in list(&spec, "envFrom") {
        let Some(named) = named(&source, FROM) else { continue };
        let Some(texts) = texts(&named, around)? else { continue };
        let prefix = text(&source, "/prefix");
        for (key, value) in texts {
            let name = format!("{prefix}{key}");
            // As upstream: what cannot be a variable is none.
            if is_name(&name) {
                set(&mut env, name, value);
            }
        }
    }
    for variable in list(&spec, "env") {
        let name = text(&variable, "/name");
        let value = match variable.get("valueFrom").filter(|source| !source.is_null()) {
            None => Some(expand(&text(&variable, "/value"), &env)),
            Some(source) => value_from(pod, &name, source, around)?,
        };
        if let Some(value) = value {
            set(&mut env, name, value);
        }
    }
    Ok(env)
}

fn set(env: &mut Variables, name: String, value: String) {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

/// `None` for what is not there and need not be.
fn value_from(
    pod: &Pod,
    name: &str,
    source: &Value,
    around: &Around<'_>,
) -> Result<Option<String>, ConfigError> {
    if let Some(named) = named(source, KEYS) {
        let (field, kind) = match named.of {
            Need::Secret(_) => ("secretKeyRef", "Secret"),
            Need::ConfigMap(_) | Need::Token { .. } => ("configMapKeyRef", "ConfigMap"),
        };
        let key = text(source, &format!("/{field}/key"));
        let texts = texts(&named, around)?.unwrap_or_default();
        return match texts.get(&key) {
            Some(value) => Ok(Some(value.clone())),
            None if named.optional => Ok(None),
            None => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let of = text(source, &format!("/{field}/name"));
                let text = format!("couldn't find key {key} in {kind} {namespace}/{of}");
                Err(ConfigError(text))
            }
        };
    }
    if let Some(asked) = source.get("resourceFieldRef").filter(|asked| !asked.is_null()) {
        return resource(pod, asked).map(Some).map_err(ConfigError);
    }
    let path = text(source, "/fieldRef/fieldPath");
    let found = config::field(pod, &path, around.pod_ip, around.host_ip);
    found.map(Some).ok_or_else(|| {
        ConfigError(format!("env {name}: this source is not supported by this node yet"))
    })
}

/// What an object has for variables; `None` if it is not there and need not be.
fn texts(
    named: &Named,
    around: &Around<'_>,
) -> Result<Option<BTreeMap<String, String>>, ConfigError> {
    let object = match around.found.get(&named.of) {
        Some(Found::Object(object)) => object,
        Some(Found::Missing) if named.optional => return Ok(None),
        Some(Found::Missing | Found::Token(_)) | None => {
            return Err(ConfigError(named.of.not_found()));
        }
    };
    let is_secret = matches!(named.of, Need::Secret(_));
    let data = object.get("data").and_then(Value::as_object);
    let texts = data.into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        let value = if is_secret {
            let bytes = STANDARD.decode(value);
            let bytes = bytes.map_err(|error| ConfigError(format!("key {key}: {error}")))?;
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            value.to_owned()
        };
        Ok((key.clone(), value))
    });
    texts.collect::<Result<_, _>>().map(Some)
}

/// Replaces `$(NAME)` by what is already known; `$$` is a dollar (ENV-1).
pub(crate) fn expand(text: &str, env: &[(String, String)]) -> String {
    replace(text, |name| value(env, name).map_or_else(|| format!("$({name})"), str::to_owned))
}

/// The same where every name must be known.
///
/// # Errors
/// The first name that is not.
pub(crate) fn expand_known(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut missing = None;
    let expanded = replace(text, |name| {
        value(env, name).map(str::to_owned).unwrap_or_else(|| {
            missing.get_or_insert_with(|| name.to_owned());
            String::new()
        })
    });
    missing.map_or(Ok(expanded), Err)
}

fn value<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn replace(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            from.strip_prefix("$(").and_then(|inner| inner.split_once(')'))
        {
            out.push_str(&value(name));
            rest = after;
        } else {
            out.push('$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PodDirs;
    use serde_json::json;

    #[test]
    fn variables_are_expanded_as_upstream_does() {
        // ENV-1
        let env = [("A".to_owned(), "1".to_owned())];
        for (text, want) in
            [("x$(A)y", "x1y"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("5$", "5$"), ("$(A", "$(A")]
        {
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }

    /// Without those of the image, `HOSTNAME`, and where the API is.
    fn variables_of(container: Value) -> Result<Vec<String>, String> {
        let pod = crate::testing::pod(json!({"containers": [container]}));
        let own = pod.spec.as_ref().unwrap().containers[0].clone();
        let object = |data: Value| Found::Object(json!({"data": data}));
        let all = BTreeMap::from([
            (Need::ConfigMap("m".to_owned()), object(json!({"A": "1", "b.c": "2", "x=y": "3"}))),
            (Need::Secret("s".to_owned()), object(json!({"A": "aGk=", "P": "cA=="}))),
            (Need::ConfigMap("gone".to_owned()), Found::Missing),
        ]);
        assert!(needs(&own).iter().all(|need| all.contains_key(need)));
        let dirs = PodDirs { data: "/data".into(), logs: "/logs".into() };
        let around = Around {
            dirs: &dirs,
            pod_ip: "10.0.0.7",
            host_ip: "127.0.0.1",
            api: Some(("10.0.0.1", "6443")),
            found: &all,
        };
        let env = variables(&pod, &own, &[], &around).map_err(|error| error.0)?;
        let where_the_api_is: Vec<&str> = env
            .iter()
            .filter(|(name, _)| name.starts_with("KUBERNETES_"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(where_the_api_is, ["10.0.0.1", "6443", "6443"]);
        let own = env
            .into_iter()
            .filter(|(name, _)| name != "HOSTNAME" && !name.starts_with("KUBERNETES_"));
        Ok(own.map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn what_comes_later_wins_and_what_is_missing_is_said() {
        // ENV-1
        let map = |name: &str, optional: bool| json!({"configMapRef": {"name": name, "optional": optional}});
        let secret = json!({"prefix": "S_", "secretRef": {"name": "s"}});
        let key = |field: &str, name: &str, key: &str, optional: bool| json!({"name": "K", "valueFrom": {field: {"name": name, "key": key, "optional": optional}}});
        let from =
            |sources: Value, env: Value| json!({"name": "a", "envFrom": sources, "env": env});
        for (name, container, want) in [
            (
                "maps, then secrets, then own",
                from(
                    json!([map("m", false), secret]),
                    json!([{"name": "A", "value": "own $(S_A)"}, {"name": "IP", "valueFrom":
                        {"fieldRef": {"fieldPath": "status.podIP"}}}]),
                ),
                Ok(vec!["b.c=2", "S_A=hi", "S_P=p", "A=own hi", "IP=10.0.0.7"]),
            ),
            (
                "one key",
                from(json!([]), json!([key("secretKeyRef", "s", "P", false)])),
                Ok(vec!["K=p"]),
            ),
            ("need not be there", from(json!([map("gone", true)]), json!([])), Ok(vec![])),
            (
                "no key, which need not be there",
                from(json!([]), json!([key("configMapKeyRef", "m", "z", true)])),
                Ok(vec![]),
            ),
            (
                "gone",
                from(json!([map("gone", false)]), json!([])),
                Err("configmap \"gone\" not found"),
            ),
            (
                "no such key",
                from(json!([]), json!([key("configMapKeyRef", "m", "z", false)])),
                Err("couldn't find key z in ConfigMap d/m"),
            ),
        ] {
            let want = want.map(|all: Vec<&str>| all.into_iter().map(str::to_owned).collect());
            assert_eq!(variables_of(container), want.map_err(str::to_owned), "{name}");
        }
    }
}
