//! The one door to the API: for the scheduler, the controllers, the kubelet and the CLI.
//!
//! A [`Client`] is a struct over a `tower::Service`: the API server's router in the leader's own
//! process, or HTTP to any replica with failover. [`informer`] keeps a copy of a kind up to date,
//! [`work_queue`] and [`reconcile`] run a controller over it, [`node`] is the kubelet's session.

mod client;
mod error;

pub mod endpoints;
pub mod informer;
pub mod node;
pub mod reconcile;
pub mod work_queue;

pub use client::{
    Body, Client, DeleteOptions, List, ListOptions, Patch, WatchEvent, WatchOptions, WriteOptions,
};
pub use error::{Attempt, ClientError};
