//! The arrows of ARCHITECTURE.md, checked against what Cargo sees.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeSet;

/// Which of our crates each of our crates imports.
const ARROWS: &[(&str, &[&str])] = &[
    ("access", &["api"]),
    ("apiserver", &["access", "api", "listen", "pki", "protobuf", "schema", "store", "world"]),
    ("bench", &["client", "etcd"]),
    ("cli", &["api", "client", "pki", "scheduler"]),
    ("client", &["api", "world"]),
    ("controllers", &["api", "client"]),
    ("drill", &["api", "bench", "checkers", "client", "etcd", "server"]),
    ("etcd", &["store", "world"]),
    ("kubelet", &["api", "client", "listen", "pki", "world"]),
    ("listen", &["world"]),
    ("raft", &["store", "world"]),
    ("scheduler", &["api", "client"]),
    ("schema", &["api"]),
    (
        "server",
        &[
            "api",
            "apiserver",
            "client",
            "controllers",
            "etcd",
            "kubelet",
            "listen",
            "pki",
            "raft",
            "scheduler",
            "store",
            "world",
        ],
    ),
    (
        "sim",
        &[
            "api",
            "apiserver",
            "checkers",
            "client",
            "etcd",
            "kubelet",
            "listen",
            "raft",
            "server",
            "store",
            "world",
        ],
    ),
    ("trireme", &["bench", "cli", "drill", "kubelet", "server", "sim"]),
];
/// Crates from outside that only some of ours may import.
const OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["bench", "drill", "server", "trireme"]),
    ("axum", &["apiserver", "etcd", "kubelet", "listen"]),
    ("bincode", &["kubelet", "raft"]),
    ("k8s-openapi", &["api", "schema"]),
    ("openraft", &["raft"]),
    ("rcgen", &["pki", "server"]),
    ("schemars", &["schema"]),
    ("sled", &["kubelet"]),
    ("tonic", &["apiserver", "bench", "client", "drill", "etcd", "raft", "sim"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().exec().unwrap()
}

/// Every `(importer, imported)` pair, build and test dependencies left out.
fn imports(metadata: &Metadata) -> Vec<(&str, &str)> {
    metadata
        .packages
        .iter()
        .flat_map(|package| {
            let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            normal.map(|dependency| (package.name.as_str(), dependency.name.as_str()))
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let found: BTreeSet<(&str, &str)> =
        imports(&metadata).into_iter().filter(|(_, to)| ours.contains(to)).collect();
    let drawn: BTreeSet<(&str, &str)> =
        ARROWS.iter().flat_map(|(from, to)| to.iter().map(|to| (*from, *to))).collect();
    assert_eq!(found, drawn, "Cargo.toml and the diagram disagree");
}

#[test]
fn outside_crates_stay_with_their_owners() {
    for (from, to) in imports(&metadata()) {
        if let Some((_, owners)) = OWNERS.iter().find(|(name, _)| *name == to) {
            assert!(owners.contains(&from), "{from} may not import {to}");
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut left = vec![root.join("crates"), root.join("chaos-tests")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} begins without //!", path.display());
        }
    }
}
