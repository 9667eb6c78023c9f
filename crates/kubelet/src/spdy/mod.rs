//! SPDY/3.1 as far as `kubectl` speaks it: many streams over one connection that the other side opens.
//!
//! [`frame`] is the format, [`headers`] the compression of header blocks, [`connection`] serves a
//! connection. Anything may come in: what is malformed ends the connection, and no more is ever kept of
//! it than is said here.

mod connection;
mod dictionary;
mod frame;
mod headers;

pub(crate) use connection::{Stream, Taken, serve};

/// The protocol's name in `Upgrade`.
pub(crate) const PROTOCOL: &str = "SPDY/3.1";

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpdyError {
    /// The other side does not keep to the protocol.
    #[error("malformed SPDY: {0}")]
    Malformed(&'static str),
    /// The bytes do not come or go.
    #[error("connection of SPDY")]
    Io(#[from] std::io::Error),
}
