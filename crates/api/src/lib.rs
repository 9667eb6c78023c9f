//! Kubernetes objects as values: kinds, defaulting, validation, selectors, quantities, columns.
//!
//! Pure. Knows nothing of HTTP, of the store or of time.

pub use k8s_openapi;

pub mod binding;
pub mod caller;
pub mod core;
pub mod cron;
pub mod custom;
pub mod deletion;
pub mod discovery;
pub mod enforcement;
pub mod eviction;
pub mod field;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod pod;
pub mod quantity;
pub mod registry_key;
pub mod resources;
pub mod scale;
pub mod scheduling;
pub mod selector;
pub mod status;
pub mod table;

mod cel;
mod pattern;
mod validation;
