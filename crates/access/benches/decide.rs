//! What a decision costs, and making the policies ready, with a thousand bindings.
#![allow(clippy::unwrap_used, reason = "a panic in a bench is its failure")]

use access::{
    Attributes, Resource,
    defaults::{cluster_role_bindings, cluster_roles},
    rbac::{Objects, Policies},
};
use api::{caller::Identity, meta};
use divan::{Bencher, black_box};
use serde_json::json;

fn main() {
    divan::main();
}

/// The defaults, and a thousand RoleBindings of a user each, in a hundred namespaces.
fn objects() -> Objects {
    let mut objects = Objects::default();
    for role in cluster_roles() {
        objects.set("clusterroles", "", meta::name(&role), Some(&role));
    }
    for binding in cluster_role_bindings() {
        objects.set("clusterrolebindings", "", meta::name(&binding), Some(&binding));
    }
    for i in 0..1000 {
        let binding = json!({
            "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": format!("user-{i}")}],
        });
        let namespace = format!("ns-{}", i % 100);
        objects.set("rolebindings", &namespace, &format!("binding-{i}"), Some(&binding));
    }
    objects
}

fn who() -> Identity {
    Identity {
        user: "user-507".to_owned(),
        groups: vec!["system:authenticated".to_owned()],
        ..Identity::default()
    }
}

fn asked(namespace: &str) -> Attributes {
    Attributes::resource(
        "delete",
        Resource {
            group: "coordination.k8s.io".to_owned(),
            resource: "leases".to_owned(),
            namespace: namespace.to_owned(),
            name: "x".to_owned(),
            ..Resource::default()
        },
    )
}

#[divan::bench]
fn compile(bencher: Bencher<'_, '_>) {
    let objects = objects();
    bencher.bench(|| Policies::compile(black_box(&objects)));
}

#[divan::bench]
fn allowed(bencher: Bencher<'_, '_>) {
    let (policies, who, asked) = (Policies::compile(&objects()), who(), asked("ns-7"));
    assert!(policies.decide(&who, &asked).is_allowed());
    bencher.bench(|| policies.decide(black_box(&who), black_box(&asked)));
}

#[divan::bench]
fn refused(bencher: Bencher<'_, '_>) {
    let (policies, who, asked) = (Policies::compile(&objects()), who(), asked("ns-8"));
    assert!(!policies.decide(&who, &asked).is_allowed());
    bencher.bench(|| policies.decide(black_box(&who), black_box(&asked)));
}
