//! The messages of the kinds, as rows: number, JSON name and type of each field, one file for each group
//! and version.
//!
//! A row is `2 "replicas" int32`: field 2 of the message is `replicas` in JSON. Types are `bool`, `int32`,
//! `int64`, `double`, `string`, `bytes` (base64 in JSON), `json` (bytes that are JSON) and the names of
//! messages; `[T]` is a list of T, `{T}` a map from strings to T.
//!
//! `opt` says that zero is a value of a scalar, as in proto3: without it, zero is left out. A field
//! without a name in JSON is a message whose own fields stand in its place.
//!
//! Numbers, names and `opt` follow the Go types of Kubernetes 1.36 (the tags `protobuf` and `json`; `opt` is
//! a pointer or a field without `omitempty`). From 1.33 to 1.37 none changed its meaning; a newer version
//! adds rows, and `tests.rs` holds them against upstream's documents.

#[macro_use]
mod rows;

mod apiextensions_v1;
mod apps_v1;
mod authentication_v1;
mod authorization_v1;
mod autoscaling_v1;
mod autoscaling_v2;
mod batch_v1;
mod coordination_v1;
mod core_v1;
mod discovery_v1;
mod events_v1;
mod machinery;
mod meta_v1;
mod networking_v1;
mod policy_v1;
mod rbac_v1;
mod scheduling_v1;
mod storage_v1;

pub(crate) use rows::{Field, Form, Many, Message, Type};

/// The kinds of each version; their names are those of their messages.
pub(crate) const KINDS: &[(&str, &[&Message])] = &[
    ("apiextensions.k8s.io/v1", apiextensions_v1::KINDS),
    ("apps/v1", apps_v1::KINDS),
    ("authentication.k8s.io/v1", authentication_v1::KINDS),
    ("authorization.k8s.io/v1", authorization_v1::KINDS),
    ("autoscaling/v1", autoscaling_v1::KINDS),
    ("autoscaling/v2", autoscaling_v2::KINDS),
    ("batch/v1", batch_v1::KINDS),
    ("coordination.k8s.io/v1", coordination_v1::KINDS),
    ("discovery.k8s.io/v1", discovery_v1::KINDS),
    ("events.k8s.io/v1", events_v1::KINDS),
    ("networking.k8s.io/v1", networking_v1::KINDS),
    ("policy/v1", policy_v1::KINDS),
    ("rbac.authorization.k8s.io/v1", rbac_v1::KINDS),
    ("scheduling.k8s.io/v1", scheduling_v1::KINDS),
    ("storage.k8s.io/v1", storage_v1::KINDS),
    ("v1", core_v1::KINDS),
    ("v1", meta_v1::KINDS),
];

/// The message of a kind.
pub(crate) fn kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    // Registered for every version there is: clients name that of what they delete.
    if kind == meta_v1::DeleteOptions.name && !api_version.is_empty() {
        return Some(&meta_v1::DeleteOptions);
    }
    let of_version = KINDS.iter().filter(|(version, _)| *version == api_version);
    of_version.flat_map(|(_, kinds)| *kinds).find(|message| message.name == kind).copied()
}
