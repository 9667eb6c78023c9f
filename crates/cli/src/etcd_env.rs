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
    Ok(exports(&urls))
}

fn exports(urls: &[&str]) -> String {
    // Without a scheme, as the oldest clients want it; with https, one is needed.
    let endpoints: Vec<&str> =
        urls.iter().map(|url| url.strip_prefix("http://").unwrap_or(url)).collect();
    let mut text =
        format!("export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS={}\n", endpoints.join(","));
    if urls.iter().any(|url| url.starts_with("https://")) {
        text.push_str(
            "# Set these, too: the authority of the replicas' certificates, and a certificate of yours.\n\
             : \"${ETCDCTL_CACERT:?} ${ETCDCTL_CERT:?} ${ETCDCTL_KEY:?}\"\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_as_etcdctl_wants_it() {
        let plain = exports(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert_eq!(
            plain,
            "export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS=127.0.0.1:1,127.0.0.1:2\n"
        );
        let tls = exports(&["https://127.0.0.1:1"]);
        assert!(tls.contains("ETCDCTL_ENDPOINTS=https://127.0.0.1:1\n"), "{tls}");
        assert!(tls.contains("ETCDCTL_CACERT"), "{tls}");
    }
}
