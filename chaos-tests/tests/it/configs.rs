//! The configurations that users copy.

use server::config::{self, NodeConfig, ReplicaConfig};
use std::path::Path;

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
