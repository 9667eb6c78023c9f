//! What etcd's own clients need to find a cluster.

use crate::failure::Failure;
use std::path::Path;

/// Shell commands that point `etcdctl` at the cluster whose files are in `data_dir`.
///
/// # Errors
/// There are none.
pub(crate) fn etcd_env(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join("etcd-endpoints");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::Input(format!("{}: {e}; name a cluster with --data-dir", path.display()))
    })?;
    let urls: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if urls.is_empty() {
        let path = path.display();
        return Err(Failure::Input(format!(
            "{path} is empty: this cluster does not serve etcd's API"
        )));
    }
    let pki = data_dir.join("pki");
    let pki = std::path::absolute(&pki).unwrap_or(pki);
    Ok(exports(&urls, &pki))
}

/// `pki` is where the authority's certificate and the administrator's are.
fn exports(urls: &[&str], pki: &Path) -> String {
    // Without a scheme, as the oldest clients want it; with https, one is needed.
    let endpoints: Vec<&str> =
        urls.iter().map(|url| url.strip_prefix("http://").unwrap_or(url)).collect();
    let mut text =
        format!("export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS={}\n", endpoints.join(","));
    if urls.iter().any(|url| url.starts_with("https://")) {
        let quoted = |name: &str| {
            let path = pki.join(name).to_string_lossy().replace('\'', "'\\''");
            format!("'{path}'")
        };
        let (authority, admin) = (quoted("ca.crt"), quoted("admin.pem"));
        // Certificate and key are in one file, of which etcdctl takes from each what it needs.
        text.push_str(&format!(
            "export ETCDCTL_CACERT={authority}\nexport ETCDCTL_CERT={admin}\nexport ETCDCTL_KEY={admin}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_as_etcdctl_wants_it() {
        let pki = Path::new("/tmp/it's/pki");
        let plain = exports(&["http://127.0.0.1:1", "http://127.0.0.1:2"], pki);
        assert_eq!(
            plain,
            "export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS=127.0.0.1:1,127.0.0.1:2\n"
        );
        let tls = exports(&["https://127.0.0.1:1"], pki);
        assert_eq!(
            tls,
            "export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS=https://127.0.0.1:1\n\
             export ETCDCTL_CACERT='/tmp/it'\\''s/pki/ca.crt'\n\
             export ETCDCTL_CERT='/tmp/it'\\''s/pki/admin.pem'\n\
             export ETCDCTL_KEY='/tmp/it'\\''s/pki/admin.pem'\n"
        );
    }
}
