//! The bridge between bytes and objects: the Kubernetes API, the nodes' and the operators' gRPC.
//!
//! [`registry`] turns objects into keys and compare-and-swap transactions, `kube` speaks REST,
//! `node` keeps the kubelets' sessions, `admin` tells how the group is. All of them share one port.

mod admin;
mod flow;
mod history;
mod kube;
mod node;
mod patch;
mod proto;
mod serve;
mod yaml;

pub mod registry;

pub use flow::Limits;
pub use history::Retention;
pub use serve::{ApiServer, Body, Config};
