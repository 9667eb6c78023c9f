//! What can go wrong with certificates.

use std::{io, path::PathBuf};

/// Nothing here is worth another try with the same files.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file that cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, or what a user has given, does not hold what it should.
    #[error("{origin}: {problem}")]
    Malformed {
        /// A file's name, or what was given.
        origin: String,
        /// Such as `no certificate in it`.
        problem: String,
    },
    /// Certificate and key are not of each other.
    #[error("the certificate in {certificate} is not of the key in {key}")]
    Mismatch {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
    },
    /// It cannot be signed.
    #[error("sign for {name:?}: {problem}")]
    Sign {
        /// The common name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// A certificate of somebody else, or of another time.
    #[error("the certificate of {name:?} {problem}")]
    Refused {
        /// Its common name.
        name: String,
        /// Such as `has expired`.
        problem: &'static str,
    },
}

impl PkiError {
    pub(crate) fn malformed(origin: &str, problem: impl Into<String>) -> Self {
        Self::Malformed { origin: origin.to_owned(), problem: problem.into() }
    }
}
