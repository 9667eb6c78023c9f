//! Fault tests over the real binaries.
