//! Kubernetes objects as values: kinds, defaulting, validation, selectors, quantities, columns.
//!
//! Pure. Knows nothing of HTTP, of the store or of time.

pub use k8s_openapi;

pub mod caller;
pub mod field;
pub mod kinds;
pub mod status;
pub mod table;
