//! A kubeconfig that holds all that it needs.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

/// For one server and one user. `shown` is certificate and key of the user, PEM in one; with it goes the
/// authority's certificate. Without them, the server is talked to in plaintext.
pub(crate) fn kubeconfig(cluster: &str, server: &str, tls: Option<(&str, &str)>) -> String {
    let encode = |pem: &str| BASE64_STANDARD.encode(pem);
    let (of_cluster, of_user) = match tls {
        None => (json!({"server": server}), json!({})),
        Some((authority, shown)) => {
            // Of each half only its own: some clients take the first block whatever it is.
            let at = shown.find("-----BEGIN PRIVATE KEY").unwrap_or(shown.len());
            let (certificate, key) = shown.split_at(at);
            let of_cluster =
                json!({"server": server, "certificate-authority-data": encode(authority)});
            let of_user = json!({
                "client-certificate-data": encode(certificate),
                "client-key-data": encode(key),
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
