//! What the API knows of each kind's fields, and everything that follows from it: the OpenAPI v3
//! documents, unknown fields, strategic merge patches, and who manages which field.
//!
//! Pure: one table, made once from the types' schemas (`table`) and from what those do not say
//! (`marks`), and functions over values. Knows nothing of HTTP, of the store or of time.

pub mod fields;
pub mod managed;
pub mod openapi;
pub mod openapi_v2;
pub mod strategic;

mod go;
mod marks;
mod table;
