//! Who may do what: requests as attributes, RBAC, what a node may do, the default roles.
//!
//! Pure: functions over values. Knows nothing of HTTP, of the store or of time. Whoever asks brings the
//! RBAC objects ([`rbac::Objects`]) and the Pods ([`node::Pods`]) as they are now; both are brought up to
//! date object by object, and [`rbac::Policies`] is made of the first once for each change.

mod attributes;
mod escalation;
mod rule;

pub mod defaults;
pub mod node;
pub mod rbac;

pub use attributes::{Attributes, Decision, Resource, Target};
pub use escalation::{refusal as grant_refusal, uncovered};
pub use rule::Rule;

/// The group of those who may do everything, whatever the RBAC objects say.
pub const MASTERS: &str = "system:masters";
/// Everybody who has shown credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who has not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user that such a one is.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of nodes.
pub const NODES: &str = "system:nodes";
/// The group of those who want to become nodes.
pub const BOOTSTRAPPERS: &str = api::bootstrap::GROUP;
/// The group of those among them who want to become replicas.
pub const REPLICA_BOOTSTRAPPERS: &str = api::bootstrap::REPLICAS;
/// The group of all service accounts; with `:NAMESPACE` behind it those of one.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// The user that a service account is.
#[must_use]
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The groups that a service account is in, beside [`AUTHENTICATED`].
#[must_use]
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// Namespace and name of the service account that a user is.
#[must_use]
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
