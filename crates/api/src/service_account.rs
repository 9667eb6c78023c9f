//! Whose account a Pod has, and how its programs show that (DEF-2, SA-1).

use crate::{
    kinds::text,
    meta::{child_mut, drop_nulls},
};
use serde_json::{Value, json};

/// The account that every namespace has, and of Pods that name none.
pub const DEFAULT: &str = "default";

/// The ConfigMap of every namespace with what the API's certificates are held against.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// The key in that.
pub const ROOT_CA_KEY: &str = "ca.crt";

/// Where programs look for their token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the volume's name begins with.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// Seconds that the token holds; clients of a time before tokens were renewed are told by the odd 7.
const TOKEN_SECONDS: i64 = 3607;

/// The account that a new Pod names, or the default one.
#[must_use]
pub fn name(pod: &Value) -> String {
    let name = text(pod, "/spec/serviceAccountName");
    if name.is_empty() { DEFAULT.to_owned() } else { name }
}

/// Gives a new Pod its account, and the account's secrets for pulling images if it has none of its own.
pub fn admit(pod: &mut Value, account: &Value) {
    let name = name(pod);
    let spec = child_mut(pod, "spec");
    for field in ["serviceAccountName", "serviceAccount"] {
        spec.insert(field.to_owned(), name.clone().into());
    }
    let own = spec.get("imagePullSecrets").and_then(Value::as_array);
    let given = account.get("imagePullSecrets").and_then(Value::as_array);
    if own.is_none_or(Vec::is_empty)
        && let Some(given) = given.filter(|given| !given.is_empty())
    {
        let mut given = json!(given);
        drop_nulls(&mut given);
        spec.insert("imagePullSecrets".to_owned(), given);
    }
}

/// Whether the Pod's containers get a token; what the Pod says counts more than what its account does.
fn wants_token(pod: &Value, account: &Value) -> bool {
    let own = pod.pointer("/spec/automountServiceAccountToken").and_then(Value::as_bool);
    let given = account.get("automountServiceAccountToken").and_then(Value::as_bool);
    own.or(given).unwrap_or(true)
}

/// Gives a new Pod's containers a token, what the API's certificates are held against, and the name of
/// their namespace (SA-1); not those that mount something there themselves. `suffix` is for the volume's
/// name.
pub fn mount_token(pod: &mut Value, account: &Value, suffix: &str) {
    if !wants_token(pod, account) {
        return;
    }
    let spec = child_mut(pod, "spec");
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let mut names = volumes.into_iter().flatten().map(|volume| text(volume, "/name"));
    let known = names.find(|name| name.starts_with(TOKEN_VOLUME));
    let name = known.clone().unwrap_or_else(|| format!("{TOKEN_VOLUME}{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| text(mount, "/mountPath") == TOKEN_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "mountPath": TOKEN_PATH, "readOnly": true}));
            mounted = true;
        }
    }
    if known.is_some() || !mounted {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": ROOT_CA_KEY, "path": ROOT_CA_KEY}]}},
            {"downwardAPI": {"items": [{
                "path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            }]}},
        ]}}));
    }
}

/// The map of a namespace with what the API's certificates are held against, as PEM.
#[must_use]
pub fn root_ca_map(namespace: &str, pem: &str) -> Value {
    let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                       internal endpoints such as the internal service IP or \
                       kubernetes.default.svc. No other usage is guaranteed across distributions of \
                       Kubernetes clusters.";
    json!({
        "metadata": {
            "name": ROOT_CA, "namespace": namespace,
            "annotations": {"kubernetes.io/description": description},
        },
        "data": {ROOT_CA_KEY: pem},
    })
}

/// Why a Pod whose account is not there is refused.
#[must_use]
pub fn missing(namespace: &str, name: &str) -> String {
    format!(
        "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_an_account_and_pulls_with_its_secrets() {
        // SA-1
        let account = json!({"imagePullSecrets": [{"name": "s"}]});
        for (spec, name, secrets) in [
            (json!({}), "default", json!([{"name": "s"}])),
            (
                json!({"serviceAccountName": "a", "imagePullSecrets": []}),
                "a",
                json!([{"name": "s"}]),
            ),
            (json!({"imagePullSecrets": [{"name": "own"}]}), "default", json!([{"name": "own"}])),
        ] {
            let mut pod = json!({"spec": spec});
            admit(&mut pod, &account);
            let spec = &pod["spec"];
            assert_eq!(
                (&spec["serviceAccountName"], &spec["serviceAccount"]),
                (&json!(name), &json!(name))
            );
            assert_eq!(spec["imagePullSecrets"], secrets);
        }
        let mut pod = json!({"spec": {}});
        admit(&mut pod, &json!({}));
        assert!(pod["spec"].get("imagePullSecrets").is_none());
    }
    #[test]
    fn containers_get_a_token_unless_somebody_says_no_or_mounts_something_else_there() {
        // SA-1
        let mount = |name: &str| json!({"name": name, "mountPath": TOKEN_PATH, "readOnly": true});
        let mounts = |pod: &Value, list: &str, at: usize| {
            pod["spec"][list][at].get("volumeMounts").cloned().unwrap_or_default()
        };
        let (yes, no) = (json!(true), json!(false));
        for (of_pod, of_account, want) in [
            (None, None, true),
            (None, Some(&no), false),
            (Some(&yes), Some(&no), true),
            (Some(&no), None, false),
            (Some(&no), Some(&yes), false),
        ] {
            let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
            let mut account = json!({});
            if let Some(value) = of_pod {
                pod["spec"]["automountServiceAccountToken"] = value.clone();
            }
            if let Some(value) = of_account {
                account["automountServiceAccountToken"] = value.clone();
            }
            mount_token(&mut pod, &account, "abcde");
            let found = mounts(&pod, "containers", 0) == json!([mount("kube-api-access-abcde")]);
            assert_eq!(found, want, "{of_pod:?} {of_account:?}");
            assert_eq!(pod["spec"]["volumes"].is_array(), want);
        }
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": TOKEN_PATH}]}],
            "volumes": [{"name": "x"}],
        }});
        mount_token(&mut pod, &json!({}), "abcde");
        assert_eq!(mounts(&pod, "containers", 0), json!([{"name": "x", "mountPath": TOKEN_PATH}]));
        assert_eq!(mounts(&pod, "initContainers", 0)[1], mount("kube-api-access-abcde"));
        let volume = &pod["spec"]["volumes"][1];
        assert_eq!(volume["name"], "kube-api-access-abcde");
        let sources = volume["projected"]["sources"].as_array().unwrap();
        assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
        assert_eq!(sources[1]["configMap"]["name"], ROOT_CA);
        // A Pod that was read and is made again keeps the volume that it has.
        let made = pod.clone();
        mount_token(&mut pod, &json!({}), "other");
        assert_eq!(pod, made);
    }
}
