//! A kubeconfig that holds all that it needs.

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Where a user's certificate stands, base64 of PEM, and its key.
const CERTIFICATE: &str = "client-certificate-data";
const KEY: &str = "client-key-data";

/// For one server and one user. `shown` is certificate and key of the user, PEM in one; with it goes the
/// authority's certificate. Without them, the server is talked to in plaintext.
pub(crate) fn kubeconfig(cluster: &str, server: &str, tls: Option<(&str, &str)>) -> String {
    let encode = |pem: &str| BASE64_STANDARD.encode(pem);
    let (of_cluster, of_user) = match tls {
        None => (json!({"server": server}), json!({})),
        Some((authority, shown)) => {
            let (certificate, key) = halves(shown);
            let of_cluster =
                json!({"server": server, "certificate-authority-data": encode(authority)});
            let of_user = json!({
                CERTIFICATE: encode(certificate),
                KEY: encode(key),
            });
            (of_cluster, of_user)
        }
    };
    let user = pki::names::ADMIN;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": of_cluster}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "users": [{"name": user, "user": of_user}],
        "current-context": cluster,
    });
    // Strings and maps of them are always YAML.
    serde_yaml_ng::to_string(&config).unwrap_or_default()
}

/// Certificate and key; of each half only its own: some clients take the first block whatever it is.
fn halves(shown: &str) -> (&str, &str) {
    shown.split_at(shown.find("-----BEGIN PRIVATE KEY").unwrap_or(shown.len()))
}

/// The certificate, PEM, of the first user in a kubeconfig that has one in it.
///
/// # Errors
/// It is no kubeconfig, or nobody in it has one.
pub(crate) fn certificate(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut config: Value = serde_yaml_ng::from_str(text).context("no kubeconfig")?;
    let encoded = user(&mut config)?.get(CERTIFICATE).and_then(Value::as_str).unwrap_or_default();
    BASE64_STANDARD.decode(encoded).context(CERTIFICATE)
}

/// The same kubeconfig, in which that user shows something else: certificate and key, PEM in one.
///
/// # Errors
/// As [`certificate`].
pub(crate) fn renewed(text: &str, shown: &str) -> anyhow::Result<String> {
    let mut config: Value = serde_yaml_ng::from_str(text).context("no kubeconfig")?;
    let (certificate, key) = halves(shown);
    let user = user(&mut config)?;
    user.insert(CERTIFICATE.to_owned(), BASE64_STANDARD.encode(certificate).into());
    user.insert(KEY.to_owned(), BASE64_STANDARD.encode(key).into());
    Ok(serde_yaml_ng::to_string(&config)?)
}

fn user(config: &mut Value) -> anyhow::Result<&mut serde_json::Map<String, Value>> {
    let users = config.get_mut("users").and_then(Value::as_array_mut).into_iter().flatten();
    let mut each = users.filter_map(|user| user.get_mut("user")?.as_object_mut());
    each.find(|user| user.contains_key(CERTIFICATE)).context("no user has client-certificate-data")
}
