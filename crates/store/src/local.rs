//! A [`crate::Store`] without raft: one process, in memory. For tests and as the reference.
