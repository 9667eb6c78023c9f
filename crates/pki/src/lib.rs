//! The cluster's certificates: an authority, what it signs, files that hold it, and TLS that follows the
//! files.
//!
//! [`Authority`] signs for a [`Profile`]; [`Certificate`] reads back what was signed. [`tls`] makes rustls
//! configurations whose certificates are read again when their files change, so that a renewal is a file that is
//! written. Nobody here looks at a clock or at the network: whoever signs says when.

mod authority;
mod certificate;
mod error;
mod files;
mod fresh;
pub mod names;
pub mod tls;

pub use authority::{Authority, Key, LIFETIME, LIFETIME_OF_AUTHORITY, new_key, random, request};
pub use certificate::{Certificate, Moment, Profile, Usage, certificate_pem, pin, pin_of_pem};
pub use error::PkiError;
pub use files::{create_secret, read, write_public, write_secret};
pub use fresh::Fresh;
