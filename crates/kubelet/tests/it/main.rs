//! The kubelet over the fake runtime: nothing needs root, and time is tokio's.

mod runtime;
