//! The configurations that users copy.

use server::config::{self, NodeConfig, ReplicaConfig};
use std::path::Path;

/// The services start what there is, with a file that is named in their first line.
#[test]
fn every_shipped_service_starts_a_role_with_its_configuration() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, role) in [("trireme-replica", "server"), ("trireme-node", "kubelet")] {
        let path = dir.join("cluster-configs/systemd").join(name).with_extension("service");
        let text = std::fs::read_to_string(&path).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<&str> = start.split(' ').collect();
        assert_eq!(words[..3], ["/usr/local/bin/trireme", role, "--config"], "{name}");
        assert!(text.lines().next().unwrap().contains(words[3]), "{name}");
        let is_known = |line: &str| {
            line.is_empty() || line.starts_with(['#', '[']) || line.split_once('=').is_some()
        };
        assert!(text.lines().all(is_known), "{name}");
    }
}

#[test]
fn every_shipped_configuration_is_accepted() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("cluster-configs");
    let (mut replicas, mut nodes) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("replica-") {
            config::read::<ReplicaConfig>(&path).unwrap();
            replicas += 1;
        } else if name.starts_with("node-") {
            config::read::<NodeConfig>(&path).unwrap();
            nodes += 1;
        }
    }
    assert_eq!((replicas, nodes), (3, 1));
}
