//! The node agent: runs the Pods that are bound to its node.

pub mod runtime;
