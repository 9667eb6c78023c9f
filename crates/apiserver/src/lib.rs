//! The bridge between bytes and objects: the Kubernetes API, the nodes' and the operators' gRPC.
//!
//! [`registry`] turns objects into keys and compare-and-swap transactions, `kube` speaks REST,
//! `node` keeps the kubelets' sessions, `admin` tells how the group is. All of them share one port, and
//! `guard` stands in front of them: who asks, and whether they may.

mod admin;
mod certificates;
mod flow;
mod guard;
mod history;
mod join;
mod kube;
mod node;
mod patch;
mod proto;
mod read;
mod serve;

pub mod registry;

pub use certificates::Pki;
pub use flow::Limits;
pub use guard::{AccessConfig, AuditConfig, AuditLevel, KeyError, ServiceAccountKey};
pub use history::Retention;
pub use serve::{ApiServer, Body, Config};
