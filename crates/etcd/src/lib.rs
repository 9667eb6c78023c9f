//! The etcd v3 API over a [`store::Store`]: every client of etcd works against any replica.
//!
//! It speaks bytes and knows nothing of Kubernetes; `apiserver` stands beside it on the same store.

pub mod proto;
