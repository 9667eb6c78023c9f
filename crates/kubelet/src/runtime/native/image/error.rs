//! Why an image cannot be had.

use super::digest::Digest;
use std::io;

/// The text reaches the user in the Pod's status.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ImageError {
    /// Content is not what its name says.
    #[error("{what}: its digest is {found}, not {wanted}")]
    Digest { what: String, wanted: Digest, found: Digest },
    /// It is there, but cannot be understood, or must not be.
    #[error("{0}")]
    Malformed(String),
    /// The registry, or the way to it.
    #[error("{0}")]
    Registry(String),
    /// A file or the disk.
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
}

impl ImageError {
    /// With what it is about in front.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Digest { what: inner, wanted, found } => {
                Self::Digest { what: format!("{what}: {inner}"), wanted, found }
            }
            Self::Malformed(text) => Self::Malformed(format!("{what}: {text}")),
            Self::Registry(text) => Self::Registry(format!("{what}: {text}")),
            Self::Io { step, source } => Self::Io { step: format!("{what}: {step}"), source },
        }
    }
}

/// With what was tried, for `map_err`.
pub(super) fn io_error<E: Into<io::Error>>(
    step: impl Into<String>,
) -> impl FnOnce(E) -> ImageError {
    let step = step.into();
    move |error| ImageError::Io { step, source: error.into() }
}
