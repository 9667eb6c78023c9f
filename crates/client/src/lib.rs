//! The one door to the API: for the scheduler, the controllers, the kubelet and the CLI.
//!
//! A [`Client`] is a struct over a `tower::Service`: the API server's router in the leader's own
//! process, or HTTP to any replica with failover, by TLS where the URL says so ([`transport`]). [`informer`] keeps a copy of a kind up to date,
//! [`copies`] those that the leader's components share, [`events`] tells what happened, [`node`] is the kubelet's session.

mod client;
mod error;
mod proto;
mod unmanaged;

pub mod admin;
pub mod certificates;
pub mod copies;
pub mod endpoints;
pub mod events;
pub mod informer;
pub mod join;
pub mod node;
pub mod transport;

pub use client::{
    Body, Client, DeleteOptions, List, ListOptions, Patch, WatchEvent, WatchOptions, WriteOptions,
    encode, patch_request, refuse,
};
pub use error::{Attempt, ClientError};
