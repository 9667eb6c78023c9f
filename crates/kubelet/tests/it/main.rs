//! The kubelet over the fake runtime: nothing needs root, and time is tokio's.

mod agent;
mod control_plane;
mod runtime;
