//! Names in certificates that mean something: as Kubernetes has them, and our own.

/// The organisation of administrators; may do everything.
pub const MASTERS: &str = "system:masters";
/// The organisation of every node.
pub const NODES: &str = "system:nodes";
/// The organisation of every replica: what a replica shows to other replicas and to nodes has it, and
/// nothing else. It is no group of the Kubernetes API.
pub const REPLICAS: &str = "trireme:replicas";
/// The administrator of a new cluster.
pub const ADMIN: &str = "kubernetes-admin";
/// What an API server calls itself in its certificate.
pub const API_SERVER: &str = "kube-apiserver";
/// The authority of a cluster, as kubeadm calls it.
pub const AUTHORITY: &str = "kubernetes";

const NODE: &str = "system:node:";

/// The user that a node is.
#[must_use]
pub fn node_user(node: &str) -> String {
    format!("{NODE}{node}")
}

/// The node that a user is, if it is one.
#[must_use]
pub fn node_of(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|node| !node.is_empty())
}

/// The user that a replica is.
#[must_use]
pub fn replica_user(replica: &str) -> String {
    format!("trireme:replica:{replica}")
}
