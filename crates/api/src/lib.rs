//! Kubernetes objects as values: kinds, defaulting, validation, selectors, quantities, columns.
//!
//! Pure. Knows nothing of HTTP, of the store or of time.

pub use k8s_openapi;

pub mod binding;
pub mod bootstrap;
pub mod caller;
pub mod core;
pub mod cron;
pub mod custom;
pub mod deletion;
pub mod difference;
pub mod discovery;
pub mod enforcement;
pub mod eviction;
pub mod field;
pub mod kinds;
pub mod limits;
pub mod meta;
pub mod names;
pub mod past;
pub mod pod;
pub mod priority;
pub mod quantity;
pub mod quota;
pub mod registry_key;
pub mod resources;
pub mod scale;
pub mod scheduling;
pub mod selector;
pub mod service_account;
pub mod status;
pub mod table;

mod cel;
mod pattern;
mod validation;
