//! Reads a kubeconfig: what a cluster's is needed for here, and nothing that would be passed over in silence.

use crate::failure::Failure;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use pki::tls::{Pem, Shown};
use serde_yaml_ng::Value;
use std::path::{Path, PathBuf};

/// What the current context says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kubeconfig {
    /// URL of the API; empty if none is named.
    pub(crate) server: String,
    /// Signs the server's certificate.
    pub(crate) authority: Option<Pem>,
    /// The user's certificate.
    pub(crate) shown: Option<Shown>,
    /// The user's token.
    pub(crate) token: Option<String>,
    pub(crate) namespace: Option<String>,
}

/// As `KUBECONFIG` names them: several with colons. What is in several counts as in the first.
///
/// # Errors
/// Names the file and what is wrong in it.
pub(crate) fn read(paths: &str) -> Result<Kubeconfig, Failure> {
    let mut files = Vec::new();
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Input(format!("kubeconfig {}: {error}", path.display()))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let value: Value = serde_yaml_ng::from_str(&text).map_err(|error| failed(&error))?;
        files.push((path, value));
    }
    parse(&files)
}

/// An object of this name in the first file that has it, and the directory that its paths are relative to.
fn named<'a>(
    files: &'a [(PathBuf, Value)],
    list: &str,
    name: &str,
    key: &str,
) -> Result<(&'a Value, &'a Path), Failure> {
    files
        .iter()
        .find_map(|(path, value)| {
            let all = value.get(list)?.as_sequence()?;
            let found = all.iter().find(|item| text(item, "name") == Some(name))?;
            Some((found.get(key).unwrap_or(&Value::Null), path.parent().unwrap_or(Path::new("."))))
        })
        .ok_or_else(|| Failure::Input(format!("kubeconfig: {list}: there is none named {name:?}")))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What is embedded counts before what is in a file.
fn pem(value: &Value, dir: &Path, key: &str) -> Result<Option<Pem>, Failure> {
    let data = format!("{key}-data");
    if let Some(data_text) = text(value, &data) {
        let bytes = BASE64_STANDARD.decode(data_text.trim());
        let bytes =
            bytes.map_err(|error| Failure::Input(format!("kubeconfig: {data}: {error}")))?;
        return Ok(Some(Pem::Bytes(bytes)));
    }
    Ok(text(value, key).map(|path| Pem::File(dir.join(path))))
}

fn parse(files: &[(PathBuf, Value)]) -> Result<Kubeconfig, Failure> {
    let current = files.iter().find_map(|(_, value)| text(value, "current-context"));
    let current = current
        .ok_or_else(|| Failure::Input("kubeconfig: current-context names no context".to_owned()))?;
    let (context, _) = named(files, "contexts", current, "context")?;
    let of = |key: &str| {
        text(context, key)
            .ok_or_else(|| Failure::Input(format!("kubeconfig: context {current:?} has no {key}")))
    };
    let (cluster, cluster_dir) = named(files, "clusters", of("cluster")?, "cluster")?;
    for unsupported in ["insecure-skip-tls-verify", "proxy-url", "tls-server-name"] {
        let value = cluster.get(unsupported);
        if value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
            return Err(Failure::Input(format!("kubeconfig: {unsupported} is not supported here")));
        }
    }
    let mut config = Kubeconfig {
        server: text(cluster, "server").unwrap_or_default().to_owned(),
        authority: pem(cluster, cluster_dir, "certificate-authority")?,
        namespace: text(context, "namespace").map(str::to_owned),
        ..Kubeconfig::default()
    };
    let Some(user) = text(context, "user") else { return Ok(config) };
    let (user, dir) = named(files, "users", user, "user")?;
    for unsupported in ["exec", "auth-provider", "username", "as"] {
        if user.get(unsupported).is_some_and(|value| !value.is_null()) {
            return Err(Failure::Input(format!(
                "kubeconfig: a user with {unsupported} is not supported here"
            )));
        }
    }
    let (chain, key) = (pem(user, dir, "client-certificate")?, pem(user, dir, "client-key")?);
    config.shown = match (chain, key) {
        (Some(chain), Some(key)) => Some(Shown { chain, key }),
        (None, None) => None,
        _ => {
            let text = "kubeconfig: client-certificate and client-key belong together";
            return Err(Failure::Input(text.to_owned()));
        }
    };
    config.token = match (text(user, "tokenFile"), text(user, "token")) {
        (Some(file), _) => {
            let file = dir.join(file);
            let read = std::fs::read_to_string(&file);
            let token = read.map_err(|e| Failure::Input(format!("{}: {e}", file.display())))?;
            Some(token.trim().to_owned())
        }
        (None, token) => token.map(str::to_owned),
    };
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: b
clusters:
- {name: one, cluster: {server: 'https://a:1', certificate-authority: ca.crt}}
- {name: two, cluster: {server: 'https://b:2', certificate-authority-data: Y2E=}}
contexts:
- {name: a, context: {cluster: one, user: alice}}
- {name: b, context: {cluster: two, user: bob, namespace: there}}
users:
- {name: alice, user: {token: secret}}
- {name: bob, user: {client-certificate-data: Y2VydA==, client-key: /keys/bob}}
";

    fn read_text(texts: &[&str]) -> Result<Kubeconfig, String> {
        let file = |text: &&str| {
            (PathBuf::from("/etc/kube/config"), serde_yaml_ng::from_str(text).unwrap())
        };
        let files: Vec<_> = texts.iter().map(file).collect();
        parse(&files).map_err(|failure| failure.lines().join("\n"))
    }

    #[test]
    fn the_current_context_counts() {
        let b = read_text(&[CONFIG]).unwrap();
        let bytes = |text: &str| Pem::Bytes(text.as_bytes().to_vec());
        let shown = Shown { chain: bytes("cert"), key: Pem::File("/keys/bob".into()) };
        assert_eq!(
            b,
            Kubeconfig {
                server: "https://b:2".to_owned(),
                authority: Some(bytes("ca")),
                shown: Some(shown),
                token: None,
                namespace: Some("there".to_owned()),
            }
        );
        let a = read_text(&["current-context: a", CONFIG]).unwrap();
        assert_eq!(a.authority, Some(Pem::File("/etc/kube/ca.crt".into())));
        assert_eq!((a.token.as_deref(), a.shown), (Some("secret"), None));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (from, to, want) in [
            ("current-context: b", "", "current-context names no context"),
            ("current-context: b", "current-context: c", "there is none named \"c\""),
            ("user: bob", "user: eve", "users: there is none named \"eve\""),
            ("client-key: /keys/bob", "a: b", "belong together"),
            ("client-key: /keys/bob", "exec: {command: x}", "exec is not supported"),
            ("Y2E=", "'Y2E=', insecure-skip-tls-verify: true", "insecure-skip-tls-verify"),
            ("Y2E=", "'?'", "certificate-authority-data"),
        ] {
            let text = CONFIG.replace(from, to);
            assert_ne!(text, CONFIG, "{from}");
            let error = read_text(&[&text]).unwrap_err();
            assert!(error.contains(want), "{to}: {error}");
        }
    }
}
