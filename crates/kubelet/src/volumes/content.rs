//! What is in a volume: a function of the Pod and of the objects that it names.

use crate::config;
use api::{
    core::{Container, Pod},
    quantity::Quantity,
    resources::amount,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// Of a file whose source says nothing else.
const MODE: u32 = 0o644;
/// Seconds that a token holds if nobody says otherwise.
const TOKEN_SECONDS: i64 = 3600;

/// What a volume is made of beside the Pod itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// By name.
    ConfigMap(String),
    /// By name.
    Secret(String),
    Token {
        /// Empty for the API's.
        audience: String,
        seconds: i64,
    },
}

/// What was found of a need.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// There is no such object.
    Missing,
    Object(Value),
    Token(String),
}

/// By path below the volume.
pub(crate) type Files = BTreeMap<PathBuf, File>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// Permissions.
    pub(crate) mode: u32,
}

/// A volume that is made from objects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    mode: u32,
    sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Map { of: Need, items: Option<Vec<Item>>, optional: bool },
    Fields(Vec<Field>),
    Token { of: Need, path: String },
}

/// A key of a map, and where it goes.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    key: String,
    path: String,
    mode: Option<u32>,
}

/// Something of the Pod, and where it goes.
#[derive(Debug, Clone, PartialEq)]
struct Field {
    path: String,
    mode: Option<u32>,
    /// `fieldRef` or `resourceFieldRef`.
    what: Value,
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn mode(value: &Value, key: &str) -> Option<u32> {
    value.get(key).and_then(Value::as_u64).and_then(|mode| u32::try_from(mode).ok())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The volumes of a Pod that are made from objects.
pub(crate) fn volumes(pod: &Pod) -> Vec<Volume> {
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter_map(|volume| Volume::of(&serde_json::to_value(volume).ok()?)).collect()
}

/// Whether a Pod's volume of this name is one of them.
pub(crate) fn is_made(volume: &api::core::Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

impl Volume {
    fn of(volume: &Value) -> Option<Self> {
        let name = text(volume, "name");
        if let Some(projected) = volume.get("projected") {
            let parts = list(projected, "sources").iter();
            let sources = parts.filter_map(|part| {
                let (kind, source) = part.as_object()?.iter().find(|(_, of)| !of.is_null())?;
                Source::of(kind, source)
            });
            let mode = mode(projected, "defaultMode").unwrap_or(MODE);
            return Some(Self { name, mode, sources: sources.collect() });
        }
        let kinds = ["configMap", "secret", "downwardAPI"];
        let found = kinds.iter().find_map(|kind| Some((*kind, volume.get(kind)?)));
        let (kind, source) = found.filter(|(_, source)| !source.is_null())?;
        let mode = mode(source, "defaultMode").unwrap_or(MODE);
        Some(Self { name, mode, sources: vec![Source::of(kind, source)?] })
    }

    /// Everything that must be asked for.
    pub(crate) fn needs(&self) -> BTreeSet<Need> {
        let needs = self.sources.iter().filter_map(|source| match source {
            Source::Map { of, .. } | Source::Token { of, .. } => Some(of.clone()),
            Source::Fields(_) => None,
        });
        needs.collect()
    }

    /// Its files.
    ///
    /// # Errors
    /// What is not there, as users know the text.
    pub(crate) fn files(&self, pod: &Pod, found: &BTreeMap<Need, Found>) -> Result<Files, String> {
        let mut files = Files::new();
        let mut add = |path: &str, own: Option<u32>, bytes: Vec<u8>| {
            let place = below(path).ok_or_else(|| format!("invalid path \"{path}\""))?;
            files.insert(place, File { bytes, mode: own.unwrap_or(self.mode) & 0o777 });
            Ok::<(), String>(())
        };
        for source in &self.sources {
            match source {
                Source::Token { of, path } => match found.get(of) {
                    Some(Found::Token(token)) => add(path, None, token.clone().into_bytes())?,
                    _ => return Err(of.not_found()),
                },
                Source::Fields(fields) => {
                    for field in fields {
                        add(&field.path, field.mode, field.value(pod)?.into_bytes())?;
                    }
                }
                Source::Map { of, items, optional } => {
                    let entries = match found.get(of) {
                        Some(Found::Object(object)) => entries(object)?,
                        Some(Found::Missing) if *optional => BTreeMap::new(),
                        _ => return Err(of.not_found()),
                    };
                    let Some(items) = items else {
                        for (key, bytes) in entries {
                            add(&key, None, bytes)?;
                        }
                        continue;
                    };
                    for item in items {
                        match entries.get(&item.key) {
                            Some(bytes) => add(&item.path, item.mode, bytes.clone())?,
                            None if *optional => {}
                            None => return Err(no_key(of, &item.key)),
                        }
                    }
                }
            }
        }
        Ok(files)
    }
}

impl Source {
    fn of(kind: &str, source: &Value) -> Option<Self> {
        let path = text(source, "path");
        Some(match kind {
            "serviceAccountToken" => {
                let seconds = source.get("expirationSeconds").and_then(Value::as_i64);
                let audience = text(source, "audience");
                let of = Need::Token { audience, seconds: seconds.unwrap_or(TOKEN_SECONDS) };
                Self::Token { of, path }
            }
            "downwardAPI" => {
                let fields = list(source, "items").iter().map(|item| Field {
                    path: text(item, "path"),
                    mode: mode(item, "mode"),
                    what: item.clone(),
                });
                Self::Fields(fields.collect())
            }
            "configMap" | "secret" => {
                let name = |key: &str| text(source, key);
                let of = if kind == "configMap" {
                    Need::ConfigMap(name("name"))
                } else {
                    // A volume's own, or a projected one's.
                    let own = name("secretName");
                    Need::Secret(if own.is_empty() { name("name") } else { own })
                };
                let items = list(source, "items").iter().map(|item| Item {
                    key: text(item, "key"),
                    path: text(item, "path"),
                    mode: mode(item, "mode"),
                });
                let items: Vec<Item> = items.collect();
                let optional = source.get("optional").and_then(Value::as_bool);
                Self::Map {
                    of,
                    items: (!items.is_empty()).then_some(items),
                    optional: optional.unwrap_or_default(),
                }
            }
            _ => return None,
        })
    }
}

impl Need {
    /// Why there is nothing of it.
    pub(crate) fn not_found(&self) -> String {
        match self {
            Self::ConfigMap(name) => format!("configmap \"{name}\" not found"),
            Self::Secret(name) => format!("secret \"{name}\" not found"),
            Self::Token { .. } => "no token yet".to_owned(),
        }
    }
}

fn no_key(of: &Need, key: &str) -> String {
    let kind = if matches!(of, Need::Secret(_)) { "secret" } else { "config" };
    format!("references non-existent {kind} key: {key}")
}

/// What a ConfigMap or a Secret holds, by key.
fn entries(object: &Value) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let is_secret = object.get("kind").and_then(Value::as_str) == Some("Secret");
    let mut entries = BTreeMap::new();
    for field in ["data", "binaryData"] {
        let fields = object.get(field).and_then(Value::as_object);
        for (key, value) in fields.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let bytes = if is_secret || field == "binaryData" {
                STANDARD.decode(value).map_err(|error| format!("key {key}: {error}"))?
            } else {
                value.as_bytes().to_vec()
            };
            entries.insert(key.clone(), bytes);
        }
    }
    Ok(entries)
}

/// A path that stays below the volume and is not one of those that the writer uses itself.
fn below(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let first = path.components().next()?;
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let reserved = first.as_os_str().as_encoded_bytes().starts_with(b"..");
    (plain && !reserved).then(|| path.components().collect())
}

impl Field {
    fn value(&self, pod: &Pod) -> Result<String, String> {
        if let Some(path) = self.what.pointer("/fieldRef/fieldPath").and_then(Value::as_str) {
            let map = match path {
                "metadata.labels" => &pod.metadata.labels,
                "metadata.annotations" => &pod.metadata.annotations,
                path => {
                    let value = config::field(pod, path, "", "");
                    return value.ok_or_else(|| format!("unsupported fieldPath: {path}"));
                }
            };
            return Ok(lines(map.as_ref()));
        }
        let asked = self.what.get("resourceFieldRef").unwrap_or(&Value::Null);
        resource(pod, asked)
    }
}

/// `key="value"`, a line each, quoted as Go does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As Go's `%q` for what is printable, and for the rest as it does for what is most seen.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A bound of a container, in units of the divisor, rounded up.
///
/// # Errors
/// The container has none, or it is none that there is.
pub(crate) fn resource(pod: &Pod, asked: &Value) -> Result<String, String> {
    let (container, of) = (text(asked, "containerName"), text(asked, "resource"));
    let unsupported = || format!("unsupported resource \"{of}\" of container \"{container}\"");
    let spec = pod.spec.as_ref().ok_or_else(unsupported)?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let found = all.find(|found| found.name == container).ok_or_else(unsupported)?;
    let (list, name) = of.split_once('.').ok_or_else(unsupported)?;
    let amount = bound(found, list, name).ok_or_else(unsupported)?;
    let divisor = match asked.get("divisor").and_then(Value::as_str) {
        None | Some("" | "0") => "1",
        Some(divisor) => divisor,
    };
    let divisor: Quantity = divisor.parse().map_err(|_| unsupported())?;
    let divisor = if name == "cpu" { divisor.milli_value() } else { divisor.value() };
    let divisor = divisor.max(1);
    let whole = amount.checked_div(divisor).unwrap_or_default();
    let rest = i64::from(amount.checked_rem(divisor).is_some_and(|rest| rest > 0));
    Ok((whole + rest).to_string())
}

fn bound(container: &Container, list: &str, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let map = match list {
        "limits" => resources.limits.as_ref()?,
        "requests" => resources.requests.as_ref()?,
        _ => return None,
    };
    map.get(name).map(|text| amount(name, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod_with(volume: Value) -> Pod {
        let mut pod = crate::testing::pod(json!({
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}],
            "volumes": [volume],
        }));
        pod.metadata.labels = Some([("app".to_owned(), "x\"y".to_owned())].into());
        pod
    }

    fn made(
        pod: &Pod,
        found: &BTreeMap<Need, Found>,
    ) -> Result<Vec<(String, String, u32)>, String> {
        let volumes = volumes(pod);
        assert_eq!(volumes.len(), 1);
        let files = volumes[0].files(pod, found)?;
        let shown = files.into_iter().map(|(path, file)| {
            let text = String::from_utf8(file.bytes).unwrap();
            (path.display().to_string(), text, file.mode)
        });
        Ok(shown.collect())
    }

    fn file(path: &str, text: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), text.to_owned(), mode)
    }

    #[test]
    fn a_token_volume_has_what_programs_look_for() {
        // SA-1
        let pod = pod_with(json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
            ]}},
        ]}}));
        let token = Need::Token { audience: String::new(), seconds: 3607 };
        let map = Need::ConfigMap("kube-root-ca.crt".to_owned());
        let needs = volumes(&pod)[0].needs();
        assert_eq!(needs, [map.clone(), token.clone()].into());
        let object = |data: Value| Found::Object(json!({"kind": "ConfigMap", "data": data}));
        let mut found = BTreeMap::from([(token, Found::Token("t".to_owned()))]);
        let error = |found: &BTreeMap<Need, Found>| made(&pod, found).unwrap_err();
        assert_eq!(error(&found), "configmap \"kube-root-ca.crt\" not found");
        found.insert(map.clone(), object(json!({"other": "x"})));
        assert_eq!(error(&found), "references non-existent config key: ca.crt");
        found.insert(map, object(json!({"ca.crt": "pem"})));
        let want = [
            file("ca.crt", "pem", 0o644),
            file("namespace", "d", 0o644),
            file("token", "t", 0o644),
        ];
        assert_eq!(made(&pod, &found).unwrap(), want);
    }

    #[test]
    fn every_source_becomes_files_with_its_permissions() {
        // VOL-1
        let secret = Need::Secret("s".to_owned());
        let map = Need::ConfigMap("m".to_owned());
        let found = BTreeMap::from([
            (secret, Found::Object(json!({"kind": "Secret", "data": {"k": "aGk=", "l": "bA=="}}))),
            (
                map,
                Found::Object(
                    json!({"kind": "ConfigMap", "data": {"a": "1"}, "binaryData": {"b": "Mg=="}}),
                ),
            ),
        ]);
        for (name, volume, want) in [
            (
                "a secret's one key",
                json!({"secret": {"secretName": "s", "defaultMode": 256, "items": [
                    {"key": "k", "path": "d/k", "mode": 384}]}}),
                Ok(vec![file("d/k", "hi", 0o600)]),
            ),
            (
                "all of a map",
                json!({"configMap": {"name": "m", "defaultMode": 256}}),
                Ok(vec![file("a", "1", 0o400), file("b", "2", 0o400)]),
            ),
            (
                "not there, and need not be",
                json!({"configMap": {"name": "n", "optional": true}}),
                Err("configmap \"n\" not found"),
            ),
            ("not there", json!({"secret": {"secretName": "n"}}), Err("secret \"n\" not found")),
            (
                "no such key",
                json!({"secret": {"secretName": "s", "items": [{"key": "x", "path": "x"}]}}),
                Err("references non-existent secret key: x"),
            ),
            (
                "labels and bounds",
                json!({"downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu"}},
                    {"path": "mib", "resourceFieldRef": {
                        "containerName": "a", "resource": "limits.memory", "divisor": "1Mi"}},
                ]}}),
                Ok(vec![
                    file("app", "x\"y", 0o644),
                    file("cpu", "2", 0o644),
                    file("labels", "app=\"x\\\"y\"", 0o644),
                    file("mib", "64", 0o644),
                ]),
            ),
            (
                "above the volume",
                json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "../a"}]}}),
                Err("invalid path \"../a\""),
            ),
            (
                "the writer's own",
                json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "..data"}]}}),
                Err("invalid path \"..data\""),
            ),
        ] {
            let mut volume = volume;
            volume["name"] = json!("v");
            let pod = pod_with(volume);
            let want = want.map_err(str::to_owned);
            assert_eq!(made(&pod, &found), want, "{name}");
        }
        // What nobody could be asked about yet is not taken for missing.
        let pod = pod_with(json!({"name": "v", "configMap": {"name": "n", "optional": true}}));
        let missing = BTreeMap::from([(Need::ConfigMap("n".to_owned()), Found::Missing)]);
        assert_eq!(made(&pod, &missing), Ok(vec![]));
    }
}
