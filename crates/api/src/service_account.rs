//! Whose account a Pod has (DEF-2, SA-1).

use crate::{
    kinds::text,
    meta::{child_mut, drop_nulls},
};
use serde_json::{Value, json};

/// The account that every namespace has, and of Pods that name none.
pub const DEFAULT: &str = "default";

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
}
